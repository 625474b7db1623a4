"""What every room agrees on."""

IGNORE = 255
"""The mask value of pixels that belong to no class and take no part in anything."""
