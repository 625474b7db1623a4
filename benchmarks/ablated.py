"""SSDD modules and dynamic stages that lack a part of the method, for the ablations of claims.py."""

from typing import Any

import torch
from torch import Tensor

from ssdd_lightning import DynamicRefinementModule
from ssdd_lightning.functional.refinement import MergeBiases, ssdd_merge
from ssdd_lightning.nn import SSDD
from ssdd_lightning.nn.ssdd import SSDDOutput
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.dynamic import Refinement


class RandomChoice(SSDD):
    """Takes the advice by the toss of a coin, at each pixel."""

    def forward(self, high: Tensor, low: Tensor, *masks: Any) -> SSDDOutput:
        """See `SSDD`."""
        made, (knowledge, advice, labels) = super().forward(high, low, *masks), masks[:3]
        coin = torch.rand(knowledge.shape, device=knowledge.device)
        half = torch.full_like(coin, 0.5)
        return made._replace(mask=ssdd_merge(knowledge, advice, coin, half, labels, MergeBiases(0.0, 0.0), made.failed))


class FixedThreshold(SSDD):
    """Compares d_K with a half instead of with each pixel's d_A (3.2)."""

    def forward(self, high: Tensor, low: Tensor, *masks: Any) -> SSDDOutput:
        """See `SSDD`."""
        made, (knowledge, advice, labels) = super().forward(high, low, *masks), masks[:3]
        d_knowledge = made.knowledge_logits.detach().float().sigmoid()[:, 0]
        half = torch.full_like(d_knowledge, 0.5)
        return made._replace(mask=ssdd_merge(knowledge, advice, d_knowledge, half, labels, self.biases, made.failed))


class BadSamplesKept(SSDD):
    """Lets no class fail where training samples are chosen (Eq. 16); the merge protects failed classes as ever."""

    def forward(self, *inputs: Any) -> SSDDOutput:
        """See `SSDD`."""
        made = super().forward(*inputs)
        return made._replace(failed=torch.zeros_like(made.failed))


class FirstModuleAlone(DynamicRefinementModule):
    """Learns from D1: the second module learns as ever, and nothing listens to it."""

    def refine(self, batch: Batch) -> Refinement:
        """See `DynamicRefinementModule`."""
        made = super().refine(batch)
        return made._replace(second=made.second._replace(mask=made.first.mask))


class SecondModuleStays(DynamicRefinementModule):
    """The second module's DD-Net stays as the static stage left it; the first one learns."""

    def setup(self, stage: str) -> None:
        """See `LightningModule`."""
        super().setup(stage)
        self.ssdd2.requires_grad_(False)
