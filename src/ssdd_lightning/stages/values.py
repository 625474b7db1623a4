"""Settings that the stages share, as frozen values: each default is written here or in one stage."""

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch.optim import Optimizer

from ssdd_lightning.errors import InputError


@dataclass(frozen=True)
class Optimization:
    """How a stage's weights are learnt.

    Args:
        learning_rate: Of the backbone.
        new_learning_rate: Of all other layers.
        momentum: Of SGD, the paper's optimizer (0.9 in the authors' configuration, 0 in effect in their code).
        weight_decay: Of SGD.
        optimizer: In place of SGD any optimizer of torch, by class_path in a YAML. Its learning rates are the two
            above, everything else is given in its init_args.
        lr_scheduler: "cosine" (SSDD: a ramp-down towards 1.2 times the length of the run, so that the rate never
            reaches 0) or "poly" (PSA: power 0.9), both updated at each step; or any scheduler of torch, by
            class_path, updated once per epoch.
        double_bias_rate: Biases learn at twice the rate and without weight decay, as in PSA's code.
        layer_decay: Each layer of the backbone learns at this share of the rate of the next deeper one (BEiT, ICLR
            2022); the deepest at `learning_rate`. Layers are the blocks of a plain transformer or Hiera, the stages of
            other backbones. 1 is the same rate for all.
        weight_decay_exclude_1d: Normalisation, biases, position embeddings and tokens learn without weight decay, as
            in timm.

    Raises:
        InputError: The share is not above 0 and up to 1.
    """

    learning_rate: float = 1e-3
    new_learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 2e-4
    optimizer: OptimizerCallable | None = None
    lr_scheduler: Literal["cosine", "poly"] | LRSchedulerCallable = "cosine"
    double_bias_rate: bool = False
    layer_decay: float = 1.0
    weight_decay_exclude_1d: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"optimization.layer_decay: expected a share above 0, up to 1, found {self.layer_decay}.")

    def optimizer_of(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer.

        Args:
            groups: Parameters with their own learning rates.

        Raises:
            InputError: The optimizer was given a rate of its own, which would not be used.
        """
        if self.optimizer is None:
            return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay)
        optimizer = self.optimizer(groups)
        own = inspect.signature(type(optimizer)).parameters.get("lr")
        if own is not None and optimizer.defaults.get("lr") != own.default:
            raise InputError(
                f"the optimizer was given the learning rate {optimizer.defaults['lr']}; expected the rates as "
                "learning_rate (of the backbone) and new_learning_rate (of all other layers) beside it."
            )
        return optimizer


PSA = Optimization(1e-2, 1e-1, weight_decay=5e-4, lr_scheduler="poly")
"""PSA's schedule at a tenth of its rates, with momentum."""


@dataclass(frozen=True)
class TestProtocol:
    """How a segmentation network is tested, and how it predicts.

    Args:
        scales: Scales whose probabilities are averaged.
        flip: Also average over the horizontal flip.
        crf: Pass the average through the dense CRF, 10 iterations at image size.

    Raises:
        InputError: A scale is not above 0.
    """

    __test__ = False  # pytest should not collect it

    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    flip: bool = True
    crf: bool = True

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise InputError(f"scales must be numbers above 0, at least one; found {list(self.scales)}.")


PLAIN = TestProtocol((1.0,), flip=False, crf=False)
"""The network alone, at one scale."""


@dataclass(frozen=True)
class LabelRefinement:
    """How the dynamic stage refines the labels in every step, and what its sub branch learns from.

    Args:
        crf_iterations: Mean-field iterations of the CRF that makes A1 of K1.
        advice: What makes A1 of K1: "crf", the dense CRF (paper), or "par", pixel-adaptive refinement with its authors'
            ten iterations.
        prior: How much of the log of the classes' shares in the batch's m_D0 is added to the logits before K1, A1 and
            the sub branch's mask are taken from them. 1 undoes the weights that the mean within each class
            (`per_class_loss`) gives the classes, 0 is the paper's.
        train_ddnets: Whether the weights of the DD-Nets learn in this stage (paper). If not, they stay as the static
            stage left them (`static_checkpoint` is required), and a step is cheaper; normalisation goes on following
            the network's features.
        alpha: Share of m_D0, beside D1, in what the sub branch learns from (Eq. 14).
        crf_weight: Factor of both weights of the CRF that makes A1 (1 in the paper); without effect on "par". A network
            that was trained for a short time is unsure, and a CRF of full weight overrules what is unsure.

    Raises:
        InputError: crf_weight is negative or not finite, or alpha no share.
    """

    crf_iterations: int = 3
    advice: Literal["crf", "par"] = "crf"
    prior: float = 0.0
    train_ddnets: bool = True
    alpha: float = 0.5
    crf_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.crf_weight) and self.crf_weight >= 0):
            raise InputError(f"refinement.crf_weight: expected a finite number, 0 or more; found {self.crf_weight}.")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"refinement.alpha: expected a share, 0 to 1; found {self.alpha}.")
