"""scipy's reader of .mat files runs in a process of its own."""

import io
import random

import numpy as np
import pytest
from scipy.io import savemat

from ssdd_lightning.errors import InputError
from ssdd_lightning.prepare.sbd import _PROCESS, read_mat

MASK = np.zeros((6, 5), np.uint8)
MASK[2:4, 1:3] = 8


def mat(mask: object = MASK) -> bytes:
    stream = io.BytesIO()
    content = {"Boundaries": np.zeros((2, 2)), "Segmentation": mask, "CategoriesPresent": np.array([8.0])}
    savemat(stream, {"GTcls": content}, do_compression=False)
    return stream.getvalue()


def crafted() -> bytes:
    """A file that ends scipy 1.17's reader with a segmentation fault."""
    content, draw = bytearray(mat()), random.Random(133)
    draw.choice([0])
    for _ in range(draw.randint(1, 4)):
        at, kind = draw.randrange(128, len(content)), draw.randrange(3)
        if kind == 0:
            content[at] = draw.randrange(256)
        elif kind == 1:
            content[at] = draw.choice([0, 1, 2, 5, 6, 9, 14, 15, 255, 127])
        else:
            words = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x05\0\0\0", b"\x0e\0\0\0"]
            content[at // 4 * 4 : at // 4 * 4 + 4] = draw.choice(words)
    return bytes(content)


def test_one_process_reads_many_files_and_another_takes_its_place_if_one_crashes_it() -> None:
    np.testing.assert_array_equal(read_mat(mat(), "a.mat"), MASK)
    first = _PROCESS._process.pid
    np.testing.assert_array_equal(read_mat(mat(), "b.mat"), MASK)
    assert _PROCESS._process.pid == first
    with pytest.raises(InputError, match=r"cannot read c\.mat of SBD \(.*\); expected a \.mat file with GTcls"):
        read_mat(crafted(), "c.mat")
    np.testing.assert_array_equal(read_mat(mat(), "c.mat"), MASK)
    _PROCESS._process.kill()
    _PROCESS._process.join()
    with pytest.raises(InputError, match=r"cannot read d\.mat of SBD \(scipy's reader crashed on it"):
        read_mat(mat(), "d.mat")
    np.testing.assert_array_equal(read_mat(mat(), "e.mat"), MASK)
    assert _PROCESS._process.pid != first


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 200, mat()[:300], mat("text"), mat(MASK + 30)],
    ids=["empty", "no .mat", "torn", "text", "class 30"],  # .mat files hold the time at which they were written
)
def test_damaged_files_are_one_sentence(content: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.mat of SBD"):
        read_mat(content, "a.mat")


def test_a_mask_of_a_few_kilobytes_cannot_claim_all_memory() -> None:
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": np.zeros((12_000, 12_000), np.uint8)}}, do_compression=True)
    assert len(stream.getvalue()) < 200_000
    with pytest.raises(
        InputError, match=r"cannot read a\.mat of SBD \(ValueError: Segmentation holds 144000000 bytes\)"
    ):
        read_mat(stream.getvalue(), "a.mat")
