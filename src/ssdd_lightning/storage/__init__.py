"""What a run keeps: fingerprints of files, and the ledger of what is finished and of what it was made."""
