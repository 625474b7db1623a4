import json
import os
import time

import numpy as np
import pytest
import torch

from ssdd_lightning.callbacks.record import RunRecord, product_path
from ssdd_lightning.data.dataset import Record
from ssdd_lightning.data.maps import map_path, write_map
from ssdd_lightning.data.masks import write_mask

MADE_BY = {"checkpoint": {"file": "last.ckpt", "sha256": "12"}, "settings": {"network": print}, "classes": [0, 8, 12]}
MASK = np.uint8([[0, 8], [12, 255]])


@pytest.fixture
def images(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in "ab":
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(b"x")
    older = time.time_ns() - 10**10
    for path in (tmp_path / "photos").iterdir():
        os.utime(path, ns=(older, older))
    return {name: Record(name, tmp_path / "photos" / f"{name}.jpg", ()) for name in "ab"}


@pytest.fixture
def opened(tmp_path, images):
    def make(**changed):
        return RunRecord(tmp_path / "out", "test", {**MADE_BY, **changed}, images, [0, 8, 12])

    return make


@pytest.fixture
def interrupted(opened):
    """A run that finished `a`."""
    record = opened()
    assert not record.has("a")
    record.begin(["mask"])
    write_mask(product_path(record.folder, "mask", "a"), MASK)
    return record


def test_the_next_run_has_what_was_finished(interrupted, opened):
    record = opened()
    assert (record.has("a"), record.has("b")) == (True, False)
    assert record.mask("a").tolist() == [[0, 1], [2, 255]]
    assert record.mask("a").dtype == torch.long
    assert record.reused == 1
    before = record.path.read_text()
    record.begin(["mask"])
    assert record.path.read_text() == before


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint": {"file": "last.ckpt", "sha256": "34"}},
        {"settings": {"network": len}},
        {"classes": [0, 8, 17]},
        {"checkpoint": None},
    ],
)
def test_files_of_another_run_are_not_finished_now_or_later(interrupted, opened, changed):
    record = opened(**changed)
    assert not record.has("a")
    time.sleep(0.02)  # more than a tick of the file system's clock
    record.begin(["mask"])
    assert not record.has("a")
    assert not opened(**changed).has("a")
    assert not opened().has("a")


def test_without_a_checkpoint_nothing_is_finished(opened):
    record = opened(checkpoint=None)
    record.begin(["mask"])
    write_mask(product_path(record.folder, "mask", "a"), MASK)
    assert not opened(checkpoint=None).has("a")


def test_a_damaged_file_is_not_finished(interrupted, opened):
    path = product_path(interrupted.folder, "mask", "a")
    path.write_bytes(path.read_bytes()[:-40])
    assert not opened().has("a")


def test_a_file_older_than_its_image_is_not_finished(interrupted, opened, images):
    later = time.time_ns() + 10**9
    os.utime(images["a"].image, ns=(later, later))
    assert not opened().has("a")


def test_all_products_count(opened):
    record = opened()
    record.begin(["map", "d_knowledge"])
    write_map(map_path(record.folder, "a"), [0], np.zeros((1, 2, 2)))
    assert not opened().has("a")
    write_mask(product_path(record.folder, "d_knowledge", "a"), MASK)
    assert opened().has("a")
    record.begin(["map", "mask"])  # another release writes other files
    assert not opened().has("a")


def test_a_crash_while_the_record_is_begun_finishes_nothing(opened, monkeypatch):
    record, write = opened(), RunRecord._write
    write_mask(product_path(record.folder, "mask", "a"), MASK)
    written = []

    def crash(self):
        if written:
            raise KeyboardInterrupt
        written.append(write(self))

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "_write", crash)
        with pytest.raises(KeyboardInterrupt):
            record.begin(["mask"])
    assert not opened().has("a")


def test_a_damaged_record_is_no_record(interrupted, opened):
    interrupted.path.write_text("{")
    assert not opened().has("a")


def test_the_end_keeps_what_was_finished(interrupted, opened):
    interrupted.finish({"test/miou": 0.5})
    content = json.loads(interrupted.path.read_text())
    assert content["image_labels"] is False
    assert "not used" in content["note"]
    assert (content["images"], content["scores"]) == (2, {"test/miou": 0.5})
    assert content["made_by"]["checkpoint"] == MADE_BY["checkpoint"]
    assert opened().has("a")
