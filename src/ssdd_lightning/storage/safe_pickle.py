"""Unpickling what other projects save, without running code that may hide in it.

Only plain values, dicts, lists, tuples, numpy arrays and scalars, and torch tensors come out. Even numpy's own types
are not admitted: the state of a pickled dtype says which of its fields are pointers, numpy trusts it, and a crafted one
can crash the process or worse. So arrays are rebuilt here from a type code, a shape and bytes.
"""

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import check_expanded, inside

_DTYPES = re.compile(r"[<>=|]?(b1|[iu][1248]|f(2|4|8|16)|[SU]\d+|O8?)")
_MOST_BITS = 64
_SIZED = re.compile(r"builtins bytearray|torch[\w.]* \w*Tensor")
_PLAIN = (str, bytes, bool, int, float, type(None), np.generic)


class SafeUnpickler(pickle.Unpickler):
    """Unpickler that admits only the few functions that arrays and tensors need; see `load_pickle`.

    A pickle may call only bound methods of this object: it could set attributes of plain functions.
    """

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Return a stand-in for a name in the pickle, if the name is admitted."""
        stand_ins = {
            ("numpy", "ndarray"): "ndarray",  # only ever handed to _reconstruct, which ignores it
            ("numpy", "dtype"): _Dtype,
            ("numpy.core.multiarray", "_reconstruct"): self._new_array,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encode,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch.storage", "_load_from_bytes"): self._storage,
        }
        found = stand_ins.get((module.replace("numpy._core.", "numpy.core."), name))
        if found is None:
            raise InputError(
                f"the pickle asks for {module}.{name}, but only numpy arrays, torch tensors and plain values are "
                "admitted; do not trust this file."
            )
        return found

    def _new_array(self, *_: object) -> "_Array":
        return _Array()

    def _scalar(self, dtype: "_Dtype", data: bytes | str) -> np.generic:
        value: np.generic = np.frombuffer(_as_bytes(data), dtype.resolve(), count=1)[0]
        return value

    def _from_buffer(
        self, data: bytes, dtype: "_Dtype", shape: tuple[int, ...], order: str = "C"
    ) -> npt.NDArray[np.generic]:
        return _filled(data, dtype, shape, fortran=order == "F")

    def _encode(self, text: str, encoding: str) -> bytes:
        """Decode bytes as protocol 2 stores them: a str and its encoding."""
        if encoding != "latin1":
            raise InputError(f"the pickle holds bytes in the encoding {encoding!r}, expected latin1.")
        return text.encode("latin1")

    def _storage(self, content: bytes) -> Any:  # noqa: ANN401
        """A tensor's memory, which a pickle holds as a complete torch file."""
        import torch

        from ssdd_lightning.storage.safe_torch import load_torch

        storage = load_torch(io.BytesIO(content))
        if not isinstance(storage, torch.storage.TypedStorage):
            raise InputError(f"expected the storage of a tensor, found {type(storage).__name__}.")
        return storage

    def _tensor(
        self,
        storage: Any,  # noqa: ANN401
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: object,
    ) -> npt.NDArray[np.generic]:
        import torch

        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        memory: torch.UntypedStorage = storage._untyped_storage  # the public `untyped` warns about its class
        room = memory.nbytes() // storage.dtype.itemsize
        if min(offset, *size, *stride, 0) < 0 or (0 not in size and last >= room):
            raise InputError(f"a tensor of size {tuple(size)} does not fit into its storage of {room} values.")
        tensor = torch.empty(0, dtype=storage.dtype).set_(memory, offset, tuple(size), tuple(stride))
        return to_numpy(tensor)


def load_pickle(stream: BinaryIO) -> Any:  # noqa: ANN401
    """Unpickle numbers, text, dicts, lists, tuples, numpy arrays and torch tensors; nothing else.

    Args:
        stream: Where the pickle starts.

    Returns:
        The object. Tensors become arrays; a 0-d array of one object becomes that object.

    Raises:
        InputError: The pickle asks for anything else.
        Exception: Almost any kind, if the pickle is damaged.
    """
    start = stream.tell()
    check_pickle(stream)
    stream.seek(start)
    unpickler = SafeUnpickler(stream, encoding="latin1")  # latin1: as numpy requires for files of Python 2
    content = unpickler.load()
    if isinstance(content, _Array) and content.objects is not None and len(content.objects) == 1:
        content = content.objects[0]
    check_expanded(content, _inside)
    return _finished(content)


def check_pickle(stream: BinaryIO, numbers: bool = True) -> None:
    """Refuse a pickle of which a few bytes take any memory or time.

    The unpickler takes memory for as many parts as the highest number that it gives to one, and needs quadratic time
    for keys of one hash, which are easily found among huge numbers. Torch's lets pass what takes a size.

    Args:
        stream: Where the pickle starts; afterwards at its end.
        numbers: Whether huge numbers are refused.

    Raises:
        InputError: It does one of these.
        Exception: Almost any kind, if the pickle is damaged.
    """
    for operation, argument, position in pickletools.genops(stream):
        if "PUT" in operation.name and (argument or 0) > (position or 0):
            raise InputError(f"the pickle numbers a part {argument} after {position} bytes; do not trust it.")
        if numbers and isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
            raise InputError(f"the pickle holds a whole number of {argument.bit_length()} bits; do not trust it.")
        if operation.name == "GLOBAL" and _SIZED.fullmatch(str(argument)):
            raise InputError(f"the pickle asks for a {argument}, which takes any memory; do not trust it.")


def to_numpy(tensor: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - a Tensor, named only where torch is loaded
    """Turn a CPU tensor into an array; bfloat16, which numpy lacks, into float32."""
    tensor = tensor.detach()
    array: npt.NDArray[Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return array


class _Dtype:
    """Stands for a dtype while a pickle loads."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _DTYPES.fullmatch(code):
            raise InputError(f"the pickle holds an array of dtype {code!r}, expected numbers or text.")
        self._code = code
        self._order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *structure = state[:5]
        if structure != [None, None, None]:
            raise InputError("the pickle holds a structured array, expected numbers or text.")
        self._order = str(order)

    @property
    def holds_objects(self) -> bool:
        return "O" in self._code

    def resolve(self) -> np.dtype[Any]:
        if self.holds_objects:
            raise InputError("the pickle holds objects where numbers are expected; do not trust this file.")
        return np.dtype(self._code).newbyteorder(self._order)  # type: ignore[arg-type]


class _Array:
    """Stands for an array until its state has been read."""

    objects: list[Any] | None = None
    values: npt.NDArray[np.generic] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, data = state[-4:]
        if dtype.holds_objects:
            self.objects = list(data)
        else:
            self.values = _filled(_as_bytes(data), dtype, shape, fortran)


def _filled(data: bytes, dtype: _Dtype, shape: tuple[int, ...], fortran: bool) -> npt.NDArray[np.generic]:
    values = np.frombuffer(data, dtype.resolve()).reshape(shape, order="F" if fortran else "C")
    return values.copy(order="K")  # writable, and the file's bytes can be freed


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else data


def _inside(content: Any) -> Iterable[Any]:  # noqa: ANN401
    return content.objects or () if isinstance(content, _Array) else inside(content)


def _finished(content: Any) -> Any:  # noqa: ANN401
    """Replace stand-ins by arrays; refuse anything that is neither a container nor a plain value."""
    if isinstance(content, dict):
        return {_finished_key(key): _finished(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)([_finished(value) for value in content])
    if isinstance(content, _Array) and content.values is not None:
        return content.values
    if isinstance(content, (np.ndarray, *_PLAIN)):
        return content
    what = "an array of objects" if isinstance(content, _Array) else f"a {type(content).__name__}"
    raise InputError(f"the pickle holds {what}, but only numbers, text, dicts and lists of them are admitted.")


def _finished_key(key: Any) -> Any:  # noqa: ANN401
    if not isinstance(key, _PLAIN):
        raise InputError(f"the pickle holds a dict with a key of type {type(key).__name__}.")
    return key
