"""Scores of masks: pooled confusion and IoU, boundaries, curves over the background."""
