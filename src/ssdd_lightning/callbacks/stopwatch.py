"""How long the steps of a training wait for data and spend in the dense CRF, or in PAR in its place."""

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.nn.par import PAR


class Stopwatch:
    """Seconds of steps, split between data, networks and CRF.

    On a GPU the CRF is measured by events of the device, so that no step waits for it.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._mark = time.perf_counter()
        self._begun: Any = None
        self._stepping = False
        self._pairs: list[tuple[Any, Any]] = []
        self._reset()

    def _reset(self) -> None:
        self.steps, self.data, self.step, self.crf = 0, 0.0, 0.0, 0.0
        self._pairs.clear()

    def attach(self, module: nn.Module) -> None:
        """Measure every mapping function of a module."""
        self.detach()
        for part in module.modules():
            if isinstance(part, DenseCRF | PAR):
                self._handles.append(part.register_forward_pre_hook(self._crf_begins))
                self._handles.append(part.register_forward_hook(self._crf_ends))

    def detach(self) -> None:
        """Measure nothing any more."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def resume(self) -> None:
        """Start the clock between two steps, after whatever should not count."""
        self._mark = time.perf_counter()

    def begin(self) -> None:
        """A step has its data."""
        self._stepping = True
        now = time.perf_counter()
        self.data += now - self._mark
        self._mark = now

    def end(self) -> None:
        """A step is done; a CRF that runs before the next one is not counted."""
        self._stepping = False
        now = time.perf_counter()
        self.step += now - self._mark
        self._mark = now
        self.steps += 1

    def seconds(self) -> dict[str, float]:
        """Seconds per step since the last call: `data`, `networks` (with losses and optimizer) and `crf`."""
        for start, end in self._pairs:
            end.synchronize()
            self.crf += start.elapsed_time(end) / 1000
        steps = max(1, self.steps)
        result = {"data": self.data / steps, "networks": (self.step - self.crf) / steps, "crf": self.crf / steps}
        self._reset()
        return result

    def _crf_begins(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._begun = _now(arguments[0])

    def _crf_ends(self, module: nn.Module, arguments: tuple[Any, ...], result: object) -> None:
        end = _now(arguments[0])
        if not self._stepping:
            return
        if isinstance(end, float):
            self.crf += end - self._begun
        else:
            self._pairs.append((self._begun, end))


def _now(image: Tensor) -> Any:  # noqa: ANN401 - seconds, or an event of the device
    if not isinstance(image, Tensor) or not image.is_cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
