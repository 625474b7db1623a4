"""`python -m ssdd_lightning` is the command `ssdd`."""

from ssdd_lightning.cli.main import entry_point

entry_point()
