from pathlib import Path

import pytest

from ssdd_lightning.data.splits import bare_name, find_list, read_list
from ssdd_lightning.errors import InputError


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("2007_000032", "2007_000032"),
        ("/JPEGImages/2007_000032.jpg", "2007_000032"),
        ("JPEGImages\\2007_000032.JPG", "2007_000032"),
        ("photo.v2", "photo.v2"),
        ("../../secret", "secret"),
        (" led by a space.jpg", " led by a space"),
    ],
)
def test_entries_name_images(entry: str, name: str) -> None:
    assert bare_name(entry) == name


def test_lists_of_names_and_of_paths_are_the_same(tmp_path: Path) -> None:
    names, paths = tmp_path / "names.txt", tmp_path / "paths.txt"
    names.write_text("b\na\n\n")
    paths.write_bytes(b"\xef\xbb\xbf/JPEGImages/b.jpg /SegmentationClassAug/b.png\r\n/JPEGImages/a.jpg /x/a.png\r\n")
    assert read_list(names) == read_list(paths) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "is empty"), (b"a\nb\na\n", "names a more than once"), (b"\xff\xfe\x80", "cannot read")],
)
def test_bad_lists_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"list\.txt .*{message}|{message} .*list\.txt"):
        read_list(tmp_path / "list.txt")


def test_splits_are_found_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a")
    assert find_list("train", tmp_path) == tmp_path / "train.txt"
    assert find_list(str(tmp_path / "train.txt"), tmp_path / "elsewhere") == tmp_path / "train.txt"
    with pytest.raises(InputError, match=r"trian\.txt does not exist; .* holds: train; name one"):
        find_list("trian", tmp_path)
    with pytest.raises(InputError, match=r"mine\.txt does not exist"):
        find_list("mine.txt", tmp_path)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("b c", "b c"),
        ("b c ", "b c"),
        ("b c.jpg", "b c"),
        ("b c.png b c.png", "b c"),
        ("/JPEGImages/b c.jpg /Seg/b c.png", "b c"),
        ("images/e.jpg prev/b.jpg", "e"),
        ("/JPEGImages/b.jpg /Seg/e.png", "b"),
        (" led by a space", " led by a space"),
        ("2007_000032 -1", "2007_000032"),
        ("b", "b"),
        ("b -1", "b"),
        ("b d", "b"),
        ("/somewhere/else/b", "b"),
        ("../truth/b", "b"),
        ("unknown 1", "unknown"),
    ],
)
def test_the_longest_beginning_of_a_line_that_is_an_image_counts(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n")
    known = {"b", "e", "b c", " led by a space", "2007_000032"}
    assert read_list(tmp_path / "list.txt", known.__contains__) == [name]


def test_no_path_reaches_the_question_whether_an_image_exists(tmp_path: Path) -> None:
    asked = []
    (tmp_path / "list.txt").write_text("/a/b c\n../d\n")
    read_list(tmp_path / "list.txt", lambda name: asked.append(name))
    assert asked == ["b c", "b", "d"]
