"""SSDD's merge on folders of files: masks written with other biases, and biases compared on scored images."""
