"""Image-level labels: which classes an image shows, from VOC's annotations or one file for all images."""

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
from defusedxml import ElementTree as SafeElementTree

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.classes import VOC, ClassTable, class_table, number
from ssdd_lightning.data.splits import bare_name
from ssdd_lightning.errors import InputError, check_folder, shown
from ssdd_lightning.storage.decoding import decoding
from ssdd_lightning.storage.names import check_name
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.safe_npy import load_npy

_LISTED = 30
"""Classes that a message names, background included."""


class UnknownClassError(InputError):
    """A label file names a class that the dataset does not have."""


Labels = tuple[int, ...]
"""Dataset indices of the foreground classes that an image shows, ascending."""
Entry = list[Any] | npt.NDArray[Any]
"""What a label file says of an image: names and indices, or a vector."""


def read_label_file(path: Path, table: ClassTable) -> dict[str, Labels]:
    """Read the labels of all images from one file.

    Args:
        path: One of three kinds.
            `.npy`: the field's `cls_labels.npy`, a pickled dict of image name -> vector of 0 and 1, one entry
            a foreground class; integer names such as 2007000032 are read as 2007_000032.
            `.csv`: a header line `name,labels`, then one line per image, its labels separated by spaces, or by
            semicolons where names hold spaces; blanks around names do not count.
            `.json`: an object of image name -> list of labels. Labels are class names or dataset indices.
        table: The dataset's classes.

    Returns:
        Image name -> its labels.

    Raises:
        UnknownClassError: A label is no class of the dataset.
        InputError: The file is missing or unreadable, or an entry is none of this.
    """
    return {name: to_labels(entry, name, path, table) for name, entry in read_entries(path).items()}


def read_entries(path: Path) -> dict[str, Entry]:
    """Read the entries of a label file without asking what classes there are; see `read_label_file`."""
    readers = {".npy": _read_npy, ".csv": _read_csv, ".json": _read_json}
    if path.suffix not in readers:
        raise InputError(f"labels: expected a .npy, .csv or .json file, found {path}.")
    if not path.is_file():
        raise InputError(f"label file {path} does not exist; check the path.")
    entries = readers[path.suffix](path)
    return {check_name(name, f"label file {path}"): entry for name, entry in entries.items()}


def to_labels(entry: Entry, name: str, path: Path, table: ClassTable) -> Labels:
    """Turn an image's entry into its labels.

    Args:
        entry: As `read_entries` returns it.
        name: The image's name, for messages.
        path: The file, for messages.
        table: The dataset's classes.

    Raises:
        UnknownClassError: A label is no class of the dataset.
        InputError: It is a vector of another length, or of other values than 0 and 1.
    """
    with decoding(f"the labels of image {name} in label file {path}", "write them again"):
        return _find_all(entry, path, table) if isinstance(entry, list) else _from_vector(entry, name, path, table)


def read_annotations(folder: Path, names: Iterable[str], table: ClassTable) -> dict[str, Labels]:
    """Read labels from VOC's annotations: every object of `<folder>/<name>.xml`, difficult ones included.

    Args:
        folder: VOC's `Annotations`.
        names: Images to read.
        table: The dataset's classes.

    Returns:
        Image name -> its labels.

    Raises:
        InputError: A file is missing, damaged, uses XML entities, or names an unknown class.
    """
    remedy = "unpack VOC's there or give a label file with `labels` (cls_labels.npy, .csv or .json)"
    check_folder(folder, "annotations folder", remedy)
    progress = Progress(names, desc="annotations", delay=2, leave=False)
    return {name: _read_annotation(folder / f"{name}.xml", table) for name in progress}


def _read_annotation(path: Path, table: ClassTable) -> Labels:
    missing = "complete the folder or give a label file with `labels`"
    with decoding(f"annotation {path}", "copy or download it again", missing):
        root: Element | None = SafeElementTree.parse(path).getroot()
    objects = [] if root is None else root.findall("object/name")  # not the parts' names below
    return _find_all([element.text or "" for element in objects], path, table)


def _read_npy(path: Path) -> dict[str, Entry]:
    content = load_npy(path)
    if not isinstance(content, dict):
        raise InputError(
            f"label file {path} holds a {type(content).__name__}, expected a dict of name -> label vector."
        )
    with decoding(f"label file {path}", "expected a vector of 0 and 1 for each image"):
        return {_npy_name(key): np.asarray(value) for key, value in content.items()}


def _npy_name(key: Any) -> str:  # noqa: ANN401
    text = str(key)
    if not isinstance(key, str) and len(text) == 10:
        return f"{text[:4]}_{text[4:]}"  # IRN writes VOC's 2007_000032 as a number
    return text


def _from_vector(vector: npt.NDArray[Any], name: str, path: Path, table: ClassTable) -> Labels:
    expected = len(table.names) - 1
    if vector.shape != (expected,) or not np.isin(vector, (0, 1)).all():
        raise InputError(
            f"label file {path}, image {name}: expected {expected} values 0 or 1, found shape {vector.shape} "
            f"of {vector.dtype}; the file belongs to another dataset."
        )
    return tuple(int(index) + 1 for index in np.flatnonzero(vector))


def _read_csv(path: Path) -> dict[str, Entry]:
    with (
        decoding(f"label file {path}", "expected CSV text in UTF-8"),
        path.open(newline="", encoding="utf-8-sig") as stream,
    ):
        rows = [row for row in csv.reader(stream) if row]
    if not rows or rows[0][0].strip().lower() != "name":
        raise InputError(f"label file {path} should start with the header line `name,labels`.")
    short = next((row for row in rows if len(row) != 2), None)
    if short is not None:
        raise InputError(
            f"label file {path}: expected the two columns name,labels, found {','.join(short)!r}; "
            "separate labels by spaces or semicolons."
        )
    entries = [(name.strip(), labels) for name, labels in rows[1:]]  # people write blanks around commas
    _check_once([name for name, _ in entries], path)
    return {bare_name(name): _split(labels) for name, labels in entries}


def _check_once(names: Iterable[str], path: Path) -> None:
    """Refuse a file that names an image twice: the later labels would replace the earlier ones."""
    name, count = next(iter(Counter(map(bare_name, names)).most_common(1)), ("", 0))
    if count > 1:
        raise InputError(
            f"label file {path} names image {name} {count} times; give all labels of an image in one entry, and images "
            "of different folders different names."
        )


def _split(text: str) -> list[Any]:
    parts = text.split(";") if ";" in text else text.split()
    return [part for part in map(str.strip, parts) if part]


def _read_json(path: Path) -> dict[str, Entry]:
    with decoding(f"label file {path}", "expected JSON"):  # pairs: a dict would keep the last of two equal names
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    if not isinstance(content, _Pairs) or not all(type(value) is list for _, value in content):
        raise InputError(f"label file {path} should hold one JSON object of image name -> list of labels.")
    _check_once([name for name, _ in content], path)
    return {bare_name(name): labels for name, labels in content}


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its name and value pairs."""


def _find_all(entries: Iterable[object], path: Path, table: ClassTable) -> Labels:
    found = set()
    for entry in entries:
        known = isinstance(entry, (str, int)) and not isinstance(entry, bool)  # JSON's true is no class 1
        index = table.find(entry) if known else None  # type: ignore[arg-type]
        if index is None:
            more = ", ..." if len(table.names) > _LISTED else ""
            raise UnknownClassError(
                f"{path} names the class {shown(entry)}, expected one of {', '.join(table.names[1:_LISTED])}{more} or "
                f"an index 1..{len(table.names) - 1}."
            )
        found.add(index)
    return tuple(sorted(found))


def table_of_labels(path: Path) -> ClassTable:
    """Find out the classes from a label file alone.

    VOC's names, and vectors as long as VOC's, mean VOC's classes. Vectors of another length n mean n + 1 classes
    without names; indices mean as many as the highest one says.

    Args:
        path: Label file, see `read_label_file`.

    Raises:
        InputError: The file is wrong, or holds names that are not VOC's: their indices are unknown.
    """
    if path.suffix == ".npy" and path.is_file():
        content = load_npy(path)
        with decoding(f"label file {path}", "expected a vector of 0 and 1 for each image"):
            lengths = {np.size(vector) for vector in content.values()} if isinstance(content, dict) else set()
        return VOC if lengths <= {len(VOC.names) - 1} else class_table(str(1 + max(lengths)))
    try:
        labels = read_label_file(path, class_table(str(IGNORE)))
    except UnknownClassError:
        return _named(path)
    return class_table(str(1 + max((index for shown in labels.values() for index in shown), default=1)))


def _named(path: Path) -> ClassTable:
    labels = [str(label).strip() for entry in read_entries(path).values() for label in entry]
    beyond = [label for label in labels if label.isdecimal() and not 0 < number(label) < IGNORE]
    if beyond:
        raise InputError(
            f"label file {path} names the class {beyond[0]:.80}, expected indices 1..{IGNORE - 1} or names."
        )
    try:
        read_label_file(path, VOC)
    except UnknownClassError as error:
        raise InputError(f"{error} Classes of your own need a file of names (`class_names`, `--classes`).") from error
    return VOC
