from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from ssdd_lightning.errors import InputError
from ssdd_lightning.metrics.confusion import confusion_matrix, intersection_over_union
from ssdd_lightning.metrics.iou import SegmentationIoU


def random_masks(seed: int, num_classes: int, missing: Collection[int] = ()) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = [value for value in [*range(num_classes), 255] if value not in missing]
    return rng.choice(values, size=(3, 2, 19, 11)).astype(np.uint8)


def update(metric: SegmentationIoU, predictions: np.ndarray, truths: np.ndarray) -> None:
    for prediction, truth in zip(predictions, truths, strict=True):
        metric.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())


@pytest.mark.parity
@pytest.mark.parametrize("num_classes", [2, 7, 21])
def test_agrees_with_the_independent_counting(num_classes: int) -> None:
    missing = {num_classes - 1} if num_classes > 2 else set()
    prediction, truth = random_masks(1, num_classes, missing), random_masks(2, num_classes, missing)
    metric = SegmentationIoU(num_classes)
    update(metric, prediction, truth)
    expected = intersection_over_union(confusion_matrix(prediction, truth, num_classes))
    scores = metric.compute()
    np.testing.assert_allclose(scores["iou"], expected, rtol=1e-6)
    assert float(scores["miou"]) == pytest.approx(np.nanmean(expected))


@pytest.mark.parity
def test_agrees_with_sets_of_pixels() -> None:
    prediction, truth = random_masks(3, 5), random_masks(4, 5)
    pairs = [(p, t) for p, t in zip(prediction.ravel(), truth.ravel(), strict=True) if t != 255]
    ious = []
    for label in range(5):
        both = sum(1 for p, t in pairs if p == label and t == label)
        either = sum(1 for p, t in pairs if p == label or t == label)
        ious.append(both / either)
    metric = SegmentationIoU(5)
    update(metric, prediction, truth)
    assert float(metric.compute()["miou"]) == pytest.approx(sum(ious) / 5)


def test_reset_and_nothing_counted() -> None:
    metric = SegmentationIoU(3)
    update(metric, random_masks(1, 3), random_masks(2, 3))
    metric.reset()
    metric.update(torch.zeros(1, 2, 2).long(), torch.full((1, 2, 2), 255))
    assert metric.compute()["miou"].isnan()


@pytest.mark.parametrize(("prediction", "truth"), [(3, 0), (0, 3), (-1, 0)])
def test_refuses_unknown_values(prediction: int, truth: int) -> None:
    metric = SegmentationIoU(3)
    with pytest.raises(InputError, match=r"expected 0\.\.2 or 255"):
        metric.update(torch.full((1, 2, 2), prediction), torch.full((1, 2, 2), truth))


def test_refuses_another_shape() -> None:
    with pytest.raises(InputError, match="truth is"):
        SegmentationIoU(3).update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 3).long())


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    metric = SegmentationIoU(4)
    update(metric, random_masks(1, 4)[rank::2], random_masks(2, 4)[rank::2])
    np.save(folder / f"{rank}.npy", metric.compute()["iou"])
    torch.distributed.destroy_process_group()


def test_sums_over_processes(tmp_path: Path) -> None:
    # forked, because importing torch twice over would take longer than everything else here
    start_processes(one_of_two, (tmp_path,), nprocs=2, start_method="fork")
    expected = intersection_over_union(confusion_matrix(random_masks(1, 4), random_masks(2, 4), 4))
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), expected, rtol=1e-6)
