import math
from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.functional.refinement import difference_target
from ssdd_lightning.metrics.difference import (
    BINS,
    Detection,
    agreement_counts,
    detection_counts,
    detection_shares,
    difference_histogram,
    difference_rates,
    entropy_sum,
)


def detection(seed: int, images: int = 3) -> Detection:
    generator = torch.Generator().manual_seed(seed)
    knowledge, advice, other, refined = (
        torch.randint(0, 4, (images, 9, 11), generator=generator).masked_fill(
            torch.rand(images, 9, 11, generator=generator) < 0.1, 255
        )
        for _ in range(4)
    )
    logits = [torch.randn(images, 1, 9, 11, generator=generator) for _ in range(2)]
    bad = torch.rand(images, generator=generator) < 0.5
    terms = [(logits[0], knowledge, other), (logits[1], other, advice)]
    return Detection(terms, knowledge, advice, refined, bad)


def test_rates_are_those_of_the_definition() -> None:
    """AUC as the share of pairs in the right order, the rest as plain means."""
    logits, mask, other = detection(0).terms[0]
    logits = 0.3 * logits
    target, valid = difference_target(mask, other).bool(), (mask != 255) & (other != 255)
    rates = difference_rates(difference_histogram(logits, target, valid))
    d = logits[:, 0].sigmoid()
    difference, agreement = d[valid & target].numpy(), d[valid & ~target].numpy()
    assert rates["accuracy_difference"] == pytest.approx((difference >= 0.5).mean())
    assert rates["accuracy_agreement"] == pytest.approx((agreement < 0.5).mean())
    assert rates["mean_difference"] == pytest.approx(difference.mean(), abs=0.5 / BINS)
    assert rates["mean_agreement"] == pytest.approx(agreement.mean(), abs=0.5 / BINS)
    auc = np.mean(difference[:, None] > agreement[None])
    assert rates["auc"] == pytest.approx(auc, abs=0.02)
    assert abs(auc - 0.5) > 1e-3


def test_a_perfect_map_and_an_empty_one() -> None:
    target = torch.tensor([[[1.0, 0.0]]])
    valid = target >= 0
    perfect = difference_rates(difference_histogram(torch.tensor([[[[99.0, -99.0]]]]), target, valid))
    assert perfect["auc"] == perfect["accuracy_difference"] == perfect["accuracy_agreement"] == 1
    reversed_ = difference_rates(difference_histogram(torch.tensor([[[[-99.0, 99.0]]]]), target, valid))
    assert reversed_["auc"] == reversed_["accuracy_difference"] == 0
    nothing = difference_rates(difference_histogram(torch.zeros(1, 1, 1, 2), target, ~valid))
    assert all(math.isnan(value) for value in nothing.values())


def test_counts_of_two_batches_add_up_to_those_of_both() -> None:
    one, two = detection(0), detection(1, images=5)

    def joined(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat([a, b])

    terms: Any = [tuple(map(joined, a, b)) for a, b in zip(one.terms, two.terms, strict=True)]
    both = Detection(terms, *(joined(a, b) for a, b in zip(one[1:], two[1:], strict=True)))
    assert torch.equal(detection_counts(one) + detection_counts(two), detection_counts(both))


def test_shares() -> None:
    found = detection(2)
    shares = detection_shares(detection_counts(found))
    valid = (found.knowledge != 255) & (found.advice != 255)
    differ = valid & (found.knowledge != found.advice)
    taken = differ & (found.refined == found.advice)
    assert (shares.images, shares.bad) == (3, int(found.bad.sum()))
    assert (shares.differences, shares.taken) == (int(differ.sum()), int(taken.sum()))
    assert shares.values["bad_samples"] == pytest.approx(float(found.bad.float().mean()))
    assert shares.values["advice_taken"] == pytest.approx(float(taken.sum() / differ.sum()))
    assert shares.values["differences"] == pytest.approx(float(differ.sum() / valid.sum()))
    lost = valid & (found.knowledge != 0) & (found.advice == 0)
    foreground = valid & (found.knowledge != 0)
    assert 0 < shares.values["advice_background"] < 1
    assert shares.values["advice_background"] == pytest.approx(float(lost.sum() / foreground.sum()))
    assert shares.values["d_K/auc"] != shares.values["d_A/auc"]


def test_logits_that_are_not_finite_count_somewhere() -> None:
    logits = torch.tensor([[[[float("nan"), float("inf"), float("-inf"), 0.0]]]])
    counts = difference_histogram(logits, torch.ones(1, 1, 4), torch.ones(1, 1, 4, dtype=torch.bool))
    assert counts.sum() == 4


def test_agreement_and_entropy() -> None:
    one, other = torch.tensor([[[0, 8, 8, 255]]]), torch.tensor([[[0, 8, 0, 8]]])
    assert agreement_counts(one, other).tolist() == [2, 3]
    logits = torch.randn(2, 5, 4, 4)
    valid = torch.rand(2, 4, 4) < 0.5
    wanted = torch.distributions.Categorical(logits=logits.movedim(1, -1)).entropy()[valid]
    assert entropy_sum(logits, valid).tolist() == pytest.approx([float(wanted.sum()), len(wanted)], rel=1e-5)
