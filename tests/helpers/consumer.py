"""A small project of somebody else; mypy finds nothing in it."""

from functools import partial
from pathlib import Path

from torch import Tensor

from ssdd_lightning import (
    SSDD,
    AffinityModule,
    AffinityNet,
    ClassificationModule,
    ClassificationNetwork,
    COCODataModule,
    DDNet,
    DenseCRF,
    DynamicRefinementModule,
    FolderDataModule,
    InputError,
    SegmentationModule,
    SegmentationNetwork,
    StaticRefinementModule,
    VOCDataModule,
    __version__,
)
from ssdd_lightning.crf import PRESETS, CRFOptions, dense_crf
from ssdd_lightning.functional import difference_target, ssdd_merge
from ssdd_lightning.nn import SegmentationLike, SSDDOutput
from ssdd_lightning.stages import Stage

STAGES: list[type[Stage]] = [
    AffinityModule,
    ClassificationModule,
    DynamicRefinementModule,
    SegmentationModule,
    StaticRefinementModule,
]


network: SegmentationLike = SegmentationNetwork(21, "resnet18")


class Mine(SegmentationModule):
    """A stage of one's own."""

    def merged(self, knowledge: Tensor, advice: Tensor, labels: Tensor) -> Tensor:
        target = difference_target(knowledge, advice)
        return ssdd_merge(knowledge, advice, target, 1 - target, labels)


def data(root: Path) -> VOCDataModule | COCODataModule | FolderDataModule:
    try:
        return VOCDataModule(root, knowledge=root / "masks", batch_size=4, eval_batch_size=2)
    except InputError as error:
        raise SystemExit(str(error) + __version__) from error


def stage(classes: int, crf: str = min(PRESETS)) -> Mine:
    return Mine(classes, partial(SegmentationNetwork, backbone="resnet18"), crf=CRFOptions(crf))


def refine(ddnet: DDNet, ssdd: SSDD, image: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    low, high, _ = network(image)
    advice = DenseCRF("psa")(image, scores, labels).argmax(1) + dense_crf(image, scores).argmax(1)
    output: SSDDOutput = ssdd(high, low, scores.argmax(1), advice, labels)
    features: Tensor = ddnet.image_features(high, low)
    return output.mask + features.sum().long()


others = ClassificationNetwork(21), AffinityNet()
