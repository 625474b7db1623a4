import pytest

from ssdd_lightning.evaluation.text_table import text_table
from tests.helpers.processes import python


def test_columns_are_aligned_and_rules_part_the_sections() -> None:
    text = text_table(["class", "IoU"], [["cat", "1.00"], ["a yak", "100.00"]], [["mean", "-"]])
    assert text.splitlines() == [
        "class      IoU",
        "--------------",
        "cat       1.00",
        "a yak   100.00",
        "--------------",
        "mean         -",
    ]


def test_columns_of_words_are_aligned_left() -> None:
    text = text_table(["split", "images", "what"], [["a", "1", "it"], ["b", "2", "they"]], left=(0, 2))
    assert text.splitlines()[2:] == ["a            1   it", "b            2   they"]


@pytest.mark.parametrize("name", ["[bold]cat[/bold]", ":cat:", "wide " * 100 + "end", "{}", "100 %"])
def test_names_are_neither_cut_nor_read_as_markup(name: str) -> None:
    assert text_table(["class", "IoU"], [[name, "1"]]).splitlines()[2].startswith(name)


def test_wide_characters_take_two_columns() -> None:
    lines = text_table(["class", "IoU"], [["猫", "1"], ["cats", "2"]]).splitlines()
    assert lines[2:] == ["猫        1", "cats      2"]


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"COLUMNS": "20"}, {"TERM": "dumb"}, {"LC_ALL": "C"}])
def test_the_environment_changes_nothing(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["a name that is longer than the terminal is wide", "1"]]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = f"from ssdd_lightning.evaluation.text_table import text_table as t; print(t(['what', 'IoU'], {rows}))"
    said = python(code)
    assert said.splitlines() == text_table(["what", "IoU"], rows).splitlines()
    assert said.isascii()
    assert "\x1b" not in said
