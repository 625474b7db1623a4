import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.safe_npy import load_npy
from tests.helpers.files import Trap


def save_pickled(path: Path, content: dict[Any, Any], protocol: int) -> None:
    array = np.empty((), dtype=object)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        array[()] = content
        pickle.dump(array, stream, protocol=protocol)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_dicts_of_arrays_and_scalars_are_read(tmp_path: Path, protocol: int) -> None:
    content: dict[Any, Any] = {
        "2007_000032": np.arange(3, dtype=np.float32),
        np.int32(2007000033): np.float64(0.5),
        4: [True, None],
    }
    save_pickled(tmp_path / "x.npy", content, protocol)
    back = load_npy(tmp_path / "x.npy")
    assert list(back) == list(content)
    np.testing.assert_array_equal(back["2007_000032"], content["2007_000032"])
    assert back["2007_000032"].dtype == np.float32
    assert back[np.int32(2007000033)] == 0.5


def test_what_numpy_saves_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", {"a": np.ones(2)})  # type: ignore[arg-type]
    np.save(tmp_path / "p.npy", np.eye(2))
    assert load_npy(tmp_path / "d.npy")["a"].tolist() == [1, 1]
    np.testing.assert_array_equal(load_npy(tmp_path / "p.npy"), np.eye(2))


def test_python_2_and_old_numpy_names_are_read(tmp_path: Path) -> None:
    save_pickled(tmp_path / "x.npy", {"a": np.ones(2)}, 2)
    content = (tmp_path / "x.npy").read_bytes().replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "x.npy").write_bytes(content)
    assert load_npy(tmp_path / "x.npy")["a"].tolist() == [1, 1]


def test_code_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    np.save(tmp_path / "x.npy", {"a": Trap(trap)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"x\.npy: the pickle asks for \w+\.mkdir"):
        load_npy(tmp_path / "x.npy")
    assert not trap.exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)  # the trap does work
    assert trap.exists()


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, {"a": np.ones(99)})  # type: ignore[arg-type]
    whole = path.read_bytes()
    for content in (whole[:-40], whole[:30], b"", b"name,labels\n", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.npy"):
            load_npy(path)
    with pytest.raises(InputError, match="does not exist"):
        load_npy(tmp_path / "gone.npy")
