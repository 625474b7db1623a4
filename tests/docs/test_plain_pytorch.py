"""The loop that the howto shows runs as it stands, without Lightning, and learns."""

from pathlib import Path

import pytest

from tests.helpers.processes import python

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "plain_pytorch.md"
CHECK = """
import sys
assert not {"lightning", "pytorch_lightning"} & set(sys.modules), "Lightning was imported"
assert refined.shape == (4, 64, 64) and refined.dtype == torch.long
assert ((refined == knowledge) | (refined == advice)).all()
probabilities = [logits.detach().sigmoid()[:, 0] for logits in (output.knowledge_logits, output.advice_logits)]
for d in probabilities:
    print(d[target.bool()].mean().item() - d[~target.bool()].mean().item())
"""


@pytest.fixture(scope="module")
def block() -> str:
    return PAGE.read_text().split("```python\n")[1].split("```")[0]


def test_it_is_short(block: str) -> None:
    assert len(block.splitlines()) < 30


def test_it_runs_without_lightning_and_tells_differences_from_agreement(block: str) -> None:
    seeded = block.replace("import torch\n", "import torch\ntorch.manual_seed(0)\n", 1)
    margins = [float(line) for line in python(seeded + CHECK).split()]
    assert len(margins) == 2
    assert min(margins) > 0.1
