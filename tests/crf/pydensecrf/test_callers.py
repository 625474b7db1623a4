"""Code as the field writes it, in its usual forms, runs after a change of its imports alone, to the same result."""

from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.crf import dense_crf

PSA = """
def crf_inference(img, probs, t=10, scale_factor=1, labels=21):
    import pydensecrf.densecrf as dcrf
    from pydensecrf.utils import unary_from_softmax

    h, w = img.shape[:2]
    crf = dcrf.DenseCRF2D(w, h, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probs)))
    crf.addPairwiseGaussian(sxy=3 / scale_factor, compat=3)
    crf.addPairwiseBilateral(sxy=80 / scale_factor, srgb=13, rgbim=np.copy(img), compat=10)
    q = crf.inference(t)
    return np.array(q).reshape((labels, h, w))
"""
IRN = """
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import unary_from_labels

def crf_inference_label(img, labels, t=10, n_labels=21, gt_prob=0.7):
    h, w = img.shape[:2]
    crf = dcrf.DenseCRF2D(w, h, n_labels)
    crf.setUnaryEnergy(unary_from_labels(labels, n_labels, gt_prob=gt_prob, zero_unsure=False))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(np.copy(img)), compat=10)
    return np.argmax(np.array(crf.inference(t)).reshape((n_labels, h, w)), axis=0)
"""
SEAM = """
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import unary_from_softmax

def crf_inference(img, probs, t=3, labels=21):
    h, w = img.shape[:2]
    crf = dcrf.DenseCRF2D(w, h, labels)
    crf.setUnaryEnergy(unary_from_softmax(probs))
    fixed = dict(kernel=dcrf.DIAG_KERNEL, normalization=dcrf.NORMALIZE_SYMMETRIC)
    crf.addPairwiseGaussian(sxy=(3, 3), compat=3, **fixed)
    crf.addPairwiseBilateral(sxy=(80, 80), srgb=(13, 13, 13), rgbim=img.astype(np.uint8), compat=10, **fixed)
    return np.array(crf.inference(t), dtype=np.float32).reshape(labels, h, w)
"""
DEEPLAB = """
import pydensecrf.densecrf as dcrf
import pydensecrf.utils as utils

class DenseCRF:
    def __init__(self, iter_max, pos_w, pos_xy_std, bi_w, bi_xy_std, bi_rgb_std):
        self.iter_max, self.pos_w, self.pos_xy_std = iter_max, pos_w, pos_xy_std
        self.bi_w, self.bi_xy_std, self.bi_rgb_std = bi_w, bi_xy_std, bi_rgb_std

    def __call__(self, image, probmap):
        c, h, w = probmap.shape
        crf = dcrf.DenseCRF2D(w, h, c)
        crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(probmap)))
        crf.addPairwiseGaussian(sxy=self.pos_xy_std, compat=self.pos_w)
        crf.addPairwiseBilateral(
            sxy=self.bi_xy_std, srgb=self.bi_rgb_std, rgbim=np.ascontiguousarray(image), compat=self.bi_w
        )
        return np.array(crf.inference(self.iter_max)).reshape((c, h, w))
"""
STEPS = """
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import create_pairwise_bilateral, create_pairwise_gaussian, unary_from_softmax

def refine_grey(image, probs, rounds=4):
    crf = dcrf.DenseCRF(image.size, len(probs))
    crf.setUnaryEnergy(unary_from_softmax(probs))
    crf.addPairwiseEnergy(create_pairwise_gaussian(sdims=(2, 2), shape=image.shape), compat=3)
    features = create_pairwise_bilateral(sdims=(4, 4), schan=(20,), img=image)
    crf.addPairwiseEnergy(features, compat=5, kernel=dcrf.FULL_KERNEL, normalization=dcrf.NORMALIZE_AFTER)
    Q, tmp1, tmp2 = crf.startInference()
    falls = [crf.klDivergence(Q)]
    for _ in range(rounds):
        crf.stepInference(Q, tmp1, tmp2)
        falls.append(crf.klDivergence(Q))
    assert falls[-1] < falls[0]
    return np.array(Q).reshape(len(probs), *image.shape)
"""


def run(source: str, package: str, name: str, *arguments: Any) -> np.ndarray:
    """Call a function of the source with its imports from this package."""
    space: dict[str, Any] = {"np": np}
    exec(
        source.replace("import pydensecrf.", f"import {package}.").replace("from pydensecrf.", f"from {package}."),
        space,
    )
    found = space[name]
    return found(*arguments) if source is not DEEPLAB else found(10, 3, 1, 4, 67, 3)(*arguments)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """An image and probabilities of four labels."""
    generator = np.random.default_rng(0)
    image = np.kron(generator.random((4, 5, 3)), np.ones((6, 6, 1))) * 220 + 30 * generator.random((24, 30, 3))
    scores = np.kron(generator.normal(0, 2, (4, 6, 6)), np.ones((1, 4, 5))) + generator.normal(0, 0.5, (4, 24, 30))
    shares = np.exp(scores)
    return image.astype(np.uint8), (shares / shares.sum(0)).astype(np.float32)


IMAGE, PROBABILITIES = scene()
CALLERS: dict[str, tuple[Any, ...]] = {
    "PSA": (PSA, "crf_inference", IMAGE, PROBABILITIES, 10, 1, 4),
    "PSA at a quarter": (PSA, "crf_inference", IMAGE, PROBABILITIES, 10, 4.0, 4),
    "IRN": (IRN, "crf_inference_label", IMAGE, PROBABILITIES.argmax(0), 10, 4),
    "SEAM": (SEAM, "crf_inference", IMAGE, PROBABILITIES, 3, 4),
    "DeepLab-PyTorch": (DEEPLAB, "DenseCRF", IMAGE, PROBABILITIES),
    "a grey image, step by step": (STEPS, "refine_grey", IMAGE[..., 0], PROBABILITIES),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_runs_after_a_change_of_the_imports(caller: str) -> None:
    source, name, *arguments = CALLERS[caller]
    mine = run(source, "ssdd_lightning.crf.pydensecrf", name, *arguments)
    assert mine.shape[-2:] == arguments[0].shape[:2]
    if mine.dtype == np.float32:
        assert np.allclose(mine.sum(0), 1, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("caller", CALLERS)
def test_the_result_is_that_of_pydensecrf(caller: str) -> None:
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed (extra `pydensecrf`)")
    source, name, *arguments = CALLERS[caller]
    mine, other = (
        run(source, package, name, *arguments) for package in ("ssdd_lightning.crf.pydensecrf", "pydensecrf")
    )
    if mine.dtype == np.float32:
        assert np.abs(mine - other).max() < 1e-5
    else:
        assert (mine == other).all()


def test_psa_through_the_drop_in_is_the_preset_psa() -> None:
    mine = run(PSA, "ssdd_lightning.crf.pydensecrf", "crf_inference", IMAGE, PROBABILITIES, 10, 1, 4)
    expected = dense_crf(torch.from_numpy(IMAGE).permute(2, 0, 1)[None], torch.from_numpy(PROBABILITIES)[None])[0]
    assert np.abs(mine - expected.numpy()).max() < 1e-5
