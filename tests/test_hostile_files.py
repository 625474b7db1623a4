"""Files from strangers: each of these broke a reader, took all memory, or hung; now each is one sentence at once."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.data.classes import VOC, class_table, read_classes
from ssdd_lightning.data.labels import read_annotations, read_label_file, table_of_labels
from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.containers import load_arrays
from ssdd_lightning.pipeline.config import read_config
from ssdd_lightning.prepare.coco_masks import draw_mask, read_split
from ssdd_lightning.storage.archives import tar_files, zip_files
from ssdd_lightning.storage.images import image_size
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.safe_torch import load_torch
from ssdd_lightning.weights.loading import load_weights

resource = pytest.importorskip("resource", reason="limits of memory are POSIX's")


@pytest.fixture
def little_memory() -> Any:
    """At most 2 GB more than now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def png(width: int, height: int, pixels: bytes | None = None, *more: tuple[bytes, bytes]) -> bytes:
    """A grey PNG; chunks may follow its pixels."""
    if pixels is None:
        line = zlib.compressobj(9)
        pixels = b"".join(line.compress(bytes(width + 1)) for _ in range(height)) + line.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", pixels), *more, (b"IEND", b"")]
    chunks = (struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def dds() -> bytes:
    """A photo in the format of a game, with flags that Pillow does not know."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "DDS")
    content = bytearray(stream.getvalue())
    content[80:84] = struct.pack("<I", 1 << 20)
    return bytes(content)


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n"


@pytest.mark.parametrize("encoding", ["base64", "rot13", "hex", "nowhere", "punycode", "undefined"])
def test_annotations_in_strange_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(InputError, match=r"cannot read annotation .*a\.xml .*; copy or download it again"):
        read_annotations(tmp_path, ["a"], VOC)


@pytest.mark.parametrize(
    "content",
    [dds(), png(8, 8, b""), PROGRAM],
    ids=["flags", "no pixels", "program"],
)
def test_photos_that_pillow_stumbles_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"image .*a\.png"):
        read_image(path)


def test_a_colour_profile_after_the_pixels_is_passed_over_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8, None, (b"iCCP", b"x\0")))
    with suppress(InputError):
        assert read_image(path).shape == (8, 8, 3)  # Pillow 10.1


def test_a_jpeg_cannot_ask_for_hundreds_of_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (64, 64), 100).save(path, progressive=True)
    assert read_image(path).shape == (64, 64, 3)
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:-2] + content[last:-2] * 200 + content[-2:])
    with pytest.raises(InputError, match=r"a\.jpg holds 20\d scans, expected at most 100; do not trust it"):
        read_image(path)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("reader", [read_image, read_mask, image_size])
def test_a_few_kilobytes_cannot_claim_all_memory(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(13000, 13000))
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match=r"a\.png claims 13000 x 13000 pixels, expected at most 134,217,728"):
        reader(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"a":' + "[" * 100_000),
        ("a.json", '{"a":[' + "[" * 900 + "]" * 902 + "}"),
        ("a.json", '{"a":[' + "1" * 5000 + "]}"),
        ("a.csv", "name,labels\na," + "1" * 5000),
        ("a.csv", "name,labels\na,\0"),
        ("a.npy", {"a": [[1, 2], [3]]}),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "dict",
)
@pytest.mark.parametrize("reader", [lambda path: read_label_file(path, VOC), table_of_labels], ids=["VOC", "any"])
def test_label_files(tmp_path: Path, reader: Callable[[Path], Any], name: str, content: Any) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError, match=f"{name}"):
        reader(path)


@pytest.mark.parametrize("content", [{"a": 10**5000}, {10**5000: [0, 1]}], ids=["label", "name"])
def test_huge_numbers_in_label_files(tmp_path: Path, content: Any) -> None:
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy"):
        read_label_file(tmp_path / "a.npy", VOC)


@pytest.mark.parametrize("content", ['{"0":' + "[" * 100_000, '{"' + "9" * 5000 + '": "a"}'], ids=["deep", "digits"])
def test_class_lists(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(InputError, match=r"classes\.txt"):
        read_classes(tmp_path / "classes.txt")
    with pytest.raises(InputError, match="expected 2 to 255 classes"):
        class_table("9" * 5000)


@pytest.mark.parametrize(
    ("height", "width"), [(float("inf"), 4), (-5, 4), (4, -5), (0, 0), (10**30, 4), (1e300, 4), (20_000, 20_000)]
)
def test_sizes_in_cocos_json(height: float, width: float) -> None:
    image = {"id": 1, "file_name": "a.jpg", "height": height, "width": width}
    shape = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    content = {"categories": [{"id": 1, "name": "a"}], "images": [image], "annotations": [shape]}
    with pytest.raises(InputError, match=r"x\.json"):
        draw_mask(read_split(json.dumps(content).encode(), "x.json").photos["a"])


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("objects", "polygon", "message"),
    [
        (30, [0, 0, 9, 0, 9, 9], "a.jpg has 30 objects in 11585 x 11585 pixels"),
        (1, [0, 0, 23000, 23000] * 1000, "a.jpg .*polygons of more than 10,000,000 pixels"),
    ],
    ids=["objects", "outline"],
)
def test_regions_in_cocos_json(objects: int, polygon: list[int], message: str) -> None:
    pytest.importorskip("pycocotools")
    image = {"id": 1, "file_name": "a.jpg", "height": 11585, "width": 11585}
    shape = {"image_id": 1, "category_id": 1, "segmentation": [polygon]}
    content = {"categories": [{"id": 1, "name": "a"}], "images": [image], "annotations": [shape] * objects}
    with pytest.raises(InputError, match=message):
        draw_mask(read_split(json.dumps(content).encode(), "x.json").photos["a"])


YAMLS = {
    "laughs": "a0: &a0 [0,0,0,0,0,0,0,0,0]\n"
    + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "merges": "a0: &a0 {b: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)),
    "itself": "a: &a [*a]",
    "deep": "a: " + "[" * 5000,
    "timestamp": "a: !!timestamp 1",
    "bool": "a: !!bool x",
    "int": 'a: !!int ""',
    "null byte": 'a: "\\0"',
    "half a character": 'a: "\\ud800"',
    "sixties": "a: 1" + ":1" * 5000,
    "code": "a: !!python/object/apply:os.system [touch x]",
}


@pytest.mark.parametrize("content", YAMLS.values(), ids=YAMLS)
def test_yaml_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stage.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"expected YAML in .*stage\.yaml, which cannot be read"):
        read_config(path)
    with pytest.raises(InputError, match=r"stage\.yaml"):
        main(["fit", f"--config={path}"])


def write_zip_with(path: Path, change: Callable[[bytearray], None]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"photo")
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def garbled_name(content: bytearray) -> None:
    at = content.rindex(b"PK\x01\x02")
    content[at + 8 : at + 10] = struct.pack("<H", 1 << 11)  # the name is UTF-8
    content[at + 46 : at + 51] = b"\xff\xfe\xfd\xfc\xfb"


def short_extra(content: bytearray) -> None:
    at = content.rindex(b"PK\x01\x02")
    extra = struct.pack("<HH", 1, 0)  # zip64 without its numbers
    content[at + 20 : at + 28] = b"\xff" * 8  # sizes are in the extra field
    content[at + 30 : at + 32] = struct.pack("<H", len(extra))
    content[at + 51 : at + 51] = extra
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<I", end - at)


@pytest.mark.parametrize("change", [garbled_name, short_extra])
def test_zip_directories(tmp_path: Path, change: Callable[[bytearray], None]) -> None:
    path = write_zip_with(tmp_path / "a.zip", change)
    with pytest.raises(InputError, match=r"cannot read archive .*a\.zip"):
        list(zip_files(path, lambda _: True, progress=False))


def test_archives_that_hold_two_hundred_times_their_size(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", bytes(300 << 20))
    with pytest.raises(InputError, match=r"a\.json unpacks \d+ bytes to 314572800 or more"):
        list(zip_files(tmp_path / "a.zip", lambda _: True, largest=1 << 31, progress=False))
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz", preset=0) as tar:
        entry = tarfile.TarInfo("unwanted")
        entry.size = 300 << 20
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    with pytest.raises(InputError, match=r"unpacks \d+ bytes to \d+ or more"):
        list(tar_files(tmp_path / "a.tar.xz", lambda _: False, progress=False))


@pytest.mark.usefixtures("little_memory")
def test_arrays_that_claim_more_than_there_is(tmp_path: Path) -> None:
    large, huge = (
        {"descr": "<f8", "fortran_order": False, "shape": shape} for shape in ((3 << 27,), (1 << 50, 1 << 50))
    )
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array_header_1_0(stream, large)
        for _ in range(3 << 6):
            stream.write(bytes(1 << 24))
    with pytest.raises(InputError, match=r"a\.npz holds 32212\d+ bytes of arrays, expected at most"):
        load_arrays(tmp_path / "a.npz")
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, huge)
    with pytest.raises(InputError, match=r"a\.npy: it claims an array of \(1125899906842624, 1125899906842624\)"):
        load_arrays(tmp_path / "a.npy")


@pytest.mark.usefixtures("little_memory")
def test_pickles_and_tensors_that_repeat_themselves(tmp_path: Path) -> None:
    bomb: Any = [0]
    for _ in range(9):
        bomb = [bomb] * 10
    np.save(tmp_path / "a.npy", {"a": bomb}, allow_pickle=True)  # type: ignore[arg-type]
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:128] + pickle.dumps({"a": bomb}))
    with pytest.raises(InputError, match=r"a\.npy: it names the same values again and again"):
        read_label_file(tmp_path / "a.npy", VOC)
    torch.save({"a": bomb}, tmp_path / "bomb.pt")
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "view.pt")
    for name, message in (("bomb", "again and again"), ("view", "is stored in 4 bytes")):
        with pytest.raises(InputError, match=message):
            load_torch(tmp_path / f"{name}.pt")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\x1f.", r"the pickle numbers a part 536870911 after \d+ bytes"),
        (b"}p99999999\n.", r"the pickle numbers a part 99999999 after \d+ bytes"),
        (pickle.dumps({n * (2**61 - 1): 0 for n in range(10_000)}, 2), "the pickle holds a whole number of 65 bits"),
        (b"}I" + b"9" * 4000 + b"\nNs.", "the pickle holds a whole number of 132"),
    ],
    ids=["a number", "a number in digits", "one hash", "digits"],
)
def test_pickles_of_huge_numbers(tmp_path: Path, content: bytes, message: str) -> None:
    with (tmp_path / "a.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
        stream.write(content)
    with pytest.raises(InputError, match=rf"a\.npy: {message}"):
        read_label_file(tmp_path / "a.npy", VOC)


def asked(name: str, argument: bytes) -> bytes:
    """A pickle that calls a function of torch's choice."""
    return b"\x80\x02c" + name.encode() + b"\n" + argument + b"\x85R."


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (asked("builtins\nbytearray", b"J\xff\xff\xff\x3f"), "asks for a builtins bytearray, which takes any memory"),
        (asked("torch\nFloatTensor", b"J\xff\xff\xff\x0f"), "asks for a torch FloatTensor, which takes any memory"),
        (pickle.dumps({n * (2**61 - 1): 0 for n in range(10_000)}, 2), "holds a whole number of 65 bits"),
    ],
    ids=["bytes", "tensor", "one hash"],
)
@pytest.mark.parametrize("old", [False, True])
def test_pickles_of_torch(tmp_path: Path, content: bytes, message: str, old: bool) -> None:
    path = tmp_path / "a.pt"
    if old:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(pickle.dumps({}, 2), content))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {"data.pkl": content, "version": b"3\n", "byteorder": b"little"}.items():
                archive.writestr(f"a/{name}", data)
    with pytest.raises(InputError, match=f"the pickle {message}"):
        load_torch(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, 4, device="meta"),
        torch.zeros(4, 4).to(torch.float8_e4m3fn),
        torch.empty(4, 4, dtype=torch.bits8),
        torch.eye(4).to_sparse(),
        torch.eye(4, dtype=torch.long).to_sparse_csr(),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        torch.quantize_per_tensor(torch.zeros(4, 4), 1.0, 0, torch.qint8),
    ],
    ids=["meta", "float8", "bits", "sparse", "sparse rows", "nested", "quantised"],
)
def test_tensors_of_no_plain_numbers(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"weight": tensor, "bias": torch.zeros(4)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x\.pth .*: it holds a tensor \(.*\) where plain numbers are expected"):
        load_weights(torch.nn.Linear(4, 4), tmp_path / "x.pth", required="")


@pytest.mark.usefixtures("little_memory")
def test_ragged_scores_of_other_projects(tmp_path: Path, tiny_devkit: Path) -> None:
    photos = tiny_devkit / "VOCdevkit" / "VOC2012" / "JPEGImages"
    name = sorted(photos.glob("*.jpg"))[0].stem
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / f"{name}.npy", {0: [[1.0, 2.0], [3.0]]}, allow_pickle=True)  # type: ignore[arg-type]
    for words in ([], ["--from=psa-cam"]):
        with pytest.raises(InputError, match="arrays"):
            main(["import", str(tmp_path / "in"), f"--images={photos}", f"--out={tmp_path / 'out'}", *words])
