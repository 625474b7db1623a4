"""Published datasets, prepared for the stages: VOC 2012 with SBD, COCO 2014, your own photos."""
