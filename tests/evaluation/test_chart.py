import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.evaluation.chart import COLOURS, write_chart
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.metrics.background import BackgroundCurves

NAMES = {0: "background", 1: "cat", 2: "a class with a name as long as a line"}
CONFUSION = np.array([[60, 10, 0, 0], [20, 50, 3, 0], [0, 0, 30, 1]])


def drawn(path, card):
    write_chart(path, card, "mine")
    with Image.open(path) as image:
        return np.array(image)


def share(picture, colour):
    return (picture == colour).all(axis=2).mean()


def test_bars_grow_with_the_iou(tmp_path):
    good = drawn(tmp_path / "a.png", Scorecard(np.diag([9, 9, 9, 9])[:3] * 5, NAMES, 1))
    bad = drawn(tmp_path / "b.png", Scorecard(CONFUSION, NAMES, 1))
    assert share(good, COLOURS[0]) > 1.2 * share(bad, COLOURS[0]) > 0
    assert share(good, COLOURS[1]) == 0


def test_companions_have_bars_of_their_own(tmp_path):
    card = Scorecard(CONFUSION, NAMES, 1, {"advice": Scorecard(CONFUSION, NAMES, 1)})
    picture = drawn(tmp_path / "a.png", card)
    assert share(picture, COLOURS[1]) > 0.01


@pytest.mark.parametrize("scale", [1, 0])
def test_curves_are_added_below(tmp_path, scale):
    plain = drawn(tmp_path / "a.png", Scorecard(CONFUSION * scale, NAMES, 1))
    counts = np.random.default_rng(0).integers(0, 9, (2, 3, 256)) * scale
    curves = BackgroundCurves(counts, counts[0].sum(axis=1))
    trimap = np.stack([CONFUSION * scale] * 6)
    full = drawn(tmp_path / "b.png", Scorecard(CONFUSION * scale, NAMES, 1, trimap=trimap, curves=curves))
    assert full.shape[0] > plain.shape[0] + 3 * 400
    if scale:
        assert share(full[plain.shape[0] + 200 :], COLOURS[0]) > 0.001
