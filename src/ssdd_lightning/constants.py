"""What every room agrees on."""

IGNORE = 255
"""The mask value of pixels that belong to no class and take no part in anything."""
WEIGHT_OPTIONS = ("backbone_weights", "static_checkpoint", "network_checkpoint")
"""Options of the stages that may name a file of weights to start from."""
