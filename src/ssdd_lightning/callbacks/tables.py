"""Scores of every class and the confusion as tables: W&B's own, text for TensorBoard, CSV files."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from ssdd_lightning.callbacks.panels import IGNORED
from ssdd_lightning.metrics.confusion import class_rates
from ssdd_lightning.storage.files import write_text

Table = tuple[list[str], list[list[Any]]]
"""Headings, and rows."""


def send_tables(trainer: Trainer, pl_module: LightningModule, phase: Literal["val", "test"]) -> None:
    """Hand both tables of a validation or a test to every logger.

    Args:
        trainer: Whose loggers and step count.
        pl_module: A stage; one without a confusion has no tables.
        phase: Which of the two.
    """
    confusion = getattr(pl_module, "confusion", {}).get(phase)
    if confusion is None or not trainer.is_global_zero or not trainer.loggers:
        return
    names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
    counts = confusion.cpu().numpy()
    for name, table in tables(counts, list(names or (f"class {i}" for i in range(len(counts))))).items():
        _send(trainer, f"{phase}_{name}", table)


def tables(confusion: np.ndarray[Any, np.dtype[np.integer[Any]]], names: list[str]) -> dict[str, Table]:
    """Tables of a confusion.

    Args:
        confusion: C x (C+1), see `confusion_matrix`.
        names: C names.

    Returns:
        `classes`: IoU, precision, recall and pixels of each class; `confusion`: a row for each true class.

    Example:
        >>> tables(np.array([[3, 1, 0], [0, 4, 0]]), ["background", "cat"])["confusion"]
        (['truth', 'background', 'cat', 'ignored (255)'], [['background', 3, 1, 0], ['cat', 0, 4, 0]])
    """
    rates = class_rates(confusion)
    columns = (rates.iou, rates.precision, rates.recall)
    rows = [
        [name, *(None if np.isnan(column[i]) else float(column[i]) for column in columns), int(confusion[i].sum())]
        for i, name in enumerate(names)
    ]
    crossed = [[name, *row] for name, row in zip(names, confusion.tolist(), strict=True)]
    return {
        "classes": (["class", "iou", "precision", "recall", "pixels"], rows),
        "confusion": (["truth", *names, IGNORED], crossed),
    }


def _send(trainer: Trainer, name: str, table: Table) -> None:
    headings, rows = table
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(f"tables/{name}", columns=headings, data=rows, step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(f"tables/{name}", _markdown(headings, rows), step)
        elif isinstance(logger, CSVLogger):
            text = io.StringIO()
            csv.writer(text).writerows([headings, *rows])
            file = f"epoch_{trainer.current_epoch:03}_{name}.csv"
            write_text(Path(logger.log_dir) / "tables" / file, text.getvalue())


def _markdown(headings: list[str], rows: list[list[Any]]) -> str:
    def line(cells: list[Any]) -> str:
        return f"| {' | '.join(_cell(cell) for cell in cells)} |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)])


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", r"\|")
