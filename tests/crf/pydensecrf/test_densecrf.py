"""The drop-in against pydensecrf, call by call, and against mean field with dense kernels in double precision."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.crf.pydensecrf import densecrf as ours
from ssdd_lightning.crf.pydensecrf import utils
from ssdd_lightning.errors import InputError

HEIGHT, WIDTH, LABELS = 14, 19, 5
Draw = Callable[[ModuleType, Any], None]


@pytest.fixture
def theirs() -> ModuleType:
    return pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed (extra `pydensecrf`)")


def photo(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Patches of one colour with noise, H x W x 3 uint8."""
    generator = np.random.default_rng(seed)
    patches = np.kron(generator.random((height // 5 + 1, width // 5 + 1, 3)), np.ones((5, 5, 1)))[:height, :width]
    return (220 * patches + 30 * generator.random((height, width, 3))).astype(np.uint8)


def energies(labels: int = LABELS, variables: int = HEIGHT * WIDTH, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 1, (labels, variables)).astype(np.float32)


def potts(module: ModuleType, crf: Any) -> None:
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=8, srgb=13, rgbim=photo(), compat=10)


def widths_of_their_own(module: ModuleType, crf: Any) -> None:
    crf.addPairwiseGaussian((2, 5), 2.5)
    crf.addPairwiseBilateral((9, 4.5), (10, 20, 40), photo(), 4)


def diagonal(module: ModuleType, crf: Any) -> None:
    weights = np.array([-3, -1, 0, 2, -5], np.float32)
    crf.addPairwiseGaussian(3, weights)
    crf.addPairwiseBilateral(20, 13, photo(), 2 * weights)


def matrix(module: ModuleType, crf: Any) -> None:
    weights = np.random.default_rng(2).normal(0, 2, (LABELS, LABELS)).astype(np.float32)  # not symmetric
    crf.addPairwiseGaussian(3, weights)
    crf.addPairwiseBilateral(20, 13, photo(), weights - 3 * np.eye(LABELS, dtype=np.float32))


def one_kernel(module: ModuleType, crf: Any) -> None:
    crf.addPairwiseBilateral(20, 13, photo(), 7)


def three_kernels(module: ModuleType, crf: Any) -> None:
    potts(module, crf)
    crf.addPairwiseGaussian(40, 0.02, module.CONST_KERNEL, module.NO_NORMALIZATION)


def no_kernel(module: ModuleType, crf: Any) -> None:
    pass


CASES = [potts, widths_of_their_own, diagonal, matrix, one_kernel, three_kernels, no_kernel]


def built(module: ModuleType, draw: Draw) -> Any:
    crf = module.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(energies())
    draw(module, crf)
    return crf


def assert_same(mine: Any, other: Any, atol: float = 1e-5) -> None:
    mine, other = np.array(mine), np.array(other)
    assert mine.shape == other.shape
    assert mine.dtype == other.dtype
    assert np.abs(mine - other).max() < atol


@pytest.mark.parity
@pytest.mark.parametrize("draw", CASES)
def test_inference_equals_pydensecrf(draw: Draw, theirs: ModuleType) -> None:
    for iterations in (0, 1, 6):
        assert_same(built(ours, draw).inference(iterations), built(theirs, draw).inference(iterations))


@pytest.mark.parity
@pytest.mark.parametrize("kernel", ["CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL"])
@pytest.mark.parametrize(
    "normalization", ["NO_NORMALIZATION", "NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC"]
)
def test_every_normalisation_and_kernel_type_equals_pydensecrf(
    normalization: str, kernel: str, theirs: ModuleType
) -> None:
    weight = np.float32(0.05 if normalization == "NO_NORMALIZATION" else 2)

    def draw(module: ModuleType, crf: Any) -> None:
        chosen = {"kernel": getattr(module, kernel), "normalization": getattr(module, normalization)}
        crf.addPairwiseGaussian(sxy=2, compat=float(weight), **chosen)
        crf.addPairwiseBilateral(
            sxy=9, srgb=30, rgbim=photo(), compat=-weight * np.eye(LABELS, dtype=np.float32) - weight / 4, **chosen
        )

    assert_same(built(ours, draw).inference(5), built(theirs, draw).inference(5))


@pytest.mark.parity
@pytest.mark.parametrize("draw", [potts, matrix, three_kernels])
def test_steps_and_divergence_equal_pydensecrf(draw: Draw, theirs: ModuleType) -> None:
    runs = []
    for module in (ours, theirs):
        crf = built(module, draw)
        shares, first, second = crf.startInference()
        run = [(np.array(shares), crf.klDivergence(shares))]
        for _ in range(4):
            crf.stepInference(shares, first, second)
            run.append((np.array(shares), crf.klDivergence(shares)))
        runs.append(run)
    for (mine, divergence), (other, expected) in zip(*runs, strict=True):
        assert_same(mine, other)
        assert divergence == pytest.approx(expected, rel=1e-5, abs=1e-2)
    assert_same(runs[0][-1][0], built(ours, draw).inference(4), atol=1e-7)


@pytest.mark.parity
@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_any_features_equal_pydensecrf(dimensions: int, theirs: ModuleType) -> None:
    features = np.random.default_rng(dimensions).normal(0, 2, (dimensions, 203)).astype(np.float32)
    results = []
    for module in (ours, theirs):
        crf = module.DenseCRF(203, 3)
        crf.setUnaryEnergy(energies(3, 203))
        crf.addPairwiseEnergy(features, compat=4)
        crf.addPairwiseEnergy(-features[:2], compat=1, normalization=module.NORMALIZE_AFTER)
        results.append(crf.inference(5))
    assert_same(*results)


@pytest.mark.parity
def test_constants_equal_pydensecrf(theirs: ModuleType) -> None:
    for name in dir(ours):
        if name.isupper():
            assert int(getattr(ours, name)) == int(getattr(theirs, name)), name


@pytest.mark.parity
def test_extreme_energies_equal_pydensecrf(theirs: ModuleType) -> None:
    results = []
    for module in (ours, theirs):
        crf = module.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        unary = 60 * energies() - 100
        unary[0, :50] = np.inf
        crf.setUnaryEnergy(unary)
        potts(module, crf)
        results.append(crf.inference(5))
    assert_same(*results)


def dense_mean_field(
    unary: np.ndarray, kernels: list[tuple[np.ndarray, np.ndarray, str]], iterations: int
) -> np.ndarray:
    """Mean field with every pair of variables; a kernel is its features d x n, label energies C x C, normalisation."""
    applied = []
    for features, weights, normalization in kernels:
        apart = features[:, :, None].astype(np.float64) - features[:, None]
        near = np.exp(-0.5 * (apart**2).sum(0))
        ones = near.sum(1)
        before = {"symmetric": ones**-0.5, "before": ones**-1.0}.get(normalization, np.ones_like(ones))
        after = {"symmetric": ones**-0.5, "after": ones**-1.0}.get(normalization, np.ones_like(ones))
        applied.append((weights, before[:, None] * near * after))
    shares = np.exp(-unary.astype(np.float64))
    shares /= shares.sum(0)
    for _ in range(iterations):
        exponents = -unary - sum(weights @ (shares @ near) for weights, near in applied)
        shares = np.exp(exponents - exponents.max(0))
        shares /= shares.sum(0)
    return shares


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("kind", ["potts", "diagonal", "matrix"])
@pytest.mark.parametrize("normalization", ["symmetric", "before", "after"])
def test_is_near_mean_field_with_dense_kernels(normalization: str, kind: str, iterations: int) -> None:
    """The lattice is an approximation: 0.08 of probability at most on these, 0.008 in the mean."""
    image, unary = photo(), energies(3)
    constant = {
        "symmetric": ours.NORMALIZE_SYMMETRIC,
        "before": ours.NORMALIZE_BEFORE,
        "after": ours.NORMALIZE_AFTER,
    }[normalization]
    symmetric = np.array([[-2, 0.5, 0.0], [0.5, -1, 0.25], [0.0, 0.25, -1.5]])
    compat: Any = {"potts": 2.0, "diagonal": np.diag(symmetric), "matrix": symmetric}[kind]
    weights = {"potts": -2 * np.eye(3), "diagonal": np.diag(np.diag(symmetric)), "matrix": symmetric}[kind]
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, 3)
    crf.setUnaryEnergy(unary)
    crf.addPairwiseGaussian(4, compat, normalization=constant)
    crf.addPairwiseBilateral(12, 60, image, compat, normalization=constant)
    spatial = utils.create_pairwise_gaussian((4, 4), (HEIGHT, WIDTH))
    bilateral = utils.create_pairwise_bilateral((12, 12), 60, image, chdim=2)
    kernels = [(features, weights, normalization) for features in (spatial, bilateral)]
    expected = dense_mean_field(unary, kernels, iterations)
    error = np.abs(crf.inference(iterations) - expected)
    assert error.max() < 0.08
    assert error.mean() < 0.008


def test_divergence_by_hand() -> None:
    """Without pairwise potentials it is the divergence from the softmax of minus the unary energies."""
    crf = ours.DenseCRF(2, 2)
    crf.setUnaryEnergy(np.array([[0.0, 1.0], [1.0, 3.0]]))
    shares, _, _ = crf.startInference()
    partition = np.log(np.exp([0, -1]).sum()) + np.log(np.exp([-1, -3]).sum())
    assert crf.klDivergence(shares) == pytest.approx(-partition, abs=1e-6)
    half = np.full((2, 2), 0.5)
    assert crf.klDivergence(half) == pytest.approx(2 * np.log(0.5) + 2.5, abs=1e-6)


def test_results_are_arrays_that_can_be_changed() -> None:
    crf = built(ours, potts)
    shares, first, second = crf.startInference()
    assert isinstance(shares, np.ndarray)
    assert shares.dtype == np.float32
    shares[:] = 1 / LABELS
    crf.stepInference(shares, first, second)
    assert np.allclose(shares.sum(0), 1)
    assert not np.allclose(shares, 1 / LABELS)
    assert np.argmax(crf.inference(2), axis=0).shape == (HEIGHT * WIDTH,)


def test_takes_what_pydensecrf_refuses() -> None:
    """Other number types, orders and read-only arrays."""
    image, unary = photo(), energies()
    image.setflags(write=False)
    crf = ours.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(np.asfortranarray(unary.astype(np.float64)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    compat = [[-10.0 * (i == j) for j in range(5)] for i in range(5)]
    crf.addPairwiseBilateral(sxy=8, srgb=13, rgbim=image[:, ::-1][:, ::-1], compat=compat)
    assert_same(crf.inference(4), built(ours, potts).inference(4))


def test_energies_are_copied() -> None:
    unary, crf = energies(), ours.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(unary)
    before = crf.inference(0)
    unary[:] = 0
    assert (crf.inference(0) == before).all()


BAD: dict[str, Callable[[Any], Any]] = {
    "unary energies must be 5 x 266": lambda crf: crf.setUnaryEnergy(np.zeros((5, 265))),
    "unary energies must be numbers; found NaN": lambda crf: crf.setUnaryEnergy(np.full((5, 266), np.nan)),
    "logistic unaries .* not supported": lambda crf: crf.setUnaryEnergy(np.zeros((5, 2)), np.zeros((2, 266))),
    "rgbim must be 14 x 19 x 3 uint8": lambda crf: crf.addPairwiseBilateral(3, 3, photo(19, 14), 3),
    "create_pairwise_bilateral": lambda crf: crf.addPairwiseBilateral(3, 3, photo().astype(float), 3),
    "compat must be a number": lambda crf: crf.addPairwiseGaussian(3, np.ones(4)),
    "5 numbers or 5 x 5": lambda crf: crf.addPairwiseGaussian(3, np.ones((5, 5, 1))),
    "label compatibilities must be finite": lambda crf: crf.addPairwiseGaussian(3, float("inf")),
    "sxy must be one or 2 finite numbers": lambda crf: crf.addPairwiseGaussian((1, 2, 3), 3),
    "sxy must be .* above 0": lambda crf: crf.addPairwiseGaussian(0, 3),
    "srgb must be one or 3": lambda crf: crf.addPairwiseBilateral(3, (1, 2), photo(), 3),
    "unknown kernel type": lambda crf: crf.addPairwiseGaussian(3, 3, kernel=7),
    "or normalization 4": lambda crf: crf.addPairwiseGaussian(3, 3, normalization=4),
    "must be d x 266": lambda crf: crf.addPairwiseEnergy(np.zeros((2, 265)), 3),
    "do not fit in 64 bits": lambda crf: crf.addPairwiseEnergy(1e6 * np.random.default_rng(0).random((5, 266)), 3),
    "unary energies must be numbers; found 'none'": lambda crf: crf.setUnaryEnergy("none"),
    r"unary energies must be numbers; found \[\[1, 2\], \[3\]\]": lambda crf: crf.setUnaryEnergy([[1, 2], [3]]),
    "label compatibilities must be numbers; found 'potts'": lambda crf: crf.addPairwiseGaussian(3, "potts"),
    "features must be numbers; found 'xy'": lambda crf: crf.addPairwiseEnergy("xy", 3),
    "sxy must be one or 2 finite numbers above 0; found 'wide'": lambda crf: crf.addPairwiseGaussian("wide", 3),
    r"sxy must be one or 2 .*; found \[\[3, 3\]\]": lambda crf: crf.addPairwiseGaussian([[3, 3]], 3),
    "steps must be a whole number, 0 or more; found -1": lambda crf: crf.inference(-1),
    "steps must be a whole number, 0 or more; found 2.5": lambda crf: crf.inference(2.5),
    "Q must be numbers; found 'Q'": lambda crf: crf.klDivergence("Q"),
    "Q must be 5 x 266": lambda crf: crf.klDivergence(np.zeros((266, 5))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_gets_one_sentence(message: str) -> None:
    with pytest.raises(InputError, match=message):
        BAD[message](built(ours, no_kernel))


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        ("the width w must be a whole number, 1 or more; found 0", (0, 5, 2)),
        ("the width w must be a whole number, 1 or more; found -4", (-4, -3, 2)),
        ("the height h must be a whole number, 1 or more; found -3", (4, -3, 2)),
        ("the height h must be a whole number, 1 or more; found 2.5", (4, 2.5, 2)),
        ("the number of labels must be a whole number, 1 or more; found None", (4, 3, None)),
    ],
)
def test_a_crf_of_nothing_is_refused(message: str, numbers: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InputError, match=message):
        ours.DenseCRF2D(*numbers)
    with pytest.raises(InputError, match="the number of variables must be a whole number, 1 or more; found 'a'"):
        ours.DenseCRF("a", 2)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    assert ours.DenseCRF2D(np.int64(3), np.int32(2), np.uint8(2)).inference(np.int64(1)).shape == (2, 6)
