"""SSDD modules and dynamic stages that lack a part of the method, or add one, for the ablations of claims.py."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssdd_lightning import DynamicRefinementModule
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.refinement import MergeBiases, bad_samples, ssdd_merge
from ssdd_lightning.functional.totals import over_processes
from ssdd_lightning.nn import SSDD
from ssdd_lightning.nn.ssdd import SSDDOutput, resize_logits, resize_mask
from ssdd_lightning.stages.base import Batch
from ssdd_lightning.stages.dynamic import Refinement, log_shares


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


class AveragedKnowledge(DynamicRefinementModule):
    """K1 is what an average of the network's weights says, without dropout.

    Checkpoints do not hold the average, so a fit that was interrupted must start again.
    """

    decay = 0.99
    """Share of the average that a step keeps."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `DynamicRefinementModule`."""
        size = self.mask_size(batch["image"])
        with torch.no_grad():
            weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
            if not hasattr(self, "average"):
                if self.global_step:
                    raise InputError("the average of the weights is not in the checkpoint; delete it and fit again")
                self.average = {name: weight.clone() for name, weight in weights.items()}
            for name, weight in weights.items():
                self.average[name].lerp_(weight, 1 - self.decay)
            self.network.eval()
            *_, logits = functional_call(self.network, self.average, (batch["image"],))
            self.network.train()
            shares = log_shares(resize_mask(self.guide(batch, "knowledge"), size), logits.shape[1], over_processes)
            self.averaged = resize_logits(logits, size) + self.refinement.prior * shares
        return super().training_step(batch, batch_idx)

    def knowledge_and_advice(self, logits: Tensor, image: Tensor, image_labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `DynamicRefinementModule`."""
        return super().knowledge_and_advice(self.averaged if self.training else logits, image, image_labels)


class RampedBias(DynamicRefinementModule):
    """b_dd grows from -1, where the knowledge is kept, to its value within the first half of the steps."""

    def setup(self, stage: str) -> None:
        """See `LightningModule`."""
        super().setup(stage)
        self._last = self.ssdd1.biases.dd_bias

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `DynamicRefinementModule`."""
        grown = min(1.0, 2 * self.trainer.global_step / self.trainer.estimated_stepping_batches)
        for module in (self.ssdd1, self.ssdd2):
            module.biases = replace(module.biases, dd_bias=(1 + self._last) * grown - 1)
        return super().training_step(batch, batch_idx)


class GuardedKnowledge(DynamicRefinementModule):
    """D1 is K1 in a batch of which more than half are bad samples."""

    def setup(self, stage: str) -> None:
        """See `LightningModule`."""
        super().setup(stage)
        self.ssdd1.register_forward_hook(self.guard)

    @staticmethod
    def guard(module: nn.Module, inputs: tuple[Tensor, ...], made: SSDDOutput) -> SSDDOutput:
        """Keep the knowledge, or what was merged."""
        return made._replace(mask=inputs[2]) if bad_samples(made.failed).float().mean() > 0.5 else made
