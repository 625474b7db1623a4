"""What the SSDD modules do while they train, as counts that add up over steps and processes."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from ssdd_lightning.functional.refinement import difference_target, valid_pixels

BINS = 200
"""Bins of the values of a difference map; even, so that 1/2 lies between two of them."""
_HEAD = 7
"""Counts of a module that are no histogram."""
SIDES = ("d_K", "d_A")
"""The difference maps of an SSDD module, in the order of its terms."""


class Detection(NamedTuple):
    """What one SSDD module did with a batch; masks are B x H x W long, 255 = ignore.

    Attributes:
        terms: For d_K and for d_A the logits B x 1 x H x W, and the two masks whose difference is their target.
        knowledge: What was merged.
        advice: What it was merged with.
        refined: The merged mask.
        bad: B bool, the bad samples (Eq. 16), which the difference loss leaves out.

    Example:
        >>> knowledge, advice = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]])
        >>> terms = [(torch.zeros(1, 1, 1, 3), knowledge, advice)] * 2
        >>> detection = Detection(terms, knowledge, advice, refined=advice, bad=torch.tensor([False]))
        >>> detection_shares(detection_counts(detection)).values["advice_taken"]
        1.0
    """

    terms: Sequence[tuple[Tensor, Tensor, Tensor]]
    knowledge: Tensor
    advice: Tensor
    refined: Tensor
    bad: Tensor


class Watched(NamedTuple):
    """What a training step leaves to be watched.

    Attributes:
        modules: Name of each SSDD module (ssdd0, ssdd1, ssdd2) -> what it did.
        masks: D0, D1 and D2 -> B x H x W long, 255 = ignore; of each two the agreement is watched.
        logits: B x C x h x w float of the segmentation network.

    Example:
        >>> Watched(masks={"D0": torch.tensor([[[0, 8]]])}).logits is None
        True
    """

    modules: Mapping[str, Detection] = MappingProxyType({})
    masks: Mapping[str, Tensor] = MappingProxyType({})
    logits: Tensor | None = None


class DetectionShares(NamedTuple):
    """What the pooled counts of a module say; a share of nothing is NaN.

    Attributes:
        images: How many images there were.
        bad: How many of them were bad samples.
        differences: How many pixels differ between knowledge and advice.
        taken: At how many of them the advice was taken.
        values: Name -> number in [0, 1]: `bad_samples`, `advice_taken`, `differences` (share of the pixels that have a
            label in both masks), `advice_background` (share of the pixels that are not background in the knowledge
            where the advice says background), and for d_K and d_A those of `difference_rates`.

    Example:
        >>> DetectionShares(images=4, bad=1, differences=0, taken=0, values={"bad_samples": 0.25}).bad
        1
    """

    images: int
    bad: int
    differences: int
    taken: int
    values: dict[str, float]


def difference_histogram(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Count the values of a difference map, agreement and difference pixels apart.

    Args:
        logits: B x 1 x H x W float, before the sigmoid.
        target: B x H x W float or bool, 1 where the masks differ.
        valid: B x H x W bool, pixels to count.

    Returns:
        2 * BINS long: agreement pixels, then difference pixels.

    Example:
        >>> counts = difference_histogram(torch.zeros(1, 1, 1, 2), torch.tensor([[[0, 1]]]), torch.ones(1, 1, 2) > 0)
        >>> counts.nonzero()[:, 0]  # d is 1/2 at both pixels
        tensor([100, 300])
    """
    level = (logits.detach().float().sigmoid().flatten() * BINS).long().clamp(0, BINS - 1)
    index = level + BINS * target.flatten().long()
    counts = torch.zeros(2 * BINS, dtype=torch.long, device=logits.device)
    return counts.scatter_add_(0, index, valid.flatten().long())


def difference_rates(histogram: Tensor) -> dict[str, float]:
    """How well a difference map tells difference from agreement pixels.

    Args:
        histogram: 2 * BINS, see `difference_histogram`.

    Returns:
        `accuracy_difference` and `accuracy_agreement`, the shares of these pixels on the right side of 1/2; `auc`, the
        share of pairs of them in the right order (pairs in one bin count half); `mean_difference` and
        `mean_agreement`, the map's means there, up to half a bin. NaN where there are no such pixels.

    Example:
        >>> logits = torch.tensor([[[[3.0, 1.0, -1.0, -3.0]]]])
        >>> target = torch.tensor([[[1, 0, 1, 0]]])
        >>> rates = difference_rates(difference_histogram(logits, target, valid=target >= 0))
        >>> rates["accuracy_difference"], rates["accuracy_agreement"], rates["auc"]
        (0.5, 0.5, 0.75)
    """
    agreement, difference = histogram.double().view(2, BINS)
    centres = (torch.arange(BINS, dtype=torch.double) + 0.5) / BINS
    right = {
        "accuracy_difference": (difference[BINS // 2 :].sum(), difference.sum()),
        "accuracy_agreement": (agreement[: BINS // 2].sum(), agreement.sum()),
        "mean_difference": ((difference * centres).sum(), difference.sum()),
        "mean_agreement": ((agreement * centres).sum(), agreement.sum()),
    }
    shares = {name: float(part / whole) for name, (part, whole) in right.items()}
    return {**shares, "auc": area_under_roc(agreement, difference)}


def area_under_roc(negative: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve from the histograms of two groups.

    Args:
        negative: n numbers, how many of the group that should be ranked low are in each bin.
        positive: The same of the group that should be ranked high.

    Returns:
        Share of pairs in the right order, those in one bin counted half; NaN if a group is empty.

    Example:
        >>> area_under_roc(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 1]))
        0.875
    """
    negative, positive = negative.double(), positive.double()
    below = negative.cumsum(0) - negative / 2
    return float((positive * below).sum() / (negative.sum() * positive.sum()))


def detection_counts(detection: Detection) -> Tensor:
    """Count what a module did with a batch.

    Returns:
        1-D long, for `detection_shares`; add them up over steps and processes. Nothing waits for the device.

    Example:
        >>> knowledge, advice = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]])
        >>> terms = [(torch.zeros(1, 1, 1, 3), knowledge, advice)] * 2
        >>> detection_counts(Detection(terms, knowledge, advice, advice, torch.tensor([True])))[:7]
        tensor([1, 1, 2, 1, 1, 1, 1])
    """
    _, knowledge, advice, refined, bad = detection
    valid, differ = valid_pixels(knowledge, advice), difference_target(knowledge, advice).bool()
    foreground = valid & (knowledge != 0)
    shown = [valid, differ, differ & (refined == advice), foreground, foreground & (advice == 0)]
    sizes = [torch.ones_like(bad), bad, *shown]
    head = torch.stack([size.sum() for size in sizes])
    histograms = [
        difference_histogram(logits, difference_target(mask, other), valid_pixels(mask, other))
        for logits, mask, other in detection.terms
    ]
    return torch.cat([head, *histograms])


def detection_shares(counts: Tensor) -> DetectionShares:
    """Work out the shares.

    Args:
        counts: Sum of `detection_counts`, on the CPU.

    Example:
        >>> head = torch.tensor([4, 1, 100, 20, 5, 50, 10])  # images, bad, pixels, differences, taken, foreground, lost
        >>> shares = detection_shares(torch.cat([head, torch.zeros(4 * BINS)]))
        >>> shares.values["bad_samples"], shares.values["advice_taken"], shares.values["differences"]
        (0.25, 0.25, 0.2)
    """
    images, bad, pixels, differ, taken, foreground, lost = counts[:_HEAD].tolist()
    nan = float("nan")
    values = {
        "bad_samples": bad / images if images else nan,
        "advice_taken": taken / differ if differ else nan,
        "differences": differ / pixels if pixels else nan,
        "advice_background": lost / foreground if foreground else nan,
    }
    for side, histogram in zip(SIDES, counts[_HEAD:].view(len(SIDES), 2 * BINS), strict=True):
        values |= {f"{side}/{name}": value for name, value in difference_rates(histogram).items()}
    return DetectionShares(int(images), int(bad), int(differ), int(taken), values)


def agreement_counts(one: Tensor, other: Tensor) -> Tensor:
    """Count the pixels where two masks agree, and those where both have a label.

    Args:
        one: B x H x W long, 255 = ignore.
        other: B x H x W long, 255 = ignore.

    Returns:
        2 long.

    Example:
        >>> agreement_counts(torch.tensor([[[0, 8, 8, 255]]]), torch.tensor([[[0, 8, 0, 8]]]))
        tensor([2, 3])
    """
    valid = valid_pixels(one, other)
    return torch.stack([(valid & (one == other)).sum(), valid.sum()])


def entropy_sum(logits: Tensor, valid: Tensor) -> Tensor:
    """Add up the entropy of a network's class probabilities.

    Args:
        logits: B x C x H x W float.
        valid: B x H x W bool, pixels to use.

    Returns:
        2 floats: the sum in nats, and the number of pixels.

    Example:
        >>> entropy_sum(torch.zeros(1, 2, 1, 2), torch.tensor([[[True, False]]]))  # log 2
        tensor([0.6931, 1.0000])
    """
    logs = logits.detach().float().log_softmax(1)
    entropy = -(logs.exp() * logs).sum(1)
    return torch.stack([(entropy * valid).sum(), valid.sum().float()])
