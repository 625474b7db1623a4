"""What the stages have in common in their settings, as values: each default stands here or in one stage."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch.optim import Optimizer

from ssdd_lightning.errors import InputError


def paper_sgd(parameters: Iterable[Any]) -> Optimizer:
    """SGD of the paper (5.1): momentum 0.9, weight decay 2e-4. The momentum is 0, in effect, in the authors' code."""
    return torch.optim.SGD(parameters, momentum=0.9, weight_decay=2e-4)


def psa_sgd(parameters: Iterable[Any]) -> Optimizer:
    """SGD of PSA's stages with a momentum of 0.9 and PSA's weight decay, 5e-4."""
    return torch.optim.SGD(parameters, momentum=0.9, weight_decay=5e-4)


@dataclass(frozen=True)
class Optimization:
    """How a stage's weights are learnt.

    Args:
        learning_rate: Of the backbone.
        new_learning_rate: Of all other layers.
        optimizer: Any optimizer of torch, by class_path in a YAML; its learning rates are the two above.
        lr_scheduler: "cosine" (SSDD: a ramp-down towards 1.2 times the length of the run, so that the rate never
            reaches 0) or "poly" (PSA: power 0.9), both step by step; or any scheduler of torch, by class_path, which
            counts epochs.
        double_bias_rate: Biases learn at twice the rate and without weight decay, as in PSA's code.
    """

    learning_rate: float = 1e-3
    new_learning_rate: float = 1e-2
    optimizer: OptimizerCallable = paper_sgd
    lr_scheduler: Literal["cosine", "poly"] | LRSchedulerCallable = "cosine"
    double_bias_rate: bool = False

    def optimizer_of(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer.

        Args:
            groups: Parameters with their own learning rates.

        Raises:
            InputError: The optimizer was given a rate of its own, which would not be used.
        """
        optimizer = self.optimizer(groups)
        usual = type(optimizer)([torch.nn.Parameter(torch.zeros(1))]).defaults.get("lr")
        if optimizer.defaults.get("lr") != usual:
            raise InputError(
                f"the optimizer was given the learning rate {optimizer.defaults['lr']}; expected the rates as "
                "learning_rate (of the backbone) and new_learning_rate (of all other layers) beside it."
            )
        return optimizer


@dataclass(frozen=True)
class TestProtocol:
    """How a segmentation network is tested, and how it predicts.

    Args:
        scales: Scales whose probabilities are averaged.
        flip: Average over the horizontal flip too.
        crf: Pass the average through the dense CRF, 10 iterations at image size.
    """

    __test__ = False  # no test of pytest's

    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    flip: bool = True
    crf: bool = True


PLAIN = TestProtocol((1.0,), flip=False, crf=False)
"""The network alone, at one scale."""


@dataclass(frozen=True)
class Losses:
    """How the losses are read where the paper and the authors' code differ.

    Args:
        per_class: L_seg is the mean within each class, then over classes (Eq. 8 as printed); false is the plain mean
            over pixels (authors' code), which leans to background while training is short.
        bad_sample_rule: An image takes no part in a difference loss if "any" (authors' code) or "all" (paper) of its
            classes failed (Eq. 16).
        exclude_bad_from_diff2: Leave bad samples out of L_diff2 of the dynamic stage as well (paper), not only out of
            L_diff1.
        balanced: Average difference and agreement pixels separately (authors' code) instead of the plain pixel mean
            (paper).
        average: Average the terms of the difference loss (authors' code) instead of adding them (paper).
    """

    per_class: bool = True
    bad_sample_rule: Literal["any", "all"] = "any"
    exclude_bad_from_diff2: bool = True
    balanced: bool = True
    average: bool = False


@dataclass(frozen=True)
class SubBranch:
    """What the sub branch of the dynamic stage learns from.

    Args:
        alpha: Share of m_D0 in its loss (Eq. 14).
        target: Its other label, "d1" (paper) or "d2" (authors' code).
        diff2_target: What it is compared with for d_D1, "d1" (paper) or "d2" (authors' code).
    """

    alpha: float = 0.5
    target: Literal["d1", "d2"] = "d1"
    diff2_target: Literal["d1", "d2"] = "d1"
