"""Data on disk: images, labels, masks and maps, and the data modules that feed them to a stage.

Nothing is imported here on purpose: the file commands read masks without loading torch or albumentations.
"""
