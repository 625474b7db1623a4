"""What is wrong with a devkit, before a training finds out."""
