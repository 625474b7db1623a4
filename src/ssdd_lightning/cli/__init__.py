"""Every parser of the command line, and nothing else."""
