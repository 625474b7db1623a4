"""What Lightning says, and a user of the stages cannot change or was told before."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

LOGGERS = ("pytorch_lightning", "lightning_fabric")
NEVER = ("💡", "Restoring states from the checkpoint", "Loaded model weights from the checkpoint")
"""Beginnings of advertisements, and of lines that only repeat ours about the checkpoint."""
ONCE = ("Seed set to", "GPU available", "TPU available", "Loading `train_dataloader` to estimate")
"""Beginnings of lines about the machine and the seed, which each step of a run would repeat."""


class _Chatter(logging.Filter):
    """Drops such lines."""

    def __init__(self) -> None:
        super().__init__()
        self.said = set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is to be written."""
        text = record.getMessage()
        again = text in self.said
        self.said |= {text} if text.startswith(ONCE) else set()
        return not again and not text.startswith(NEVER)


_chatters: WeakKeyDictionary[logging.Handler, _Chatter] = WeakKeyDictionary()
"""What each handler left out, and wrote once."""


@contextmanager
def quiet() -> Iterator[None]:
    """Leave such lines and warnings out."""
    handlers = [handler for name in LOGGERS for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(_chatters.setdefault(handler, _Chatter()))
    try:
        with warnings.catch_warnings():
            _ignore()
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_chatters[handler])


def _ignore() -> None:
    # Lightning calls three functions of jsonargparse that newer versions deprecate. So does SaveRunConfig: only
    # `skip_none` makes it write nulls, and its new name exists since jsonargparse 4.49.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning.cli")
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"\s*skip_none parameter")
    # torchmetrics: such classes have no weight in the classifier's average precision
    warnings.filterwarnings("ignore", message="No positive samples found in target")
    # `Watch` logs the rest of an epoch
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
    # a fit whose photos cannot be validated
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    # the crops of a step follow from its number, so a fit continues exactly at the next batch
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")
    # frozen normalisation is meant to stay so
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    warnings.filterwarnings("ignore", message=".*LeafSpec", module="pytorch_lightning.utilities._pytree")
