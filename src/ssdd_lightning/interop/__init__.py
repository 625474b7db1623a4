"""Other projects' masks: import and export of the files of PSA, IRN and others."""
