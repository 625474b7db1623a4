"""Work on whole folders of files: the dense CRF, SSDD's merge and the sweep over its biases, segmentation of photos."""
