"""What the fixtures of the stages' tests do."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Build = Callable[..., Any]
"""(class of a stage, options) -> the stage."""
Step = Callable[[Any, dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]
"""(stage, batch) -> loss and what was logged."""
Reached = Callable[[Tensor, nn.Module], set[str]]
"""(scalar, module) -> names of the parameters that the scalar sends a gradient to."""
