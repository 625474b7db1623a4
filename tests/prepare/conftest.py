"""Tiny archives of VOC's and SBD's layout, and a server that hands them out."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssdd_lightning.prepare.download import Obtaining
from tests.helpers.files import encode, noise, write_tar
from tests.helpers.server import FileServer

SIZE = (24, 36)
VOC_TRAIN = {"2007_000001": ["cat"], "2007_000002": ["dog", "person"]}
VOC_VAL = {"2007_000003": ["cat", "dog"], "2007_000004": ["sheep"]}
SBD_ONLY = {"2008_000001": ["cat"], "2008_000002": ["dog", "cat"], "2008_000003": ["sheep"]}
SBD_TRAIN = ("2007_000001", "2008_000001", "2008_000002")
SBD_VAL = ("2007_000003", "2008_000003")
INDEX = {"cat": 8, "dog": 12, "person": 15, "sheep": 17}


def mask_of(labels: list[str], shift: int = 0) -> np.ndarray:
    """Bands of the labels' classes on background; `shift` tells VOC's masks from SBD's."""
    mask = np.zeros(SIZE, np.uint8)
    for n, label in enumerate(labels):
        mask[4 + shift : 20, 4 + 8 * n : 12 + 8 * n] = INDEX[label]
    return mask


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(SIZE, seed)).save(stream, "JPEG")
    return stream.getvalue()


def xml(labels: list[str]) -> bytes:
    return "".join(["<annotation>", *(f"<object><name>{x}</name></object>" for x in labels), "</annotation>"]).encode()


def mat(mask: np.ndarray) -> bytes:
    stream = io.BytesIO()
    content = {"Segmentation": mask, "CategoriesPresent": np.unique(mask[mask > 0])}
    savemat(stream, {"GTcls": content}, do_compression=True)
    return stream.getvalue()


def voc_files() -> dict[str, bytes]:
    """Name in the archive -> content."""
    files = {}
    top = "VOCdevkit/VOC2012"
    for n, (name, labels) in enumerate({**VOC_TRAIN, **VOC_VAL, **SBD_ONLY}.items()):
        files[f"{top}/JPEGImages/{name}.jpg"] = jpeg(n)
        files[f"{top}/Annotations/{name}.xml"] = xml(labels)
        if name not in SBD_ONLY:
            files[f"{top}/SegmentationClass/{name}.png"] = encode(mask_of(labels))
    for split, names in (("train", VOC_TRAIN), ("val", VOC_VAL), ("trainval", {**VOC_TRAIN, **VOC_VAL})):
        files[f"{top}/ImageSets/Segmentation/{split}.txt"] = "".join(f"{name}\n" for name in names).encode()
    return files


def sbd_files() -> dict[str, bytes]:
    top = "benchmark_RELEASE/dataset"
    labels = {**VOC_TRAIN, **VOC_VAL, **SBD_ONLY}
    files = {f"{top}/cls/{n}.mat": mat(mask_of(labels[n], shift=4)) for n in (*SBD_TRAIN, *SBD_VAL)}
    for split, names in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        files[f"{top}/{split}.txt"] = "".join(f"{name}\n" for name in names).encode()
    return {"benchmark_RELEASE/README": b"the real archive holds more than is used", **files}


@pytest.fixture
def make() -> SimpleNamespace:
    """What tests spoil and write themselves."""
    return SimpleNamespace(
        voc_files=voc_files, sbd_files=sbd_files, tar=write_tar, mat=mat, png=encode, jpeg=jpeg, mask=mask_of, xml=xml
    )


@pytest.fixture
def archives(tmp_path: Path) -> SimpleNamespace:
    """`voc` and `sbd`: paths of the two archives."""
    return SimpleNamespace(
        voc=write_tar(tmp_path / "VOCtrainval_11-May-2012.tar", voc_files()),
        sbd=write_tar(tmp_path / "benchmark.tgz", sbd_files(), "w:gz"),
    )


@pytest.fixture
def obtaining(tmp_path: Path) -> Obtaining:
    return Obtaining(tmp_path / "out" / "downloads", checksum=False, progress=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """A server of `tmp_path / "www"` on this machine."""
    (tmp_path / "www").mkdir()
    with FileServer(tmp_path / "www") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
