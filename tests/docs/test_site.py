"""The site: its pages exist, its generated pages are complete, and links of the README lead somewhere.

`make docs` builds it and takes every warning for an error; here is what can be seen without building it.
"""

import argparse
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import ssdd_lightning
from ssdd_lightning.cli import main

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks_of_the_site", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cli_page(hooks: ModuleType) -> str:
    return hooks.cli_page()


def pages_of(nav: Any) -> Iterator[str]:
    for entry in nav:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else pages_of(value)


def nav() -> list[str]:
    return list(pages_of(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]))


def sections(page: str, level: int) -> dict[str, str]:
    _, *parts = re.split(rf"^{'#' * level} (ssdd .+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_page_of_the_nav_exists_and_every_page_is_in_the_nav(hooks: ModuleType) -> None:
    written = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(nav()) == sorted([*written, *hooks.GENERATED])


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(path: Path, hooks: ModuleType) -> None:
    for target in LINK.findall(path.read_text()):
        if not target.startswith(("http:", "https:")):
            found = (path.parent / target).resolve()
            assert found.exists() or str(found.relative_to(DOCS)) in hooks.GENERATED, target


def test_the_readme_has_no_link_that_dies_outside_the_repository() -> None:
    text = (REPOSITORY / "README.md").read_text()
    links = [target for target in LINK.findall(text) if not target.startswith("https://")]
    assert links == ["docs/images/demo.png", "docs/images/animals.png"]
    files = re.findall(r"`((?:docs|notebooks)/[\w./]*|[A-Z]+\.(?:md|cff))`", text)
    assert len(files) > 10
    assert [name for name in files if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("command", [*main.STAGE_COMMANDS, *main.FILE_COMMANDS])
def test_the_command_line_page_has_every_command(command: str, cli_page: str) -> None:
    section = sections(cli_page, 2)[f"ssdd {command}"]
    assert {**main.STAGE_COMMANDS, **{name: text for name, (_, text) in main.FILE_COMMANDS.items()}}[command] in section


@pytest.mark.parametrize("command", main.FILE_COMMANDS)
def test_the_command_line_page_has_every_option(command: str, cli_page: str) -> None:
    def options(parser: argparse.ArgumentParser) -> Iterator[str]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    yield from options(child)
            elif "--help" not in action.option_strings:
                yield from action.option_strings[-1:]

    section = sections(cli_page, 2)[f"ssdd {command}"]
    assert [option for option in options(main.command_parser(command)) if option not in section] == []


def test_the_command_line_page_has_the_options_of_stages(cli_page: str) -> None:
    section = sections(cli_page, 2)["ssdd fit"]
    for option in ("--config", "--data.root", "--data.augmentation.crop_size", "--checkpoint.every_n_minutes"):
        assert f"<code>{option}</code>" in section
    assert "<code>--trainer." not in section


def test_the_reference_has_every_public_name(hooks: ModuleType) -> None:
    pages = "".join(hooks.reference_page(page) for page in hooks.REFERENCE)
    listed = re.findall(r"^::: (\S+)$", pages, flags=re.MULTILINE)
    for full in listed:
        module, _, name = full.rpartition(".")
        assert hasattr(importlib.import_module(module), name), full
    names = {full.rpartition(".")[2] for full in listed}
    exported = [ssdd_lightning, *(importlib.import_module(f"ssdd_lightning.{room}") for room in ("functional", "nn"))]
    assert {name for package in exported for name in package.__all__} <= names


def test_continuous_integration_calls_targets_of_the_makefile() -> None:
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    called = [job["strategy"]["matrix"]["target"] for job in jobs.values()]
    ours = re.findall(r"^make (\w+)$", (REPOSITORY / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert called == [["test", "docs", "package"]] == [ours]
    assert {"demo", *ours} <= set(targets)


def test_notebook_pages_show_pictures_once_and_no_progress_bars(hooks: ModuleType) -> None:
    bar = "\rEpoch 0:  50%|█████     | 1/2 [00:04<00:04]\rEpoch 0: 100%|██████████| 2/2 [00:12<00:00]\n"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "a table\n" + bar},
        {"output_type": "stream", "name": "stdout", "text": bar},
        {"output_type": "stream", "name": "stderr", "text": "a note\n"},
        {"output_type": "stream", "name": "stdout", "text": "a line"},
        {"output_type": "execute_result", "data": {"image/png": "", "image/jpeg": ""}},
    ]
    text, picture = hooks._shown(outputs)
    assert text["text"] == "a table\na line\n"
    assert list(picture["data"]) == ["image/png"]


@pytest.mark.parametrize("made", [True, False])
def test_a_figure_of_photos_is_shown_where_it_was_made(
    made: bool, hooks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    (tmp_path / "docs" / "images").mkdir(parents=True)
    if made:
        (tmp_path / "docs" / "images" / "photos.png").touch()
    monkeypatch.setattr(hooks, "REPOSITORY", tmp_path)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    text = hooks.on_page_markdown((DOCS / "index.md").read_text(), page)
    assert ("(images/photos.png)" in text) is made
    assert hooks.PHOTOS not in text
