from pathlib import Path

import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write, keep_aside, remove_leftovers


def test_writes_and_replaces_in_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    for content in (b"first", b"second"):
        with atomic_write(path) as stream:
            stream.write(content)
        assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["file.bin"]


def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    with pytest.raises(KeyboardInterrupt), atomic_write(path) as stream:  # noqa: PT012 - the block is the subject
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.bin"]


def test_the_file_is_invisible_until_complete(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with atomic_write(path) as stream:
        stream.write(b"half")
        assert not path.exists()
    assert path.exists()


def test_others_may_read_it(tmp_path: Path) -> None:
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_bytes(b"")
    with atomic_write(ours):
        pass
    assert ours.stat().st_mode == plain.stat().st_mode


def test_unwritable_targets_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path / "file" / "below.png"):
        pass
    with (
        pytest.raises(InputError, match="folder: Is a directory"),
        atomic_write(tmp_path / "folder") as stream,
    ):
        stream.write(b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_an_input_error_and_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No space left"), atomic_write(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="of another kind"), atomic_write(tmp_path / "a"):
        raise OSError("of another kind")
    assert not list(tmp_path.iterdir())


def test_only_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    below = f".{'1e' * 16}.tmp"
    for name in (f".{'0f' * 16}.tmp", f"below/{below}", "mine.tmp", ".hidden", ".mine.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [below, ".hidden", ".mine.tmp", "mine.tmp"]
    )
    remove_leftovers(tmp_path, below=True)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".hidden", ".mine.tmp", "mine.tmp"]


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_stays_when_the_first_is_written_again(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse_links)
    first, second = tmp_path / "first", tmp_path / "second"
    for text in (b"1", b"2", b"3"):
        with atomic_write(first, durable=True) as stream:
            stream.write(text)
            if first.is_file():
                keep_aside(first, second)
    assert (first.read_bytes(), second.read_bytes()) == (b"3", b"2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def refuse_links(self: Path, target: Path) -> None:
    raise OSError("no hard links here")
