"""What makes a network faster on a CPU without changing what it computes.

Three things cost a light network more on a CPU than its own arithmetic does:

- Frozen batch normalisation is a pass over memory forwards and another one backwards. It is a fixed scale and shift, so
  it belongs in the convolution before it.
- Under bfloat16, the backward pass of depthwise convolutions is slow (oneDNN). While gradients are recorded, they are
  computed in float32; without gradients they round like all other convolutions.
- With one thread and fewer than 16 images, torch computes 1x1 convolutions in float32 itself, in about twice the time
  that oneDNN takes. It leaves dilated ones to oneDNN (unless the input is small, when it has the slowest one for them),
  and a kernel of one pixel is the same with any dilation.

All three are done to the calls of torch's functions while a part of a network runs. Modules, names of weights,
checkpoints and gradients stay what they are. `benchmarks/dynamic_step.py` measures it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ssdd_lightning.nn.layers import exporting

_Size = int | Sequence[int]
_SMALL = 20480
"""Values up to which torch never gives the convolution of one image to oneDNN."""
_KEPT = 1 << 20
"""Values of a weight up to which `folded_once` keeps it: each thread has its own, and large layers gain little."""
_FOLDED: ContextVar[dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] | None] = ContextVar("folded", default=None)
"""By identity of a convolution's weight and by precision: what `folded_once` keeps."""


@lru_cache
def bfloat16_slowdown() -> float:
    """How many times slower a training step of a convolution is in bfloat16 than in float32, on this processor.

    Without instructions for bfloat16 the arithmetic is emulated. It takes a fifth of a second to measure, in the
    processor time of this thread: by the clock, a busy machine gave up to 11 where this gives 0.6 to 1.1.
    """
    conv = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    image = torch.ones(2, 64, 28, 28).to(memory_format=torch.channels_last)

    def seconds(mixed: bool) -> float:
        start = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = conv(image).sum(dtype=torch.float32)
        torch.autograd.grad(loss, list(conv.parameters()))
        return time.thread_time() - start

    found = [(seconds(True), seconds(False)) for _ in range(4)][1:]
    mixed, single = map(min, zip(*found, strict=True))
    return mixed / single


class Pair(NamedTuple):
    """A convolution and the batch normalisation that alone reads its output."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    @property
    def frozen(self) -> bool:
        """Whether the normalisation is now a fixed scale and shift that nothing is learnt of."""
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.norm.parameters())
        return not self.norm.training and not learns and self.norm.running_mean is not None

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that does both: (s W) x + s (b - mean) + shift, where s is the scale."""
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        bias = ((0 if conv.bias is None else conv.bias) - norm.running_mean) * scale
        return conv.weight * scale[:, None, None, None], bias if norm.bias is None else bias + norm.bias


@contextmanager
def folded_once() -> Iterator[None]:
    """While it is entered no weight may change; small ones are folded in the first call alone, if nothing is learnt."""
    token = _FOLDED.set({})
    try:
        yield
    finally:
        _FOLDED.reset(token)


def _folded(pair: Pair) -> tuple[Tensor, Tensor]:
    """`pair.folded()` in the precision of the call, kept while `folded_once` is entered."""
    kept = _FOLDED.get()
    weight = pair.conv.weight
    if kept is None or torch.is_grad_enabled() or weight.numel() > _KEPT:
        return pair.folded()
    mixed = torch.is_autocast_enabled("cpu") and weight.dtype == torch.float32
    key = id(weight), torch.get_autocast_dtype("cpu") if mixed else weight.dtype
    if key not in kept:
        folded = pair.folded()
        kept[key] = folded[0].to(key[1]), folded[1].to(key[1])
    return kept[key]


def find_pairs(model: nn.Module, run: Callable[[], Any]) -> list[Pair]:
    """Find the convolutions whose output goes to one batch normalisation and nowhere else.

    Args:
        model: Holds them.
        run: Runs the model once.
    """
    with _Watch() as watch:
        run()
    convs = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Conv2d)}
    norms = {id(m.running_mean): m for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    return [Pair(convs[conv], norms[norm]) for conv, norm in watch.found() if conv in convs and norm in norms]


class _Mode(TorchFunctionMode):
    """Sees every call of a function of torch while it is entered."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        return self._call(func, args, kwargs or {})

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        raise NotImplementedError


class _Watch(_Mode):
    """Note which function reads the output of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[Tensor, Tensor]] = {}  # by identity: an output, kept alive, and its weight
        self.readers: dict[int, list[int]] = {}  # by identity of the output: running mean of the reader, 0 for others

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        result = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # not those that ask for a shape
            mean = id(args[1]) if func is F.batch_norm else 0
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in self.made:
                    self.readers.setdefault(id(leaf), []).append(mean)
        if func is torch.conv2d and not kwargs:
            self.made[id(result)] = result, args[1]
        return result

    def found(self) -> list[tuple[int, int]]:
        """Identities of weight and running mean of each pair."""
        pairs = [(id(self.made[key][1]), means[0]) for key, means in self.readers.items() if len(means) == 1]
        weights, means = zip(*pairs, strict=True) if pairs else ((), ())
        return [p for p in pairs if p[1] and weights.count(p[0]) == 1 and means.count(p[1]) == 1]


def can_be_faster(image: Tensor) -> bool:
    """Whether the network that sees an image may run in `FastConvolutions`: on a CPU, and not while it is traced."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    program = torch.compiler.is_compiling() or exporting() or tracing
    return image.device.type == "cpu" and not program


def fast_convolutions(image: Tensor) -> AbstractContextManager[object]:
    """1x1 and depthwise convolutions as `FastConvolutions` has them, nothing folded, where it `can_be_faster`."""
    return FastConvolutions([]) if can_be_faster(image) else nullcontext()


class FastConvolutions(_Mode):
    """While it is entered, convolutions are those of a CPU, as this file says.

    Args:
        pairs: What may be folded, from `find_pairs`.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self._pairs = {id(pair.conv.weight): pair for pair in pairs if pair.frozen}
        # asked here, because a part that is compiled may not ask it
        self._onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled  # type: ignore[no-untyped-call]
        self._done: dict[int, tuple[Tensor, int]] = {}  # outputs that are normalised already, kept alive

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if func is torch.conv2d and not kwargs:
            return self._convolve(*args)
        if func is F.batch_norm and id(args[0]) in self._done:
            image, mean = self._done.pop(id(args[0]))
            assert mean == id(args[1]), "another normalisation reads the output of a folded convolution"
            return image
        return func(*args, **kwargs)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        assert kind is not None or not self._done, "a folded convolution was not followed by its normalisation"

    def _convolve(
        self,
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
    ) -> Tensor:
        pair = self._pairs.get(id(weight))
        if pair is not None:
            weight, bias = _folded(pair)
        large = image.numel() > _SMALL or (image.dim() == 4 and len(image) > 1)
        if weight.shape[2:] == (1, 1) and self._onednn and image.dtype == torch.float32 and large:
            dilation = 2
        depthwise = weight.shape[1] == 1 < groups
        if not (depthwise and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
            result = torch.conv2d(image, weight, bias, stride, padding, dilation, groups)
        else:
            with torch.autocast("cpu", enabled=False):
                result = torch.conv2d(
                    image.float(),
                    weight.float(),
                    bias if bias is None else bias.float(),
                    stride,
                    padding,
                    dilation,
                    groups,
                )
            result = result.to(torch.get_autocast_dtype("cpu"))
        if pair is not None:
            self._done[id(result)] = result, id(pair.norm.running_mean)
        return result
