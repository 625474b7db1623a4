"""Dense CRF: the pure function, the module, the permutohedral lattice, its backends and the published presets."""

from ssdd_lightning._lazy import attach

# on first use: the command line reads the presets without loading torch
__getattr__, __dir__, __all__ = attach(__name__, __file__)
