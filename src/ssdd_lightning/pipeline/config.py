"""A stage's YAML files: reading them, following `extends`, overriding settings."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from ssdd_lightning.data.choice import OPTION
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.experiments import config_file, config_like, is_there
from ssdd_lightning.renamed import with_new_names
from ssdd_lightning.storage.decoding import check_expanded, decoding, reason

_CONFIGS = ("--config", "-c")
MOST_VALUES = 100_000
"""Values that a YAML file may hold by its aliases."""
LONGEST_NUMBER = 4000
"""Characters of a whole number."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
EXTENDS = "extends"
"""Key of a YAML file: another one, beside it or of the package, whose settings it takes over and changes."""


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does: `1e-3` is one; refuses aliases that blow up a few lines to gigabytes."""

    def compose_document(self) -> yaml.Node | None:
        """Compose a document; its aliases are counted before anything is made of them."""
        node: yaml.Node | None = super().compose_document()
        check_expanded(node, _inside, MOST_VALUES)
        return node


def _inside(node: Any) -> Iterable[yaml.Node]:  # noqa: ANN401
    value = getattr(node, "value", None)
    if isinstance(value, str):
        if _UNWRITABLE.search(value):
            raise InputError("it holds a null byte or half a character.")
        if node.tag == "tag:yaml.org,2002:int" and len(value) > LONGEST_NUMBER:  # 1:1:1... takes quadratic time
            raise InputError(f"it holds a number of {len(value)} characters.")
        return ()
    return chain.from_iterable(value or ()) if isinstance(node, yaml.MappingNode) else value or ()


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class StageConfig:
    """The configuration of a stage.

    Args:
        files: YAML files; later ones override earlier ones.
        settings: Dotted names and plain values that override all files, such as `{"trainer.max_epochs": 1}`.
    """

    files: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Everything as one nested dictionary.

        Raises:
            InputError: A file cannot be read.
        """
        given = merged(*(_nested(key, value) for key, value in self.settings.items()))
        return merged(*(read_config(path) for path in self.files), with_new_names(given, "the settings"))

    def with_settings(self, settings: Mapping[str, Any]) -> "StageConfig":
        """Return a copy with more settings."""
        return StageConfig(self.files, {**self.settings, **settings})

    def words(self) -> list[str]:
        """The same configuration as command-line options, for messages."""
        return [*(f"--config={path}" for path in self.files), *(f"--{k}={v}" for k, v in self.settings.items())]


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file, or one of the package by its name (see `config_file`), and below it what it extends.

    Raises:
        InputError: A file is missing, is not YAML, has no sections, or extends itself.
    """
    content: dict[str, Any] = {}
    for source in reversed(config_chain(path)):
        own = with_new_names(_read(source), str(source))
        own.pop(EXTENDS, None)
        content = merged(content, own)
    return content


def config_chain(path: Path) -> list[Path]:
    """List a YAML file, the one that it extends, and so on.

    Raises:
        InputError: As `read_config`.
    """
    chain = [config_file(path)]
    while (extended := _read(chain[-1]).get(EXTENDS)) is not None:
        if not isinstance(extended, str) or not extended:
            raise InputError(f"{chain[-1]}: expected the name of a YAML file as `extends`, found {extended!r}.")
        beside = chain[-1].parent / extended
        parent = beside if beside.suffix else config_file(Path(extended), chain[-1].parent)
        if not is_there(parent):
            remedy = _did_you_mean(Path(extended)) or "correct `extends`."
            raise InputError(f"{chain[-1]} extends {extended}, but there is no file {beside}; {remedy}")
        if parent.resolve() in [source.resolve() for source in chain]:
            raise InputError(f"{chain[-1]} extends {extended}, which extends it in turn; take one of the two out.")
        chain.append(parent)
    return chain


def parse_value(text: str) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Parse a value as YAML does: `[1, 2]`, `null`, `1e-3`.

    Raises:
        InputError: It is no YAML, or holds anything but plain values: dates, sets, itself.
    """
    with decoding("the YAML", "correct it"):
        value = yaml.load(text, Loader=_Loader)
        json.dumps(value)
        return value


def plain_value(text: str) -> Any:  # noqa: ANN401
    """Parse a value as YAML does; a text that is no YAML is itself."""
    try:
        return parse_value(text)
    except InputError:
        return text


def parse_settings(options: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` as settings.

    Raises:
        InputError: The key or the value is missing.
    """
    for option in options:
        if not all(option.partition("=")[:2]):
            raise InputError(f"--set: expected KEY=VALUE, such as trainer.max_epochs=1, found {option!r}.")
    return {key: _setting(key, value) for key, _, value in (option.partition("=") for option in options)}


def _setting(key: str, text: str) -> Any:  # noqa: ANN401
    try:
        return parse_value(text)
    except InputError:
        raise InputError(f"--set: expected a value such as 3, true or [1, 2] for {key}, found {text!r}.") from None


def with_contents(words: Sequence[str]) -> list[str]:
    """Replace the path of each YAML file in a command line by its content, including what it extends."""
    result, rest = [], iter(words)
    for word in rest:
        name, equals, path = word.partition("=")
        if name in _CONFIGS:
            given = path if equals else next(rest, None)
            result += ["--config", *([] if given is None else [json.dumps(read_config(Path(given)))])]
        else:
            result.append(word)
    return result


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries, later over earlier; another `class_path` drops the arguments of the earlier class.

    A text with options after it is a `class_path`: `network=my.Network` and then `network.width=3`.
    """
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            before = result.get(key)
            if isinstance(before, str) and isinstance(value, Mapping):
                before = {"class_path": before}
            if isinstance(before, dict) and isinstance(value, Mapping):
                named = before.get("class_path"), value.get("class_path")
                other = all(named) and named[0] != named[1]
                result[key] = merged({k: v for k, v in before.items() if not (other and k == "init_args")}, value)
            else:
                result[key] = merged(value) if isinstance(value, Mapping) else value
    return result


def _nested(key: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _did_you_mean(given: Path) -> str | None:
    close = config_like(given)
    return close and f"did you mean {close}?"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        named = "correct --config, or name one of the package, such as voc2012/dynamic."
        remedy = _did_you_mean(path) or named
        raise InputError(f"expected a YAML file at {path}: {error.strerror}; {remedy}") from None
    except ValueError as error:  # no YAML, or no text
        why = reason(error.__cause__ or error).replace('in "<unicode string>", ', "")
        raise InputError(f"expected YAML in {path}, which cannot be read: {why}.") from None
    if not isinstance(content, dict):
        raise InputError(f"expected sections such as model, data and trainer in {path}, found none.")
    return content


def config_files(words: Sequence[str]) -> list[Path]:
    """YAML files named in the options of a stage command, in order."""
    return [Path(path) for path in _values(words, *_CONFIGS)]


def chosen_dataset(words: Sequence[str]) -> str:
    """Dataset of a stage command: the last `--dataset`, else that of the last YAML that names one, else VOC.

    Raises:
        InputError: A YAML file cannot be read.
    """
    named = [read_config(path).get(OPTION.lstrip("-")) for path in config_files(words)]
    return ["voc", *(str(name) for name in named if name), *_values(words, OPTION)][-1]


def checkpoint_folder(root: str | Path | None) -> str:
    """Where a run in this folder keeps its checkpoints."""
    return str(Path(root or ".") / "checkpoints")


def find_checkpoint(
    command: str, given: str | Path | None, folder: str | Path | None, root: str | Path | None
) -> str | None:
    """Find the checkpoint that a stage command starts from; a fit needs none.

    Args:
        command: fit, validate, test or predict.
        given: `ckpt_path`; None or "last" is the run's own last one.
        folder: `checkpoint.dirpath`.
        root: `trainer.default_root_dir`.

    Raises:
        InputError: There is none.
    """
    if given is None and command == "fit":
        return None
    if given is None or given == "last":
        path = Path(folder or checkpoint_folder(root)) / "last.ckpt"
        if not path.is_file():
            raise InputError(
                f"expected the checkpoint of a trained stage, found none at {path}; run `ssdd fit` first, or name one "
                "with --ckpt_path."
            )
        return str(path)
    if not Path(given).is_file():
        raise InputError(f"expected a checkpoint at {given}, found no file; run `ssdd fit` first or correct the path.")
    return str(given)


def _values(words: Sequence[str], *options: str) -> list[str]:
    """Values of some options, in either spelling: `--option value` and `--option=value`."""
    values, rest = [], iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in options:
            values.append(value if equals else next(rest, None))
    return [value for value in values if value is not None]
