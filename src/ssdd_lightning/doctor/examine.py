"""Examine a devkit: lists, photos, masks, labels, and what is in two splits."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from ssdd_lightning.data.classes import VOC, ClassTable, class_table
from ssdd_lightning.data.labels import Labels, read_entries, to_labels
from ssdd_lightning.data.layout import find_devkit
from ssdd_lightning.data.official import VOC_COUNTS, official_counts
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.doctor.image import Examination, Found, Patient
from ssdd_lightning.doctor.report import Report, collect
from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.storage.threads import with_bar

CLASS_FILE = "classes.txt"
LABEL_FILES = ("labels.csv", "labels.json")
TRUTHS = ("SegmentationClass", "SegmentationClassAug")
AUGMENTED = "trainaug"
APART = (
    *((one, other) for one in ("train", AUGMENTED) for other in ("val", "test")),
    *((one, "test") for one in ("val", "trainval")),
)
"""Pairs of splits that may have no image in common; trainval holds train and val, trainaug holds train."""


def examine(
    root: Path,
    labels: Path | None = None,
    truths: Iterable[str] | None = None,
    classes: str | None = None,
    subset: bool = False,
    num_workers: int | None = None,
    progress: bool = True,
) -> Report:
    """Read every listed photo, mask and label of a devkit, in parallel.

    Args:
        root: See `find_devkit`.
        labels: Label file; None takes `labels.csv` or `labels.json` in the devkit, else Annotations.
        truths: Folders of ground truth masks in the devkit; None takes SegmentationClass and SegmentationClassAug, if
            they exist.
        classes: File of class names or their number; None takes `classes.txt` in the devkit, else VOC's.
        subset: The devkit is a selection; the sizes of its splits are not checked.
        num_workers: Threads; None means one per core.
        progress: Whether to show a bar.

    Raises:
        InputError: There is no devkit, or an option names something that does not exist or cannot be read.
    """
    devkit = find_devkit(root)
    table = _table(devkit, classes)
    folders = _truths(devkit, truths)
    lists, found = _lists(devkit)
    given, source, mislabelled = _labels(devkit, labels, table)
    found += mislabelled
    official = official_counts(table.names)
    if not subset:
        found += _counts({split: len(names) for split, names in lists.items()}, official)
    if given is not None:
        photos = {path.stem for path in (devkit / "JPEGImages").glob("*.jpg")}
        found += [("label without photo", name) for name in given if name not in photos]
    job = Examination(
        devkit, folders, table, given, annotated=source is not None and (given is not None or source.is_dir())
    )
    patients = _patients(lists, folders)
    digests: dict[str, str] = {}
    grey = 0
    bar = with_bar(job.examine, patients, "doctor", num_workers, progress)
    for patient, (digest, wrong, is_grey) in zip(patients, bar, strict=True):
        found += wrong
        grey += is_grey
        digests[patient.name] = digest
    found += [*_overlaps(lists), *_same_photos(lists, digests)]
    notes = _notes(devkit, lists, folders, job.annotated, grey)
    notes = (*(_shared(split, lists, digests) for split in lists if split not in VOC_COUNTS), *notes)
    splits = {split: len(names) for split, names in lists.items()}
    return Report(str(devkit), splits, official, str(source or "none"), collect(found), notes)


def _table(devkit: Path, classes: str | None) -> ClassTable:
    if classes is None and not (devkit / CLASS_FILE).is_file():
        return VOC
    return class_table(classes or devkit / CLASS_FILE)


def _labels(
    devkit: Path, labels: Path | None, table: ClassTable
) -> tuple[dict[str, Labels | None] | None, Path | None, Found]:
    """Labels of a file if there is one (None for wrong ones), where labels come from if there are any, and problems."""
    own = [devkit / name for name in LABEL_FILES if (devkit / name).is_file()]
    path = labels or (own[0] if own else None)
    if path is None:
        return None, devkit / "Annotations" if (devkit / "Annotations").is_dir() else None, []
    if not path.is_file():
        raise InputError(f"expected a label file at {path}, found none; correct `--labels`.")
    read: dict[str, Labels | None] = {}
    found: Found = []
    try:
        entries = read_entries(path)
    except InputError as error:
        return None, path, [("label wrong", str(error))]
    for name, entry in entries.items():
        try:
            read[name] = to_labels(entry, name, path, table)
        except InputError as error:
            read[name] = None
            found.append(("label wrong", f"{name}: {error}"))
    return read, path, found


def _truths(devkit: Path, truths: Iterable[str] | None) -> tuple[str, ...]:
    if truths is None:
        return tuple(folder for folder in TRUTHS if (devkit / folder).is_dir())
    chosen = tuple(truths)
    for folder in chosen:
        check_folder(devkit / folder, "folder of masks", "correct `--truth`")
    return chosen


def _lists(devkit: Path) -> tuple[dict[str, list[str]], Found]:
    folder = devkit / "ImageSets" / "Segmentation"
    order = {split: n for n, split in enumerate(VOC_COUNTS)}
    paths = sorted(folder.glob("*.txt"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    lists: dict[str, list[str]] = {}
    found: Found = []
    for path in paths:
        try:
            lists[path.stem] = read_list(path)
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except InputError as error:
            found.append(("list", str(error)))
            continue
        found += [("list", f"{path.name} leads elsewhere: {line}") for line in lines if ".." in line.split("/")]
    if {"train", "val", "trainval"} <= lists.keys() and {*lists["train"], *lists["val"]} != set(lists["trainval"]):
        found.append(("list", "trainval.txt does not hold train and val and nothing else"))
    absent = [split for split in ("train", "val") if not (folder / f"{split}.txt").is_file()]
    return lists, [*found, *(("list", f"{folder / split}.txt does not exist") for split in absent)]


def _counts(splits: Mapping[str, int], official: Mapping[str, int]) -> Found:
    return [
        ("count", f"{split}: {count} images, officially {official[split]}")
        for split, count in splits.items()
        if official.get(split, count) != count
    ]


def _patients(lists: Mapping[str, list[str]], folders: tuple[str, ...]) -> list[Patient]:
    """Every listed image once, with the masks and labels that its splits need."""
    splits: dict[str, set[str]] = defaultdict(set)
    for split, names in lists.items():
        for name in names:
            splits[name].add(split)
    bare = {"test", AUGMENTED} if folders == TRUTHS[:1] else {"test"}  # SBD's masks are in the other folder
    return [
        Patient(
            name=name,
            truths=frozenset(folders) if within & {"train", "val", "trainval"} else frozenset(),
            any_truth=bool(within - bare),
            labelled=bool(within - {"test"}),
        )
        for name, within in splits.items()
    ]


def _overlaps(lists: Mapping[str, list[str]]) -> Found:
    found: dict[str, set[str]] = defaultdict(set)
    for one, other in _pairs(lists):
        for name in set(lists[one]).intersection(lists[other]):
            found[name].update((one, other))
    return [("overlap", f"{name}: {', '.join(sorted(splits))}") for name, splits in sorted(found.items())]


def _same_photos(lists: Mapping[str, list[str]], digests: Mapping[str, str]) -> Found:
    found: set[tuple[str, str]] = set()
    for one, other in _pairs(lists):
        twins = {digests[name]: name for name in sorted(lists[one], reverse=True) if digests[name]}
        alike = ((name, twins.get(digests[name], name)) for name in set(lists[other]).difference(lists[one]))
        found.update((name, twin) for name, twin in alike if name != twin)
    return [("same photo", f"{name}: {twin}") for name, twin in sorted(found)]


def _pairs(lists: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [pair for pair in APART if lists.keys() >= set(pair)]


def _shared(split: str, lists: Mapping[str, list[str]], digests: Mapping[str, str]) -> str:
    """Photos, under any names, that a list shares with splits whose relation to it is unknown."""
    photos = {other: {digests[name] or name for name in names} for other, names in lists.items()}
    common = {other: len(some & photos[split]) for other, some in photos.items() if other != split}
    listed = ", ".join(f"{count} with {other}" for other, count in common.items() if count)
    return f"{split} is no split of the devkit's own; it shares {listed or 'no image with any other'}"


def _notes(
    devkit: Path, lists: Mapping[str, list[str]], folders: tuple[str, ...], labelled: bool, grey: int
) -> tuple[str, ...]:
    notes = []
    own, augmented = ((devkit / folder).is_dir() for folder in TRUTHS)
    if not labelled:
        notes.append("no labels were found that can be read, so none were checked: give a file with `--labels`")
    if not folders:
        notes.append("no folder of ground truth masks was found, so none were checked; name one with `--truth`")
    if augmented and not own:
        notes.append(
            "there is no SegmentationClass, on which the stages score by default: name another with `data.truth`"
        )
    if own and not augmented and AUGMENTED in lists:
        notes.append("there is no SegmentationClassAug: masks of trainaug were not looked for")
    if grey:
        notes.append(f"{grey} masks are grey PNGs: every command reads them, but the VOC server would not")
    return tuple(notes)
