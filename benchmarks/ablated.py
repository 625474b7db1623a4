"""SSDD modules that lack a part of the method, for the ablations of claims.py."""

from typing import Any

import torch
from torch import Tensor

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.functional.refinement import merge_bias
from ssdd_lightning.nn import SSDD
from ssdd_lightning.nn.ssdd import SSDDOutput


class RandomChoice(SSDD):
    """Takes the advice by the toss of a coin, at each pixel."""

    def forward(self, high: Tensor, low: Tensor, knowledge: Tensor, advice: Tensor, *rest: Any) -> SSDDOutput:
        """See `SSDD`."""
        made = super().forward(high, low, knowledge, advice, *rest)
        return made._replace(mask=chosen(torch.rand(knowledge.shape, device=knowledge.device) - 0.5, knowledge, advice))


class FixedThreshold(SSDD):
    """Compares d_K with a half instead of with each pixel's d_A (3.2)."""

    def forward(self, high: Tensor, low: Tensor, knowledge: Tensor, advice: Tensor, *rest: Any) -> SSDDOutput:
        """See `SSDD`."""
        made = super().forward(high, low, knowledge, advice, *rest)
        d_knowledge = made.knowledge_logits.detach().float().sigmoid()[:, 0]
        score = d_knowledge - 0.5 + merge_bias(knowledge, advice, made.failed, self.biases)
        return made._replace(mask=chosen(score, knowledge, advice))


class BadSamplesKept(SSDD):
    """Lets no class fail where training samples are chosen (Eq. 16); the merge protects failed classes as ever."""

    def forward(self, *inputs: Any) -> SSDDOutput:
        """See `SSDD`."""
        made = super().forward(*inputs)
        return made._replace(failed=torch.zeros_like(made.failed))


def chosen(score: Tensor, knowledge: Tensor, advice: Tensor) -> Tensor:
    """The advice where the score is at least 0, else the knowledge; 255 only where both are (B x H x W long)."""
    return torch.where(((score >= 0) & (advice != IGNORE)) | (knowledge == IGNORE), advice, knowledge)


class Frozen(SSDD):
    """Keeps the DD-Net that it starts from."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode: the statistics of normalisation are kept, too."""
        return super().train(False)
