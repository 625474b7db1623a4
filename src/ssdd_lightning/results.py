"""What a run shows at its end: rows of a table, and pictures of the refinement."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.evaluation.text_table import text_table


def score_row(what: str, split: str, card: Any, seconds: float | None) -> dict[str, Any]:  # noqa: ANN401
    """Make one row: mIoU and coverage of a scorecard as fractions, and how long the making took."""
    return {"what": what, "split": split, "miou": card.miou, "coverage": card.coverage, "seconds": seconds}


def results_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows of `score_row`: percent with two decimals."""
    cells = []
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cells.append([row["what"], row["split"], percent(row["miou"]), percent(row["coverage"]), seconds])
    return text_table(["masks", "split", "mIoU (%)", "coverage (%)", "seconds"], cells, left=(0, 1))


def refinement_picture(
    name: str, photo: Path, knowledge: Path, advice: Path, seeds: Path, truth: Path
) -> dict[str, Any]:
    """Read one row of `ssdd_lightning.callbacks.panels.panel`, with dataset indices.

    Args:
        name: Image name.
        photo: Its photo.
        knowledge: Folder of maps or masks.
        advice: Folder of maps or masks.
        seeds: Folder of merged masks, with `d_knowledge` and `d_advice` in it.
        truth: The true mask.
    """
    import numpy as np

    from ssdd_lightning.data.masks import read_image, read_mask
    from ssdd_lightning.evaluation.folder import read_prediction

    return {
        "image": read_image(photo),
        "knowledge": read_prediction(knowledge, name),
        "d_knowledge": read_mask(seeds / "d_knowledge" / f"{name}.png") / np.float32(255),
        "advice": read_prediction(advice, name),
        "d_advice": read_mask(seeds / "d_advice" / f"{name}.png") / np.float32(255),
        "refined": read_mask(seeds / f"{name}.png"),
        "truth": read_mask(truth),
    }
