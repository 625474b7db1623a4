"""Where a training step under torch.compile leaves its graph: each place is known, and each has a reason."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.stages import DynamicRefinementModule, SegmentationModule, StaticRefinementModule
from tests.helpers.networks import Segmenter
from tests.helpers.steps import Build

SOURCE = str(Path(__file__).parents[2] / "src")
LOGGING = {"self.log_training("}  # Lightning's bookkeeping
CRF = {"self.knowledge_and_advice("}  # on the CPU it is numba's machine code


pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="older versions of torch trace less"
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("stage", "breaks"),
    [
        (SegmentationModule, ["self.log_training("]),
        (StaticRefinementModule, ["self.log_training("]),
        (DynamicRefinementModule, ["self.knowledge_and_advice(", "self.log_training("]),
    ],
)
def test_a_training_step_leaves_its_graph_for_the_crf_and_for_logging_only(
    stage: type[Any], breaks: list[str], build: Build, batch: dict[str, Any]
) -> None:
    module = build(stage, network=Segmenter)
    del module.log  # the stage's own one
    found = torch._dynamo.explain(module.training_step)(batch, 0).break_reasons
    places = []
    for each in found:
        assert "torch.compiler.disable" in each.reason, each
        places += [frame.line for frame in each.user_stack if frame.filename.startswith(SOURCE)][-1:]
    assert [next((name for name in LOGGING | CRF if name in line), line) for line in places] == breaks
