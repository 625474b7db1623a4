"""Files on disk: the ledger, fingerprints, locks, images, masks, score maps, and safe readers of foreign files."""
