"""Pages of the site that are made when it is built: commands, public names, executed notebooks, the changelog."""

import argparse
import html
import importlib
import inspect
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
REFERENCE = {
    "functional": ["functional"],
    "nn": ["nn"],
    "crf": ["crf", "crf.pydensecrf.densecrf", "crf.pydensecrf.utils"],
    "data": ["data.voc", "data.coco", "data.folder", "data.splits", "data.augmentation", "data.labels", "data.classes"],
    "stages": ["stages", "stages.values"],
    "metrics": ["metrics.confusion", "metrics.iou", "metrics.boundary", "metrics.background"],
    "callbacks": ["callbacks"],
    "errors": ["errors"],
}
"""Page -> modules of ssdd_lightning whose public names it lists."""
GENERATED = [
    "cli.md",
    "changelog.md",
    *(f"reference/{page}.md" for page in REFERENCE),
    *(f"notebooks/{path.stem}.md" for path in NOTEBOOKS),
]
PHOTOS = "<!-- photos -->"
"""Where a page shows docs/images/photos.png, which is in no repository: `ssdd report RUN --figure` makes it."""
PHOTOS_SHOWN = (
    "[![Photos with K, d_K, A, d_A, refined mask, prediction and truth](images/photos.png)](images/photos.png)\n\n"
    "*The same on photos, made by `ssdd report RUN --figure docs/images/photos.png`.*"
)
_BAR = re.compile(r"\|[█▉▊▋▌▍▎▏ ]*\| *\d+/")  # of tqdm
_state = {"execute": True}


def on_startup(command: str, **_: Any) -> None:  # noqa: ANN401 - as mkdocs calls it
    """Leave the notebooks unexecuted under `mkdocs serve`, which builds the site again after every change."""
    _state["execute"] = command != "serve"


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401
    """Add the generated pages and their pictures."""
    from mkdocs.structure.files import File

    for name, content in pages(_state["execute"]).items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Let links to the repository's notebooks lead to their pages, and show a figure of photos where one was made."""
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(PHOTOS, PHOTOS_SHOWN if (REPOSITORY / "docs/images/photos.png").is_file() else "")
    return re.sub(r"\]\((?:\.\./)+notebooks/(\w+)\.ipynb\)", rf"]({up}notebooks/\1.md)", markdown)


def pages(execute: bool = True) -> dict[str, str | bytes]:
    """Path in the site's sources -> content of everything that is generated.

    Args:
        execute: Whether to run the notebooks; without it they have no outputs.
    """
    made: dict[str, str | bytes] = {"cli.md": cli_page()}
    made["changelog.md"] = (REPOSITORY / "CHANGELOG.md").read_text()
    made |= {f"reference/{page}.md": reference_page(page) for page in REFERENCE}
    for path in NOTEBOOKS:
        made |= notebook_page(path, execute)
    return made


def cli_page() -> str:
    """The commands and their options, as the parsers have them."""
    from ssdd_lightning.cli import main

    lines = ["# Command line", "", "```text", main.help_text(), "```", ""]
    lines += ["Options can be written with dashes or underscores. `ssdd --version` prints the version.", ""]
    for command, text in main.STAGE_COMMANDS.items():
        lines += [f"## ssdd {command}", "", _text(text), ""]
        if command == "fit":
            lines += [
                "The stage is configured by YAML files (`--config`). An option overrides any setting in them. The "
                "arguments of a [stage](reference/stages.md) are options too (`--model.init_args.NAME`), as are those "
                "of Lightning's trainer (`--trainer.NAME`) and of its ModelCheckpoint (`--checkpoint.NAME`). "
                "`--ckpt_path` names a checkpoint to continue from; without it, the run's own is used. "
                "`ssdd fit --help` lists everything. The options of `data` below are those of VOC; `--dataset coco` "
                "and `--dataset folder` select [others](reference/data.md).",
                "",
                *_table(stage_options(command)),
            ]
        else:
            lines += [f"Takes the options of [`ssdd fit`](#ssdd-fit). {STAGE_NOTES[command]}", ""]
    for command in main.FILE_COMMANDS:
        lines += _sections(main.command_parser(command), 2)
    return "\n".join(lines) + "\n"


STAGE_NOTES = {
    "validate": "`--ckpt_path` names the checkpoint; without it, the run's last one is used.",
    "test": "`--ckpt_path` names the checkpoint; without it, the run's last one is used. `--output.output_dir` is the "
    "folder for the masks.",
    "predict": "`--ckpt_path` names the checkpoint; without it, the run's last one is used. `--output.output_dir` is "
    "the folder for the files.",
}


_ELSEWHERE = re.compile(
    r"(trainer|model|help|print_config|weights_only|ckpt_path)\b|.*\.help$|checkpoint\.(?!every_n_minutes)"
)
"""Options of a stage command that Lightning documents, or that the page describes in a sentence."""


class _Built(Exception):
    """Carries the parsers of the stage commands out of the constructor of the command line."""


def stage_options(command: str) -> list[tuple[str, str]]:
    """Options of a stage command, without those of the model and the trainer, and what they mean."""
    from ssdd_lightning.pipeline import lightning

    def stop(self: Any, *_: object) -> None:  # noqa: ANN401
        raise _Built(self._subcommand_parsers)

    with mock.patch.object(lightning.SSDDCommandLine, "parse_arguments", stop):
        try:
            lightning.run_command([command])
        except _Built as built:
            parser = built.args[0][command]
    shown = []
    for action in parser._actions:
        name = action.option_strings[-1] if action.option_strings else ""
        option = next((text for text in action.option_strings if text.startswith("--")), name)
        key = option.removeprefix("--")
        if not option.startswith("--") or _ELSEWHERE.match(key) or (action.metavar == "CONFIG" and key != "config"):
            continue
        default = "" if action.default in (None, argparse.SUPPRESS) else f" (default: `{action.default}`)"
        shown.append((option, " ".join(str(action.help or "").split()) + default))
    return shown


def reference_page(page: str) -> str:
    """Names and docstrings of a page, for mkdocstrings to fill in."""
    modules = [importlib.import_module(f"ssdd_lightning.{name}") for name in REFERENCE[page]]
    lines = [f"# ssdd_lightning.{page}", ""]
    for module in modules:
        if len(modules) > 1:
            lines += [f"## {module.__name__}", ""]
        lines += [(inspect.getdoc(module) or "").replace("<", "&lt;"), ""]
        for name in public_names(module):
            lines += [f"::: {name}", "    options:", f"      heading_level: {3 if len(modules) > 1 else 2}", ""]
    return "\n".join(lines)


def public_names(module: ModuleType) -> list[str]:
    """Full names, where they are defined, of what a module exports or, without `__all__`, of what it defines."""
    if hasattr(module, "__all__"):
        values = {name: getattr(module, name) for name in module.__all__}
    else:
        values = {
            name: value
            for name, value in vars(module).items()
            if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__
        }
    return [
        f"{value.__module__}.{name}" if hasattr(value, "__qualname__") else _constant(module, name)
        for name, value in values.items()
    ]


def _constant(module: ModuleType, name: str) -> str:
    """Full name of a constant that a package imports from one of its modules."""
    homes = [other for other in sys.modules if other.startswith(f"{module.__name__}.")]
    return next((f"{home}.{name}" for home in homes if name in vars(sys.modules[home])), f"{module.__name__}.{name}")


def notebook_page(path: Path, execute: bool) -> dict[str, str | bytes]:
    """A notebook as Markdown, and the pictures that it shows.

    Args:
        path: The notebook.
        execute: Whether to run it.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(path, as_version=4)
    if execute:
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "XDG_CACHE_HOME": folder}
            NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}}).execute(env=env)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _shown(cell.outputs)
    resources = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    note = f"!!! note\n    This page is the notebook `notebooks/{path.name}`, executed when the site was built.\n"
    title, _, rest = text.strip().partition("\n")
    pictures = {f"notebooks/{name}": content for name, content in resources["outputs"].items()}
    return {f"notebooks/{path.stem}.md": f"{title}\n\n{note}\n{rest}\n", **pictures}


def _shown(outputs: list[Any]) -> list[Any]:
    """Outputs of a cell without progress bars and stderr, and with one format of each picture."""
    kept = []
    for output in outputs:
        if "text" in output:
            lines = [line.rpartition("\r")[2] for line in output["text"].split("\n")]
            output["text"] = "\n".join(line for line in lines if not _BAR.search(line)).strip("\n") + "\n"
        output.get("data", {}).pop("image/jpeg", None)
        if output.get("name") == "stderr" or not output.get("text", "-").strip():
            continue
        if "text" in output and kept and "text" in kept[-1]:
            kept[-1]["text"] += output["text"]
        else:
            kept.append(output)
    return kept


def _sections(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Heading, usage and options of a command and its subcommands."""
    yield from ("#" * level + f" {parser.prog}", "", _text(parser.description or ""), "")
    yield from ("```text", *parser.format_usage().strip().splitlines(), "```", "")
    formatter = parser._get_formatter()
    rows, children = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children = list(action.choices.values())
        elif not isinstance(action, argparse._HelpAction):
            name = formatter._format_action_invocation(action)
            required = " (required)" if action.required and action.option_strings else ""
            rows.append((name, (formatter._expand_help(action) if action.help else "") + required))
    if rows:
        yield from _table(rows)
    for child in children:
        yield from _sections(child, level + 1)


def _table(rows: list[tuple[str, str]]) -> list[str]:
    cells = [f"| <code>{_cell(option)}</code> | {_text(meaning)} |" for option, meaning in rows]
    return ["| option | meaning |", "| --- | --- |", *cells, ""]


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;")


def _text(text: str) -> str:
    """A help text, safe in a table; what is between backticks becomes code."""
    parts = re.split(r"``?([^`]+)``?", text)
    return "".join(f"<code>{_cell(part)}</code>" if number % 2 else _cell(part) for number, part in enumerate(parts))
