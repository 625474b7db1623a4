"""A segmentation stage from a checkpoint alone, without the data that it was trained on."""

import argparse
import pickle
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.data.classes import ClassTable, class_table
from ssdd_lightning.errors import InputError
from ssdd_lightning.stages.base import describe_checkpoint
from ssdd_lightning.stages.segmentation import SegmentationStage
from ssdd_lightning.stages.trusted import import_modules
from ssdd_lightning.storage.decoding import reason
from ssdd_lightning.storage.safe_torch import check_finite, load_torch

_LOAD_ERRORS = (
    *(OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, pickle.UnpicklingError),
    argparse.ArgumentError,  # from jsonargparse, if the stored settings do not fit the stage
)


def load_stage(
    path: Path, device: torch.device, classes: str | None = None, modules: Sequence[str] = ()
) -> tuple[SegmentationStage, ClassTable]:
    """Load a segmentation stage for prediction.

    Args:
        path: Checkpoint of `ssdd fit`: of the baseline, static or dynamic stage.
        device: Where the network runs.
        classes: File of class names or their number, for checkpoints that do not store their classes; see
            `ssdd_lightning.data.classes.class_table`.
        modules: Modules to import before, whose classes the checkpoint may name; see `only_trusted`.

    Returns:
        The stage in eval mode, and the dataset's classes with those of its outputs.

    Raises:
        InputError: The file is not such a checkpoint, or its classes are unknown or differ from those given, or it
            names code of other modules.
    """
    import_modules(modules)
    if not path.is_file():
        raise InputError(f"expected a checkpoint at {path}, found no file; run `ssdd fit` first or correct the path.")
    try:
        content = _read(path)
        check_finite(content["state_dict"], str(path))
        stage_class = _stage_class(content["hyper_parameters"]["_class_path"], path)
        stage = stage_class.load_from_checkpoint(path, map_location=device, weights_only=True)
        print(describe_checkpoint(path, content))
    except InputError:
        raise
    except _LOAD_ERRORS as error:
        raise InputError(
            f"cannot load {path} ({reason(error)}); expected a checkpoint that `ssdd fit` wrote, of plain values "
            "and tensors."
        ) from error
    return stage.eval().to(device), _classes(stage, path, classes)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = load_torch(path, mmap=True)  # tensors stay on disk: only the name of the stage is needed here
    except InputError as error:
        raise InputError(f"cannot load {path}: {error}") from error
    if not isinstance(content, dict) or "hyper_parameters" not in content:
        raise InputError(
            f"cannot load {path}, which does not name its stage; expected a checkpoint that `ssdd fit` wrote "
            "(converted weights need a YAML: `ssdd predict --config`)."
        )
    return content


def change_protocol(
    stage: SegmentationStage,
    scales: Sequence[float] | None,
    flip: bool | None,
    crf: bool | None,
    crf_preset: str | None = None,
) -> None:
    """Change how a stage segments; None keeps what the checkpoint says.

    Args:
        stage: The stage, changed in place.
        scales: Scales of the image whose probabilities are averaged.
        flip: Average over the horizontal flip too.
        crf: Dense CRF after the average, with the checkpoint's own preset and widths if it has any.
        crf_preset: A dense CRF with published widths and weights instead, see `DenseCRF`.

    Raises:
        InputError: A scale is not above 0, the preset is unknown, or it is given although crf is False.
    """
    if scales is not None:
        stage.testing = replace(stage.testing, scales=tuple(scales))
    if flip is not None:
        stage.testing = replace(stage.testing, flip=flip)
    if crf_preset is not None:
        if crf is False:
            raise InputError(f"the CRF preset {crf_preset!r} and no CRF were asked for; leave one of them out.")
        stage.test_crf = DenseCRF(crf_preset, iterations=10)
    elif crf is False:
        stage.test_crf = None
    elif crf and stage.test_crf is None:
        stage.test_crf = DenseCRF(iterations=10, **asdict(stage.crf_options))


def _classes(stage: SegmentationStage, path: Path, given: str | None) -> ClassTable:
    if given is None:
        if stage.class_table is None:
            raise InputError(
                f"{path} was written before checkpoints stored their classes; name them with --classes, a file "
                "of names (JSON of index -> name where indices have gaps) or their number."
            )
        return stage.class_table
    table, outputs = class_table(given), stage.num_classes
    if table.num_classes != outputs or (stage.class_table is not None and table.indices != stage.class_table.indices):
        known = "" if stage.class_table is None else f" for {stage.class_table.selected_names}"
        raise InputError(
            f"--classes names {table.num_classes} classes, {table.selected_names}, but {path} has {outputs} "
            f"outputs{known}."
        )
    return table


def _stage_class(class_path: str, path: Path) -> type[SegmentationStage]:
    """Find a stage's class by its import path among the loaded modules; nothing is imported."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, SegmentationStage)):
        raise InputError(
            f"{path} holds a {name}, which makes no masks; give a checkpoint of the baseline, static or dynamic stage."
        )
    return found
