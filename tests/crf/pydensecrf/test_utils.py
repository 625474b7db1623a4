from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.crf.pydensecrf import utils as ours
from ssdd_lightning.errors import InputError

PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(4), (5, 6)).transpose(2, 0, 1).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, (5, 6))
GREY = np.random.default_rng(2).integers(0, 256, (5, 6))
VOLUME = np.random.default_rng(3).random((2, 4, 5, 6))

CALLS: dict[str, tuple[Any, ...]] = {
    "softmax": ("unary_from_softmax", PROBABILITIES),
    "scaled softmax": ("unary_from_softmax", PROBABILITIES, 0.7),
    "softmax clipped at 0.3": ("unary_from_softmax", PROBABILITIES, None, 0.3),
    "certain labels": ("unary_from_labels", LABELS, 4, 0.7, False),
    "unsure labels": ("unary_from_labels", LABELS, 3, 0.6),
    "gaussian": ("create_pairwise_gaussian", (2, 3), (5, 6)),
    "gaussian in three dimensions": ("create_pairwise_gaussian", (2, 3, 1.5), (4, 5, 6)),
    "bilateral": ("create_pairwise_bilateral", (2, 3), (13,), GREY),
    "bilateral, one width": ("create_pairwise_bilateral", (2, 3), 13, GREY),
    "bilateral of channels first": ("create_pairwise_bilateral", (2, 3, 4), (0.1, 0.2), VOLUME, 0),
    "bilateral of channels in the middle": ("create_pairwise_bilateral", (2, 3, 4), (1, 2, 3, 4), VOLUME, 1),
    "old name for softmax": ("softmax_to_unary", PROBABILITIES, 0.8),
    "old name for labels": ("compute_unary", LABELS, 3),
}


@pytest.mark.parity
@pytest.mark.parametrize("call", CALLS)
def test_equals_pydensecrf(call: str) -> None:
    theirs: ModuleType = pytest.importorskip("pydensecrf.utils", reason="pydensecrf is not installed")
    name, *arguments = CALLS[call]
    mine, other = getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments)
    assert mine.shape == other.shape
    assert mine.dtype == other.dtype == np.float32
    assert np.allclose(mine, other, rtol=1e-6, atol=1e-6)


def test_softmax_by_hand() -> None:
    unary = ours.unary_from_softmax(np.array([[[0.25, 1.0]], [[0.75, 0.0]]]))
    assert np.allclose(unary, [[-np.log(0.25), 0], [-np.log(0.75), -np.log(1e-5)]])


def test_labels_by_hand() -> None:
    unary = ours.unary_from_labels(np.array([[0, 2]]), 3, 0.6, zero_unsure=False)
    assert np.allclose(np.exp(-unary), [[0.6, 0.2], [0.2, 0.2], [0.2, 0.6]])


def test_features_by_hand() -> None:
    image = np.arange(12).reshape(2, 2, 3)
    features = ours.create_pairwise_bilateral((1, 2), (1, 2, 4), image, chdim=2)
    assert np.allclose(features[:2], np.array([[0, 0, 1, 1], [0, 0.5, 0, 0.5]]))
    assert np.allclose(features[2:, 3], np.array([9, 5, 11 / 4]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ours.unary_from_softmax(PROBABILITIES, scale=1.5), "scale must be above 0 and at most 1; found 1.5"),
        (lambda: ours.unary_from_labels(LABELS, 4, 1.0), r"gt_prob must be in \(0, 1\); found 1.0"),
        (lambda: ours.unary_from_labels(LABELS, 2, 0.5), "labels must be below 3; found 3"),
        (lambda: ours.unary_from_labels(LABELS, 3, 0.5, zero_unsure=False), "labels must be below 3; found 3"),
    ],
)
def test_bad_input_gets_one_sentence(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
