import gzip
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.archives import tar_files, zip_files
from tests.helpers.files import write_tar

FILES = {"a/b.txt": b"hello", "a/skip.txt": b"no", "./a/c.bin": np.random.default_rng(0).bytes(50_000)}


def wanted(path: PurePath) -> bool:
    return path.name != "skip.txt"


def read(path: Path, reader: Callable[..., Any] = tar_files, **options: Any) -> dict[PurePath, bytes]:
    return dict(reader(path, wanted, progress=False, **options))


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_reads_what_is_wanted(tmp_path: Path, mode: str) -> None:
    found = read(write_tar(tmp_path / "x.tar", FILES, mode))
    assert found == {PurePosixPath("a/b.txt"): FILES["a/b.txt"], PurePosixPath("a/c.bin"): FILES["./a/c.bin"]}


def test_reads_zip(tmp_path: Path) -> None:
    found = read(write_zip(tmp_path / "x.zip", FILES), zip_files)
    assert {str(path): content for path, content in found.items()} == {
        "a/b.txt": b"hello",
        "a/c.bin": FILES["./a/c.bin"],
    }


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil"])
def test_entries_outside_are_refused_even_if_nobody_wants_them(tmp_path: Path, name: str) -> None:
    for path, reader in (
        (write_tar(tmp_path / "x.tar", {name: b"x"}), tar_files),
        (write_zip(tmp_path / "x.zip", {name: b"x"}), zip_files),
    ):
        with pytest.raises(InputError, match="outside its own folder; do not trust this file"):
            list(reader(path, lambda path: False, progress=False))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_no_files(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("a/link")
    member.type, member.linkname = kind, "/etc/passwd"
    path = write_tar(tmp_path / "x.tar", FILES, extra=[member])
    with pytest.raises(InputError, match="a/link as a link or device"):
        read(path)
    assert len(list(tar_files(path, lambda path: path.name == "b.txt", progress=False))) == 1


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated(tmp_path: Path, mode: str) -> None:
    path = write_tar(tmp_path / "x.tar", FILES, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        InputError, match=r"cannot read archive .*x\.tar .*; it is truncated, damaged or not an archive"
    ):
        read(path)


@pytest.mark.parametrize("spoil", [lambda c: c[:-4], lambda c: c[:-8] + bytes(4) + c[-4:]], ids=["cut", "check sum"])
def test_a_gzip_is_read_to_its_check_sum(tmp_path: Path, spoil: Callable[..., Any]) -> None:
    path = write_tar(tmp_path / "x.tgz", {**FILES, "a/padding": bytes(100_000)}, "w:gz")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=r"cannot read archive .*x\.tgz"):
        read(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_entry_is_not_taken_for_the_end(tmp_path: Path, mode: str) -> None:
    plain = write_tar(tmp_path / "x.tar", {**FILES, "a/last": b"last"})
    content = bytearray(plain.read_bytes())
    content[content.index(b"a/skip.txt") + 150] ^= 1  # in the check sum of its header
    plain.write_bytes(content if mode == "w" else gzip.compress(content))
    with pytest.raises(InputError, match=r"cannot read archive .*x\.tar \(an entry is damaged: bad checksum\)"):
        read(plain)


def test_what_follows_a_gzip_is_ignored_as_gzip_does(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tgz", FILES, "w:gz")
    path.write_bytes(path.read_bytes() + b"a signature")
    assert len(read(path)) == 2


@pytest.mark.parametrize(("reader", "name"), [(tar_files, "x.tar"), (zip_files, "x.zip")])
def test_no_archive_at_all(tmp_path: Path, reader: Callable[..., Any], name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>503 Service unavailable</html>" * 50)
    with pytest.raises(InputError, match="cannot read archive"):
        read(tmp_path / name, reader)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere", reader)


def test_a_damaged_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read archive"):
        read(path, zip_files)


def test_bombs_stay_packed(tmp_path: Path) -> None:
    files = {"a/bomb": bytes(2_000_000)}
    for path, reader in (
        (write_tar(tmp_path / "x.tgz", files, "w:gz"), tar_files),
        (write_zip(tmp_path / "x.zip", files), zip_files),
    ):
        assert path.stat().st_size < 10_000
        with pytest.raises(InputError, match="a/bomb holds 2000000 bytes, expected at most 1000000"):
            read(path, reader, largest=1_000_000)


@pytest.mark.parametrize("tail", [b"", bytes(99_999), bytes(1024) + b"leftover tape"])
def test_what_follows_the_end_of_a_tar_does_not_count(tmp_path: Path, tail: bytes) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    path.write_bytes(path.read_bytes() + tail)
    assert len(read(path)) == 2
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + bytes(-len(content) % 512))  # as some tools leave it: without the end's blocks
    assert len(read(path)) == 2


def claiming(size: int, name: str = "a/huge", kind: bytes = tarfile.REGTYPE) -> bytes:
    """Header of an entry that claims a size, in base 256 where octal digits are too few."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("size", [1 << 80, 1 << 39, 600])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_an_entry_that_claims_more_than_follows_ends_at_once(
    tmp_path: Path, pack: Callable[..., Any], size: int, kind: bytes
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(pack(claiming(size, kind=kind)))
    with pytest.raises(InputError, match=r"cannot read archive .*x\.tar"):
        list(tar_files(path, lambda path: False, progress=False))


def pax(content: bytes) -> bytes:
    """A note whose content is anything at all."""
    header = tarfile.TarInfo("note")
    header.type, header.size = tarfile.XHDTYPE, len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def sparse(extended: int) -> bytes:
    """An entry of a sparse file as old GNU tars wrote it, cut off before its map goes on."""
    header = bytearray(tarfile.TarInfo("a/sparse").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[482] = extended
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


SLOW_OR_DAMAGED = {
    "digits": [pax(b"1" * 128_000)],
    "digits in several notes": [pax(b"1" * 48_000)] * 3,
    "a chain of notes": [pax(b"12 path=a/b\n")] * 3000,
    "a sparse map without numbers": [pax(b"26 GNU.sparse.map=a,b....\n"), tarfile.TarInfo("a").tobuf()],
    "a sparse file cut off": [sparse(1)],
    "a sparse file": [sparse(0)],
}


@pytest.mark.parametrize("case", SLOW_OR_DAMAGED)
def test_notes_and_sparse_files_cost_no_time(tmp_path: Path, case: str) -> None:
    (tmp_path / "x.tar").write_bytes(gzip.compress(b"".join(SLOW_OR_DAMAGED[case]) + bytes(1024)))
    start = time.process_time()
    with pytest.raises(InputError, match=r"cannot read archive .*x\.tar"):
        list(tar_files(tmp_path / "x.tar", lambda path: False, progress=False))
    assert time.process_time() - start < 2


def test_a_size_in_the_notes_of_an_entry_ends_at_once_too(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/huge")
    member.pax_headers = {"size": str(1 << 60)}
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.PAX_FORMAT))
    with pytest.raises(InputError, match=r"cannot read archive .*x\.tar"):
        list(tar_files(tmp_path / "x.tar", lambda path: False, progress=False))
