"""Pickles of other projects are read; those that want more than data are refused before anything of theirs runs."""

import contextlib
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.safe_npy import load_npy
from ssdd_lightning.storage.safe_pickle import SafeUnpickler, load_pickle


class Call:
    """Pickles as a call of a function, with an optional state; unpickling does it."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: tuple[Any, ...] | None = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Callable[..., Any] | tuple[Any, ...], ...]:
        return self.reduced


def torch_file(content: dict[str, Call]) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def saved(path: Path, content: Any) -> Path:
    np.save(path, content, allow_pickle=True)
    return path


def test_genuine_irn_files_with_tensors_are_read(tmp_path: Path) -> None:
    keys = torch.nonzero(torch.tensor([0, 1, 0, 1.0]))[:, 0]
    cam = torch.rand(2, 3, 4).transpose(1, 2)
    high = np.random.default_rng(0).random((2, 12, 16), dtype=np.float32)
    back = load_npy(saved(tmp_path / "x.npy", {"keys": keys, "cam": cam, "high_res": high}))
    assert all(isinstance(value, np.ndarray) for value in back.values())
    assert back["keys"].tolist() == [1, 3]
    np.testing.assert_array_equal(back["cam"], cam.numpy())
    np.testing.assert_array_equal(back["high_res"], high)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|u1", "<i8", "|b1", "<U3"])
def test_arrays_of_every_kind_are_rebuilt(protocol: int, dtype: str) -> None:
    values = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    content = {"a": values, np.int32(3): [values[0], values.ravel()[0]], 5: (None, True, 1.5, "x", b"y")}
    back = load_pickle(io.BytesIO(pickle.dumps(content, protocol)))
    assert list(back) == ["a", 3, 5]
    assert back[5] == content[5]
    np.testing.assert_array_equal(back["a"], values)
    assert (back["a"].dtype, back[3][0].shape, back[3][1]) == (values.dtype, (3,), values.ravel()[0])
    back["a"][0, 0] = values[1, 1]  # writable


@pytest.mark.parametrize("home", [b"numpy.core.", b"numpy._core."])
def test_module_names_of_numpy_1_and_2(home: bytes) -> None:
    content = pickle.dumps({"a": np.ones(2), np.int64(1): 2}, 2).replace(b"numpy._core.", home)
    assert load_pickle(io.BytesIO(content))["a"].tolist() == [1, 1]


def test_bfloat16_tensors_become_float32() -> None:
    back = load_pickle(io.BytesIO(pickle.dumps(torch.tensor([0.5, 2], dtype=torch.bfloat16))))
    assert (back.dtype, back.tolist()) == (np.float32, [0.5, 2.0])


def traps(trap: Path | str) -> dict[str, dict[Any, Any]]:
    """Files whose reading by pickle would make the folder `trap`, in every disguise."""
    mkdir = Call(os.mkdir, str(trap))
    nested = Call(torch.storage._load_from_bytes, torch_file({"a": mkdir}))
    return {
        "os.mkdir": {"a": mkdir},
        "builtins.eval": {"a": Call(eval, f"__import__('os').mkdir({str(trap)!r})")},
        "os.system": {"a": Call(os.system, f"mkdir {trap}")},
        "object array": {"a": np.array([1, mkdir], dtype=object)},
        "key": {Call(os.mkdir, str(trap)): 1},
        "storage": {"keys": nested},
        "tensor": {"keys": Call(torch._utils._rebuild_tensor_v2, nested, 0, (1,), (1,), False, OrderedDict())},
    }


@pytest.mark.parametrize("disguise", traps("x"))
def test_hidden_code_is_refused_and_never_run(tmp_path: Path, disguise: str) -> None:
    trap = tmp_path / "trap"
    path = saved(tmp_path / "x.npy", traps(trap)[disguise])
    with pytest.raises(InputError, match=r"x\.npy"):
        load_npy(path)
    assert not trap.exists()
    with contextlib.suppress(TypeError, AttributeError):  # what comes out is no storage
        np.load(path, allow_pickle=True)
    assert trap.exists()  # the trap does work


def test_objects_in_arrays_are_refused_though_harmless(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an array of objects"):
        load_npy(saved(tmp_path / "x.npy", {"a": np.array([1, "x"], dtype=object)}))


VOID = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)  # flags 0: "this pointer is none"


@pytest.mark.parametrize(
    ("crafted", "message"),
    [
        (Call(np.dtype, "V8", False, True, state=VOID), "dtype 'V8'"),
        (Call(np.dtype, "f8", False, True, state=VOID), "structured"),
    ],
)
def test_dtypes_that_lie_about_their_pointers_are_refused(crafted: Call, message: str) -> None:
    """numpy itself believes them: reading a value of such an array crashes the process."""
    frombuffer: Any = np.ones(1).__reduce_ex__(5)[0]
    content = pickle.dumps({"a": Call(frombuffer, b"A" * 8, crafted, (1,), "C")})
    with pytest.raises(InputError, match=message):
        load_pickle(io.BytesIO(content))


def test_bytes_are_never_taken_for_pointers() -> None:
    frombuffer: Any = np.ones(1).__reduce_ex__(5)[0]
    content = pickle.dumps(Call(frombuffer, b"A" * 8, np.dtype("O"), (1,), "C"))
    with pytest.raises(InputError, match="objects where numbers are expected"):
        load_pickle(io.BytesIO(content))


@pytest.mark.parametrize(("offset", "size", "stride"), [(0, (1000,), (1,)), (2, (2,), (1,)), (0, (2,), (-1,))])
def test_tensors_beyond_their_memory_are_refused(offset: int, size: tuple[int], stride: tuple[int]) -> None:
    storage = torch.tensor([1.0, 2.0, 3.0])._typed_storage()
    call = Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    with pytest.raises(InputError, match="does not fit into its storage of 3 values"):
        load_pickle(io.BytesIO(pickle.dumps(call)))


def test_a_pickle_cannot_change_the_reader() -> None:
    build = b"\x80\x02cnumpy.core.numeric\n_frombuffer\nN}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xs\x86b."
    with pytest.raises(AttributeError):
        load_pickle(io.BytesIO(build))
    assert SafeUnpickler._from_buffer.__name__ == "_from_buffer"


def test_a_refused_storage_gets_our_own_sentence(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = saved(tmp_path / "x.npy", traps(trap)["storage"])
    with pytest.raises(InputError, match=r"x\.npy: it asks for posix\.mkdir, .*do not trust it") as caught:
        load_npy(path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
