"""What `ssdd fit --config FILE --help` shows: the options of the stage that the file names, with its values."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from docstring_parser import parse

from ssdd_lightning.data.choice import OPTION, data_module_path
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config import StageConfig, chosen_dataset, config_files
from ssdd_lightning.pipeline.signatures import SECTIONS, Built, ClassSource, find_class

COMMON = {
    "config": "YAML file of a stage, or EXPERIMENT/STAGE of the package; may be repeated, later ones win",
    OPTION.lstrip("-"): "voc, coco, or folder for photos of your own",
    "seed_everything": "seed of weights, order of images, crops and colours",
    "ckpt_path": "checkpoint to test, or to go on from; without it the run's own last one",
}
TRAINER = {
    "default_root_dir": "folder of the run: checkpoints, logs, pictures, ledger",
    "max_epochs": "epochs",
    "max_steps": "steps, whichever comes first",
    "accelerator": "auto, cpu, gpu, mps",
    "devices": "how many, or which",
    "strategy": "auto, ddp, ...",
    "precision": "32-true, 16-mixed, bf16-mixed",
    "logger": "WandbLogger, TensorBoardLogger, CSVLogger, false",
    "log_every_n_steps": "steps between two entries of the logger",
    "check_val_every_n_epoch": "epochs between two validations",
    "accumulate_grad_batches": "batches for one step",
    "gradient_clip_val": "largest norm of the gradient",
}
"""Of Lightning's options, those that a stage mostly needs."""
HIDDEN = ("num_classes", "high_channels", "low_channels")
"""Arguments that come from elsewhere."""
NAME, VALUE, WIDTH = 40, 22, 120
"""Columns of an option's name and value, and of a line."""


class _Option(NamedTuple):
    name: str
    value: Any
    text: str


def stage_help(words: Sequence[str], purpose: str) -> str:
    """List the options of a stage command, one a line, in groups.

    Args:
        words: The command and its options, `--config` among them; without it there is no model to describe.
        purpose: What the command does.
    """
    command, files = words[0], config_files(words)
    content = StageConfig(tuple(files)).content() if files else {}
    for section in ("data", "model", "trainer"):
        if not isinstance(content.get(section) or {}, dict):
            raise InputError(f"{files[-1]}: expected options below {section}, found {content[section]!r}.")
    data, model, trainer = (content.get(section) or {} for section in ("data", "model", "trainer"))
    module = _found(data_module_path(chosen_dataset(words)))
    groups = {"": [_Option(f"--{name}", content.get(name), text) for name, text in COMMON.items()]}
    groups[f"--data. ({module.name})"] = list(_options(module, "", data))
    if model.get("class_path"):
        stage = _found(model["class_path"])
        groups[f"--model.init_args. ({stage.name})"] = list(_options(stage, "", model.get("init_args") or {}))
    own = _found(SECTIONS["trainer"]).arguments
    rows = [_Option(name, trainer.get(name, own[name].value), text) for name, text in TRAINER.items()]
    groups["--trainer. (the most used of Lightning's)"] = rows
    minutes = _found(SECTIONS["checkpoint"]).arguments["every_n_minutes"].value
    groups["files"] = [
        _Option("--output.output_dir", None, "folder of what test and predict write; null means the run's own"),
        _Option("--checkpoint.every_n_minutes", minutes, "minutes between two checkpoints"),
    ]
    lines = [f"usage: ssdd {command} --config FILE [--OPTION VALUE ...]", "", f"{purpose[0].upper()}{purpose[1:]}."]
    for title, options in groups.items():
        lines += ["", *([title] if title else []), *map(_line, options)]
    if not files:
        lines += ["", f"`ssdd {command} --config voc2012/dynamic --help` lists the options of that stage, too."]
    lines += ["", f"`ssdd {command} --help-all` lists every option of Lightning's trainer and checkpoints, too."]
    return "\n".join(lines)


def _options(cls: ClassSource, prefix: str, given: Mapping[str, Any]) -> Iterator[_Option]:
    """Arguments of a class, those of the values and named classes inside it too."""
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in parse(cls.docstring).params}
    for name, argument in cls.arguments.items():
        if name in HIDDEN:
            continue
        path, default = f"{prefix}{name}", argument.value
        value = given.get(name, default)
        inside = value if isinstance(value, Mapping) else {}
        if isinstance(default, Built):
            yield from _options(default.cls, f"{path}.", {**default.given, **inside})
        elif "class_path" in inside or isinstance(default, ClassSource):
            named = _found(inside["class_path"]) if "class_path" in inside else default
            yield _Option(f"{path}.class_path", named.name, texts.get(name, ""))
            yield from _options(named, f"{path}.init_args.", inside.get("init_args") or {})
        else:
            yield _Option(path, value, texts.get(name, ""))


def _found(class_path: str) -> ClassSource:
    found = find_class(str(class_path))
    if found is None:
        raise InputError(f"there is no class {class_path}; expected the import path of one as class_path.")
    return found


def _line(option: _Option) -> str:
    value = {None: "null", True: "true", False: "false"}.get(option.value) if _plain(option.value) else None
    value = str(option.value) if value is None else value
    value = value if len(value) <= VALUE else "..." + value[3 - VALUE :]
    text = textwrap.shorten(option.text, WIDTH - NAME - VALUE - 4, placeholder=" ...")
    return f"  {option.name:<{NAME}} {value:<{VALUE}} {text}".rstrip()


def _plain(value: object) -> bool:
    return value is None or isinstance(value, bool)
