"""Split lists: text files that name the images of a split, one per line."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.images import IMAGE_SUFFIXES
from ssdd_lightning.storage.names import check_name


@dataclass(frozen=True)
class Splits:
    """The images of each phase.

    Args:
        train: Split to train on: a name in ImageSets/Segmentation or the path of a .txt list. For plain folders the
            path of a list, one name per line; None means all images that are labelled there.
        val: The same for validation.
        test: The same for testing.
        predict: The same for prediction.

    None takes the dataset's own split.
    """

    train: Path | str | None = None
    val: Path | str | None = None
    test: Path | str | None = None
    predict: Path | str | None = None

    def or_else(self, train: str, evaluation: str) -> "Splits":
        """The same with a dataset's own splits for those that are None."""
        return Splits(self.train or train, self.val or evaluation, self.test or evaluation, self.predict or train)


def bare_name(entry: str) -> str:
    """Image name in a list's entry: `/JPEGImages/2007_000032.jpg` and `2007_000032` name the same image."""
    path = PurePosixPath(entry.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def read_list(path: Path, exists: Callable[[str], bool] | None = None) -> list[str]:
    """Read a split's list.

    Args:
        path: Text file, one image per line; of several columns (`image mask`) the first one counts.
        exists: Whether there is an image of a bare name. With it names may hold spaces: the longest beginning of a line
            that is an image counts, or else the first column.

    Returns:
        Image names in the file's order.

    Raises:
        InputError: The file is missing, no text, empty, or names an image twice.
    """
    names = [_first_name(line, exists) for line in _text(path).splitlines() if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"split list {path} names {twice[0]} more than once; remove the repeated lines.")
    return _checked(names, path)


def read_names(path: Path) -> list[str]:
    """Read a list of image names, one per line; unlike VOC's lists they may hold spaces.

    Raises:
        InputError: The file is missing, no text, or empty.
    """
    return _checked([line.rstrip("\r") for line in _text(path).split("\n") if line.strip()], path)


def _text(path: Path) -> str:
    with decoding(f"split list {path}", "expected one name per line"):
        return path.read_text(encoding="utf-8-sig")


def _checked(names: list[str], path: Path) -> list[str]:
    if not names:
        raise InputError(f"split list {path} is empty; expected one image name a line.")
    return [check_name(name, f"split list {path}") for name in names]


def _first_name(line: str, exists: Callable[[str], bool] | None) -> str:
    first = bare_name(line.split()[0])
    if exists is None:
        return first
    beginnings = [line[: match.start()] for match in re.finditer(r"\s+|$", line) if match.start()]
    # a blank before the last slash: that slash is of the second column
    names = [bare_name(text) for text in reversed(beginnings) if not re.search(r"\s.*[/\\]", text.strip())]
    return next((name for name in names if exists(name)), first)


def find_list(split: str, folder: Path) -> Path:
    """Find the list of a split.

    Args:
        split: Name of a split (`train` is `<folder>/train.txt`) or the path of a list file: anything that
            ends in .txt or holds a slash.
        folder: Where named splits lie.

    Raises:
        InputError: There is no such file.
    """
    is_path = split.endswith(".txt") or "/" in split or "\\" in split
    path = Path(split) if is_path else folder / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise InputError(
            f"split list {path} does not exist; {folder} holds: {known}; name one of them or give the path "
            "of a .txt file."
        )
    return path
