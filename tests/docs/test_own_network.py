"""The networks of the howto train a step, and give masks of any size."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "own_network.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def batch() -> dict[str, Any]:
    image = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    knowledge = torch.zeros(2, 64, 96, dtype=torch.long)
    knowledge[:, 8:40, 8:40] = 1
    labels = torch.zeros(2, 21, dtype=torch.bool)
    labels[:, :2] = True
    masks = {"knowledge": knowledge, "advice": knowledge.roll(4, 2), "valid": torch.ones_like(knowledge).bool()}
    return {"image": image, "image_raw": image, "image_labels": labels, "name": ["a", "b"], **masks}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.findall(r"class (\w+)", block)[-1])
def test_a_network_of_the_page_trains_and_segments(block: str) -> None:
    if "torchvision" in block:
        pytest.importorskip("torchvision", reason="torchvision is not installed", exc_type=ImportError)
    names: dict[str, Any] = {"__name__": "page"}
    exec(block, names)
    stage = names["stage"]
    stage.log = stage.log_dict = lambda *_, **__: None
    stage.training_step(batch(), 0).backward()
    learnt = {name for name, p in stage.network.named_parameters() if p.grad is not None}
    assert learnt == {name for name, _ in stage.network.named_parameters()}
    with torch.no_grad():
        probabilities = stage.eval()(torch.zeros(1, 3, 71, 90, dtype=torch.uint8))
    assert probabilities.shape == (1, 21, 71, 90)


def test_the_first_one_is_short() -> None:
    assert len(BLOCKS) == 3
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 30
