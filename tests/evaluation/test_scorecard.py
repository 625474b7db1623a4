import csv
import io
import json
import math

import numpy as np
import pytest

from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.evaluation.table import scores_csv, scores_table

NAMES = {0: "background", 1: "cat", 2: "sofa", 3: "yak"}
CONFUSION = np.array([[6, 1, 0, 0, 1], [2, 5, 0, 0, 1], [0, 0, 0, 0, 0], [0, 4, 0, 0, 0]])
IOU = [6 / 10, 5 / 13, math.nan, 0]


@pytest.fixture
def card() -> Scorecard:
    return Scorecard(CONFUSION, NAMES, images=3, notes=("a note",))


def test_scores(card: Scorecard) -> None:
    np.testing.assert_allclose(card.iou, IOU)
    assert card.miou == pytest.approx((6 / 10 + 5 / 13 + 0) / 3)
    assert card.absent == ["sofa"]
    assert card.pixels == 20
    assert card.coverage == pytest.approx(18 / 20)


def test_classes_may_leave_gaps() -> None:
    assert Scorecard(CONFUSION, {0: "background", 1: "cat"}, images=1).absent == []


def test_nothing_scored() -> None:
    card = Scorecard(np.zeros((2, 3), np.int64), {0: "background", 1: "cat"}, images=1)
    assert math.isnan(card.miou)
    assert math.isnan(card.coverage)
    assert json.loads(card.to_json())["miou"] is None
    assert "-" in scores_table(card)


def test_json_is_strict_and_complete(card: Scorecard) -> None:
    content = json.loads(card.to_json(), parse_constant=pytest.fail)
    assert content["miou"] == card.miou
    assert content["coverage"] == card.coverage
    assert content["confusion"] == CONFUSION.tolist()
    assert content["absent"] == ["sofa"]
    assert content["notes"] == ["a note"]
    assert content["classes"][1] == {
        "index": 1,
        "name": "cat",
        "iou": 5 / 13,
        "precision": 5 / 10,
        "recall": 5 / 8,
        "fp": 5 / 13,
        "fn": 3 / 13,
        "truth_pixels": 8,
        "predicted_pixels": 10,
    }
    assert content["classes"][2]["iou"] is None


def test_table(card: Scorecard) -> None:
    lines = scores_table(card).splitlines()
    assert lines[0].split() == ["class", "IoU", "precision", "recall", "FP", "FN"]
    assert ["cat", "38.46", "50.00", "62.50", "38.46", "23.08"] in [line.split() for line in lines]
    assert ["yak", "0.00", "0.00", "0.00", "0.00", "100.00"] in [line.split() for line in lines]
    assert ["mIoU,", "means", "32.82", "41.67", "45.83", "19.49", "47.69"] in [line.split() for line in lines]
    assert ["coverage", "90.00"] in [line.split() for line in lines]
    assert "because they occur nowhere: sofa" in scores_table(card)
    assert lines[-1] == "a note"


def test_companions_become_columns_and_entries() -> None:
    sofa = np.zeros((4, 5), np.int64)
    sofa[0, 2] = 7
    card = Scorecard(CONFUSION, NAMES, 3, companions={"advice": Scorecard(sofa, NAMES, 3)})
    rows = [line.split() for line in scores_table(card, "knowledge").splitlines()]
    assert rows[0] == ["class", "knowledge", "advice"]
    assert ["sofa", "-", "0.00"] in rows
    assert ["cat", "38.46", "-"] in rows
    assert json.loads(card.to_json())["advice"]["miou"] == 0
    assert (
        "each mean is over the classes that occur in the ground truth or in its column: knowledge 3, advice 2"
        in scores_table(card, "knowledge")
    )


def test_boundaries_become_a_column_a_row_and_a_curve() -> None:
    counts = np.array([[3, 1, 0, 0], [4, 2, 0, 1], [5, 2, 0, 0]])
    trimap = np.stack([CONFUSION] * 6)
    card = Scorecard(CONFUSION, NAMES, 3, boundary=counts, trimap=trimap)
    rows = [line.split() for line in scores_table(card).splitlines()]
    assert rows[0][-1] == "boundary"
    assert next(row for row in rows if row[:1] == ["cat"])[-1] == "33.33"
    assert next(row for row in rows if row[:1] == ["mIoU,"])[-1] == "27.78"
    assert "bands around ground truth contours: 1 px 32.82, 2 px 32.82" in scores_table(card)
    content = json.loads(card.to_json(), parse_constant=pytest.fail)
    assert content["means"]["boundary_iou"] == pytest.approx((3 / 6 + 1 / 3 + 0) / 3)
    assert content["trimap"][5] == [32, pytest.approx(card.miou)]
    beside = Scorecard(CONFUSION, NAMES, 3, {"advice": card}, boundary=counts, trimap=trimap)
    assert ["mean", "boundary", "27.78", "27.78"] in [line.split() for line in scores_table(beside, "K").splitlines()]


def test_csv(card: Scorecard) -> None:
    beside = Scorecard(CONFUSION, NAMES, 3, {"advice": Scorecard(CONFUSION * 0, NAMES, 3)})
    rows = list(csv.DictReader(io.StringIO(scores_csv(beside, "mine"))))
    assert [row["what"] for row in rows] == ["mine"] * 5 + ["advice"] * 5
    assert float(rows[1]["iou"]) == 5 / 13
    assert rows[2]["name"] == "sofa"
    assert rows[2]["iou"] == ""
    assert (rows[4]["name"], rows[4]["index"], float(rows[4]["iou"])) == ("mean", "", card.miou)
    assert rows[9]["iou"] == ""
