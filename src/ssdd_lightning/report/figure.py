"""One picture of a few photos of a run, for a page or a paper: photos in rows, what was made of them in columns."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.folder import read_prediction
from ssdd_lightning.report.material import ADVICE, DIFFERENCES, KNOWLEDGE, PREDICTION, REFINED, Material
from ssdd_lightning.storage.fingerprints import fingerprint
from ssdd_lightning.storage.masks import read_image, read_mask

ROWS = 4
"""Photos of a figure, if none were named."""
COLUMNS = (KNOWLEDGE, *DIFFERENCES, ADVICE, REFINED, PREDICTION, "truth")


def write_figure(material: Material, out: Path, names: Sequence[str] = ()) -> list[str]:
    """Draw photo, K, d_K, A, d_A, refined mask, prediction and ground truth, as far as they exist.

    Photos that the model of a run did not segment yet, because it is tested on others, are segmented with its last
    checkpoint now; their masks go to the folder `figure` beside it.

    Args:
        material: What was made.
        out: PNG to write.
        names: Photos to show; without them some are drawn by chance, always the same ones, of those with the most
            columns.

    Returns:
        The names.

    Raises:
        InputError: A name is of no photo with a mask.
    """
    from ssdd_lightning.callbacks.panels import write_panel  # it loads torch

    unknown = [name for name in names if name not in material.photos]
    if unknown:
        some = ", ".join(list(material.photos)[:3])
        raise InputError(f"there is no photo {unknown[0]!r} with a mask in this run; it has {some}, ...")
    chosen = list(names) or _choice(material)
    made = _predicted(material, [name for name in chosen if PREDICTION not in material.layers(name)])
    rows = [_row(material, name, made) for name in chosen]
    shown = [{"image": row["image"], **{key: row[key] for key in COLUMNS if key in row}} for row in rows]
    write_panel(out, shown, dict(material.class_names))
    return chosen


def _choice(material: Material) -> list[str]:
    """Photos with the most layers, by chance."""
    counts = {name: len(set(material.layers(name)).intersection(COLUMNS)) for name in material.photos}
    fullest = [name for name, count in counts.items() if count == max(counts.values())]
    return sorted(random.Random(0).sample(fullest, min(ROWS, len(fullest))))


def _row(material: Material, name: str, made: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {"image": read_image(material.photos[name])}
    for key, path in material.layers(name).items():
        values = key in DIFFERENCES
        row[key] = read_mask(path) / np.float32(255) if values else read_prediction(path.parent, name)
    if PREDICTION not in row and made is not None:
        row[PREDICTION] = read_prediction(made, name)
    return row


def _predicted(material: Material, names: Sequence[str]) -> Path | None:
    """Folder of masks that the run's model makes of some photos; None if there are none to make, or no model."""
    models = [masks.folder.parent for masks in material.masks if masks.key == PREDICTION]
    checkpoint = models[0] / "checkpoints" / "last.ckpt" if models else None
    if not names or checkpoint is None or not checkpoint.is_file():
        return None
    from ssdd_lightning.folders.device import find_device
    from ssdd_lightning.folders.segment import SegmentJob
    from ssdd_lightning.folders.segment_checkpoint import load_stage

    stage, classes = load_stage(checkpoint, find_device("auto"))
    job = SegmentJob(stage, classes, models[0] / "figure")
    job.run({name: material.photos[name] for name in names}, stage.protocol(), {"checkpoint": fingerprint(checkpoint)})
    return job.out
