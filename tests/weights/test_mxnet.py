import struct
from pathlib import Path

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.weights import read_params
from tests.helpers import mxnet


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "arg:conv_weight": rng.standard_normal((4, 3, 2, 5)).astype(np.float32),
        "arg:doubles": rng.standard_normal(7),
        "aux:halves": rng.standard_normal((2, 1)).astype(np.float16),
        "bytes": rng.integers(0, 256, (3, 3), dtype=np.uint8),
        "ints": rng.integers(-9, 9, 5).astype(np.int32),
        "small": rng.integers(-9, 9, 5).astype(np.int8),
        "long é": rng.integers(-(2**60), 2**60, (2, 2)),
        "flags": np.array([True, False]),
    }


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_version_and_type_is_read(tmp_path: Path, version: int) -> None:
    found = read_params(write(tmp_path / "a.params", mxnet.params(arrays(), version)))
    assert list(found) == list(arrays())
    for name, expected in arrays().items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].flags.writeable


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """A file of one 1 x 2 array written out byte by byte, not by the helper of the other tests."""
    content = bytes.fromhex(
        "1201000000000000 0000000000000000 0100000000000000"  # magic, reserved, one array
        "c9fa93f9 00000000 02000000 0100000000000000 0200000000000000"  # version 2, dense, 1 x 2
        "01000000 00000000 00000000 0000803f 000000c0"  # cpu 0, float32, 1.0 and -2.0
        "0100000000000000 0500000000000000 6172673a77"  # one name, arg:w
    )
    found = read_params(write(tmp_path / "a.params", content))
    assert list(found) == ["arg:w"]
    np.testing.assert_array_equal(found["arg:w"], np.array([[1, -2]], np.float32))


@pytest.mark.parametrize(("version", "dimensions"), [(1, 0), (2, 0), (3, -1)])
def test_an_array_that_was_never_filled_is_empty(tmp_path: Path, version: int, dimensions: int) -> None:
    magic = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}[version]
    empty = struct.pack("<I", magic) + (struct.pack("<i", 0) if version > 1 else b"") + struct.pack("<i", dimensions)
    one = mxnet.array(np.ones(2, np.float32))
    names = struct.pack("<QQ", 2, 1) + b"a" + struct.pack("<Q", 1) + b"b"
    found = read_params(write(tmp_path / "a.params", struct.pack("<QQQ", 0x112, 0, 2) + empty + one + names))
    assert found["a"].shape == (0,)
    np.testing.assert_array_equal(found["b"], [1, 1])


def test_a_scalar_of_version_3_is_read(tmp_path: Path) -> None:
    found = read_params(write(tmp_path / "a.params", mxnet.params({"s": np.float32(3).reshape(())}, 3)))
    assert found["s"].shape == ()
    assert found["s"] == 3


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    content = mxnet.params({"a": np.ones((2, 3), np.float32), "bb": np.ones(1)})
    path = tmp_path / "cut.params"
    for length in range(len(content)):
        write(path, content[:length])
        with pytest.raises(InputError, match=r"cut\.params (is truncated|is not an MXNet parameter file)"):
            read_params(path)
    write(path, content)
    assert set(read_params(path)) == {"a", "bb"}


def header(count: int = 1) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, count)


def dense(*shape: int, flag: int = 0) -> bytes:
    return struct.pack(f"<Iii{len(shape)}qiii", 0xF993FAC9, 0, len(shape), *shape, 1, 0, flag)


HOSTILE = {
    "another format": (b"PK\x03\x04" + bytes(40), r"not an MXNet parameter file.*expected the magic number 0x112"),
    "too short": (b"\x12\x01", "found a shorter file"),
    "a billion arrays": (header(10**9) + bytes(99), "truncated: it announces 1000000000 arrays"),
    "2^64 arrays": (header(2**64 - 1), "truncated: it announces 18446744073709551615 arrays"),
    "a huge array": (header() + dense(2**40, 2**40), "truncated: array 0 needs 4835703278458516698824704 bytes"),
    "an overflowing product": (header() + dense(2**32, 2**32, 4), "truncated: array 0 needs"),
    "a negative side": (header() + dense(-1, 4), r"array 0 of .* has the shape \(-1, 4\)"),
    "many dimensions": (header() + struct.pack("<Iii", 0xF993FAC9, 0, 10**6), "claims 1000000 dimensions"),
    "negative dimensions": (header() + struct.pack("<Iii", 0xF993FAC9, 0, -5), "claims -5 dimensions"),
    "a legacy ndim": (header() + struct.pack("<I", 0xDEADBEEF), "claims 3735928559 dimensions"),
    "an unknown type": (header() + dense(1, flag=9) + bytes(8), "unknown type 9; expected 0 to 7"),
    "a negative type": (header() + dense(1, flag=-1) + bytes(8), "unknown type -1"),
    "a sparse array": (header() + struct.pack("<Iii", 0xF993FAC9, 1, 1) + bytes(40), "storage type 1; only dense"),
    "a long name": (
        header() + dense(1) + bytes(4) + struct.pack("<QQ", 1, 2**63) + b"a",
        "truncated: a name needs 9223372036854775808 bytes",
    ),
    "many names": (header() + dense(1) + bytes(4) + struct.pack("<Q", 2**40), "announces 1099511627776 names"),
    "no arrays": (header(0) + struct.pack("<Q", 0), "holds no arrays"),
    "sides beyond all range": (header() + dense(0, 2**62, 2**62), "impossible shape"),
    "no names": (header() + dense(1) + bytes(4) + struct.pack("<Q", 0), "1 arrays and 0 different names"),
    "a name twice": (
        header(2) + 2 * (dense(1) + bytes(4)) + struct.pack("<Q", 2) + 2 * (struct.pack("<Q", 1) + b"a"),
        "2 arrays and 1 different names",
    ),
    "more behind the names": (
        header() + dense(1) + bytes(4) + struct.pack("<QQ", 1, 1) + b"a" + bytes(7),
        "has 7 bytes after its names",
    ),
    "a name that is not text": (
        header() + dense(1) + bytes(4) + struct.pack("<QQ", 1, 2) + b"\xff\xfe",
        r"a name in .* is not text",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_foreign_or_hostile_file_is_refused(tmp_path: Path, kind: str) -> None:
    content, message = HOSTILE[kind]
    path = write(tmp_path / "bad.params", content)
    with pytest.raises(InputError, match=message) as caught:
        read_params(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the parameter file .*none\.params.*check the path"):
        read_params(tmp_path / "none.params")
