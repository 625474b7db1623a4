"""Files as MXNet writes them, made here from their format."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}
MAGIC = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}


def array(values: np.ndarray | np.generic, version: int = 2, storage: int = 0, data: bool = True) -> bytes:
    """One array of MXNet's container; version 0 is the one without a magic number."""
    if version == 0:
        head = struct.pack(f"<I{values.ndim}I", values.ndim, *values.shape)
    else:
        head = struct.pack("<I", MAGIC[version]) + (struct.pack("<i", storage) if version > 1 else b"")
        head += struct.pack(f"<i{values.ndim}q", values.ndim, *values.shape)
    return head + struct.pack("<iii", 1, 0, FLAGS[values.dtype.name]) + (values.tobytes() if data else b"")


def params(arrays: Mapping[str, np.ndarray | np.generic], version: int = 2) -> bytes:
    """A whole file."""
    names = [name.encode() for name in arrays]
    content = [struct.pack("<QQQ", 0x112, 0, len(arrays)), *(array(a, version) for a in arrays.values())]
    content += [struct.pack("<Q", len(names)), *(struct.pack("<Q", len(n)) + n for n in names)]
    return b"".join(content)


def sparse(path: Path, shapes: dict[str, tuple[int, ...]], value: int) -> None:
    """A file of half floats whose first value alone is not 0: of full size for a reader, nearly empty on the disk."""
    with path.open("wb") as stream:
        stream.write(struct.pack("<QQQ", 0x112, 0, len(shapes)))
        for shape in shapes.values():
            stream.write(array(np.empty(shape, np.float16), data=False))
            stream.write(np.float16(value).tobytes())
            stream.seek(2 * (int(np.prod(shape)) - 1), 1)
        stream.write(struct.pack("<Q", len(shapes)))
        for name in shapes:
            stream.write(struct.pack("<Q", len(name)) + name.encode())


def name(own: str) -> str:
    """What MXNet's ResNet-38 calls a tensor of PSA's."""
    block, layer, last = own.split(".") if own.count(".") == 2 else ("", *own.split("."))
    last = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}.get(last, last)
    kind, branch = layer.split("_") if block else ("", layer)
    if last == "weight" and (kind == "bn" or layer == "bn7"):
        last = "gamma"
    stage, _, number = block.removeprefix("b").partition("_")
    place = f"{'res' if kind == 'conv' else 'bn'}{stage}{f'b{number}' if number else 'a'}_" if block else ""
    return f"{'aux' if last.startswith('moving') else 'arg'}:{place}{branch}_{last}"
