"""Class names of a dataset, and the choice of them that one network learns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError

IGNORE = 255
"""The mask value of pixels that belong to no class and take no part in anything."""

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
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
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]

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
            raise InputError(f"classes: unknown name {unknown[0]!r}; choose from {', '.join(foreground)}")
        if not wanted or len(set(wanted)) != len(wanted):
            raise InputError(f"classes: expected different names, at least one, found {list(wanted)}")
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
        if text.isdecimal() and 0 < int(text) < len(self.names):
            return int(text)
        return None

    def to_network(self) -> npt.NDArray[np.uint8]:
        """Look-up table, 256 uint8: network index of every mask value; 255 where no selected class has it."""
        table = np.full(256, IGNORE, dtype=np.uint8)
        table[list(self.indices)] = np.arange(self.num_classes, dtype=np.uint8)
        return table
