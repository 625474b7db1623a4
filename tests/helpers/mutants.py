"""Small whole files of every format that a reader takes, and mutants of them that get past the first check."""

import csv
import io
import json
import pickle
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image

from ssdd_lightning.data.classes import VOC, class_table, read_classes
from ssdd_lightning.data.labels import read_annotations, read_label_file, table_of_labels
from ssdd_lightning.data.splits import read_list, read_names
from ssdd_lightning.evaluation.submission import Expected, check_submission
from ssdd_lightning.interop.containers import load_arrays
from ssdd_lightning.pipeline.config import read_config
from ssdd_lightning.prepare.coco_masks import draw_mask, read_split
from ssdd_lightning.prepare.sbd import read_mat
from ssdd_lightning.storage.archives import tar_files, zip_files
from ssdd_lightning.storage.journal import Journal
from ssdd_lightning.storage.ledger import read_entry
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.safe_torch import load_torch
from ssdd_lightning.storage.score_maps import read_map, write_map
from ssdd_lightning.weights.mxnet import read_params
from ssdd_lightning.weights.reading import read_weights
from tests.helpers.files import encode, noise
from tests.helpers.mxnet import params

Mutate = Callable[[bytes, random.Random], bytes]
WORDS = ("-1", "0", "1e400", "NaN", "9" * 5000, "true", "null", '""', "[" * 2000, "{}", "\\u0000", "*a", "\ud800")
NUMBERS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\1\0", b"\xff\xff\xff\x7f")


class Reader(NamedTuple):
    """A reader under attack.

    Attributes:
        name: File name that it reads.
        seeds: Whole files.
        read: Reads the file.
        mutate: Makes a mutant of a whole file.
    """

    name: str
    seeds: list[bytes]
    read: Callable[[Path], Any]
    mutate: Mutate


def bytes_of(content: bytes, draw: random.Random) -> bytes:
    """Change, insert, repeat and drop bytes, more often near the beginning."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 5)):
        end = len(changed) if draw.random() < 0.5 else min(len(changed), 200)
        at, kind = draw.randrange(max(1, end)), draw.randrange(6)
        if kind == 0:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del changed[at : at + draw.randint(1, 20)]
        elif kind == 2:
            changed[at:at] = draw.randbytes(draw.randint(1, 8))
        elif kind == 3:
            changed[at : at + 4] = draw.choice(NUMBERS)
        elif kind == 4:
            changed[at:at] = changed[at : at + draw.randint(1, 60)]
        elif draw.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def text_of(content: bytes, draw: random.Random) -> bytes:
    """Replace words and numbers of a text by strange ones; sometimes its bytes."""
    if draw.random() < 0.3:
        return bytes_of(content, draw)
    text = content.decode("utf-8")
    for _ in range(draw.randint(1, 3)):
        found = list(re.finditer(r"[\w.+-]+|\W", text))
        if found:
            match = draw.choice(found)
            other = draw.choice([*WORDS, draw.choice(found)[0], match[0] * 2, ""])
            text = text[: match.start()] + other + text[match.end() :]
    return text.encode("utf-8", "surrogatepass")


def png_of(content: bytes, draw: random.Random) -> bytes:
    """Change the chunks of a PNG and mend their check sums; pixels are packed again."""
    chunks, at = [], 8
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    index = draw.randrange(len(chunks))
    kind, data = chunks[index]
    action = draw.randrange(5)
    if action == 0:
        chunks.insert(draw.randrange(len(chunks) + 1), chunks[index])
    elif action == 1:
        del chunks[index]
    elif action == 2:
        extra = draw.choice([b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"eXIf", b"pHYs"])
        chunks.insert(draw.randrange(len(chunks) + 1), (extra, draw.randbytes(draw.randrange(30))))
    elif kind == b"IDAT" and action == 3:
        chunks[index] = (kind, zlib.compress(bytes_of(zlib.decompress(data), draw)))
    else:
        chunks[index] = (kind, bytes_of(data, draw))
    written = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return content[:8] + b"".join(written)


def zip_of(content: bytes, draw: random.Random) -> bytes:
    """Change a part of a zip file and pack it again with right check sums; sometimes the zip file itself."""
    if draw.random() < 0.4:
        return bytes_of(content, draw)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            new.writestr(name, bytes_of(old.read(name), draw) if name == chosen else old.read(name))
    return stream.getvalue()


def gzip_of(content: bytes, draw: random.Random) -> bytes:
    """Change a tar inside its compression and mend the check sum of a header; sometimes the compressed file."""
    if draw.random() < 0.3:
        return bytes_of(content, draw)
    inner = bytearray(bytes_of(zlib.decompress(content, 31), draw))
    for at in range(0, len(inner) - 511, 512):
        if inner[at + 257 : at + 262] == b"ustar":
            inner[at + 148 : at + 156] = b" " * 8
            inner[at + 148 : at + 156] = b"%06o\0 " % sum(inner[at : at + 512])
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(bytes(inner)) + packer.flush()


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader of foreign files.

    Args:
        folder: For what some of them need besides.
    """
    photo, mask = noise((12, 10)), np.arange(120, dtype=np.uint8).reshape(12, 10) % 21

    def saved(save: Callable[[Any], object]) -> bytes:
        stream = io.BytesIO()
        save(stream)
        return stream.getvalue()

    def picture(kind: str) -> bytes:
        return saved(lambda stream: Image.fromarray(photo).save(stream, kind))

    def tar(mode: Any, name: str = "VOC2012/a.jpg") -> bytes:
        def write(stream: Any) -> None:
            with tarfile.open(fileobj=stream, mode=mode) as archive:
                entry = tarfile.TarInfo(name)
                entry.size = len(png)
                archive.addfile(entry, io.BytesIO(png))

        return saved(write)

    def table(stream: Any) -> None:
        text = io.StringIO()
        csv.writer(text).writerows([["name", "labels"], ["a", "cat 3"], ["b", "dog;horse"]])
        stream.write(text.getvalue().encode())

    def archive(stream: Any) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("train2014/a.jpg", png)
            packed.writestr("b.json", "{}")

    png = encode(mask)
    write_map(folder / "seed.map.png", [0, 3, 8], np.random.default_rng(0).random((3, 6, 5), dtype=np.float32))
    Image.fromarray(photo).save(folder / "a.jpg")
    labels = {"2007_000032": np.eye(20, dtype=np.float32)[3], 2007000033: np.zeros(20)}
    scores = {"keys": np.array([1, 4]), "high_res": np.random.default_rng(0).random((2, 4, 5), dtype=np.float32)}
    shape = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]], "iscrowd": 0}
    runs = {"image_id": 1, "category_id": 1, "segmentation": {"counts": [4, 60], "size": [8, 8]}, "iscrowd": 1}
    image = {"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}
    coco = {"categories": [{"id": 1, "name": "cat"}], "images": [image], "annotations": [shape, runs]}
    entry = {"ledger": 1, "seconds": 1.5, "started": "now", "settings": {"a": 1}, "inputs": {}, "results": {}}
    config = {"model": {"class_path": "ssdd_lightning.X", "init_args": {"a": 1e-3}}, "data": {"root": "x", "b": [1, 2]}}
    yamls = [yaml.safe_dump(config), "a: &a {b: !!float 1}\nc: *a\nd: {<<: *a, e: 2001-01-01, f: !!bool yes}\n"]
    xml = "<annotation><object><name>cat</name><part><name>head</name></part></object></annotation>"
    xmls = [f'<?xml version="1.0" encoding="{code}"?>{xml}'.encode() for code in ("utf-8", "base64", "ascii")]
    state = {"state_dict": {"network.a": torch.arange(6.0).view(2, 3)}, "epoch": 3, "hyper_parameters": {"b": [1]}}
    tensors = saved(lambda stream: torch.save(state, stream))
    pickled = pickle.dumps({"a": np.eye(3), "b": [1, "c"]}, 2)

    def as_npy(content: Any) -> bytes:
        return saved(lambda stream: np.save(stream, content, allow_pickle=True))

    def coco_masks(path: Path) -> None:
        for found in read_split(path.read_bytes(), "coco.json").photos.values():
            draw_mask(found)

    def labelled(path: Path) -> None:
        table_of_labels(path)
        read_label_file(path, VOC)

    def whole(reader: Callable[..., Any]) -> Callable[[Path], Any]:
        return lambda path: list(reader(path, lambda _: True, progress=False))

    expected = Expected(folder, ("a",))
    place = "results/VOC2012/Segmentation/comp6_test_cls/a.png"
    found = {
        "annotation": Reader("a.xml", xmls, lambda path: read_annotations(path.parent, ["a"], VOC), text_of),
        "labels.csv": Reader("a.csv", [saved(table)], labelled, text_of),
        "labels.json": Reader("a.json", [b'{"a": ["cat", 3], "b.jpg": []}'], labelled, text_of),
        "labels.npy": Reader("a.npy", [as_npy(labels)], labelled, bytes_of),
        "classes": Reader("a.txt", [b"background\ncat\n", b'{"0": "background", "3": "x"}'], read_classes, text_of),
        "class table": Reader("a.txt", [b'{"0": "background", "3": "x"}'], class_table, text_of),
        "list": Reader("a.txt", [b"/JPEGImages/a.jpg /SegmentationClass/a.png\nb\n"], read_list, text_of),
        "names": Reader("a.txt", [b"a\nb c\n"], read_names, text_of),
        "YAML": Reader("a.yaml", [text.encode() for text in yamls], read_config, text_of),
        "COCO": Reader("a.json", [json.dumps(coco).encode()], coco_masks, text_of),
        "entry": Reader("a.json", [json.dumps({**entry, "finished": True}).encode()], read_entry, text_of),
        "journal": Reader(
            "a.items.jsonl", [b'["a", "b", [[1, 2]]]\n'], lambda path: Journal(path.parent, "a"), text_of
        ),
        "mask": Reader("a.png", [png, encode(mask, mode="L")], read_mask, png_of),
        "map": Reader("a.map.png", [(folder / "seed.map.png").read_bytes()], read_map, png_of),
        "photo.png": Reader("a.png", [picture("PNG"), png], read_image, png_of),
        "photo": Reader(
            "a.jpg", [picture(k) for k in ("JPEG", "BMP", "GIF", "TIFF", "WEBP", "DDS", "PPM")], read_image, bytes_of
        ),
        "arrays.npy": Reader("a.npy", [as_npy(np.eye(4)), as_npy(scores)], load_arrays, bytes_of),
        "arrays.npz": Reader("a.npz", [saved(lambda s: np.savez(s, a=np.eye(4), b=np.arange(3)))], load_arrays, zip_of),
        "arrays.pt": Reader("a.pt", [tensors], load_arrays, zip_of),
        "pickle": Reader("a.npy", [as_npy(labels)[:128] + pickled], load_arrays, bytes_of),
        "checkpoint": Reader("a.ckpt", [tensors], load_torch, zip_of),
        "weights": Reader("a.pth", [tensors], read_weights, zip_of),
        "params": Reader("a.params", [params({"arg:a": np.eye(3, dtype=np.float32)})], read_params, bytes_of),
        "zip": Reader("a.zip", [saved(archive)], whole(zip_files), zip_of),
        "tar": Reader("a.tar", [tar("w")], whole(tar_files), bytes_of),
        "tgz": Reader("a.tgz", [tar("w:gz")], whole(tar_files), gzip_of),
        "submission": Reader(
            "a.tgz", [tar("w:gz", place)], lambda path: check_submission(path, expected, 1, False), gzip_of
        ),
    }
    return {**found, "SBD": Reader("a.mat", [_mat(mask)], lambda path: read_mat(path.read_bytes(), "a.mat"), bytes_of)}


def _mat(mask: np.ndarray) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": mask, "CategoriesPresent": np.array([8.0])}})
    return stream.getvalue()
