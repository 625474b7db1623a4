"""Options of the commands, declared as their usage lines write them: `--out DIR`, `--alpha X`, `--flip`."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS = {"DIR": Path, "FILE": Path, "FILE|DIR": Path, "STEP": str, "N": int, "X": float}
"""What the word behind an option's name is read as; any other word is a text."""
CLASSES = "--classes FILE|N"
CLASS_NAMES = (
    "class names of the dataset, one per line, background first, or a JSON object of index to name (default: those of "
    "PASCAL VOC)"
)
WORKERS = {"--num_workers N": "threads (default: all cores)"}


def add_options(
    parser: argparse._ActionsContainer,
    options: Mapping[str, str],
    required: Collection[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
    **defaults: object,
) -> None:
    """Declare options; the help names their defaults.

    Args:
        parser: A command's parser, or a group of its options.
        options: How each is used -> what it means. Without a word behind its name it is a switch, with dots behind the
            word it takes several, without dashes it is a positional argument.
        required: Names of those that must be given.
        choices: Name -> values that an option takes; its word is left out.
        defaults: Values of those that are not given; None where there is none here.
    """
    for usage, text in options.items():
        flag, _, word = usage.partition(" ")
        name, word = flag.removeprefix("--").replace("-", "_"), word.removesuffix(" ...")
        given: dict[str, Any] = {"required": name in required} if flag.startswith("--") else {}
        if choices and name in choices:
            given["choices"] = choices[name]
        elif word:
            given |= {"type": KINDS.get(word, str), **({"metavar": word} if flag.startswith("--") else {})}
        else:
            given["action"] = "store_true"
        if usage.endswith(" ..."):
            given["nargs"] = "+"
        if name in defaults:
            given["default"], text = defaults[name], f"{text} (default: {_shown(defaults[name])})"
        parser.add_argument(flag, help=text, **given)


def add_repeated(parser: argparse._ActionsContainer, flag: str, metavar: str, text: str, **options: Any) -> None:  # noqa: ANN401
    """Declare an option that may be given again and again."""
    text = f"{text}; may be repeated"
    parser.add_argument(flag, action="append", default=[], metavar=metavar, help=text, **options)


def add_modules(parser: argparse._ActionsContainer) -> None:
    """Declare the modules whose classes a checkpoint may name."""
    text = "module of your own whose classes the checkpoint may name (default: only ours, torch's and Lightning's)"
    add_repeated(parser, "--import", "MODULE", text, dest="modules")


def add_obtaining(parser: argparse.ArgumentParser, size: str) -> None:
    """Declare how archives are obtained, see `prepare.download.Obtaining`.

    Args:
        parser: A command's parser.
        size: Of all archives together, for the help.
    """
    add_options(parser, {"--download": f"download what is not given ({size})", **WORKERS})
    text = "accept given archives with any checksum"
    parser.add_argument("--no-checksum", dest="checksum", action="store_false", help=text)


def _shown(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join(one if isinstance(one, str) else f"{one:g}" for one in values)
