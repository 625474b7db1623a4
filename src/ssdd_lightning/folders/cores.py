"""On a CPU, several photos at once, one on each core: the dense CRF of a photo runs on one alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn

from ssdd_lightning.storage.threads import in_threads

KNOWN = frozenset({"torch", "torchvision", "torchmetrics", "timm", "segmentation_models_pytorch", "ssdd_lightning"})
"""Packages whose layers keep nothing of a call in themselves, if no hook does."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def on_cores(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the results in the order of the items, several at once, each with its share of torch's threads.

    Args:
        work: What to do with an item. It turns gradients off itself; other threads do not have it from their caller.
        items: The items.
    """
    cores = torch.get_num_threads()
    workers = max(1, min(cores, len(items)))

    def alone(item: Item) -> Result:
        torch.set_num_threads(cores // workers)
        return work(item)

    try:
        yield from in_threads(alone, items, workers)
    finally:
        torch.set_num_threads(cores)  # of threads that are begun later


def is_reentrant(network: nn.Module) -> bool:
    """Whether several threads may run a network at once, because it keeps nothing between the parts of a call.

    True for layers of the packages in `KNOWN` that have no hooks, no `forward` of their own, and are not compiled. A
    layer of anybody else may note features in itself while it runs, as timm's hooks do, and mix up two photos.

    Args:
        network: A module in evaluation mode.

    Examples:
        >>> layer = nn.Conv2d(3, 8, 3)
        >>> is_reentrant(layer)
        True
        >>> handle = layer.register_forward_hook(lambda module, given, made: None)
        >>> is_reentrant(layer)
        False
    """
    return all(
        type(layer).__module__.partition(".")[0] in KNOWN
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and "forward" not in vars(layer)
        and layer._compiled_call_impl is None
        and "_orig_mod" not in layer._modules  # of torch.compile
        for layer in network.modules()
    )
