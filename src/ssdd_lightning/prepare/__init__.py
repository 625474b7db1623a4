"""Datasets as they are handed out, made ready for the stages: VOC 2012 with SBD, COCO 2014, one's own photos."""
