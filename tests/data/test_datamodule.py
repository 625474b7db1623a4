"""The shared half of the data modules, on a dataset that is not VOC: names and classes of its own."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import seed_everything

from ssdd_lightning.data import datamodule, sampling
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.dataset import Record
from ssdd_lightning.data.layout import Devkit, PhotoFolder
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.data.transforms import PlainTransform
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.masks import read_image, write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map
from tests.helpers.files import write_photo

NAMES = ("background", *(f"thing {number}" for number in range(1, 81)))
SPLITS = Splits("a", "b", "b", "a")


class Own(WeakDataModule):
    """Five copies of one photo, so that only randomness tells their crops apart."""

    def __init__(
        self,
        root: Path,
        guides: Mapping[str, Path | None] | None = None,
        batch_size: int = 2,
        num_workers: int = 0,
        classes: list[str] | None = None,
        maps: Path | None = None,
    ) -> None:
        table = ClassTable.select(NAMES, classes)
        augmentation = Augmentation(16, (40, 60))
        guides = {**(guides or {}), "maps": maps}
        super().__init__(Devkit(root), table, SPLITS, guides, augmentation, batch_size, num_workers)
        self.root = root

    def find_records(self, split: str, truth: bool) -> tuple[list[Record], str]:
        masks = [self.root / f"{number}.png" if truth else None for number in range(5)]
        records = [
            Record(f"{split}{number}", self.root / f"{number}.jpg", (1, 80), masks[number]) for number in range(5)
        ]
        return records, "the test"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(5):
        write_photo(tmp_path / f"{number}.jpg", (48, 64))
        write_mask(tmp_path / f"{number}.png", np.full((48, 64), 80))
    return tmp_path


def test_any_number_of_classes(root: Path) -> None:
    data = Own(root)
    assert (data.num_classes, data.class_indices[-1], data.class_names[80]) == (81, 80, "thing 80")
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert batch["mask"].unique().tolist() == [80]
    assert batch["image_labels"].shape == (1, 81)
    assert batch["image_labels"][0].nonzero().flatten().tolist() == [0, 1, 80]
    few = Own(root, classes=["thing 80", "thing 1"])
    assert (few.num_classes, few.class_indices) == (3, [0, 1, 80])


def test_loaders_of_every_phase(root: Path) -> None:
    data = Own(root)
    data.setup("fit")
    assert [len(names) for names in _names(data.train_dataloader())] == [2, 2]  # the fifth is dropped
    assert list(_names(data.val_dataloader())) == [[f"b{number}"] for number in range(5)]
    data.setup("predict")
    assert list(_names(data.predict_dataloader())) == [[f"a{number}"] for number in range(5)]
    alone = Own(root, batch_size=9)
    alone.setup("fit")
    assert [len(names) for names in _names(alone.train_dataloader())] == [5]


def test_a_stage_needs_its_own_splits_only(root: Path) -> None:
    (root / "3.png").unlink()
    data = Own(root)
    data.setup("predict")
    with pytest.raises(InputError, match=r"mask .*3\.png does not exist \(1 of 5 are missing\)"):
        data.setup("validate")


def _names(loader: Iterable[Any]) -> Iterator[list[str]]:
    return (batch["name"] for batch in loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_seeds_repeat_runs_while_workers_and_epochs_differ(root: Path, num_workers: int) -> None:
    def run(seed: int) -> torch.Tensor:
        seed_everything(seed, workers=True, verbose=False)
        data = Own(root, batch_size=1, num_workers=num_workers)
        data.setup("fit")
        loader = data.train_dataloader()
        return torch.stack([torch.cat([batch["image_raw"] for batch in loader]) for _ in range(2)])

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    crops = first.flatten(0, 1).flatten(1)
    assert len(crops.unique(dim=0)) == 10  # two epochs of five copies of one photo


def test_knowledge_and_advice_reach_training_and_prediction_only(root: Path, tmp_path: Path) -> None:
    guides = {"knowledge": tmp_path / "K", "advice": tmp_path / "A"}
    for folder in guides.values():
        for number in range(5):
            write_mask(folder / f"a{number}.png", np.full((48, 64), 80))
    data = Own(root, guides)
    data.setup()
    train, predict = next(iter(data.train_dataloader())), next(iter(data.predict_dataloader()))
    assert {"knowledge", "advice"} <= set(train)
    assert {"knowledge", "advice"} <= set(predict)
    assert "mask" not in train
    assert "mask" not in predict
    for batch in (next(iter(data.val_dataloader())), next(iter(data.test_dataloader()))):
        assert set(batch) == {"image", "image_raw", "image_labels", "mask", "name"}


def test_missing_guides_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"advice folder .*A does not exist; run the stage"):
        Own(root, {"advice": tmp_path / "A"}).setup("fit")
    write_mask(tmp_path / "A" / "a0.png", np.zeros((48, 64), int))
    with pytest.raises(InputError, match=r"advice .*a1\.png does not exist \(4 of 5 are missing\)"):
        Own(root, {"advice": tmp_path / "A"}).setup("predict")


def test_bad_options_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match="batch_size"):
        Own(root, batch_size=0)
    with pytest.raises(InputError, match="num_workers"):
        Own(root, num_workers=-1)


def test_maps_reach_prediction_alone(root: Path) -> None:
    for number in range(5):
        write_map(map_path(root / "maps", f"a{number}"), [0, 1, 80], np.full((3, 48, 64), 0.25))
    data = Own(root, maps=root / "maps")
    data.setup()
    batch = next(iter(data.predict_dataloader()))
    assert batch["maps"].shape == (1, 81, 48, 64)
    assert batch["maps"].amax((0, 2, 3)).nonzero().flatten().tolist() == [0, 1, 80]
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert "maps" not in next(iter(loader))


def test_missing_maps_are_named_and_counted(root: Path) -> None:
    data = Own(root, maps=root / "maps")
    with pytest.raises(InputError, match=r"score map folder .*maps does not exist; run the stage"):
        data.setup("predict")
    write_map(map_path(root / "maps", "a0"), [0, 1, 80], np.full((3, 48, 64), 0.25))
    write_mask(root / "maps" / "a1.png", np.zeros((48, 64), int))  # a mask is no map
    with pytest.raises(
        InputError, match=r"map .*a1\.map\.png does not exist \(4 of 5 are missing\); expected <name>.map.png"
    ):
        data.setup("predict")
    data.setup("fit")


def test_photos_to_look_at_are_whole_the_same_ones_and_those_with_ground_truth_first(root: Path) -> None:
    for number in range(5):
        write_mask(root / "knowledge" / f"a{number}.png", np.full((48, 64), 80))
    data = Own(root, {"knowledge": root / "knowledge"})
    data.location = PhotoFolder(root, root / "labels.json")
    data.setup("fit")
    assert len(data.to_look_at(9)) == 5
    looked = data.to_look_at(5)
    assert all("mask" not in looked[index] for index in range(5)), "this data has no ground truth"
    write_mask(root / "truth" / "a4.png", np.full((48, 64), 80))
    data.location = PhotoFolder(root, root / "labels.json", root / "truth")
    looked = data.to_look_at(2)
    first, second = looked[0], looked[1]
    assert first["name"] == "a4"
    assert first["mask"].unique().tolist() == [80]
    assert "mask" not in second
    assert first["image"].shape == (3, 48, 64)
    assert first["knowledge"].shape == first["valid"].shape == (48, 64)
    assert [record.name for record in looked.records] == [first["name"], second["name"]]
    assert all(record.mask is None for record in data.datasets["train"].records)


@pytest.mark.parametrize(
    ("loader", "command"), [("train", "fit"), ("val", "validate"), ("test", "test"), ("predict", "predict")]
)
def test_a_loader_asked_for_too_early_says_what_to_call(root: Path, loader: str, command: str) -> None:
    with pytest.raises(
        InputError, match=rf"Own has not looked for its {loader} images; call setup\('{command}'\) first"
    ):
        getattr(Own(root), f"{loader}_dataloader")()


def test_whole_images_of_one_size_come_in_batches(root: Path) -> None:
    write_photo(root / "1.jpg", (48, 60))
    write_mask(root / "1.png", np.full((48, 60), 80))
    data = Own(root)
    data.eval_batch_size = 4
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [batch["name"] for batch in batches] == [["b0", "b2", "b3", "b4"], ["b1"]]
    assert [batch["image"].shape for batch in batches] == [(4, 3, 48, 64), (1, 3, 48, 60)]
    data.eval_batch_size = 2
    assert list(_names(data.test_dataloader())) == [["b0", "b2"], ["b1"], ["b3", "b4"]]
    data.eval_batch_size = 1
    assert [len(names) for names in _names(data.test_dataloader())] == [1] * 5


def test_every_image_is_in_a_batch_of_one_process_and_each_process_has_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Own(root)
    data.eval_batch_size = 4
    data.setup("test")
    shares = []
    for rank in range(3):
        for module in (sampling, datamodule):
            monkeypatch.setattr(module, "world", lambda rank=rank: (rank, 3))
        shares.append([name for names in _names(data.test_dataloader()) for name in names])
    assert sorted(chain(*shares)) == [f"b{number}" for number in range(5)]
    assert all(shares)


def test_large_photos_come_one_by_one() -> None:
    sizes = [(512, 512)] * 6 + [(2000, 3000)] * 2
    assert sampling.like_sized(sizes, 8) == [[0, 1, 2, 3], [4, 5], [6], [7]]


def test_a_transform_that_makes_several_sizes_is_refused(root: Path) -> None:
    class Odd(Centre):
        def __call__(self, image: Any, guides: Any, present: Any, seed: int) -> Any:
            side = 16 + seed % 7
            return {key: array[:side] for key, array in PlainTransform()(image, guides, present).items()}

    data = VOCLike(root, Augmentation(transform=Odd()))
    data.setup("fit")
    with pytest.raises(InputError, match=r"should have one size, found a. of .*let the transform make one size"):
        list(data.train_dataloader())


class Centre:
    """The middle of the image, and nothing drawn."""

    def __call__(self, image: Any, guides: Mapping[str, Any], present: Any, seed: int) -> dict[str, Any]:
        cut = image[16:32, 24:40]
        return {"image": cut, "image_raw": cut, "valid": np.ones(cut.shape[:2], np.uint8)}


def test_a_transform_of_ones_own_takes_the_place_of_the_augmentation(root: Path) -> None:
    data = VOCLike(root, Augmentation(transform=Centre()))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 16, 16)
    expected = torch.from_numpy(read_image(root / "0.jpg")[16:32, 24:40]).permute(2, 0, 1)
    torch.testing.assert_close(batch["image"][0], expected)


class VOCLike(Own):
    def __init__(self, root: Path, augmentation: Augmentation) -> None:
        super().__init__(root)
        WeakDataModule.__init__(self, Devkit(root), self.table, SPLITS, {}, augmentation, 2, 0)
