import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ssdd_lightning.data.classes import VOC_CLASSES
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.storage.masks import read_mask, write_mask

PHOTOS = os.environ.get("SSDD_VOC_ANIMALS")


@pytest.mark.real
@pytest.mark.parity
@pytest.mark.skipif(not PHOTOS, reason="SSDD_VOC_ANIMALS does not name a folder with real photos")
def test_agrees_with_torchmetrics_on_real_masks(tmp_path):
    truth = Path(PHOTOS) / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    names = sorted(path.stem for path in truth.glob("*.png"))[:60]
    judge = MulticlassJaccardIndex(len(VOC_CLASSES), average="none", ignore_index=255)
    for name in names:
        true = read_mask(truth / f"{name}.png")
        shifted = np.roll(true, (9, -14), axis=(0, 1))
        shifted[shifted == 255] = 0  # torchmetrics takes no 255 in a prediction
        write_mask(tmp_path / f"{name}.png", shifted)
        judge.update(torch.from_numpy(shifted).long()[None], torch.from_numpy(true).long()[None])
    card = evaluate_folders(tmp_path, truth, names, progress=False)
    present = [index for index, name in enumerate(VOC_CLASSES) if name not in card.absent]
    assert len(present) >= 3
    np.testing.assert_allclose(card.iou[present], judge.compute()[present], rtol=1e-6)
    assert card.coverage == 1
