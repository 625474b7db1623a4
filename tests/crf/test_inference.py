from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ssdd_lightning.crf.inference import dense_crf
from ssdd_lightning.crf.lattice_tensor import refine_tensor
from ssdd_lightning.crf.mean_field_cpu import refine_cpu
from ssdd_lightning.crf.settings import PRESETS, CRFSettings
from ssdd_lightning.errors import InputError


def photo_like(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth colours with noise, as a 3 x H x W uint8 image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(height // 8, 1), max(width // 8, 1), generator=generator)
    smooth = interpolate(coarse, (height, width), mode="bilinear")[0] * 230
    return (smooth + 25 * torch.rand(3, height, width, generator=generator)).to(torch.uint8)


def blobs(classes: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Probabilities with regions, C x H x W."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, max(height // 8, 1), max(width // 8, 1), generator=generator)
    return interpolate(3 * coarse, (height, width), mode="bilinear").softmax(1)[0]


def refine_both(
    images: list[torch.Tensor],
    probabilities: list[torch.Tensor],
    present: torch.Tensor | None = None,
    preset: str = "psa",
    iterations: int = 5,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The compiled and the tensor code on the same lists."""
    if present is None:
        present = torch.ones(len(images), len(probabilities[0]), dtype=torch.bool)
    arguments = (images, probabilities, present, PRESETS[preset], iterations)
    return refine_cpu(*arguments), refine_tensor(*arguments)


def oracle(image: torch.Tensor, probabilities: torch.Tensor, **options: Any) -> torch.Tensor:
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed (extra `pydensecrf`)")
    return dense_crf(image[None], probabilities[None], backend="pydensecrf", **options)[0]


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-4) -> None:
    assert (ours - theirs).abs().max() <= atol
    assert (ours.argmax(0) == theirs.argmax(0)).float().mean() >= 0.9999


@pytest.mark.parity
@pytest.mark.parametrize("iterations", [3, 10])
@pytest.mark.parametrize("classes", [2, 3, 5, 21])
def test_equals_pydensecrf(classes: int, iterations: int) -> None:
    image, scores = photo_like(112, 112, classes), blobs(classes, 112, 112, classes)
    theirs = oracle(image, scores, iterations=iterations)
    for ours in refine_both([image], [scores], iterations=iterations):
        assert_same(ours[0], theirs)


@pytest.mark.parity
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_equals_pydensecrf(preset: str) -> None:
    image, scores = photo_like(75, 101), blobs(4, 75, 101)
    theirs = oracle(image, scores, preset=preset)
    for ours in refine_both([image], [scores], preset=preset, iterations=10):
        assert_same(ours[0], theirs)


@pytest.mark.parity
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 7), (5, 1), (3, 5), (37, 53)])
def test_odd_sizes_and_dark_noise_equal_pydensecrf(size: tuple[int, int]) -> None:
    image = torch.randint(0, 9, (3, *size), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    scores = blobs(3, *size)
    for preset in ("psa", "deeplab"):
        theirs = oracle(image, scores, preset=preset)
        for ours in refine_both([image], [scores], preset=preset, iterations=10):
            assert_same(ours[0], theirs, 2e-6)


@pytest.mark.parity
@pytest.mark.parametrize(("seed", "brightest"), [(2, 40), (268, 10)])
def test_three_dark_pixels_equal_pydensecrf(seed: int, brightest: int) -> None:
    """Its padding to four pixels adds lattice points around black; without them the result is another."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, brightest, (3, 1, 3), generator=generator, dtype=torch.uint8)
    scores = torch.rand(3, 1, 3, generator=generator).softmax(0)
    theirs = oracle(image, scores, iterations=5)
    for ours in refine_both([image], [scores]):
        assert_same(ours[0], theirs, 1e-6)


@pytest.mark.parity
def test_noise_equals_pydensecrf() -> None:
    image = torch.randint(0, 256, (3, 90, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scores = torch.rand(5, 90, 70, generator=torch.Generator().manual_seed(1)).softmax(0)
    theirs = oracle(image, scores)
    for ours in refine_both([image], [scores], iterations=10):
        assert_same(ours[0], theirs)


@pytest.mark.parity
def test_absent_classes_equal_pydensecrf_on_the_present_ones_alone() -> None:
    image, scores = photo_like(40, 60), blobs(6, 40, 60)
    chosen = torch.tensor([0, 3, 4])
    theirs = oracle(image, scores[chosen])
    present = torch.zeros(1, 6, dtype=torch.bool)
    present[0, chosen] = True
    for ours in refine_both([image], [scores], present, iterations=10):
        assert_same(ours[0][chosen], theirs)
        assert ours[0][~present[0]].abs().max() == 0


@pytest.mark.parity
@pytest.mark.real
@pytest.mark.parametrize("size", [(112, 112), None])
def test_equals_pydensecrf_on_photos(voc_animals: Path, size: tuple[int, int] | None) -> None:
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed (extra `pydensecrf`)")
    from ssdd_lightning.storage.masks import read_image

    folder = voc_animals / "VOCdevkit/VOC2012/JPEGImages"
    for i, path in enumerate(sorted(folder.glob("*.jpg"))[: 12 if size else 3]):
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1)
        if size:
            image = interpolate(image[None].float(), size, mode="bilinear")[0].to(torch.uint8)
        scores = blobs(4, image.shape[1], image.shape[2], i)
        assert_same(dense_crf(image[None], scores[None])[0], oracle(image, scores))


def test_known_values() -> None:
    """Computed once by pydensecrf 1.1 (the fork pydensecrf2), so that they hold where it is not installed."""
    y, x = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    image = torch.stack([x * 30 + y, y * 40, (x + y) % 5 * 20]).to(torch.uint8)
    scores = torch.stack([1.0 + x, 2.0 + y, (x * y) % 4 + 1.0])
    scores = scores / scores.sum(0)
    expected = torch.tensor(KNOWN)
    for ours in refine_both([image], [scores], preset="mctformer", iterations=2):
        assert (ours[0][:, ::2, ::3] - expected).abs().max() < 1e-5


KNOWN = [
    [[0.041596, 0.894773, 0.978274], [0.007512, 0.319327, 0.889891], [0.003463, 0.068701, 0.575269]],
    [[0.942595, 0.097499, 0.018945], [0.989140, 0.648235, 0.105952], [0.994899, 0.927988, 0.419299]],
    [[0.015809, 0.007728, 0.002781], [0.003348, 0.032438, 0.004157], [0.001637, 0.003311, 0.005431]],
]


def test_a_kernel_by_hand() -> None:
    """Two equal pixels far from the lattice's error: one step of mean field is the softmax of Eq. 1's sum."""
    settings = CRFSettings(1e6, 3, 1e6, 1e6, 10)  # everything is near everything: both kernels are 1
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.8]])[:, None]
    image = torch.zeros(3, 1, 2, dtype=torch.uint8)
    ours = dense_crf(image[None], scores[None], iterations=1, settings=settings)[0]
    mean = scores.mean(2, keepdim=True)  # symmetric normalisation of a constant kernel
    expected = (scores.log() + 13 * mean).softmax(0)
    assert torch.allclose(ours, expected, atol=1e-4)


def test_labels_may_be_permuted() -> None:
    image, scores = photo_like(30, 50), blobs(7, 30, 50)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for ours, mixed in zip(refine_both([image], [scores]), refine_both([image], [scores[order]]), strict=True):
        assert torch.allclose(ours[0][order], mixed[0], atol=1e-6)


def test_single_label_is_certain() -> None:
    for ours in refine_both([photo_like(9, 11)], [torch.rand(1, 9, 11)]):
        assert torch.allclose(ours[0], torch.ones(1, 9, 11))


def test_uniform_scores_stay_uniform() -> None:
    for ours in refine_both([photo_like(20, 31)], [torch.full((4, 20, 31), 0.25)]):
        assert torch.allclose(ours[0], torch.full((4, 20, 31), 0.25), atol=1e-6)


def test_uniform_image_smooths_a_lone_pixel_away() -> None:
    scores = torch.full((2, 21, 21), 0.1)
    scores[0] = 0.9
    scores[:, 10, 10] = torch.tensor([0.3, 0.7])
    for ours in refine_both([torch.full((3, 21, 21), 128, dtype=torch.uint8)], [scores]):
        assert (ours[0].argmax(0) == 0).all()


def test_an_edge_of_the_image_keeps_two_regions_apart() -> None:
    image = torch.zeros(3, 24, 24, dtype=torch.uint8)
    image[:, :, 12:] = 220
    scores = torch.full((2, 24, 24), 0.5)
    scores[:, 2:22, 2:6] = torch.tensor([0.9, 0.1])[:, None, None]
    scores[:, 2:22, 18:22] = torch.tensor([0.1, 0.9])[:, None, None]
    for ours in refine_both([image], [scores], iterations=10):
        assert (ours[0].argmax(0)[:, :12] == 0).all()
        assert (ours[0].argmax(0)[:, 12:] == 1).all()


def test_probabilities_of_zero_and_one_are_clipped() -> None:
    scores = torch.zeros(3, 16, 16)
    scores[0, :8], scores[1, 8:] = 1, 1
    for ours in refine_both([photo_like(16, 16)], [scores]):
        assert torch.isfinite(ours[0]).all()
        assert torch.allclose(ours[0].sum(0), torch.ones(16, 16), atol=1e-6)


def test_no_iteration_gives_the_clipped_probabilities() -> None:
    scores = torch.tensor([0.0, 0.25, 0.75])[:, None, None].expand(3, 4, 5)
    clipped = scores.clamp_min(1e-5)
    for ours in refine_both([photo_like(4, 5)], [scores], iterations=0):
        assert torch.allclose(ours[0], clipped / clipped.sum(0), atol=1e-6)


def test_a_common_factor_changes_nothing() -> None:
    image, scores = photo_like(20, 20), blobs(3, 20, 20).clamp_min(0.01)
    for whole, half in zip(refine_both([image], [scores]), refine_both([image], [0.5 * scores]), strict=True):
        assert torch.allclose(whole[0], half[0], atol=1e-6)


def test_huge_weights_do_not_overflow() -> None:
    settings = CRFSettings(3, 1e4, 80, 13, 1e4)
    ours = dense_crf(photo_like(20, 20)[None], blobs(3, 20, 20)[None], settings=settings)
    assert torch.isfinite(ours).all()
    assert torch.allclose(ours.sum(1), torch.ones(1, 20, 20), atol=1e-5)


def test_zero_weights_switch_a_kernel_off() -> None:
    scores = blobs(3, 12, 12)
    ours = dense_crf(photo_like(12, 12)[None], scores[None], settings=CRFSettings(3, 0, 80, 13, 0))
    assert torch.allclose(ours[0], scores, atol=1e-5)


@pytest.mark.parametrize("classes", [1, 4, 5, 8, 9, 21, 81])
def test_compiled_and_tensor_code_agree(classes: int) -> None:
    sizes = [(31, 17), (20, 40), (31, 17)]
    images = [photo_like(*size, i) for i, size in enumerate(sizes)]
    scores = [blobs(classes, *size, i) for i, size in enumerate(sizes)]
    present = torch.rand(3, classes, generator=torch.Generator().manual_seed(0)) < 0.7
    present[:, 0] = True
    for a, b in zip(*refine_both(images, scores, present), strict=True):
        assert (a - b).abs().max() < 2e-5


def test_images_of_a_batch_do_not_mix() -> None:
    images = torch.stack([photo_like(24, 24, i) for i in range(3)])
    scores = torch.stack([blobs(3, 24, 24, i) for i in range(3)])
    whole = dense_crf(images, scores)
    for i in range(3):
        assert torch.equal(whole[i], dense_crf(images[i : i + 1], scores[i : i + 1])[0])
    together = refine_tensor(list(images), list(scores), torch.ones(3, 3, dtype=torch.bool), PRESETS["psa"], 10)
    assert (torch.stack(together) - whole).abs().max() < 2e-5


def test_lists_of_differing_sizes() -> None:
    sizes = [(12, 30), (25, 9)]
    images, scores = [photo_like(*s) for s in sizes], [blobs(2, *s) for s in sizes]
    refined = dense_crf(images, scores)
    assert isinstance(refined, list)
    for image, score, result in zip(images, scores, refined, strict=True):
        assert torch.equal(result, dense_crf(image[None], score[None])[0])


def test_is_deterministic_with_any_number_of_threads() -> None:
    images = torch.stack([photo_like(40, 40, i) for i in range(4)])
    scores = torch.stack([blobs(5, 40, 40, i) for i in range(4)])
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            results.append(dense_crf(images, scores))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_carries_no_gradient_and_leaves_its_input_alone() -> None:
    images = [photo_like(10, 10, i) for i in range(3)]
    scores = [blobs(3, 10, 10, i).requires_grad_() for i in range(3)]
    before = torch.stack(scores).detach().clone()
    for refined in (dense_crf(images, scores), dense_crf(torch.stack(images), torch.stack(scores))):
        assert not any(piece.requires_grad for piece in refined)
    assert torch.equal(torch.stack(scores).detach(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_float_and_strided_tensors(dtype: torch.dtype) -> None:
    image = photo_like(14, 18).permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as from an H x W x 3 array
    scores = blobs(3, 18, 14).transpose(1, 2)
    refined = dense_crf(image[None], scores[None].to(dtype))
    assert refined.dtype == torch.float32
    assert (refined - dense_crf(image[None], scores[None])).abs().max() < 0.05


def good() -> dict[str, Any]:
    return {"image": photo_like(4, 6)[None], "probabilities": blobs(3, 4, 6)[None]}


BAD: dict[str, dict[str, Any]] = {
    "image 0 must be 3 x H x W uint8": {"image": torch.zeros(1, 3, 4, 6)},
    "image 0 must be": {"image": torch.zeros(1, 4, 6, 3, dtype=torch.uint8)},
    "as many images as": {"image": torch.zeros(2, 3, 4, 6, dtype=torch.uint8)},
    "at least one": {
        "image": torch.zeros(0, 3, 4, 6, dtype=torch.uint8),
        "probabilities": torch.zeros(0, 3, 4, 6),
    },
    "their image's size": {"probabilities": torch.full((1, 3, 6, 4), 0.3)},
    "C x H x W floats": {"probabilities": torch.ones(1, 3, 4, 6, dtype=torch.long)},
    "in \\[0, 1\\] without NaN; found nan": {"probabilities": torch.full((1, 3, 4, 6), float("nan"))},
    "found 0 to 7": {"probabilities": torch.full((1, 3, 4, 6), 7.0).index_fill(1, torch.tensor([0]), 0.0)},
    "found -1": {"probabilities": torch.full((1, 3, 4, 6), -1.0)},
    "present classes must be 1 x 3 bool": {"present": torch.ones(1, 4, dtype=torch.bool)},
    "found \\(1, 3\\) torch.int64": {"present": torch.ones(1, 3, dtype=torch.long)},
    "at least one present class": {"present": torch.zeros(1, 3, dtype=torch.bool)},
    "iterations must be a whole number": {"iterations": -1},
    "found 2.5": {"iterations": 2.5},
    "unknown CRF preset 'voc'": {"preset": "voc"},
    "unknown CRF backend": {"backend": "cuda"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_sentence(message: str) -> None:
    with pytest.raises(InputError, match=message):
        dense_crf(**{**good(), **BAD[message]})


def test_one_nan_is_found() -> None:
    arguments = good()
    arguments["probabilities"][0, 1, 2, 3] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        dense_crf(**arguments)


def test_widths_too_small_for_the_keys_are_refused() -> None:
    settings = CRFSettings(3, 3, 1e-4, 1e-4, 10)
    present = torch.ones(1, 2, dtype=torch.bool)
    for refine in (refine_cpu, refine_tensor):
        with pytest.raises(InputError, match="larger widths"):
            refine([photo_like(50, 50)], [blobs(2, 50, 50)], present, settings, 1)


def test_missing_pydensecrf_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydensecrf.densecrf", None)
    with pytest.raises(InputError, match=r"pip install .*pydensecrf"):
        dense_crf(**good(), backend="pydensecrf")


def test_brute_force_gives_about_the_same() -> None:
    """The lattice approximates the Gaussians: the exact sum over all pairs agrees roughly, label by label."""
    image, scores, settings = photo_like(16, 16), blobs(3, 16, 16), PRESETS["psa"]
    place = torch.cartesian_prod(torch.arange(16.0), torch.arange(16.0))
    colour = image.flatten(1).T.float() / settings.bilateral_srgb
    near = torch.exp(-0.5 * torch.cdist(place, place).square() / settings.gaussian_sxy**2)
    wide = torch.exp(
        -0.5 * torch.cdist(place, place).square() / settings.bilateral_sxy**2
        - 0.5 * torch.cdist(colour, colour).square()
    )
    kernels = [(3, near), (10, wide)]
    unary = scores.flatten(1).T.log()
    refined = unary.softmax(1)
    for _ in range(3):
        pull = torch.zeros_like(refined)
        for compat, kernel in kernels:
            norm = kernel.sum(1).rsqrt()
            pull += compat * norm[:, None] * (kernel @ (norm[:, None] * refined))
        refined = (unary + pull).softmax(1)
    ours = dense_crf(image[None], scores[None], iterations=3)[0].flatten(1).T
    assert (ours.argmax(1) == refined.argmax(1)).float().mean() > 0.95
    assert np.abs(ours.numpy() - refined.numpy()).mean() < 0.05
