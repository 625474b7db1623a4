"""Every equation of the paper can be found: in the code by searching `Eq. N`, and in the page about the method."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EQUATIONS = range(1, 18)


@pytest.mark.parametrize("number", EQUATIONS)
def test_every_equation_is_found_in_the_code(number: int) -> None:
    """As somebody looks for it: by its own name, not in a list such as "Eq. 3 and 4"."""
    folders = ("functional", "nn", "stages")
    paths = [path for folder in folders for path in (REPOSITORY / "src" / "ssdd_lightning" / folder).glob("*.py")]
    assert any(re.search(rf"Eq\. {number}\b", path.read_text()) for path in paths)


def test_every_equation_has_its_row() -> None:
    rows = [line.split("|")[1] for line in (REPOSITORY / "docs" / "method.md").read_text().splitlines() if "|" in line]
    assert {int(number) for row in rows for number in re.findall(r"\d+", row)} == set(EQUATIONS)
