"""On a CPU, several photos at once, one on each core: the dense CRF of a photo runs on one alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules import module as hooks_of_all

from ssdd_lightning.storage.threads import in_threads

KNOWN = frozenset({"torch", "torchvision", "torchmetrics", "timm", "segmentation_models_pytorch", "ssdd_lightning"})
"""Packages whose layers keep nothing of a call in themselves, if no hook does."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def on_cores(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the results in the order of the items, several at once, each with its share of torch's threads.

    Args:
        work: What to do with an item, under what the caller has entered: autocast, inference mode, no gradients.
        items: The items.
    """
    cores, modes = torch.get_num_threads(), _modes()
    workers = max(1, min(cores, len(items)))

    def alone(item: Item) -> Result:
        torch.set_num_threads(cores // workers)
        with ExitStack() as entered:
            for mode in modes:
                entered.enter_context(mode())
            return work(item)

    try:
        yield from in_threads(alone, items, workers)
    finally:
        torch.set_num_threads(cores)  # of threads that are begun later


def is_reentrant(network: nn.Module) -> bool:
    """Whether several threads may run a network at once, because it keeps nothing between the parts of a call.

    True in evaluation mode for layers of the packages in `KNOWN` that have no hooks, no `forward` of their own, no
    false attribute `reentrant`, and are not compiled. A layer of anybody else may note features in itself while it
    runs, as timm's hooks do, and hand one photo's to another.

    Args:
        network: Any module.

    Examples:
        >>> layer = nn.Conv2d(3, 8, 3).eval()
        >>> is_reentrant(layer)
        True
        >>> handle = layer.register_forward_hook(lambda module, given, made: None)
        >>> is_reentrant(layer)
        False
    """
    everywhere = hooks_of_all._global_forward_hooks or hooks_of_all._global_forward_pre_hooks
    return not everywhere and not torch.compiler.is_compiling() and all(map(_keeps_nothing, network.modules()))


def _keeps_nothing(layer: nn.Module) -> bool:
    return (
        type(layer).__module__.partition(".")[0] in KNOWN
        and not layer.training
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not vars(layer).keys() & {"forward", "_orig_mod"}
        and "_orig_mod" not in layer._modules
        and layer._compiled_call_impl is None
        and getattr(layer, "reentrant", True)
    )


def _modes() -> list[Callable[[], AbstractContextManager[Any]]]:
    """What this thread has entered, to be entered by another one."""
    return [
        partial(torch.inference_mode, torch.is_inference_mode_enabled()),
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        partial(torch.autocast, "cpu", torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")),
    ]
