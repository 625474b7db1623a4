"""How large a network may be that a checkpoint asks for: a file of a kilobyte could name one that fills the memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import UninitializedParameter

from ssdd_lightning.errors import InputError

_TIMES = 4
"""What is built may hold so many times what the checkpoint does: some networks build parts that they drop again."""
_BYTES = 2
"""Bytes of a number in the smallest usual type."""
_NUMBERS, _TENSORS = 100_000_000, 100_000
"""And so much more."""


@contextmanager
def bounded_by(weights: object, source: str) -> Iterator[None]:
    """Refuse to build far more parameters than a checkpoint holds, before anything is written to their memory.

    Args:
        weights: The checkpoint's tensors by name.
        source: The checkpoint, for the message.

    Raises:
        InputError: The block builds more than four times the parameters in the checkpoint, and 100 million.
    """
    found = weights.values() if isinstance(weights, Mapping) else ()
    # one tensor may have many names; a sparse one has no storage
    dense = (value for value in found if isinstance(value, Tensor) and value.layout == torch.strided)
    stored = (value.untyped_storage() for value in dense)
    held = list({part.data_ptr(): part.nbytes() // _BYTES for part in stored}.values())
    numbers, tensors = _TIMES * sum(held) + _NUMBERS, _TIMES * len(held) + _TENSORS

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        """Count a parameter that a module takes."""
        nonlocal numbers, tensors
        if parameter is None or isinstance(parameter, UninitializedParameter):  # a lazy layer's
            return
        numbers, tensors = numbers - parameter.numel(), tensors - 1
        if min(numbers, tensors) < 0:
            raise InputError(
                f"{source} holds {_BYTES * sum(held):,} bytes, but its hyper-parameters ask for a network of far more "
                f"(a {type(module).__name__} with a {name} of {tuple(parameter.shape)}); do not trust it."
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
