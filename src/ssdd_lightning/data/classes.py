"""Class names of a dataset, and the choice of them that one network learns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.names import check_class_name

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Names of PASCAL VOC's classes; the position is the value in its masks."""


@dataclass(frozen=True)
class ClassTable:
    """Which of a dataset's classes a network learns, and how the two countings translate.

    Files and reports use the *dataset index* (VOC: cat is 8); a network for `[cat, dog]` counts its outputs
    by *network index* (background 0, cat 1, dog 2).

    Args:
        names: All names of the dataset, background first; the position is the dataset index.
        indices: Dataset index of each network output: 0 first, ascending.

    Raises:
        InputError: There are more classes than masks of 8 bits tell apart.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) > IGNORE:
            raise InputError(f"expected at most {IGNORE} classes, background included, found {len(self.names)}.")
        for name in self.names:
            check_class_name(name)

    @classmethod
    def select(cls, names: Sequence[str], wanted: Sequence[str] | None) -> "ClassTable":
        """Choose classes by name.

        Args:
            names: All names of the dataset, background first.
            wanted: Names of foreground classes in any order; None takes them all. Background is always there.

        Raises:
            InputError: A name is unknown, repeated, or the background; or the list is empty.
        """
        if wanted is None:
            return cls(tuple(names), tuple(range(len(names))))
        foreground = list(names[1:])
        unknown = [name for name in wanted if name not in foreground]
        if unknown:
            raise InputError(f"classes: unknown name {unknown[0]!r}; choose from {', '.join(foreground)}.")
        if not wanted or len(set(wanted)) != len(wanted):
            raise InputError(f"classes: expected different names, at least one, found {list(wanted)}.")
        return cls(tuple(names), (0, *sorted(list(names).index(name) for name in wanted)))

    @property
    def num_classes(self) -> int:
        """Number of network outputs, background included."""
        return len(self.indices)

    @property
    def selected_names(self) -> list[str]:
        """Name of each network output, background first."""
        return [self.names[index] for index in self.indices]

    def find(self, entry: str | int) -> int | None:
        """Dataset index of a foreground class given by name, index or index as text; None if unknown."""
        text = str(entry).strip()
        if text in self.names[1:]:
            return self.names.index(text)
        return number(text) if 0 < number(text) < len(self.names) else None

    def to_network(self) -> npt.NDArray[np.uint8]:
        """Look-up table, 256 uint8: network index of every mask value; 255 where no selected class has it."""
        table = np.full(256, IGNORE, dtype=np.uint8)
        table[list(self.indices)] = np.arange(self.num_classes, dtype=np.uint8)
        return table


def number(text: str) -> int:
    """Read decimal digits; -1 for anything else, and for more digits than any index has."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1


VOC = ClassTable.select(VOC_CLASSES, None)
"""All classes of PASCAL VOC."""


def read_classes(path: Path) -> dict[int, str]:
    """Read class names: one per line, background first, or a JSON object {"0": "background", "8": "cat"}.

    Raises:
        InputError: The file is missing or is neither of the two.
    """
    expected = 'expected one name per line or {"0": "background", ...}'
    with decoding(f"class list {path}", expected):
        text = path.read_text(encoding="utf-8-sig").strip()
        if text.startswith("{"):
            return {int(index): str(name) for index, name in json.loads(text).items()}
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def class_table(source: str | Path) -> ClassTable:
    """Name the classes of your own dataset.

    Args:
        source: A file as `read_classes` reads it, or the number of classes, background included: these are then
            called "class 1", "class 2", ... Indices that a JSON file leaves out are no classes.

    Raises:
        InputError: The file is wrong, or there is not at least one class besides background, or too many.
    """
    text = str(source)
    if text.isdecimal() and not 2 <= number(text) <= IGNORE:
        raise InputError(f"expected 2 to {IGNORE} classes, background included, found {text:.20}.")
    known = {i: _nameless(i) for i in range(int(text))} if text.isdecimal() else read_classes(Path(source))
    foreground = {index: name for index, name in known.items() if index}
    if not foreground or min(known) < 0 or max(known) >= IGNORE or len(set(foreground.values())) < len(foreground):
        raise InputError(
            f"classes {text}: expected background and at least one class more, of different names, with indices up to "
            f"{IGNORE - 1}; found {known}."
        )
    names = ["background", *(known.get(index, _nameless(index)) for index in range(1, max(known) + 1))]
    return ClassTable.select(names, list(foreground.values()))


def _nameless(index: int) -> str:
    return f"class {index}" if index else "background"
