"""Under torch.compile a training step leaves its graph for logging and for the CRF, and for nothing else."""

from typing import Any

import pytest
import torch

from ssdd_lightning.stages import DynamicRefinementModule, SegmentationModule, StaticRefinementModule
from tests.helpers.steps import Build


@pytest.mark.parametrize(
    ("stage", "breaks"),
    [
        (SegmentationModule, {"log"}),
        (StaticRefinementModule, {"log"}),
        (DynamicRefinementModule, {"log", "knowledge_and_advice"}),
    ],
)
def test_each_break_of_a_step_has_a_name(
    build: Build, batch: dict[str, Any], stage: type[Any], breaks: set[str]
) -> None:
    module = build(stage)
    module.log = module.log_dict = torch._dynamo.disable(lambda *_, **__: None)  # as Lightning's own, outside
    torch._dynamo.reset()
    explained = torch._dynamo.explain(module.training_step)(batch, 0)
    torch._dynamo.reset()
    lines = [str(reason.user_stack[-1].line) for reason in explained.break_reasons]
    names = {name for line in lines for name in ("log", "knowledge_and_advice") if f"self.{name}" in line}
    assert names == breaks
    assert all("self.log" in line or "self.knowledge_and_advice" in line for line in lines), lines
