"""Checks of a devkit, before training."""
