"""Turns the parser's report about a wrong option into one sentence with file, line and remedy."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from itertools import chain
from pathlib import Path
from typing import get_args, get_type_hints

import yaml

from ssdd_lightning.pipeline.config import config_chain, config_files
from ssdd_lightning.renamed import words_with_new_names

COMMAND_LINE = " (on the command line)"
"""What a message says of a place that is in no file."""
_UNKNOWN = re.compile(
    r"(?:option|key) '(?P<option>[^']+)'|Unexpected keys: \{'(?P<key>[^']+)'|unrecognized arguments: (?P<word>[^\s=]+)",
    re.IGNORECASE,
)
_WRONG_VALUE = re.compile(r"Expected an? <class '(?P<type>\w+)'>\. Got value: (?P<value>.*)")
_NO_CLASS = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'|No module named '[\w.]+'")
_NULL_GROUP = re.compile(r"Unable to load config ['\"](?:null|None)['\"]")
_NO_SUBCLASS = re.compile(r"Not a valid subclass of (\w+)")
_OTHER_CLASS = re.compile(
    r"Expected '(?P<path>[\w.]+)' to be a (?:subclass of|function that returns) <class '(?P<base>\w+)'>"
)
_CLASS_PATH = re.compile(r"class_path[= ]'([\w.]+)'")
_PARSER_KEY = re.compile(r"Parser key \"([\w.]+)\"")
_CLASS = re.compile(r"(?:class_path[= ]|<class )'([\w.]+\.\w+)'")
_GROUP = re.compile(r"Group '(\w+)' does not accept")
_NOISE = re.compile(
    r"(Does not validate|Subtypes:|Errors:|Given value|Subclass types|- an? |- Expected a <class 'None)"
)


def config_sentence(message: str, words: Sequence[str], options: Iterable[str]) -> str:
    """Say what is wrong with an option, where, and what to write instead.

    Args:
        message: jsonargparse's message: nested lines, with the reason in the innermost one.
        words: The subcommand and its options, to find where the option was written.
        options: Dotted names of the command's own options, for a suggestion.

    Returns:
        One sentence. A message of an unknown kind comes back on one line, with the place.
    """
    if unknown := _UNKNOWN.search(message):
        key = next(group for group in unknown.groups() if group).lstrip("-")
        owner = _owner(_until(message, unknown))
        *groups, name = [*_GROUP.findall(_until(message, unknown)), *key.split(".")] if owner else [key]
        for group in groups:  # an option of one of the owner's values, such as its CRF
            owner = _member(owner, group)
        return _unknown_option(name, owner, words, options)
    if no_class := _NO_CLASS.search(message):
        return _unknown_class(_until(message, no_class), no_class, words)
    keys = _PARSER_KEY.findall(message)
    place = place_of(keys[-1].rpartition(".")[2], words) if keys else ""
    if keys and (wrong := _WRONG_VALUE.search(message)):
        return f"option {'.'.join(keys)}: expected {wrong['type']}, found {wrong['value']!r}{place}."
    if keys and _NULL_GROUP.search(message):
        return f"option {keys[-1]}: expected options below it, or a YAML file of them, found null{place}."
    if keys and (base := _NO_SUBCLASS.search(message)):
        kind = f"the class_path of a {base[1]}, its arguments in init_args, and nothing else"
        return f"option {'.'.join(keys)}: expected {kind}{place}."
    if other := _OTHER_CLASS.search(message):
        return f"expected the class_path of a {other['base']}, found {other['path']}{place_of(other['path'], words)}."
    lines = [line.strip() for line in message.splitlines()]
    told = [line.removeprefix("- ") for line in lines if line and not _NOISE.match(line)]
    return " ".join(" ".join(told).split()) + place + "."


def _until(message: str, found: re.Match[str]) -> str:
    """Cut the message after the line that reports the mistake; the last name before the cut is the culprit."""
    return message[: found.end()] + message[found.end() :].partition("\n")[0]


def _owner(message: str) -> type | None:
    """Class that an option was meant for; None for the command's own options."""
    named = _CLASS.findall(message)
    return _import(named[-1]) if named else None


def _member(owner: type | None, name: str) -> type | None:
    """Dataclass that an option of a class takes; the class itself if the option takes none."""
    hints = {} if owner is None else get_type_hints(owner.__init__)  # type: ignore[misc]
    kinds = [kind for kind in (hints.get(name), *get_args(hints.get(name))) if is_dataclass(kind)]
    return kinds[0] if kinds else owner  # type: ignore[return-value]


def _import(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None)
    return found if isinstance(found, type) else None


def _unknown_option(key: str, owner: type | None, words: Sequence[str], options: Iterable[str]) -> str:
    known = _parameters(owner) if owner else list(options)
    holder = owner.__name__ if owner else f"`ssdd {words[0]}`"
    inside = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
    close = difflib.get_close_matches(key, inside, n=1) or difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"`ssdd {words[0]} --help` lists what there is."
    if owner and not close:
        remedy = f"expected one of {', '.join(known)}."
    return f"{holder} has no option {key!r}{place_of(key.rpartition('.')[2], words)}; {remedy}"


def _parameters(owner: type) -> list[str]:
    return [name for name in inspect.signature(owner).parameters if name not in ("args", "kwargs")]


def _unknown_class(message: str, found: re.Match[str], words: Sequence[str]) -> str:
    named = _CLASS_PATH.findall(message)
    path = named[-1] if named else found[0]
    public = getattr(importlib.import_module(found["module"]), "__all__", []) if found["module"] else []
    classes = [name for name in public if name[0].isupper()]
    close = difflib.get_close_matches(found["name"] or "", classes, n=1)
    remedy = f"expected one of {', '.join(classes)}." if classes else "give the import path of a class."
    if close:
        remedy = f"did you mean {found['module']}.{close[0]}?"
    return f"there is no class {path}{place_of(path, words)}; {remedy}"


def place_of_option(option: str, value: str | None, words: Sequence[str]) -> str:
    """Where an option has its value: the command line, or a line of a YAML file.

    Args:
        option: Its dotted name.
        value: Its value, None for null, "" for any.
        words: The subcommand and its options.
    """
    if _holds(words_with_new_names(words), option):
        return COMMAND_LINE
    for path in _read_files(words):
        if (number := _line_of(option, value, path)) is not None:
            return f" ({path}, line {number})"
    return place_of(value or option.rpartition(".")[2], words)  # under an old name, or in another form


def place_of(text: str, words: Sequence[str]) -> str:
    """Where a name or a value was written: the command line, or a line of a YAML file."""
    pattern = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
    named = tuple(map(str, config_files(words)))
    if any(pattern.search(word) for word in words[1:] if not word.endswith(named)):
        return COMMAND_LINE
    for path in _read_files(words):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if pattern.search(line.partition("#")[0]):
                return f" ({path}, line {number})"
    return ""


def _read_files(words: Sequence[str]) -> list[Path]:
    """The YAML files of a command and those that they extend; what overrides comes first."""
    return [*chain.from_iterable(map(config_chain, reversed(config_files(words))))]


def _holds(words: Sequence[str], option: str) -> bool:
    """Whether a command line gives an option, by its name or in a mapping for one of its sections."""
    sections, name = option.split("."), re.compile(rf"\b{re.escape(option.rpartition('.')[2])}\b")
    above = [f"--{'.'.join(sections[:depth])}" for depth in range(1, len(sections))]
    for word, following in zip(words[1:], [*words[2:], ""], strict=True):
        given, equals, value = word.partition("=")
        if given == f"--{option}" or (given in above and name.search(value if equals else following)):
            return True
    return False


def _line_of(option: str, value: str | None, path: Path) -> int | None:
    """Line of a YAML file where an option has a value, None if there is none; items of lists have their list's name."""
    nodes = [yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)]
    found: list[tuple[yaml.Node, yaml.Node]] = []
    for name in option.split("."):
        lists = (node.value for node in nodes if isinstance(node, yaml.SequenceNode))
        maps = [node for node in (*nodes, *chain.from_iterable(lists)) if isinstance(node, yaml.MappingNode)]
        found = [pair for node in maps for pair in _pairs(node) if str(pair[0].value).rstrip("+") == name]
        nodes = [inside for _, inside in found]
    fits = [key for key, node in found if value == "" or _scalar(node) == value]
    return fits[-1].start_mark.line + 1 if fits else None  # of a key that is there twice the last one counts


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """Keys and values of a mapping, and of those that it merges."""
    merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
    merged = [part for value in merged for part in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return [*chain.from_iterable(_pairs(part) for part in merged if isinstance(part, yaml.MappingNode)), *node.value]


def _scalar(node: yaml.Node) -> str | None:
    """Text of a value; None for null; a mapping or a list has a space, which is no value of an option."""
    if not isinstance(node, yaml.ScalarNode):
        return " "
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
