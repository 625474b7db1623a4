from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index, multiclass_precision, multiclass_recall

from ssdd_lightning.errors import InputError
from ssdd_lightning.metrics.confusion import best_of_both, class_rates, confusion_matrix, intersection_over_union


def loops(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> list[list[int]]:
    """The definition, pixel by pixel, with no array arithmetic at all."""
    counts = [[0] * (num_classes + 1) for _ in range(num_classes)]
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if t != 255:
            counts[t][num_classes if p == 255 else p] += 1
    return counts


def random_mask(rng: np.random.Generator, num_classes: int, shape: tuple[int, int] = (31, 17)) -> np.ndarray:
    return rng.choice([*range(num_classes), 255], size=shape).astype(np.uint8)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 81, 255])
def test_counts_agree_with_the_definition(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    prediction, truth = random_mask(rng, num_classes), random_mask(rng, num_classes)
    assert confusion_matrix(prediction, truth, num_classes).tolist() == loops(prediction, truth, num_classes)


def test_hand_computed() -> None:
    truth = np.array([[0, 0, 1, 1], [1, 2, 255, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 255], [1, 0, 2, 255]], np.uint8)
    confusion = confusion_matrix(prediction, truth, 4)
    assert confusion.tolist() == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    # the 2 predicted on an ignored pixel is no error; class 3 is nowhere
    np.testing.assert_allclose(intersection_over_union(confusion), [1 / 3, 2 / 4, 0, np.nan])


def test_classes_that_only_the_prediction_shows_score_zero() -> None:
    confusion = confusion_matrix(np.array([[2, 0]], np.uint8), np.array([[0, 0]], np.uint8), 3)
    np.testing.assert_array_equal(intersection_over_union(confusion), [0.5, np.nan, 0])


@pytest.mark.parametrize(
    ("prediction", "truth", "sentence"),
    [
        (np.array([[3]], np.uint8), np.array([[0]], np.uint8), "prediction holds the value 3"),
        (np.array([[0]], np.uint8), np.array([[254]], np.uint8), "truth holds the value 254"),
        (np.array([[3]], np.uint8), np.array([[255]], np.uint8), "prediction holds the value 3"),
        (np.array([[0, 0]], np.uint8), np.array([[0], [0]], np.uint8), "shape"),
        (np.array([[0]], np.int64), np.array([[0]], np.uint8), "uint8"),
    ],
)
def test_refuses(prediction: np.ndarray, truth: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        confusion_matrix(prediction, truth, 3)


def test_best_of_both() -> None:
    truth = np.array([1, 1, 1, 1, 255], np.uint8)
    knowledge = np.array([1, 0, 2, 255, 2], np.uint8)
    advice = np.array([0, 1, 0, 2, 1], np.uint8)
    assert best_of_both(knowledge, advice, truth).tolist() == [1, 1, 2, 255, 2]


@pytest.mark.parity
@pytest.mark.parametrize("num_classes", [2, 21, 81])
def test_rates_agree_with_torchmetrics(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    truth = random_mask(rng, num_classes, (40, 50))
    prediction = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, num_classes, truth.shape))
    prediction = np.where(prediction == 255, 0, prediction).astype(np.uint8)  # torchmetrics refuses 255 in predictions
    rates = class_rates(confusion_matrix(prediction, truth, num_classes))
    pair = torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()
    options: dict[str, Any] = {"num_classes": num_classes, "average": "none", "ignore_index": 255}
    np.testing.assert_allclose(rates.iou, multiclass_jaccard_index(*pair, **options), rtol=1e-6)
    np.testing.assert_allclose(rates.precision, multiclass_precision(*pair, **options), rtol=1e-6)
    np.testing.assert_allclose(rates.recall, multiclass_recall(*pair, **options), rtol=1e-6)


def test_shares_of_false_pixels_are_mctformers() -> None:
    """From its three counts, pixel by pixel: P, T and TP over what the truth does not ignore."""
    rng = np.random.default_rng(0)
    prediction, truth = random_mask(rng, 5), random_mask(rng, 5)
    rates = class_rates(confusion_matrix(prediction, truth, 5))
    for label in range(5):
        scored = truth != 255
        p, t = ((mask == label)[scored].sum() for mask in (prediction, truth))
        tp = ((prediction == label) & (truth == label)).sum()
        assert rates.fp[label] == pytest.approx((p - tp) / (t + p - tp))
        assert rates.fn[label] == pytest.approx((t - tp) / (t + p - tp))
        assert rates.iou[label] + rates.fp[label] + rates.fn[label] == pytest.approx(1)


def test_undefined_rates() -> None:
    rates = class_rates(confusion_matrix(np.array([[0, 1]], np.uint8), np.array([[0, 2]], np.uint8), 4))
    assert rates.precision[:3].tolist() == [1, 0, 0]
    assert rates.recall[:3].tolist() == [1, 0, 0]
    assert all(np.isnan(values[3]) for values in rates)
