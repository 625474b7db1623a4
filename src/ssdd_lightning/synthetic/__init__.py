"""Drawn photos with their masks, in the layout of VOC 2012: what the demo and the tests run on."""
