from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from ssdd_lightning.evaluation.chart import draw_chart, write_chart
from ssdd_lightning.evaluation.scorecard import Scorecard
from ssdd_lightning.metrics.background import BackgroundCurves
from tests.helpers.processes import python

NAMES = {0: "background", 1: "cat", 2: "a class with $a$ name that is as long as a line"}
CONFUSION = np.array([[60, 10, 0, 0], [20, 50, 3, 0], [0, 0, 30, 1]])


def lengths(bars: Iterable[Any]) -> list[float]:
    return [bar.get_width() for bar in bars]


def words(texts: Iterable[Text]) -> list[str]:
    return [text.get_text() for text in texts]


def test_bars_are_as_long_as_the_iou() -> None:
    card = Scorecard(CONFUSION, NAMES, 1)
    [axes] = draw_chart(card, "mine").axes
    [bars] = axes.containers
    assert lengths(bars) == pytest.approx([100 * card.miou, *(100 * card.iou)])
    assert words(axes.texts) == [f"{length:.2f}" for length in lengths(bars)]
    assert words(axes.get_yticklabels()) == ["mIoU", "background", "cat", "a class with $a$ name that is as long a…"]
    assert words(axes.get_legend().get_texts()) == ["mine"]
    assert axes.get_xlabel() == "IoU (%)"
    middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert middles == pytest.approx(list(axes.get_yticks()))


def test_companions_have_bars_of_their_own_beside_the_first_ones() -> None:
    lacking = np.array([[60, 0, 0, 0], [0, 0, 0, 0], [0, 0, 30, 1]])
    card = Scorecard(CONFUSION, NAMES, 1, {"advice": Scorecard(lacking, NAMES, 1)})
    [axes] = draw_chart(card, "mine").axes
    first, second = axes.containers
    assert lengths(second)[1:] == pytest.approx([100, 0, 100 * 30 / 31])
    assert words(axes.texts)[4:] == ["98.39", "100.00", "-", "96.77"]
    assert first[0].get_facecolor() != second[0].get_facecolor()
    for above, below in zip(first, second, strict=True):
        assert above.get_y() + above.get_height() <= below.get_y() + 1e-9
    assert words(axes.get_legend().get_texts()) == ["mine", "advice"]


def test_classes_that_no_card_shows_have_no_bars() -> None:
    confusion = np.array([[60, 10, 0, 0], [20, 50, 0, 0], [0, 0, 0, 0]])
    [axes] = draw_chart(Scorecard(confusion, NAMES, 1), "mine").axes
    assert words(axes.get_yticklabels()) == ["mIoU", "background", "cat"]


@pytest.mark.parametrize("scale", [1, 0])
def test_curves_are_added_below(tmp_path: Path, scale: int) -> None:
    counts = np.random.default_rng(0).integers(0, 9, (2, 3, 256)) * scale
    curves = BackgroundCurves(counts, counts[0].sum(axis=1))
    trimap = np.stack([CONFUSION * scale] * 6)
    card = Scorecard(CONFUSION * scale, NAMES, 1, trimap=trimap, curves=curves)
    _, *others = draw_chart(card, "mine").axes
    measured: list[dict[Any, float]] = [card.trimap_curve, curves.constant(), curves.alpha()]
    assert [axes.get_xscale() for axes in others] == ["log", "linear", "log"]
    for axes, curve in zip(others, measured, strict=True):
        [line] = axes.lines
        assert np.asarray(line.get_xdata()).tolist() == list(curve)
        np.testing.assert_allclose(np.asarray(line.get_ydata()), [100 * miou for miou in curve.values()])
        assert axes.get_ylabel() == "mIoU (%)"
    if scale:
        best = max(curves.constant(), key=curves.constant().get)
        assert words(others[1].get_legend().get_texts())[0].startswith(f"best: {best:g}, mIoU ")
        assert others[1].lines[0].get_markevery() == [list(curves.constant()).index(best)]
    write_chart(tmp_path / "new" / "a.png", card, "mine")
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.format == "PNG"
        assert image.size[1] > 4 * 400


def test_draws_without_pyplot_and_its_global_state(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, pathlib; from ssdd_lightning.evaluation import chart, scorecard;"
        "assert 'matplotlib' not in sys.modules;"
        f"card = scorecard.Scorecard(np.eye(2, 3, dtype=int), {{0: 'background', 1: 'cat'}}, 1);"
        f"chart.write_chart(pathlib.Path({str(tmp_path / 'a.png')!r}), card, 'mine');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert python(code).strip() == "False"
    assert (tmp_path / "a.png").is_file()
