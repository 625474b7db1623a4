"""Likely mistakes in the options of a stage command, answered before torch is loaded, which takes seconds."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from ssdd_lightning.errors import InputError

SECTIONS = ("data", "model", "trainer", "checkpoint", "output")
"""Options of these have a dot and a name behind it."""
OPTIONS = (
    *("help", "config", "print_config", "seed_everything", "dataset", "ckpt_path", "weights_only", "verbose"),
    *("return_predictions", "help_all"),
)
"""Options without a section."""
MEANT = {
    **dict.fromkeys(("lr", "learning_rate"), "model.init_args.optimization.learning_rate"),
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "max_steps"), "trainer.max_steps"),
    **dict.fromkeys(("gpus", "devices", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("device", "accelerator", "cuda"), "trainer.accelerator"),
    **dict.fromkeys(("batch", "batch_size", "bs"), "data.batch_size"),
    **dict.fromkeys(("workers", "num_workers", "j"), "data.num_workers"),
    **dict.fromkeys(("root", "data_root", "devkit"), "data.root"),
    **dict.fromkeys(("out", "output_dir", "out_dir", "work_dir"), "trainer.default_root_dir"),
    **dict.fromkeys(("ckpt", "resume", "resume_from", "resume_from_checkpoint", "weights"), "ckpt_path"),
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


def check_stage_words(words: Sequence[str]) -> None:
    """Answer a missing configuration, an unknown option without a section, and values that other tools use.

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
    for number, word in enumerate(words[1:], start=1):
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            continue
        name = name[2:]
        if "." not in name and name.replace("-", "_") not in (*SECTIONS, *OPTIONS):
            raise InputError(f"`ssdd {command}` has no option {name!r} (on the command line); {_remedy(name, command)}")
        value = value if equals else "".join(words[number + 1 : number + 2])
        meant = VALUES.get(name, {}).get(value)
        if meant is not None:
            raise InputError(f"--{name}: expected a name that Lightning has, found {value!r}; did you mean {meant}?")


def _remedy(name: str, command: str) -> str:
    known = {**MEANT, **{option: option for option in OPTIONS}}
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.75)
    if close:
        return f"did you mean --{known[close[0]]}?"
    return f"expected one of a section ({', '.join(f'--{s}.*' for s in SECTIONS)}) or see `ssdd {command} --help`."
