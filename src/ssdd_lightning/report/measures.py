"""Scores of single images, and of a split as their sum."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.evaluation.folder import evaluate_folders, read_prediction
from ssdd_lightning.evaluation.scorecard import Scorecard, number
from ssdd_lightning.report.material import ADVICE, KNOWLEDGE, ORACLE, Material
from ssdd_lightning.report.pictures import present
from ssdd_lightning.storage.masks import read_mask

Counts = npt.NDArray[np.int64]


def measure_image(material: Material, name: str, layers: Mapping[str, Path]) -> dict[str, Any]:
    """Measure the masks of one image.

    Args:
        material: The folders.
        name: The image.
        layers: Its files, see `Material.layers`.

    Returns:
        Plain values: `confusion`, for each folder of masks [truth, prediction, pixels] of every pair that occurs;
        `changed`, the share of pixels where the refinement differs from the knowledge, or None; `classes`, what the
        ground truth shows, or without it the masks.

    Raises:
        InputError: A mask is damaged, of another size than the ground truth, or holds a strange class.
    """
    masks = {one.key: one for one in material.masks if one.key in layers}
    confusion = {}
    if "truth" in layers and material.truth is not None:
        for key, one in masks.items():
            advice = masks[ADVICE].folder if key == KNOWLEDGE and ADVICE in masks else None
            options: dict[str, Any] = {"workers": 1, "progress": False, "advice": advice}
            card = evaluate_folders(one.folder, material.truth, [name], material.class_names, **options)
            confusion[key] = _pairs(card.confusion)
            if ORACLE in card.companions:
                confusion[ORACLE] = _pairs(card.companions[ORACLE].confusion)
    read = {key: read_prediction(one.folder, name) for key, one in masks.items()}
    shown = [read_mask(layers["truth"])] if "truth" in layers else list(read.values())
    classes = sorted({int(value) for mask in shown for value in present(mask)} - {0, IGNORE})
    return {"confusion": confusion, "changed": _changed(read, material.changing), "classes": classes}


def total(rows: Iterable[list[list[int]]], class_names: Mapping[int, str], images: int) -> Scorecard:
    """Score a split by the pairs of its images.

    Args:
        rows: See `measure_image`.
        class_names: Name of each class by its index.
        images: How many images there are.
    """
    size = max(class_names) + 1
    confusion = np.zeros((size, size + 1), np.int64)
    for pairs in rows:
        for truth, predicted, pixels in pairs:
            confusion[truth, predicted] += pixels
    return Scorecard(confusion, class_names, images)


def plain_scores(card: Scorecard) -> dict[str, Any]:
    """Means and IoU of the classes that occur, rounded, for a page."""
    iou = {index: round(float(card.iou[index]), 4) for index in card.class_names if not np.isnan(card.iou[index])}
    return {"miou": _rounded(card.miou), "coverage": _rounded(card.coverage), "iou": iou}


def read_measures(path: Path) -> dict[str, Any]:
    """Read what `measure_image` said of an image."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _pairs(confusion: Counts) -> list[list[int]]:
    return [[int(t), int(p), int(confusion[t, p])] for t, p in np.argwhere(confusion)]


def _changed(masks: Mapping[str, npt.NDArray[np.uint8]], key: str | None) -> float | None:
    if key is None or key not in masks or KNOWLEDGE not in masks or masks[key].shape != masks[KNOWLEDGE].shape:
        return None
    return round(float((masks[key] != masks[KNOWLEDGE]).mean()), 5)


def _rounded(value: float) -> float | None:
    plain = number(value)
    return None if plain is None else round(plain, 6)
