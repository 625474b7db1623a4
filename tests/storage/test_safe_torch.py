import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.safe_torch import load_torch
from tests.helpers.files import Trap


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_content_comes_back(zipped: bool) -> None:
    stream = io.BytesIO()
    torch.save({"a": torch.arange(3), "b": [1, "x"]}, stream, _use_new_zipfile_serialization=zipped)
    stream.seek(0)
    content = load_torch(stream)
    assert content["a"].tolist() == [0, 1, 2]
    assert content["b"] == [1, "x"]


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_named_and_never_run(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": Trap(tmp_path / "ran")}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"asks for posix\.mkdir, but only tensors.*do not trust it") as caught:
        load_torch(tmp_path / "x.pt")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_no_threat(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(300)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        load_torch(path)


@pytest.mark.parametrize("mmap", [True, False])
def test_a_byte_that_changed_inside_of_a_tensor_is_found(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(3000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(2000, 2010).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert not torch.load(path, weights_only=True)["a"].equal(torch.arange(3000))  # torch itself does not look
    with pytest.raises(InputError, match=r"^damaged: Bad CRC-32 for file '.*data/0'\.$"):
        load_torch(path, mmap)


def test_compressed_data_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(300)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as plain,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(InputError, match=r"holds compressed data \(x/data\.pkl\), which torch\.save never writes"):
        load_torch(tmp_path / "y.pt")


def test_arrays_of_numpy_are_no_threat_but_not_admitted(tmp_path: Path) -> None:
    torch.save({"a": np.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"holds arrays or numbers of numpy.*or arrays as \.npy"):
        load_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_are_mapped_where_they_can_be(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert load_torch(tmp_path / "x.pt", mmap=True)["a"].tolist() == [0, 1, 2]
