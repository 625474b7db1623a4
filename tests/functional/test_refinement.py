from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import (
    MergeBiases,
    bad_samples,
    difference_target,
    failed_classes,
    merge_bias,
    present_argmax,
    ssdd_merge,
    valid_pixels,
)
from ssdd_lightning.functional.refinement import class_counts

CLASSES = 4


def row(*values: int) -> torch.Tensor:
    """One image of one row: 1 x 1 x W."""
    return torch.tensor([[values]])


def labels(*present: int) -> torch.Tensor:
    return torch.tensor([present], dtype=torch.bool)


def random_case(
    seed: int, images: int = 3, height: int = 6, width: int = 7
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two masks that often agree, with 255s in both, image labels and difference maps in float64."""
    draw = torch.Generator().manual_seed(seed)
    shape = (images, height, width)
    knowledge = torch.randint(0, CLASSES, shape, generator=draw)
    other = torch.randint(0, CLASSES, shape, generator=draw)
    advice = torch.where(torch.rand(shape, generator=draw) < 0.5, knowledge, other)
    # one class nearly vanishes from the advice, another one from the knowledge
    advice[0][advice[0] == 1] = 0
    knowledge[1][knowledge[1] == 2] = 0
    for mask in (knowledge, advice):
        mask[torch.rand(shape, generator=draw) < 0.15] = 255
    present = torch.rand(images, CLASSES, generator=draw) < 0.7
    present[:, 0] = True
    d_knowledge, d_advice = torch.rand(2, *shape, generator=draw, dtype=torch.float64)
    return knowledge, advice, d_knowledge, d_advice, present


def failed_by_loops(knowledge: torch.Tensor, advice: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Eq. 16 in plain Python."""
    failed = torch.zeros_like(present)
    for b in range(len(present)):
        pairs = [
            (k, a)
            for k, a in zip(knowledge[b].flatten().tolist(), advice[b].flatten().tolist(), strict=True)
            if 255 not in (k, a)
        ]
        for c in range(1, present.shape[1]):
            before, after = sum(k == c for k, _ in pairs), sum(a == c for _, a in pairs)
            failed[b, c] = bool(present[b, c]) and after / max(before, 1) < 0.5
    return failed


def bias_by_loops(
    knowledge: torch.Tensor, advice: torch.Tensor, failed: torch.Tensor, dd: float, klass: float, background: float
) -> torch.Tensor:
    """Eq. 17 in plain Python, float64."""
    bias = torch.empty(knowledge.shape, dtype=torch.float64)
    for place in torch.cartesian_prod(*map(torch.arange, knowledge.shape)).tolist():
        b, y, x = place
        k, a = int(knowledge[b, y, x]), int(advice[b, y, x])
        value = dd
        value -= klass if k != 255 and failed[b, k] else 0
        value += klass if a != 255 and failed[b, a] else 0
        value += background * ((a == 0) - (k == 0))
        bias[b, y, x] = value
    return bias


def merge_by_loops(
    knowledge: torch.Tensor, advice: torch.Tensor, d_knowledge: torch.Tensor, d_advice: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Eq. 3 and 4 with the rules for 255, in plain Python, float64."""
    merged = torch.empty_like(knowledge)
    for b, y, x in torch.cartesian_prod(*map(torch.arange, knowledge.shape)).tolist():
        place = (b, y, x)
        k, a = int(knowledge[place]), int(advice[place])
        if k == 255:
            merged[place] = a
        elif a == 255:
            merged[place] = k
        else:
            merged[place] = a if float(d_knowledge[place] - d_advice[place] + bias[place]) >= 0 else k
    return merged


def test_present_argmax_knows_only_background_and_the_images_own_classes() -> None:
    scores = torch.tensor([0.2, 0.9, 0.3, 0.4]).view(1, 4, 1, 1).repeat(3, 1, 1, 1)
    present = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    assert present_argmax(scores, present).flatten().tolist() == [1, 2, 0]


def test_present_argmax_takes_negative_logits() -> None:
    scores = torch.tensor([-9.0, -1.0, -5.0]).view(1, 3, 1, 1)
    assert present_argmax(scores, labels(1, 0, 1)).item() == 2


def test_difference_target_is_one_where_labelled_masks_differ() -> None:
    knowledge = row(0, 1, 1, 2, 255, 1, 255)
    advice = row(0, 1, 2, 0, 1, 255, 255)
    target = difference_target(knowledge, advice)
    assert target.dtype == torch.float32
    assert target.tolist() == [[[0, 0, 1, 1, 0, 0, 0]]]
    assert valid_pixels(knowledge, advice).tolist() == [[[True] * 4 + [False] * 3]]


@pytest.mark.parametrize(("kept", "fails"), [(0, True), (1, True), (2, False), (3, False), (4, False)])
def test_a_class_fails_that_keeps_less_than_half_of_its_pixels(kept: int, fails: bool) -> None:
    knowledge = row(1, 1, 1, 1)
    advice = row(*[1] * kept, *[0] * (4 - kept))
    assert failed_classes(knowledge, advice, labels(1, 1)).tolist() == [[False, fails]]


def test_failure_on_hand_counted_cases() -> None:
    # class 1: 4 -> 1 pixels, fails; class 2: 0 -> 1, does not; class 3: in neither mask, fails;
    # class 4: 1 -> 0 but not a class of the image; background 3 -> 6 of 8 never fails
    knowledge = row(1, 1, 1, 1, 0, 0, 0, 4)
    advice = row(1, 0, 0, 0, 0, 0, 2, 0)
    assert failed_classes(knowledge, advice, labels(1, 1, 1, 1, 0)).tolist() == [[False, True, False, True, False]]
    vanishing_background = failed_classes(row(0, 0, 0), row(1, 1, 1), labels(1, 1))
    assert vanishing_background.tolist() == [[False, False]]


def test_failure_counts_only_pixels_labelled_in_both_masks() -> None:
    # 4 -> 1 pixels would fail; the two pixels under 255 do not count: 2 -> 1
    assert failed_classes(row(1, 1, 1, 1), row(1, 0, 255, 255), labels(1, 1)).tolist() == [[False, False]]
    # the advice's pixels under 255 do not rescue the class: 3 -> 1
    assert failed_classes(row(1, 1, 1, 255, 255), row(1, 0, 0, 1, 1), labels(1, 1)).tolist() == [[False, True]]


def test_failure_ratio_is_an_argument() -> None:
    knowledge, advice = row(1, 1, 1, 1), row(1, 0, 0, 0)
    assert not failed_classes(knowledge, advice, labels(1, 1), ratio=0.25)[0, 1]
    assert failed_classes(knowledge, advice, labels(1, 1), ratio=0.26)[0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_failure_equals_plain_loops(seed: int) -> None:
    knowledge, advice, _, _, present = random_case(seed)
    expected = failed_by_loops(knowledge, advice, present)
    assert torch.equal(failed_classes(knowledge, advice, present), expected)


def test_class_counts_leave_invalid_pixels_out() -> None:
    counts = class_counts(row(0, 1, 1, 2, 255), row(1, 1, 0, 1, 0).bool(), 3)
    assert counts.tolist() == [[1, 1, 1]]


def test_one_failed_class_makes_an_image_a_bad_sample() -> None:
    failed = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)
    assert bad_samples(failed).tolist() == [True, False, True]


def test_bias_on_a_hand_computed_case() -> None:
    # class 1 failed. K, A -> 0.4 - [K failed] + [A failed] - 0.1 [K = 0] + 0.1 [A = 0]
    knowledge = row(1, 1, 0, 0, 2, 1, 255, 1, 0)
    advice = row(1, 0, 0, 2, 1, 2, 1, 255, 255)
    failed = labels(0, 1, 0)
    expected = [0.4, -0.5, 0.4, 0.3, 1.4, -0.6, 1.4, -0.6, 0.3]
    bias = merge_bias(knowledge, advice, failed, MergeBiases(0.4, 1.0, 0.1))
    torch.testing.assert_close(bias, torch.tensor([[expected]]))


def test_bias_defaults_are_those_of_training() -> None:
    bias = merge_bias(row(1, 0, 0), row(0, 1, 2), labels(0, 1, 0))
    torch.testing.assert_close(bias, torch.tensor([[[-0.6, 1.4, 0.4]]]))


@pytest.mark.parametrize("seed", range(4))
def test_bias_equals_plain_loops(seed: int) -> None:
    knowledge, advice, _, _, present = random_case(seed)
    failed = failed_by_loops(knowledge, advice, present)
    expected = bias_by_loops(knowledge, advice, failed, 0.3, 0.7, 0.2)
    torch.testing.assert_close(merge_bias(knowledge, advice, failed, MergeBiases(0.3, 0.7, 0.2)).double(), expected)


def test_merge_on_a_hand_computed_case() -> None:
    # no class fails: 1 goes 2 -> 3, 2 goes 3 -> 2. w = d_K - d_A + 0.25
    knowledge, advice = row(1, 2, 1, 2, 2), row(1, 1, 2, 1, 2)
    d_knowledge = torch.tensor([[[0.0, 0.5, 0.25, 0.125, 0.0]]])
    d_advice = torch.tensor([[[1.0, 0.5, 0.75, 0.375, 1.0]]])
    # w = -0.75, 0.25 (advice), -0.25 (knowledge), 0 (a tie goes to the advice), -0.75
    merged = ssdd_merge(knowledge, advice, d_knowledge, d_advice, labels(1, 1, 1), MergeBiases(0.25))
    assert merged.dtype == torch.int64
    assert merged.tolist() == [[[1, 1, 1, 1, 2]]]


def test_merge_protects_a_class_that_vanishes() -> None:
    # class 1 goes 4 -> 1 pixels and fails: w = 0.5 - 0.2 + 0.4 - 1 < 0 keeps it; without b_class it is erased
    knowledge, advice = row(1, 1, 1, 1), row(1, 0, 0, 0)
    d_knowledge, d_advice = torch.full((1, 1, 4), 0.5), torch.full((1, 1, 4), 0.2)
    arguments = (knowledge, advice, d_knowledge, d_advice, labels(1, 1))
    assert torch.equal(ssdd_merge(*arguments), knowledge)
    assert torch.equal(ssdd_merge(*arguments, MergeBiases(class_bias=0.0)), advice)


def test_merge_background_bias_leans_towards_background() -> None:
    knowledge, advice = row(0, 1, 1, 1), row(1, 1, 1, 0)
    d = torch.zeros(1, 1, 4)
    merged = ssdd_merge(knowledge, advice, d, d, labels(1, 1), MergeBiases(0.0, background_bias=0.1))
    assert merged.tolist() == [[[0, 1, 1, 0]]]


def test_merge_rules_for_ignored_pixels() -> None:
    # one 255: the other mask's label, whatever the difference maps say; two: 255
    knowledge, advice = row(255, 255, 255, 1, 0, 2), row(1, 0, 255, 255, 255, 255)
    for d_knowledge, d_advice in [(0.0, 1.0), (1.0, 0.0)]:
        maps = (torch.full((1, 1, 6), d_knowledge), torch.full((1, 1, 6), d_advice))
        merged = ssdd_merge(knowledge, advice, *maps, labels(1, 1, 1))
        assert merged.tolist() == [[[1, 0, 255, 1, 0, 2]]]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("biases", [(0.4, 1.0, 0.0), (0.1, 1.0, 0.1), (-0.3, 0.5, 0.2)])
def test_merge_equals_plain_loops(seed: int, biases: tuple[float, float, float]) -> None:
    knowledge, advice, d_knowledge, d_advice, present = random_case(seed)
    bias = bias_by_loops(knowledge, advice, failed_by_loops(knowledge, advice, present), *biases)
    expected = merge_by_loops(knowledge, advice, d_knowledge, d_advice, bias)
    merged = ssdd_merge(knowledge, advice, d_knowledge, d_advice, present, MergeBiases(*biases))
    assert torch.equal(merged, expected)
    assert not torch.equal(merged, knowledge)
    assert not torch.equal(merged, advice)


def test_merge_does_not_change_its_inputs() -> None:
    case = random_case(0)
    copies = [t.clone() for t in case]
    ssdd_merge(*case)
    assert all(torch.equal(a, b) for a, b in zip(case, copies, strict=True))


@pytest.mark.parametrize("function", [difference_target, lambda k, a: failed_classes(k, a, labels(1, 1))])
def test_masks_of_two_sizes_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="one size"):
        function(torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 2, 2, dtype=torch.long))


def test_masks_without_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="B x H x W"):
        difference_target(torch.zeros(4, 4, dtype=torch.long), torch.zeros(4, 4, dtype=torch.long))


@pytest.mark.parametrize("wrong", range(4))
def test_merge_refuses_tensors_of_two_sizes(wrong: int) -> None:
    mask, d = torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4)
    knowledge, advice, d_knowledge, d_advice = (
        tensor[None] if number == wrong else tensor for number, tensor in enumerate((mask, mask, d, d))
    )  # 1 x 1 x 4 x 4, as a network yields it
    with pytest.raises(InputError, match="one size"):
        ssdd_merge(knowledge, advice, d_knowledge, d_advice, labels(1, 1))


def test_the_merge_protects_a_class_by_the_given_ratio() -> None:
    knowledge = torch.tensor([[[1, 1, 1, 1]]])
    advice = torch.tensor([[[1, 1, 0, 0]]])  # half of the class is kept
    labels = torch.tensor([[True, True]])
    zeros = torch.zeros(1, 1, 4)
    assert ssdd_merge(knowledge, advice, zeros, zeros, labels).tolist() == advice.tolist()
    assert (
        ssdd_merge(knowledge, advice, zeros, zeros, labels, MergeBiases(failed_ratio=0.6)).tolist()
        == knowledge.tolist()
    )
