"""Files as other projects write them, made here from their formats."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssdd_lightning.nn.resnet38 import ResNet38

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}
MAGIC = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}


def array_bytes(array, version=2, storage=0, data=True):
    """One array of MXNet's container; version 0 is the one without a magic number."""
    if version == 0:
        head = struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
    else:
        head = struct.pack("<I", MAGIC[version]) + (struct.pack("<i", storage) if version > 1 else b"")
        head += struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
    return head + struct.pack("<iii", 1, 0, FLAGS[array.dtype.name]) + (array.tobytes() if data else b"")


def params_bytes(arrays, version=2):
    """A whole file."""
    names = [name.encode() for name in arrays]
    content = [struct.pack("<QQQ", 0x112, 0, len(arrays)), *(array_bytes(a, version) for a in arrays.values())]
    content += [struct.pack("<Q", len(names)), *(struct.pack("<Q", len(n)) + n for n in names)]
    return b"".join(content)


def sparse_params(path, shapes, value):
    """A file of half floats whose first value alone is not 0: of full size for a reader, nearly empty on the disk."""
    with path.open("wb") as stream:
        stream.write(struct.pack("<QQQ", 0x112, 0, len(shapes)))
        for shape in shapes.values():
            stream.write(array_bytes(np.empty(shape, np.float16), data=False))
            stream.write(np.float16(value).tobytes())
            stream.seek(2 * (int(np.prod(shape)) - 1), 1)
        stream.write(struct.pack("<Q", len(shapes)))
        for name in shapes:
            stream.write(struct.pack("<Q", len(name)) + name.encode())


def mxnet_name(name):
    """What MXNet's ResNet-38 calls a tensor of PSA's."""
    block, layer, last = name.split(".") if name.count(".") == 2 else ("", *name.split("."))
    last = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}.get(last, last)
    kind, branch = layer.split("_") if block else ("", layer)
    if last == "weight" and (kind == "bn" or layer == "bn7"):
        last = "gamma"
    stage, _, number = block.removeprefix("b").partition("_")
    place = f"{'res' if kind == 'conv' else 'bn'}{stage}{f'b{number}' if number else 'a'}_" if block else ""
    return f"{'aux' if last.startswith('moving') else 'arg'}:{place}{branch}_{last}"


@pytest.fixture(scope="session")
def mxnet():
    """The functions above, for tests (pytest does not let them import this file)."""
    return SimpleNamespace(array=array_bytes, params=params_bytes, sparse=sparse_params, name=mxnet_name)


@pytest.fixture(scope="session")
def psa_shapes():
    """Names and shapes of a ResNet-38 of PSA, as old versions of torch saved it: without counters of batches."""
    with torch.device("meta"):
        network = ResNet38()
    return {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.fixture(scope="session")
def psa_weights(psa_shapes):
    """Tensors of full shape, each one value repeated, so that a file of them is small."""
    return {name: torch.tensor(1 + i / 1000).expand(shape) for i, (name, shape) in enumerate(psa_shapes.items())}


@pytest.fixture(scope="session")
def res38_cls(psa_weights, tmp_path_factory):
    """A file like PSA's res38_cls.pth."""
    path = tmp_path_factory.mktemp("psa") / "res38_cls.pth"
    torch.save({**psa_weights, "fc8.weight": torch.tensor(0.25).expand(20, 4096, 1, 1)}, path)
    return path
