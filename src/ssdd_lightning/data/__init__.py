"""Datasets: labels, splits, augmentation, and the data modules that feed the stages.

Nothing is imported here on purpose: the file commands read masks without loading torch.
"""
