"""Other people's masks: files of PSA, IRN and others in and out, and SSDD between any two folders."""
