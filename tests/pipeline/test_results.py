import math
from types import SimpleNamespace
from typing import Any

from ssdd_lightning.pipeline.results import Scores, results_table


def card(miou: float, coverage: float) -> Any:
    return SimpleNamespace(miou=miou, coverage=coverage)


def test_the_table_of_a_run() -> None:
    rows = [
        Scores.row("knowledge K", "train", card(0.5, 0.98765), 12.4),
        Scores.row("oracle merge of K and A", "train", card(1.0, math.nan), None),
    ]
    assert results_table(rows).splitlines() == [
        "masks                     split   mIoU (%)   coverage (%)   seconds",
        "-------------------------------------------------------------------",
        "knowledge K               train      50.00          98.77        12",
        "oracle merge of K and A   train     100.00              -",
    ]
