"""Every equation of the paper can be found: in the code by searching `Eq. N`, and in the page about the method."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EQUATIONS = range(1, 18)


def named(text: str) -> set[int]:
    found = re.finditer(r"Eq\. (?:\d+(?:, | and | to )?)+", text)
    return {int(number) for match in found for number in re.findall(r"\d+", match[0])}


@pytest.fixture(scope="module")
def code() -> set[int]:
    folders = ("functional", "nn", "stages", "merge")
    paths = [path for folder in folders for path in (REPOSITORY / "src" / "ssdd_lightning" / folder).glob("*.py")]
    return named("\n".join(path.read_text() for path in paths))


def test_every_equation_is_found_in_the_code(code: set[int]) -> None:
    assert set(EQUATIONS) <= code


def test_every_equation_has_its_row() -> None:
    rows = [line.split("|")[1] for line in (REPOSITORY / "docs" / "method.md").read_text().splitlines() if "|" in line]
    assert {int(number) for row in rows for number in re.findall(r"\d+", row)} == set(EQUATIONS)
