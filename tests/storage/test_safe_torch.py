import io
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
    with pytest.raises(InputError, match=r"truncated, damaged or not written by torch\.save"):
        load_torch(path)


def test_arrays_of_numpy_are_no_threat_but_not_admitted(tmp_path: Path) -> None:
    torch.save({"a": np.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"holds arrays or numbers of numpy.*or arrays as \.npy"):
        load_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_are_mapped_where_they_can_be(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert load_torch(tmp_path / "x.pt", mmap=True)["a"].tolist() == [0, 1, 2]
