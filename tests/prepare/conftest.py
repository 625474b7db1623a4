"""Tiny archives of VOC's and SBD's layout, and a server that hands them out."""

import functools
import http.server
import io
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssdd_lightning.prepare.download import Obtaining
from ssdd_lightning.storage.masks import VOC_PALETTE

SIZE = (24, 36)
VOC_TRAIN = {"2007_000001": ["cat"], "2007_000002": ["dog", "person"]}
VOC_VAL = {"2007_000003": ["cat", "dog"], "2007_000004": ["sheep"]}
SBD_ONLY = {"2008_000001": ["cat"], "2008_000002": ["dog", "cat"], "2008_000003": ["sheep"]}
SBD_TRAIN = ("2007_000001", "2008_000001", "2008_000002")
SBD_VAL = ("2007_000003", "2008_000003")
INDEX = {"cat": 8, "dog": 12, "person": 15, "sheep": 17}


def mask_of(labels, shift=0):
    """Bands of the labels' classes on background; `shift` tells VOC's masks from SBD's."""
    mask = np.zeros(SIZE, np.uint8)
    for n, label in enumerate(labels):
        mask[4 + shift : 20, 4 + 8 * n : 12 + 8 * n] = INDEX[label]
    return mask


def png(mask):
    image = Image.fromarray(mask)
    image.putpalette(VOC_PALETTE.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def jpeg(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def xml(labels):
    return "".join(["<annotation>", *(f"<object><name>{x}</name></object>" for x in labels), "</annotation>"]).encode()


def mat(mask):
    stream = io.BytesIO()
    content = {"Segmentation": mask, "CategoriesPresent": np.unique(mask[mask > 0])}
    savemat(stream, {"GTcls": content}, do_compression=True)
    return stream.getvalue()


def voc_files():
    """Name in the archive -> content."""
    files = {}
    top = "VOCdevkit/VOC2012"
    for n, (name, labels) in enumerate({**VOC_TRAIN, **VOC_VAL, **SBD_ONLY}.items()):
        files[f"{top}/JPEGImages/{name}.jpg"] = jpeg(n)
        files[f"{top}/Annotations/{name}.xml"] = xml(labels)
        if name not in SBD_ONLY:
            files[f"{top}/SegmentationClass/{name}.png"] = png(mask_of(labels))
    for split, names in (("train", VOC_TRAIN), ("val", VOC_VAL), ("trainval", {**VOC_TRAIN, **VOC_VAL})):
        files[f"{top}/ImageSets/Segmentation/{split}.txt"] = "".join(f"{name}\n" for name in names).encode()
    return files


def sbd_files():
    top = "benchmark_RELEASE/dataset"
    labels = {**VOC_TRAIN, **VOC_VAL, **SBD_ONLY}
    files = {f"{top}/cls/{n}.mat": mat(mask_of(labels[n], shift=4)) for n in (*SBD_TRAIN, *SBD_VAL)}
    for split, names in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        files[f"{top}/{split}.txt"] = "".join(f"{name}\n" for name in names).encode()
    return {"benchmark_RELEASE/README": b"the real archive holds more than is used", **files}


@pytest.fixture
def make(write_tar):
    """What tests spoil and write themselves."""
    return SimpleNamespace(
        voc_files=voc_files, sbd_files=sbd_files, tar=write_tar, mat=mat, png=png, jpeg=jpeg, mask=mask_of, xml=xml
    )


@pytest.fixture
def archives(write_tar, tmp_path):
    """`voc` and `sbd`: paths of the two archives."""
    return SimpleNamespace(
        voc=write_tar(tmp_path / "VOCtrainval_11-May-2012.tar", voc_files()),
        sbd=write_tar(tmp_path / "benchmark.tgz", sbd_files(), "w:gz"),
    )


@pytest.fixture
def obtaining(tmp_path):
    return Obtaining(tmp_path / "out" / "downloads", checksum=False, progress=False)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Hands out files, from the byte asked for on; `server.cut` bytes an answer, then the connection breaks."""

    def do_GET(self):
        content = open(self.translate_path(self.path), "rb").read()  # noqa: SIM115, PTH123
        asked = self.headers.get("Range") if self.server.ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.server.asked.append(start)
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A server of `tmp_path / "www"` on this machine."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(RangeHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.cut, server.ranges = [], None, True
        server.folder = tmp_path / "www"
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
