"""What a run shows at its end: rows of a table, and pictures of the refinement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdd_lightning.evaluation.folder import evaluate_folders, read_prediction
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.evaluation.text_table import text_table
from ssdd_lightning.storage.masks import read_image, read_mask


@dataclass(frozen=True)
class Scores:
    """Scores against one folder of ground truth.

    Args:
        truth: Folder of masks `<name>.png`.
        class_names: Index -> name of the dataset's classes.
    """

    truth: Path
    class_names: dict[int, str]

    def card(self, predictions: Path, names: Sequence[str], advice: Path | None = None) -> Scorecard:
        """Score a folder. With a second one, its scores and the oracle merge become companions."""
        return evaluate_folders(predictions, self.truth, names, self.class_names, advice=advice)

    @staticmethod
    def row(what: str, split: str, card: Scorecard, seconds: float | None) -> dict[str, Any]:
        """One row: mIoU and coverage of a scorecard as fractions, and how long its product took."""
        return {"what": what, "split": split, "miou": card.miou, "coverage": card.coverage, "seconds": seconds}


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows of `Scores.row`: percent with two decimals."""
    cells = []
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cells.append([row["what"], row["split"], percent(row["miou"]), percent(row["coverage"]), seconds])
    return text_table(["masks", "split", "mIoU (%)", "coverage (%)", "seconds"], cells, left=(0, 1))


def write_picture(
    out: Path, photo: Path, folders: tuple[Path, Path, Path], truth: Path | None, class_names: Mapping[int, str]
) -> None:
    """Write a row of pictures of one image: photo, K, d_K, A, d_A, refined and ground truth.

    Args:
        out: PNG to write.
        photo: The photo.
        folders: Knowledge, advice (maps or masks), and merged masks with `d_knowledge` and `d_advice` in it.
        truth: The image's ground truth; left out if there is no such file.
        class_names: Index -> name of what may be shown.
    """
    from ssdd_lightning.callbacks.panels import write_panel  # it loads torch

    name = out.stem
    knowledge, advice, seeds = folders
    row: dict[str, Any] = {
        "image": read_image(photo),
        "knowledge": read_prediction(knowledge, name),
        "d_knowledge": read_mask(seeds / "d_knowledge" / f"{name}.png") / np.float32(255),
        "advice": read_prediction(advice, name),
        "d_advice": read_mask(seeds / "d_advice" / f"{name}.png") / np.float32(255),
        "refined": read_mask(seeds / f"{name}.png"),
    }
    if truth is not None and truth.is_file():
        row["truth"] = read_mask(truth)
    write_panel(out, [row], dict(class_names))
