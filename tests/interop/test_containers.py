from pathlib import Path

import numpy as np
import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.containers import load_arrays, only_array
from tests.helpers.files import Trap


def test_all_containers_hold_the_same(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", prob=values, other=values[0])
    torch.save(torch.from_numpy(values), tmp_path / "a.pt")
    torch.save({"prob": torch.from_numpy(values).requires_grad_(), "n": 3}, tmp_path / "a.pth")
    for suffix, key in ((".npy", None), (".npz", "prob"), (".pt", None), (".pth", None)):
        path = tmp_path / f"a{suffix}"
        np.testing.assert_array_equal(only_array(load_arrays(path), path, key), values)


def test_which_of_several_arrays_must_be_said(tmp_path: Path) -> None:
    content = {"prob": np.ones(2), "logit": np.ones(2), "n": 1}
    for key, message in ((None, "expected one array, found prob, logit"), ("x", "expected an array 'x'")):
        with pytest.raises(InputError, match=rf"f\.npz: {message}.*`--key`"):
            only_array(content, tmp_path / "f.npz", key)
    with pytest.raises(InputError, match="a int without any"):
        only_array(3, tmp_path / "f.pt", None)


def test_code_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"a": Trap(trap)}, tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", a=np.array([Trap(trap)], dtype=object))
    for suffix in (".pt", ".npz"):
        with pytest.raises(InputError, match=rf"x\{suffix}"):
            load_arrays(tmp_path / f"x{suffix}")
    assert not trap.exists()
    with pytest.raises(AttributeError):  # mkdir returns None
        torch.load(tmp_path / "x.pt", weights_only=False)["a"].anything  # noqa: B018
    assert trap.exists()  # the trap does work


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    with pytest.raises(InputError, match=rf"x\{suffix} does not exist"):
        load_arrays(path)
    for content in (b"", b"hello", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"cannot read .*x\{suffix}"):
            load_arrays(path)


def test_a_sparse_tensor_is_no_array(tmp_path: Path) -> None:
    torch.save(torch.eye(3).to_sparse(), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: it holds a tensor \(cpu, torch\.sparse_coo, torch\.float32\)"):
        load_arrays(tmp_path / "x.pt")
