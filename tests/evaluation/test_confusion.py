import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.confusion import best_of_both, confusion_matrix, intersection_over_union


def loops(prediction, truth, num_classes):
    """The definition, pixel by pixel, with no array arithmetic at all."""
    counts = [[0] * (num_classes + 1) for _ in range(num_classes)]
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if t != 255:
            counts[t][num_classes if p == 255 else p] += 1
    return counts


def random_mask(rng, num_classes, shape=(31, 17)):
    return rng.choice([*range(num_classes), 255], size=shape).astype(np.uint8)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 81, 255])
def test_counts_agree_with_the_definition(num_classes):
    rng = np.random.default_rng(num_classes)
    prediction, truth = random_mask(rng, num_classes), random_mask(rng, num_classes)
    assert confusion_matrix(prediction, truth, num_classes).tolist() == loops(prediction, truth, num_classes)


def test_hand_computed():
    truth = np.array([[0, 0, 1, 1], [1, 2, 255, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 255], [1, 0, 2, 255]], np.uint8)
    confusion = confusion_matrix(prediction, truth, 4)
    assert confusion.tolist() == [[1, 1, 0, 0, 0], [0, 2, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    # the 2 predicted on an ignored pixel is no error; class 3 is nowhere
    np.testing.assert_allclose(intersection_over_union(confusion), [1 / 3, 2 / 4, 0, np.nan])


def test_classes_that_only_the_prediction_shows_score_zero():
    confusion = confusion_matrix(np.uint8([[2, 0]]), np.uint8([[0, 0]]), 3)
    np.testing.assert_array_equal(intersection_over_union(confusion), [0.5, np.nan, 0])


@pytest.mark.parametrize(
    ("prediction", "truth", "sentence"),
    [
        (np.uint8([[3]]), np.uint8([[0]]), "prediction holds the value 3"),
        (np.uint8([[0]]), np.uint8([[254]]), "truth holds the value 254"),
        (np.uint8([[3]]), np.uint8([[255]]), "prediction holds the value 3"),
        (np.uint8([[0, 0]]), np.uint8([[0], [0]]), "shape"),
        (np.int64([[0]]), np.uint8([[0]]), "uint8"),
    ],
)
def test_refuses(prediction, truth, sentence):
    with pytest.raises(InputError, match=sentence):
        confusion_matrix(prediction, truth, 3)


def test_best_of_both():
    truth = np.uint8([1, 1, 1, 1, 255])
    knowledge = np.uint8([1, 0, 2, 255, 2])
    advice = np.uint8([0, 1, 0, 2, 1])
    assert best_of_both(knowledge, advice, truth).tolist() == [1, 1, 2, 255, 2]
