"""One sentence, with file, line and remedy, instead of the parser's account of a wrong option."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import is_typeddict

import yaml

from ssdd_lightning.data.choice import config_files
from ssdd_lightning.errors import InputError

_UNKNOWN = re.compile(
    r"(?:option|key) '(?P<option>[^']+)'|Unexpected keys: \{'(?P<key>[^']+)'|unrecognized arguments: (?P<word>[^\s=]+)",
    re.IGNORECASE,
)
_WRONG_VALUE = re.compile(r"Expected an? <class '(?P<type>\w+)'>\. Got value: (?P<value>.*)")
_NO_CLASS = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'|No module named '[\w.]+'")
_NO_SUBCLASS = re.compile(r"Not a valid subclass of (\w+)")
_CLASS_PATH = re.compile(r"class_path[= ]'([\w.]+)'")
_PARSER_KEY = re.compile(r"Parser key \"([\w.]+)\"")
_CLASS = re.compile(r"(?:class_path[= ]|<class )'([\w.]+\.\w+)'")
_NOISE = re.compile(
    r"(Does not validate|Subtypes:|Errors:|Given value|Subclass types|- an? |- Expected a <class 'None)"
)


def check_config_files(words: Sequence[str]) -> None:
    """Read the YAML files of a command once, so that a broken one is named.

    Args:
        words: The subcommand and its options.

    Raises:
        InputError: A file is missing, is no YAML, or holds no sections.
    """
    for path in config_files(words):
        try:
            content = yaml.safe_load(path.read_text())
        except OSError as error:
            raise InputError(f"expected a YAML file at {path}: {error.strerror}; correct --config.") from None
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "")
            raise InputError(f"expected YAML in {path}, which cannot be read: {reason}.") from None
        if not isinstance(content, dict):
            raise InputError(f"expected sections such as model, data and trainer in {path}, found none.")


def config_sentence(message: str, words: Sequence[str], options: Iterable[str]) -> str:
    """Say what is wrong with an option, where, and what to write instead.

    Args:
        message: What jsonargparse says: nested lines, the reason in the innermost one.
        words: The subcommand and its options, to find the place.
        options: Dotted names of the command's own options, for a suggestion.

    Returns:
        One sentence; for a message of an unknown kind the message itself on one line, with the place.
    """
    if unknown := _UNKNOWN.search(message):
        key = next(group for group in unknown.groups() if group).lstrip("-")
        return _unknown_option(key, _owner(_until(message, unknown)), words, options)
    if no_class := _NO_CLASS.search(message):
        return _unknown_class(_until(message, no_class), no_class, words)
    keys = _PARSER_KEY.findall(message)
    place = _place(keys[-1].rpartition(".")[2], words) if keys else ""
    if keys and (wrong := _WRONG_VALUE.search(message)):
        return f"option {'.'.join(keys)}: expected {wrong['type']}, found {wrong['value']!r}{place}."
    if keys and (base := _NO_SUBCLASS.search(message)):
        kind = f"the class_path of a {base[1]}, its arguments in init_args, and nothing else"
        return f"option {'.'.join(keys)}: expected {kind}{place}."
    lines = [line.strip() for line in message.splitlines()]
    told = [line.removeprefix("- ") for line in lines if line and not _NOISE.match(line)]
    return " ".join(" ".join(told).split()) + place + "."


def _until(message: str, found: re.Match[str]) -> str:
    """The message up to the end of the line that complains; what it names last is what it complains about."""
    return message[: found.end()] + message[found.end() :].partition("\n")[0]


def _owner(message: str) -> type | None:
    """Class that an option was meant for; None if it is one of the command's own."""
    named = _CLASS.findall(message)
    return _import(named[-1]) if named else None


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
    return f"{holder} has no option {key!r}{_place(key.rpartition('.')[2], words)}; {remedy}"


def _parameters(owner: type) -> list[str]:
    names = owner.__annotations__ if is_typeddict(owner) else inspect.signature(owner).parameters
    return [name for name in names if name not in ("args", "kwargs")]


def _unknown_class(message: str, found: re.Match[str], words: Sequence[str]) -> str:
    named = _CLASS_PATH.findall(message)
    path = named[-1] if named else found[0]
    public = getattr(importlib.import_module(found["module"]), "__all__", []) if found["module"] else []
    classes = [name for name in public if name[0].isupper()]
    close = difflib.get_close_matches(found["name"] or "", classes, n=1)
    remedy = f"expected one of {', '.join(classes)}." if classes else "give the import path of a class."
    if close:
        remedy = f"did you mean {found['module']}.{close[0]}?"
    return f"there is no class {path}{_place(path, words)}; {remedy}"


def _place(text: str, words: Sequence[str]) -> str:
    """Where an option or a value was written: the command line, or a line of a YAML file."""
    pattern = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
    files = config_files(words)
    if any(pattern.search(word) for word in words[1:] if not word.endswith(tuple(map(str, files)))):
        return " (on the command line)"
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if pattern.search(line.partition("#")[0]):
                return f" ({path}, line {number})"
    return ""
