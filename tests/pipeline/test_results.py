import math
from types import SimpleNamespace

from ssdd_lightning.pipeline.results import Scores, results_table


def test_the_table_of_a_run():
    rows = [
        Scores.row("knowledge K", "train", SimpleNamespace(miou=0.5, coverage=0.98765), 12.4),
        Scores.row("oracle merge of K and A", "train", SimpleNamespace(miou=1.0, coverage=math.nan), None),
    ]
    assert results_table(rows).splitlines() == [
        "masks                     split   mIoU (%)   coverage (%)   seconds",
        "-------------------------------------------------------------------",
        "knowledge K               train      50.00          98.77        12",
        "oracle merge of K and A   train     100.00              -",
    ]
