"""Your own photos and a file of labels, checked and prepared for `FolderDataModule`."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import ExifTags, Image

from ssdd_lightning.data.classes import ClassTable, class_table
from ssdd_lightning.data.guides import check_values
from ssdd_lightning.data.labels import Labels, read_entries, read_label_file, table_of_labels
from ssdd_lightning.errors import InputError, check_folder, check_size, listed
from ssdd_lightning.storage.files import unwritable, write_text
from ssdd_lightning.storage.fingerprints import digest_of, fingerprints
from ssdd_lightning.storage.images import IMAGE_SUFFIXES, find_images
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.names import check_name
from ssdd_lightning.storage.score_maps import mask_path
from ssdd_lightning.storage.threads import with_bar

NAME = "prepare"
CONFIG = "data.yaml"


@dataclass(frozen=True)
class FolderOptions:
    """What to prepare, and how.

    Args:
        images: Folder of .jpg, .jpeg, .bmp or .png photos.
        labels: Label file, see `read_label_file`.
        out: Folder for lists, labels and class names.
        classes: File of class names, background first, or their number; None takes them from the labels.
        truth: Folder of ground truth masks `<name>.png`, of all or some photos, for scoring only.
        val: Share of the photos to keep out of training.
        seed: Another seed, another choice of them.
        skip_missing: Go on without photos that have no labels, and labels that have no photo.
    """

    images: Path
    labels: Path
    out: Path
    classes: str | None = None
    truth: Path | None = None
    val: float = 0.1
    seed: int = 0
    skip_missing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.val < 1:
            raise InputError(f"val: expected a share of the photos in 0..1, found {self.val}.")
        if self.truth is not None:
            check_folder(self.truth, "folder of ground truth masks", "correct `--truth` or leave it out")


@dataclass(frozen=True)
class PreparedFolder:
    """What a preparation made.

    Args:
        config: File with the options of the data, for `--config`.
        classes: The classes.
        train: Names of the photos to train on.
        val: Names of the photos kept out of training.
        left_out: Photos without labels and labels without photo.
        unread: Subfolders with photos: only the folder itself is read.
        turned: Photos that are stored lying down, with a note (EXIF) for viewers to turn them.
    """

    config: Path
    classes: ClassTable
    train: list[str]
    val: list[str]
    left_out: list[str]
    unread: list[str]
    turned: list[str]


def prepare_folder(options: FolderOptions, num_workers: int | None = None, progress: bool = True) -> PreparedFolder:
    """Check photos, labels and true masks; write `labels.json`, `classes.txt`, `train.txt`, `val.txt`, `data.yaml`.

    `data.yaml`, which is written last, holds the options of the data for every stage: `--config data.yaml`. Photos and
    masks that the ledger knows are not read again.

    Args:
        options: What to prepare.
        num_workers: Threads; None means one per core.
        progress: Whether to show a bar.

    Raises:
        InputError: A photo, a label or a mask is missing, damaged or wrong; nothing is written then. Or another run
            works in `out`.
    """
    photos = find_images(options.images)
    _check_names(options.images, photos)
    table = class_table(options.classes) if options.classes is not None else find_classes(options.labels)
    labels = read_label_file(options.labels, table)
    names, left_out = _labelled(photos, labels, options)
    masks = {} if options.truth is None else {name: mask_path(options.truth, name) for name in sorted(names)}
    masks = {name: path for name, path in masks.items() if path.is_file()}
    if options.truth is not None and not masks:
        raise InputError(
            f"folder {options.truth} holds a ground truth mask <name>.png for none of the {len(names)} photos."
        )
    chosen = {name: labels[name] for name in names}
    train, val = split_names(chosen, options.val, options.seed, masks)
    texts = _texts(options.out, table, chosen, train, val)
    digests = zip(names, fingerprints([photos[name] for name in names]), strict=True)
    inputs = {
        "the photos": digest_of(f"{name} {digest}" for name, digest in digests),
        "the labels": digest_of(f"{name} {shown}" for name, shown in chosen.items()),
        "the true masks": digest_of(f"{n} {d}" for n, d in zip(masks, fingerprints(list(masks.values())), strict=True)),
    }
    settings = {"classes": list(table.names), "val": options.val, "seed": options.seed}
    ledger = Ledger(options.out, NAME, Recipe(settings, inputs), {"lists": Item((), tuple(texts))})
    if ledger.finished:
        print(f"{NAME}: finished in {options.out}, nothing to do.")
    else:
        _check_files(names, photos, masks, table, num_workers, progress)
        turned = [name for name in names if _is_turned(photos[name])]
        with locked(options.out), ledger.working():
            _remove(options.out / CONFIG)  # it must not name half of the new files if this run is interrupted
            for path, text in texts.items():
                write_text(path, text)
            ledger.done(["lists"])
            write_text(options.out / CONFIG, _config(options, val))
            ledger.close({"turned": turned})
    write_text(options.out / CONFIG, _config(options, val))
    assert ledger.earlier is not None  # it is finished
    turned = ledger.earlier["results"]["turned"]
    return PreparedFolder(options.out / CONFIG, table, train, val, left_out, _unread(options), turned)


def find_classes(path: Path) -> ClassTable:
    """Name the classes by a label file alone: its names in alphabetical order, or as many as its highest index.

    Raises:
        InputError: The file is wrong, or mixes names with indices.
    """
    shown = [entry for entry in read_entries(path).values() if isinstance(entry, list)]
    entries = {str(label).strip() for entry in shown for label in entry if type(label) in (str, int)}
    indices = {entry for entry in entries if entry.isdecimal()}
    if entries == indices:
        return table_of_labels(path)
    if indices:
        raise InputError(
            f"label file {path} mixes names with indices, such as {min(entries - indices)!r} and {min(indices)!r}; "
            "name the classes with `--classes`."
        )
    odd = [entry for entry in entries if not entry or not entry.isprintable()]
    if odd:
        raise InputError(f"label file {path} holds the label {odd[0]!r}, expected printable names of classes.")
    return ClassTable.select(["background", *sorted(entries - {"background"})], None)


def split_names(
    labels: Mapping[str, Labels], share: float, seed: int, preferred: Iterable[str] = ()
) -> tuple[list[str], list[str]]:
    """Draw photos to keep out of training, leaving at least one photo of every class in it.

    Args:
        labels: Name -> labels.
        share: Share of the photos to keep out, rounded to the nearest number.
        seed: Another seed, another choice.
        preferred: If any, only these can be kept out: the photos that can be scored.

    Returns:
        Names to train on and names kept out, each in the order of `labels`.
    """
    candidates = sorted(set(preferred) or labels)
    order = np.random.default_rng(seed).permutation(len(candidates))
    left = Counter(index for shown in labels.values() for index in shown)
    val: set[str] = set()
    for position in order.tolist():
        name = candidates[position]
        if len(val) < round(share * len(labels)) and all(left[index] > 1 for index in labels[name]):
            val.add(name)
            left.subtract(labels[name])
    return [name for name in labels if name not in val], [name for name in labels if name in val]


def _check_names(folder: Path, photos: Mapping[str, Path]) -> None:
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    photographs = [path.stem for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".bmp")]
    twice = sorted(name for name, count in Counter(photographs).items() if count > 1)
    if twice:
        raise InputError(
            f"{len(twice)} names in {folder} belong to two photos, such as {twice[0]!r}; rename one of them."
        )
    for name in photos:
        check_name(name, folder)
        if name != name.strip():  # the label file is written by people, who put blanks around names
            raise InputError(f"the photo {name!r} in {folder} begins or ends with a space; rename it.")


def _is_turned(path: Path) -> bool:
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # what damaged notes raise; the photo itself was read before
        return False


def _unread(options: FolderOptions) -> list[str]:
    known = {folder.resolve() for folder in (options.truth, options.out) if folder is not None}
    folders = [path for path in options.images.iterdir() if path.is_dir() and path.resolve() not in known]
    return sorted(
        folder.name
        for folder in folders
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("[!.]*.*"))
    )


def _labelled(
    photos: Mapping[str, Path], labels: Mapping[str, Labels], options: FolderOptions
) -> tuple[list[str], list[str]]:
    """Names of the photos with labels, and of what lacks one or the other."""
    lacking = {
        "photos without label": [name for name in photos if not labels.get(name)],
        "labels without photo": [name for name in labels if name not in photos],
    }
    said = "; ".join(f"{len(names)} {what} ({listed(names)})" for what, names in lacking.items() if names)
    names = [name for name in photos if labels.get(name)]
    if said and not options.skip_missing:
        raise InputError(f"{said} in {options.images} and {options.labels}; complete them, or add `--skip-missing`.")
    if not names:
        raise InputError(f"no photo in {options.images} has a label in {options.labels}; do both use the same names?")
    return names, sorted({name for some in lacking.values() for name in some})


def _check_files(
    names: Sequence[str],
    photos: Mapping[str, Path],
    masks: Mapping[str, Path],
    table: ClassTable,
    workers: int | None,
    progress: bool,
) -> None:
    """Read every photo and every true mask once."""

    def check(name: str) -> str | None:
        """What is wrong with one photo or its true mask, if anything."""
        try:
            image = read_image(photos[name])
            if name in masks:
                mask = read_mask(masks[name])
                check_values(mask, masks[name], table)
                check_size(mask.shape, image.shape, f"mask {masks[name]}", "its photo")
        except InputError as error:
            return str(error)
        return None

    bad = [text for text in with_bar(check, names, "check", workers, progress) if text]
    if bad:
        raise InputError(f"{len(bad)} of {len(names)} photos or masks are wrong; the first: {bad[0]}")


def _config(options: FolderOptions, val: list[str]) -> str:
    """The options of the data; their paths are those of now, also where the folder moved."""
    out = options.out
    splits = {"train": "train", "predict": "train", "val": "val" if val else "train", "test": "val" if val else "train"}
    data = {
        "images": str(options.images.resolve()),
        "labels": str((out / "labels.json").resolve()),
        "class_names": str((out / "classes.txt").resolve()),
        "splits": {phase: str((out / f"{split}.txt").resolve()) for phase, split in splits.items()},
        **({"truth": str(options.truth.resolve())} if options.truth is not None and val else {}),
    }
    return str(yaml.safe_dump({"dataset": "folder", "data": data}, sort_keys=False, allow_unicode=True))


def _texts(
    out: Path, table: ClassTable, labels: Mapping[str, Labels], train: list[str], val: list[str]
) -> dict[Path, str]:
    """Content of the other files."""
    return {
        # with a suffix, for readers of label files drop the last one if it is an image's
        out / "labels.json": json.dumps({f"{name}.jpg": shown for name, shown in labels.items()}),
        out / "classes.txt": "".join(f"{name}\n" for name in table.names),
        out / "train.txt": "".join(f"{name}\n" for name in train),
        out / "val.txt": "".join(f"{name}\n" for name in val),
    }


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
