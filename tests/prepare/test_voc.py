import errno
import os
import shutil
import tarfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.labels import read_annotations, read_label_file
from ssdd_lightning.data.voc import VOCDataModule
from ssdd_lightning.errors import InputError
from ssdd_lightning.prepare import voc as module
from ssdd_lightning.prepare.download import Obtaining, Remote, md5_of
from ssdd_lightning.prepare.folders import place
from ssdd_lightning.prepare.voc import prepare_voc
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.masks import read_mask
from tests.helpers.files import times
from tests.helpers.server import FileServer

TABLE = ClassTable.select(VOC_CLASSES, None)
TRAINAUG = ["2007_000001", "2007_000002", "2008_000001", "2008_000002", "2008_000003"]
VOC_TOP, SBD_TOP = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"


def check(devkit: Path) -> None:
    assert (devkit / "ImageSets/Segmentation/trainaug.txt").read_text().split() == TRAINAUG
    masks = {path.stem for path in (devkit / "SegmentationClassAug").glob("*.png")}
    assert masks == {*TRAINAUG, "2007_000003", "2007_000004"}
    labels = read_label_file(devkit / "labels.csv", TABLE)
    assert labels["2008_000002"] == (8, 12)
    assert labels == read_annotations(devkit / "Annotations", sorted(masks), TABLE)


def test_from_both_archives(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, make: SimpleNamespace
) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd, num_workers=2)
    assert made.splits == {"train": 2, "val": 2, "trainval": 4, "trainaug": 5}
    assert made.labelled == 7
    check(made.devkit)
    masks = made.devkit / "SegmentationClassAug"
    np.testing.assert_array_equal(read_mask(masks / "2008_000002.png"), make.mask(["dog", "cat"], shift=4))
    np.testing.assert_array_equal(read_mask(masks / "2007_000001.png"), make.mask(["cat"]))  # VOC's own wins
    assert not list(tmp_path.glob("out/**/*.part"))
    assert not list(tmp_path.glob("out/**/README"))


def test_the_stages_read_it(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    data = VOCDataModule(
        tmp_path / "out",
        labels=made.devkit / "labels.csv",
        truth="SegmentationClassAug",
        augmentation=Augmentation(16),
        batch_size=5,
        num_workers=0,
    )
    data.setup("fit")
    assert sorted(next(iter(data.train_dataloader()))["name"]) == TRAINAUG
    assert {batch["name"][0] for batch in data.val_dataloader()} == {"2007_000003", "2007_000004"}


def test_twice_is_once(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    before = times(tmp_path / "out")
    archives.voc.unlink()
    archives.sbd.unlink()
    prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    assert times(tmp_path / "out") == before


def test_from_unpacked_folders(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    for path in (archives.voc, archives.sbd):
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
    given = tmp_path / "unpacked"
    made = prepare_voc(tmp_path / "out", obtaining, given, given)
    check(made.devkit)
    photo = "JPEGImages/2008_000001.jpg"
    assert (made.devkit / photo).samefile(given / VOC_TOP / photo)
    before = times(given / VOC_TOP)
    check(prepare_voc(given, obtaining, None, given).devkit)  # in its own place
    assert before.items() <= times(given / VOC_TOP).items()


def test_sbd_may_come_later(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc)
    assert made.splits == {"train": 2, "val": 2, "trainval": 4}
    assert made.labelled == 4
    assert not (made.devkit / "SegmentationClassAug").exists()
    check(prepare_voc(tmp_path / "out", obtaining, sbd=archives.sbd).devkit)


def test_masks_of_sbd_that_somebody_else_made(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, make: SimpleNamespace
) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc)
    folder = made.devkit / "SegmentationClassAug"
    folder.mkdir()
    (folder / "2008_000001.png").write_bytes(make.png(make.mask(["cat"])))
    with pytest.raises(InputError, match=r"SegmentationClassAug lacks 4 masks of VOC's own, such as 2007_000001\.png"):
        prepare_voc(tmp_path / "out", obtaining)
    assert not (made.devkit / "ImageSets/Segmentation/trainaug.txt").exists()
    for path in (made.devkit / "SegmentationClass").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert prepare_voc(tmp_path / "out", obtaining).splits["trainaug"] == 3


def test_download(
    archives: SimpleNamespace,
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, path in (("VOC_ARCHIVE", archives.voc), ("SBD_ARCHIVE", archives.sbd)):
        os.link(path, server.folder / path.name)
        monkeypatch.setattr(module, name, Remote(path.name, f"{server.url}/{path.name}", md5_of(path, False)))
    with pytest.raises(InputError, match=r"VOCtrainval_11-May-2012\.tar is needed: give it with `--voc`"):
        main(["prepare", "voc", f"--out={tmp_path / 'out'}"])
    assert main(["prepare", "voc", f"--out={tmp_path / 'out'}", "--download"]) == 0
    check(tmp_path / "out" / VOC_TOP)
    text = capsys.readouterr().out
    assert ["trainaug", "5", "10582"] in [line.split() for line in text.splitlines()]
    assert "labels of 7 images" in text
    assert len(server.asked) == 2
    assert main(["prepare", "voc", f"--out={tmp_path / 'out'}", "--download"]) == 0
    assert len(server.asked) == 2


def test_the_published_checksums_are_asked_for(archives: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected 6cd6e144f989b92b3379bac3b3de84fd of VOCtrainval"):
        main(["prepare", "voc", f"--out={tmp_path / 'out'}", f"--voc={archives.voc}"])
    assert not (tmp_path / "out" / "VOCdevkit").exists()
    main(["prepare", "voc", f"--out={tmp_path / 'out'}", f"--voc={archives.voc}", "--no-checksum"])
    with pytest.raises(InputError, match=r"expected 82b4d87ceb2ed10f6038a1cba92111cb of benchmark\.tgz"):
        main(["prepare", "voc", f"--out={tmp_path / 'out'}", f"--sbd={archives.sbd}"])


def drop(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: content for key, content in files.items() if key != name}


BOMB = b"""<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""
BROKEN_VOC = {
    "a photo is missing": (lambda f: drop(f, f"{VOC_TOP}/JPEGImages/2007_000003.jpg"), "lacks 1 of 4 files, such as"),
    "a list is missing": (
        lambda f: drop(f, f"{VOC_TOP}/ImageSets/Segmentation/val.txt"),
        "split list .* does not exist",
    ),
    "another archive": (lambda f: {"README": b"x"}, "holds no VOCdevkit/VOC2012/JPEGImages"),
    "path traversal": (lambda f: {**f, f"{VOC_TOP}/JPEGImages/../../../../evil.jpg": b"x"}, "do not trust this file"),
    "absolute path": (lambda f: {**f, "/evil.jpg": b"x"}, "do not trust this file"),
}


@pytest.mark.parametrize("case", BROKEN_VOC)
def test_a_broken_voc_archive_leaves_no_devkit(
    obtaining: Obtaining, tmp_path: Path, make: SimpleNamespace, case: str
) -> None:
    spoil, message = BROKEN_VOC[case]
    path = make.tar(tmp_path / "voc.tar", spoil(make.voc_files()))
    with pytest.raises(InputError, match=message):
        prepare_voc(tmp_path / "out", obtaining, path)
    assert not (tmp_path / "out" / VOC_TOP).exists()
    assert not list(tmp_path.rglob("evil*"))
    make.tar(path, make.voc_files())  # the right one under the same name: nothing of the broken one is in the way
    os.utime(path)
    assert prepare_voc(tmp_path / "out", obtaining, path).splits["train"] == 2


BROKEN_SBD = {
    "a .mat is missing": (
        lambda f, m: drop(f, f"{SBD_TOP}/cls/2008_000003.mat"),
        r"lacks 1 of SBD's 5 .*2008_000003\.mat",
    ),
    "no lists": (lambda f, m: {k: v for k, v in f.items() if "txt" not in k}, r"lists train\.txt and val\.txt"),
    "one list": (
        lambda f, m: {k: v for k, v in f.items() if "val.txt" not in k},
        "lacks SBD's lists train.txt and val.txt or one of them",
    ),
    "a damaged .mat": (
        lambda f, m: {**f, f"{SBD_TOP}/cls/2008_000001.mat": b"x" * 300},
        r"cannot read 2008_000001\.mat",
    ),
    "another size": (
        lambda f, m: {**f, f"{SBD_TOP}/cls/2008_000001.mat": m.mat(np.zeros((24, 35), np.uint8))},
        r"2008_000001\.mat of SBD is 35 x 24 pixels, .*2008_000001\.jpg is 36 x 24",
    ),
    "strange classes": (
        lambda f, m: {**f, f"{SBD_TOP}/cls/2008_000001.mat": m.mat(np.full((24, 36), 21, np.uint8))},
        r"2008_000001\.mat of SBD: expected H x W class indices 0\.\.20",
    ),
    "an image that VOC lacks": (
        lambda f, m: {**f, f"{SBD_TOP}/cls/2011_000009.mat": m.mat(np.zeros((24, 36), np.uint8))},
        r"2011_000009\.jpg",
    ),
}


@pytest.mark.parametrize("case", BROKEN_SBD)
def test_a_broken_sbd_archive_leaves_no_masks(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, make: SimpleNamespace, case: str
) -> None:
    spoil, message = BROKEN_SBD[case]
    path = make.tar(tmp_path / "sbd.tgz", spoil(make.sbd_files(), make), "w:gz")
    with pytest.raises(InputError, match=message):
        prepare_voc(tmp_path / "out", obtaining, archives.voc, path)
    devkit = tmp_path / "out" / VOC_TOP
    assert not (devkit / "SegmentationClassAug").exists()
    assert not (devkit / "ImageSets/Segmentation/trainaug.txt").exists()
    check(prepare_voc(tmp_path / "out", obtaining, None, archives.sbd).devkit)


def test_an_xml_bomb_is_refused(obtaining: Obtaining, tmp_path: Path, make: SimpleNamespace) -> None:
    files = {**make.voc_files(), f"{VOC_TOP}/Annotations/2007_000001.xml": BOMB}
    with pytest.raises(InputError, match=r"cannot read annotation .*2007_000001\.xml"):
        prepare_voc(tmp_path / "out", obtaining, make.tar(tmp_path / "voc.tar", files))
    assert not (tmp_path / "out" / VOC_TOP).exists()
    good = make.tar(tmp_path / "good.tar", make.voc_files())
    assert prepare_voc(tmp_path / "out", obtaining, good).labelled == 4


def test_an_annotation_that_went_missing_is_named_with_the_remedy(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path
) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    (made.devkit / "Annotations" / "2008_000001.xml").unlink()
    with pytest.raises(InputError, match=r"Annotations lacks 1 files, such as 2008_000001\.xml; remove .*VOC2012"):
        prepare_voc(tmp_path / "out", obtaining)


def test_what_is_given_and_not_needed_is_said(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_voc(tmp_path / "out", obtaining, archives.voc)
    assert capsys.readouterr().out == ""
    prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    devkit, changed = tmp_path / "out" / VOC_TOP, "their inputs or their files changed"
    assert capsys.readouterr().out.splitlines() == [
        f"{devkit} is there already: --voc {archives.voc} is not read",
        f"lists: 1 made again in {devkit} (labels.csv): {changed}.",
    ]


def test_an_interrupted_run_goes_on(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = atomic_write

    def interrupted(path: Path) -> AbstractContextManager[Any]:
        if len(written) == 8:
            raise KeyboardInterrupt
        written.append(path)
        return real(path)

    monkeypatch.setattr(module, "atomic_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_voc(tmp_path / "out", obtaining, archives.voc)
    part = tmp_path / "out" / f"{VOC_TOP}.part"
    kept = times(part)
    assert kept.pop("prepare.json")  # its entry, which is written again
    assert len(kept) == 8
    assert not (tmp_path / "out" / VOC_TOP).exists()
    monkeypatch.setattr(module, "atomic_write", real)
    (part / "JPEGImages" / f".{'0f' * 16}.tmp").write_bytes(b"of a write that was killed")
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc)
    assert not list(made.devkit.rglob(".*"))
    assert kept.items() <= times(made.devkit).items()


def test_nothing_is_left_of_another_archive(
    archives: SimpleNamespace,
    obtaining: Obtaining,
    tmp_path: Path,
    make: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo = f"{VOC_TOP}/JPEGImages/2007_000001.jpg"
    files = {**make.voc_files(), photo: make.jpeg(99)}
    cut = make.tar(tmp_path / "cut.tar", drop(files, f"{VOC_TOP}/JPEGImages/2007_000004.jpg"))
    with pytest.raises(InputError, match="lacks 1 of 4 files"):
        prepare_voc(tmp_path / "out", obtaining, cut)
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc)
    assert (tmp_path / "out" / photo).read_bytes() == make.voc_files()[photo]
    assert f"redone in {made.devkit}.part, because VOC changed." in capsys.readouterr().out


def test_a_full_disk_is_a_sentence(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssdd_lightning.storage.files.os.replace", full)
    with pytest.raises(InputError, match=r"cannot write .*No space left on device; choose a folder that is writable"):
        prepare_voc(tmp_path / "out", obtaining, archives.voc)
    assert not (tmp_path / "out" / VOC_TOP).exists()


def test_an_unwritable_target_is_a_sentence(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*out/\.lock: .*; choose a folder"):
        prepare_voc(tmp_path / "out", obtaining, archives.voc)


def test_an_empty_folder_of_an_earlier_start_is_taken_over(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path
) -> None:
    (tmp_path / "out" / f"{VOC_TOP}.part").mkdir(parents=True)
    (tmp_path / "out" / f"{VOC_TOP}.part" / ".half.tmp").touch()
    assert prepare_voc(tmp_path / "out", obtaining, archives.voc).labelled == 4


def test_a_mended_file_of_an_unpacked_archive_is_read_again(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path
) -> None:
    for path in (archives.voc, archives.sbd):
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
    given = tmp_path / "unpacked"
    spoilt = [given / VOC_TOP / "Annotations/2007_000001.xml", given / "benchmark_RELEASE/dataset/cls/2008_000001.mat"]
    right = [path.read_bytes() for path in spoilt]
    for path, content in zip(spoilt, right, strict=True):
        path.write_bytes(b"<junk")
        with pytest.raises(InputError, match=path.name):
            prepare_voc(tmp_path / "out", obtaining, given, given)
        path.unlink()
        path.write_bytes(content)
    check(prepare_voc(tmp_path / "out", obtaining, given, given).devkit)


def test_lists_and_labels_of_the_users_own_move_aside(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc)
    (made.devkit / "labels.csv").write_text("name,labels\n2007_000001,dog\n")
    prepare_voc(tmp_path / "out", obtaining, sbd=archives.sbd)
    assert "labels.csv was a different file, which is now labels.csv.before." in capsys.readouterr().out
    assert (made.devkit / "labels.csv.before").read_text() == "name,labels\n2007_000001,dog\n"
    (made.devkit / "labels.csv").write_text("mine")
    prepare_voc(tmp_path / "out", obtaining)
    assert (made.devkit / "labels.csv.before1").read_text() == "mine"
    shutil.rmtree(made.devkit / "SegmentationClassAug")
    capsys.readouterr()
    assert prepare_voc(tmp_path / "out", obtaining).labelled == 4
    check(prepare_voc(tmp_path / "out", obtaining, sbd=archives.sbd).devkit)
    assert "different file" not in capsys.readouterr().out


def test_another_archive_makes_its_own_folder_anew_and_says_so(
    archives: SimpleNamespace,
    obtaining: Obtaining,
    tmp_path: Path,
    make: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    voc, masks = times(made.devkit / "JPEGImages"), made.devkit / "SegmentationClassAug"
    files = {**make.sbd_files(), f"{SBD_TOP}/cls/2008_000001.mat": make.mat(make.mask(["dog"], shift=4))}
    other = make.tar(tmp_path / "other.tgz", files, "w:gz")
    capsys.readouterr()
    prepare_voc(tmp_path / "out", obtaining, archives.voc, other)
    said = capsys.readouterr().out.splitlines()
    assert f"prepare: redone in {masks}, because SBD changed." in said
    assert f"prepare: the folder of before is kept as {masks}.replaced-1." in said
    np.testing.assert_array_equal(read_mask(masks / "2008_000001.png"), make.mask(["dog"], shift=4))
    np.testing.assert_array_equal(
        read_mask(masks.with_name(f"{masks.name}.replaced-1") / "2008_000001.png"), make.mask(["cat"], shift=4)
    )
    assert times(made.devkit / "JPEGImages") == voc
    photo = "JPEGImages/2007_000001.jpg"
    changed = make.tar(tmp_path / "changed.tar", {**make.voc_files(), f"{VOC_TOP}/{photo}": make.jpeg(99)})
    check(prepare_voc(tmp_path / "out", obtaining, changed, archives.sbd).devkit)
    assert f"prepare: redone in {made.devkit}, because VOC changed." in capsys.readouterr().out
    assert (made.devkit / photo).read_bytes() == make.jpeg(99)
    assert (made.devkit.with_name("VOC2012.replaced-1") / photo).read_bytes() != make.jpeg(99)


def test_what_is_finished_is_not_made_again_of_a_touched_archive(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    before = times(tmp_path / "out")
    os.utime(archives.voc, ns=(1, 1))
    prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    assert times(tmp_path / "out") == before
    assert f"lists: finished in {made.devkit}, nothing to do." in capsys.readouterr().out


@pytest.mark.parametrize("where", ["VOC2012", "VOC2012/SegmentationClassAug"])
def test_a_damaged_entry_is_a_sentence(
    archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path, where: str
) -> None:
    prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)
    (tmp_path / "out" / "VOCdevkit" / where / "prepare.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected an entry of the ledger .*prepare\.json.*; remove it to redo"):
        prepare_voc(tmp_path / "out", obtaining, archives.voc, archives.sbd)


def test_a_file_that_is_copied_is_not_copied_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr("ssdd_lightning.prepare.folders.os.link", across)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("first")
    place(source, target)
    inode = target.stat().st_ino
    place(source, target)
    assert target.stat().st_ino == inode
    source.write_text("other")  # of the same size
    os.utime(source, ns=(1, 1))
    place(source, target)
    assert target.read_text() == "other"


def test_somebody_elses_file_is_not_touched(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    part = tmp_path / "out" / f"{VOC_TOP}.part"
    part.parent.mkdir(parents=True)
    part.touch()
    with pytest.raises(InputError, match=r"VOC2012\.part is in the way"):
        prepare_voc(tmp_path / "out", obtaining, archives.voc)


def test_somebody_elses_folder_is_not_touched(archives: SimpleNamespace, obtaining: Obtaining, tmp_path: Path) -> None:
    part = tmp_path / "out" / f"{VOC_TOP}.part"
    part.mkdir(parents=True)
    (part / "mine").write_text("")
    with pytest.raises(InputError, match=r"VOC2012\.part is in the way"):
        prepare_voc(tmp_path / "out", obtaining, archives.voc)
    assert (part / "mine").exists()
