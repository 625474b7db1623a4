"""Likely mistakes in the options of a stage, answered before torch is loaded, which takes seconds."""

import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ssdd_lightning
from ssdd_lightning.data.choice import data_module_path
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config import (
    EXTENDS,
    StageConfig,
    chosen_dataset,
    config_files,
    find_checkpoint,
    merged,
    plain_value,
)
from ssdd_lightning.pipeline.config_errors import place_of, place_of_option
from ssdd_lightning.pipeline.signatures import SECTIONS, Argument, ClassSource, find_class
from ssdd_lightning.renamed import GONE, words_with_new_names

NAMES = ("data", "model", *SECTIONS)
"""Sections; their options have a dot and a name behind it."""
OPTIONS = (
    *("help", "config", "print_config", "seed_everything", "on_nan", "dataset", "ckpt_path", "weights_only"),
    *("verbose", "return_predictions", "help_all"),
)
"""Options without a section."""
MEANT = {
    **dict.fromkeys(("lr", "learning_rate"), "model.init_args.optimization.learning_rate"),
    **dict.fromkeys(("optimizer", "optim"), "model.init_args.optimization.optimizer"),
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "max_steps"), "trainer.max_steps"),
    **dict.fromkeys(("gpus", "devices", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("device", "accelerator", "cuda"), "trainer.accelerator"),
    **dict.fromkeys(("batch", "batch_size", "bs"), "data.batch_size"),
    **dict.fromkeys(("workers", "num_workers", "j"), "data.num_workers"),
    **dict.fromkeys(("root", "data_root", "devkit"), "data.root"),
    **dict.fromkeys(("out", "output_dir", "out_dir", "work_dir"), "trainer.default_root_dir"),
    **dict.fromkeys(("ckpt", "resume", "resume_from", "resume_from_checkpoint", "weights"), "ckpt_path"),
    **dict.fromkeys(("cfg", "conf", "yaml"), "config"),
    "precision": "trainer.precision",
    "amp": "trainer.precision",
    "logger": "trainer.logger",
    "seed": "seed_everything",
    "labels": "data.labels",
    "images": "data.images",
    "knowledge": "data.knowledge",
    "advice": "data.advice",
    "classes": "data.classes",
    "crop_size": "data.augmentation.crop_size",
    "backbone": "model.init_args.network.init_args.backbone",
    "model_name": "model.init_args.network.init_args.backbone",
}
"""Names that other tools use, and what they are here."""
VALUES = {
    "trainer.logger": {"wandb": "WandbLogger", "tensorboard": "TensorBoardLogger", "csv": "CSVLogger"},
    "trainer.precision": {
        **{"fp16": "16-mixed", "half": "16-mixed", "amp": "16-mixed", "float16": "16-mixed", "mixed": "16-mixed"},
        **{"bfloat16": "bf16-mixed", "fp32": "32-true", "float32": "32-true", "full": "32-true"},
    },
    "trainer.accelerator": {"nvidia": "gpu"},
    "trainer.strategy": {"DDP": "ddp", "dp": "ddp"},
}
"""Values that other tools use, and what they are called here."""
FEW = 6
"""So many options are listed in a message; of more it says how to list them."""
CLASS_KEYS = ("class_path", "init_args", "dict_kwargs", "help")
"""How a YAML file names a class and its arguments."""


def check_stage_words(words: Sequence[str]) -> None:
    """Answer a missing configuration or checkpoint, options that do not exist, and values that cannot be right.

    Args:
        words: fit, validate, test or predict, and its options.

    Raises:
        InputError: One of these; the message names what was probably meant.
    """
    command, first = words[0], words[1] if len(words) > 1 else None
    if first is None:
        raise InputError(
            f"`ssdd {command}` needs a stage: give its YAML, `ssdd {command} --config FILE.yaml`, or one of the "
            "package, such as `--config voc2012/dynamic`."
        )
    if Path(first).suffix in (".yaml", ".yml") and not first.startswith("-"):
        raise InputError(f"{first!r} is no option; did you mean `ssdd {command} --config {first}`?")
    given = _options(words_with_new_names(words))
    for name in given:
        if "." not in name and name.replace("-", "_") not in (*NAMES, *OPTIONS):
            raise InputError(f"`ssdd {command}` has no option {name!r} (on the command line); {_remedy(name, command)}")
    content = stage_content(words)
    check_stage(content, chosen_dataset(words), words)
    if "print_config" in {name.replace("-", "_") for name in given}:
        return  # nothing is run, so no checkpoint is needed
    folder = _mapping(content.get("checkpoint")).get("dirpath")
    root = _mapping(content.get("trainer")).get("default_root_dir")
    find_checkpoint(command, given.get("ckpt_path", content.get("ckpt_path")), folder, root)


def stage_content(words: Sequence[str]) -> dict[str, Any]:
    """The configuration of a stage command, nested: its YAML files, and the options on the command line."""
    given = _options(words_with_new_names(words))
    settings = {k: v for k, v in given.items() if k.partition(".")[0] in NAMES}
    return StageConfig(tuple(config_files(words)), settings).content()


def check_stage(content: Mapping[str, Any], dataset: str, words: Sequence[str]) -> None:
    """Check the options of a stage against the classes that take them, as far as their source tells.

    Args:
        content: All of its options, nested.
        dataset: Decides the options of `data`.
        words: A command with its files and options, to say where a mistake was made.

    Raises:
        InputError: An option or a class does not exist, or a value is of a wrong kind.
    """
    for mistake in _mistakes(content, dataset):
        raise InputError(mistake.sentence(words))


class _Mistake(NamedTuple):
    text: str
    """What is wrong; `{command}` is the command's name."""
    remedy: str
    option: str
    """Dotted name of the option; "" if it is not known."""
    value: str | None = ""
    """Its value, None for null; "" if any would be wrong."""

    def sentence(self, words: Sequence[str]) -> str:
        """What is wrong, where, and what to write instead."""
        text, remedy = (part.replace("{command}", f"ssdd {words[0]}") for part in (self.text, self.remedy))
        place = place_of_option(self.option, self.value, words) if self.option else place_of(str(self.value), words)
        return f"{text}{place}; {remedy}"


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Options on a command line, all but those that name configurations."""
    given: dict[str, Any] = {}
    for word, following in zip(words[1:], [*words[2:], "--"], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name != "--config":
            text = value if equals else following
            given[name[2:]] = None if not equals and text.startswith("--") else plain_value(text)
    if isinstance(given.get("model"), str):
        given["model"] = {"class_path": given["model"]}
    return given


def _mistakes(content: Mapping[str, Any], dataset: str) -> Iterator[_Mistake]:
    known = [*NAMES, *OPTIONS]
    yield from (_no_option(str(name), [*known, EXTENDS]) for name in content if name not in known)
    for name in (name for name in NAMES if not isinstance(content.get(name, {}), Mapping | str)):
        found = "null" if content[name] is None else repr(content[name])
        yield _Mistake(f"{name} cannot be {found}", "give options below it, or leave it out.", name)
    yield from _in_value(content.get("model"), "model", None)
    for section, path in {"data": data_module_path(dataset), **SECTIONS}.items():
        given, cls = content.get(section), find_class(path)
        if isinstance(given, Mapping) and cls is not None:
            yield from _in_class(given, section, cls)


def _in_class(given: Mapping[str, Any], path: str, cls: ClassSource) -> Iterator[_Mistake]:
    """Mistakes among the arguments of a class."""
    for key, value in given.items():
        name = str(key).rstrip("+")  # jsonargparse: append to a list
        argument = cls.arguments.get(name)
        if argument is not None:
            yield from _in_value(value, f"{path}.{name}", argument)
        elif not cls.is_open and name != "help":
            yield _no_option(f"{path}.{name}", list(_paths(cls, path)))


def _in_value(value: Any, path: str, argument: Argument | None) -> Iterator[_Mistake]:  # noqa: ANN401
    """Mistakes in what an argument is given."""
    if value is None and argument is not None and argument.is_ours and not argument.takes_none:
        yield from _in_null(path, argument)
    if isinstance(value, str):
        yield from _in_text(value, path, argument)
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, Mapping):
            yield from _in_mapping(each, path, argument)


def _in_null(path: str, argument: Argument) -> Iterator[_Mistake]:
    """None where something else is taken, as far as the type tells."""
    kinds = argument.plain_types
    if argument.values_class is not None:
        yield _null(path, f"options below it, such as {', '.join([*argument.values_class.arguments][:3])}")
    elif argument.is_callable:
        yield _null(path, "a class_path below it")
    elif kinds is not None or argument.is_list:
        yield _null(path, "a list" if kinds is None else _listed(kinds))


def _null(path: str, expected: str) -> _Mistake:
    return _Mistake(f"{path} cannot be null", f"give {expected}, or leave it out.", path, None)


def _listed(kinds: Sequence[type | str | int | None]) -> str:
    return " or ".join(kind.__name__ if isinstance(kind, type) else str(kind) for kind in kinds if kind is not None)


def _in_mapping(given: Mapping[str, Any], path: str, argument: Argument | None) -> Iterator[_Mistake]:
    """Mistakes in a class with its arguments, or in a frozen value."""
    named = given.get("class_path")
    if argument is None or argument.values_class is None:
        parts = {"class_path": "a class", "init_args": "its arguments"}
        yield from (_null(f"{path}.{key}", what) for key, what in parts.items() if key in given and given[key] is None)
    if named is None and argument is not None and argument.values_class is not None:
        yield from _in_class(given, path, argument.values_class)
        return
    cls = find_class(str(named)) if named else argument and argument.value
    ours = path == "model" and str(named).isidentifier() and str(named) not in _own_stages()
    if named and cls is None and (ours or str(named).startswith(f"{ssdd_lightning.__name__}.")):
        yield _no_class(str(named))
    if isinstance(cls, ClassSource):
        own = _mapping(given.get("init_args"))
        yield from _in_class(own, f"{path}.init_args", cls)
        short = {key: value for key, value in given.items() if key not in CLASS_KEYS}  # init_args left out
        whole = merged(own, short)  # of a class that is named in init_args the short form may give an option
        yield from _in_class({key: whole[key] for key in short}, path, cls)


def _own_stages() -> set[str]:
    """Names of the stages that a program defined before it called the command line: jsonargparse knows them, too."""
    base = sys.modules.get("ssdd_lightning.stages.base")
    found = [base.Stage] if base is not None else []
    for stage in found:
        found += stage.__subclasses__()
    return {stage.__name__ for stage in found}


def _in_text(value: str, path: str, argument: Argument | None) -> Iterator[_Mistake]:
    """A text where other words, or only numbers, are taken."""
    meant = VALUES.get(path, {}).get(value)
    kinds = None if argument is None else argument.plain_types
    if meant is not None:
        yield _Mistake(f"{path}: there is no {value!r}", f"did you mean {meant}?", path, value)
    elif kinds is not None and str not in kinds and value not in kinds and not _is_plain(value):
        close = difflib.get_close_matches(value, [kind for kind in kinds if isinstance(kind, str)], n=1)
        remedy = f"did you mean {close[0]}?" if close else f"expected {_listed(kinds)}."
        yield _Mistake(f"{path} cannot be {value!r}", remedy, path, value)


def _mapping(value: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """A section's options; none if it is something else, of which the parser tells."""
    return value if isinstance(value, Mapping) else {}


def _is_plain(text: str) -> bool:
    """Whether a text in quotes is a number or a truth value, which the parser reads from it."""
    try:
        float(text)
    except ValueError:
        return not isinstance(plain_value(text), str)
    return True


def _no_option(path: str, known: Sequence[str]) -> _Mistake:
    """An unknown option; what is like it lies beside it, or deeper inside its section."""
    section, _, name = path.rpartition(".")
    beside = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    deeper = {other.rpartition(".")[2]: other for other in reversed(known)}
    found = (difflib.get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.7) for names in (beside, deeper))
    close = next((names[match[0]] for names, match in zip((beside, deeper), found, strict=True) if match), None)
    own = path.removeprefix("model.").removeprefix("init_args.")
    few = f"expected one of {', '.join(known)}." if len(known) <= FEW else "`{command} --help` lists what there is."
    remedy = f"did you mean {close}?" if close else few
    if own in GONE:
        remedy = f"it is gone, and always {json.dumps(GONE[own])} now; leave it out."
    return _Mistake(f"`{{command}}` has no option {path!r}", remedy, path)


def _no_class(path: str) -> _Mistake:
    package, known = ssdd_lightning.__name__, ssdd_lightning.__all__
    close = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
    remedy = f"did you mean {package}.{close[0]}?" if close else f"{package} has {', '.join(known)}."
    return _Mistake(f"there is no class {path}", remedy, "", path)


def _paths(cls: ClassSource, path: str) -> Iterator[str]:
    """Dotted names of a class's options, also those of the values and classes that it takes."""
    for name, argument in cls.arguments.items():
        yield f"{path}.{name}"
        if argument.values_class is not None:
            yield from _paths(argument.values_class, f"{path}.{name}")
        elif isinstance(argument.value, ClassSource):
            yield from _paths(argument.value, f"{path}.{name}.init_args")


def _remedy(name: str, command: str) -> str:
    known = {**MEANT, **{option: option for option in OPTIONS}}
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.75)
    if close:
        return f"did you mean --{known[close[0]]}?"
    return f"expected one of a section ({', '.join(f'--{s}.*' for s in NAMES)}) or see `ssdd {command} --help`."
