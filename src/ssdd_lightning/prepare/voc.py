"""VOC 2012 and SBD: the devkit, SegmentationClassAug, the list `trainaug`, and a file of image-level labels."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from ssdd_lightning.data.classes import VOC
from ssdd_lightning.data.labels import Labels, read_annotations
from ssdd_lightning.data.layout import find_devkit
from ssdd_lightning.data.splits import read_list
from ssdd_lightning.errors import InputError, check_size
from ssdd_lightning.prepare.download import Obtaining, Remote
from ssdd_lightning.prepare.folders import Read, is_made, place, whole_folder
from ssdd_lightning.prepare.sbd import find_sbd, read_mat, sbd_files
from ssdd_lightning.storage.archives import tar_files
from ssdd_lightning.storage.files import atomic_write, holds, write_text
from ssdd_lightning.storage.images import image_size
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.score_maps import mask_path
from ssdd_lightning.storage.threads import cores, in_threads

VOC_ARCHIVE = Remote(
    "VOCtrainval_11-May-2012.tar",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd",
)
SBD_ARCHIVE = Remote(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
)
LABEL_FILE = "labels.csv"
AUGMENTED = "SegmentationClassAug"
LISTS = "lists"
"""Entry of the texts in a devkit, which tells them from the user's own."""
_FOLDERS = ("Annotations", "ImageSets", "JPEGImages", "SegmentationClass", "SegmentationObject")
_FILE = re.compile(rf"({'|'.join(_FOLDERS)})(/[A-Za-z]+)?/[A-Za-z0-9_]+\.(jpg|png|txt|xml)")


@dataclass(frozen=True)
class Prepared:
    """What a preparation made.

    Args:
        devkit: The folder `VOC2012`.
        splits: Split -> number of images.
        labelled: Number of images in the label file.
    """

    devkit: Path
    splits: dict[str, int]
    labelled: int


def prepare_voc(
    out: Path, obtaining: Obtaining, voc: Path | None = None, sbd: Path | None = None, num_workers: int | None = None
) -> Prepared:
    """Make `VOCdevkit/VOC2012` from VOC's and SBD's archives; existing files stay or are renamed.

    Everything appears when it is complete: `VOC2012` with all of VOC, in it `SegmentationClassAug` with a mask for each
    image of VOC or SBD (VOC's own where both have one), `labels.csv`, and last `trainaug.txt`, which lists VOC's train
    and all of SBD that is not in VOC's val. Other files of these two names become `<name>.before`. Without SBD there is
    neither SegmentationClassAug nor `trainaug`.

    Args:
        out: Folder that receives `VOCdevkit`.
        obtaining: How archives are come by.
        voc: VOCtrainval_11-May-2012.tar, or what was unpacked from it: its files are linked, not copied.
        sbd: benchmark.tgz, or what was unpacked from it.
        num_workers: Threads; None means one per core.

    Returns:
        What there is now.

    Raises:
        InputError: An archive is missing, damaged, dangerous or incomplete, the target cannot be written, or another
            run works in `out`.
    """
    with locked(out):
        devkit = out / "VOCdevkit" / "VOC2012"
        if is_made(devkit, _read_of_voc(obtaining.at_hand(VOC_ARCHIVE, voc))):
            _say_made(devkit, "--voc", voc)
        else:
            source = obtaining.obtain(VOC_ARCHIVE, voc, "--voc")
            with whole_folder(devkit, _read_of_voc(source)) as part:
                _fill(part, source, obtaining.progress)
                check_complete(part)
                read_annotations(part / "Annotations", _annotated(part), VOC)  # a damaged one must not get a place
        own, augmented = check_complete(devkit), devkit / AUGMENTED
        if is_made(augmented, _read_of_sbd(obtaining.at_hand(SBD_ARCHIVE, sbd), devkit, own)):
            _say_made(augmented, "--sbd", sbd)
        elif obtaining.available(SBD_ARCHIVE, sbd):
            source = obtaining.obtain(SBD_ARCHIVE, sbd, "--sbd")
            with whole_folder(augmented, _read_of_sbd(source, devkit, own)) as part:
                _augment(part, devkit, source, own, num_workers or cores(), obtaining.progress)
        return _write_lists(devkit, own)


def _read_of_voc(source: Path | None) -> Read:
    """What is unpacked; files of an unpacked archive are placed."""
    return {} if source is None or source.is_dir() else {"VOC": [source]}


def _read_of_sbd(source: Path | None, devkit: Path, own: Mapping[str, list[str]]) -> Read:
    if source is None:
        return {}
    files = [source] if source.is_file() else sorted((find_sbd(source) / "cls").glob("*.mat"))
    return {"SBD": files, "VOC's masks": [mask_path(devkit / "SegmentationClass", n) for s in own for n in own[s]]}


def _say_made(folder: Path, option: str, given: Path | None) -> None:
    if given is not None:
        print(f"{folder} is there already: {option} {given} is not read")


def _write_lists(devkit: Path, own: Mapping[str, list[str]]) -> Prepared:
    """Write the label file and `trainaug`; a file of this name that no run wrote as it is moves aside."""
    augmented = _augmented_names(devkit, own)
    names = sorted({*own["train"], *own["val"], *augmented})
    bare = sorted(set(names) - _annotated(devkit))
    if bare:
        raise InputError(
            f"{devkit / 'Annotations'} lacks {len(bare)} files, such as {bare[0]}.xml; remove {devkit} and prepare it "
            f"from {VOC_ARCHIVE.name}."
        )
    labels = read_annotations(devkit / "Annotations", names, VOC)
    lists = devkit / "ImageSets" / "Segmentation"
    texts = {devkit / LABEL_FILE: label_csv(labels)}
    if augmented:
        trainaug = sorted({*own["train"], *augmented}.difference(own["val"]))
        texts[lists / "trainaug.txt"] = "".join(f"{name}\n" for name in trainaug)
    ledger = Ledger(devkit, LISTS, Recipe(), {path.name: Item((), (path,), text) for path, text in texts.items()})

    def write(names: list[str]) -> Iterator[str]:
        """Write some of them."""
        for path, text in texts.items():
            if path.name in names:
                if path.is_file() and not holds(path, text) and not ledger.wrote(path.name):
                    asides = (path.with_name(f"{path.name}.before{n or ''}") for n in count())
                    path.rename(kept := next(aside for aside in asides if not aside.exists()))
                    print(f"{path} was a different file, which is now {kept.name}.")
                write_text(path, text)
                yield path.name

    ledger.make(write, progress=False)
    found = {split: lists / f"{split}.txt" for split in ("train", "val", "trainval", "trainaug")}
    return Prepared(
        devkit, {split: len(read_list(path)) for split, path in found.items() if path.is_file()}, len(labels)
    )


def _annotated(devkit: Path) -> set[str]:
    return {path.stem for path in (devkit / "Annotations").glob("*.xml")}


def label_csv(labels: Mapping[str, Labels]) -> str:
    """Format VOC's labels as `read_label_file` reads them: names of classes, separated by spaces."""
    lines = [f"{name},{' '.join(VOC.names[index] for index in shown)}" for name, shown in labels.items()]
    return "\n".join(["name,labels", *lines]) + "\n"


def check_complete(devkit: Path) -> dict[str, list[str]]:
    """Check that every image of VOC's train and val has its photo, mask and annotation.

    Returns:
        The lists `train` and `val`.

    Raises:
        InputError: Something is missing.
    """
    lists = devkit / "ImageSets" / "Segmentation"
    own = {split: read_list(lists / f"{split}.txt") for split in ("train", "val")}
    names = [*own["train"], *own["val"]]
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"), ("Annotations", ".xml")):
        missing = [name for name in names if not (devkit / folder / f"{name}{suffix}").is_file()]
        if missing:
            raise InputError(
                f"{devkit / folder} lacks {len(missing)} of {len(names)} files, such as {missing[0]}{suffix}: its "
                f"source is incomplete; remove {devkit} and prepare it from {VOC_ARCHIVE.name}."
            )
    return own


def _fill(devkit: Path, source: Path, progress: bool) -> None:
    """Unpack VOC's archive, or link the files of an unpacked one."""
    if source.is_file():
        for name, content in tar_files(source, lambda path: _is_wanted(path, devkit), progress=progress):
            with atomic_write(devkit.joinpath(*name.parts[2:])) as stream:
                stream.write(content)
    else:
        given = find_devkit(source)
        files = [path.relative_to(given) for folder in _FOLDERS for path in sorted((given / folder).rglob("*.*"))]
        for file in Progress(files, "link", unit="file", shown=progress, delay=1, leave=False):
            if _FILE.fullmatch(file.as_posix()):
                place(given / file, devkit / file)
    if not (devkit / "JPEGImages").is_dir():
        raise InputError(f"{source} holds no VOCdevkit/VOC2012/JPEGImages; expected {VOC_ARCHIVE.name}.")


def _is_wanted(path: PurePosixPath, devkit: Path) -> bool:
    inside = path.parts[2:]
    is_voc = path.parts[:2] == ("VOCdevkit", "VOC2012") and _FILE.fullmatch("/".join(inside)) is not None
    return is_voc and not devkit.joinpath(*inside).is_file()


def _augment(
    masks: Path, devkit: Path, source: Path, own: Mapping[str, list[str]], workers: int, progress: bool
) -> None:
    """Write the mask of every image of VOC or SBD."""
    for name in (*own["train"], *own["val"]):  # first, so that VOC's own win
        place(mask_path(devkit / "SegmentationClass", name), mask_path(masks, name))
    listed: set[str] = set()
    found: set[str] = set()
    lists: set[str] = set()

    def unwritten() -> Iterator[tuple[str, bytes]]:
        """Yield what has no mask yet; note what the archive holds and lists."""
        for file, content in sbd_files(source, progress):
            name = file.removesuffix(".mat")
            if name == file:
                lists.add(file)
                listed.update(content.decode("ascii", "replace").split())
                continue
            found.add(name)
            if not mask_path(masks, name).is_file():
                yield name, content

    for _ in in_threads(lambda item: _write_sbd_mask(masks, devkit, *item), unwritten(), workers):
        pass
    missing = sorted(listed - found)
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of SBD's {len(listed)} files cls/<name>.mat, such as {missing[0]}.mat; get "
            f"{SBD_ARCHIVE.name} again."
        )
    if len(lists) < 2:
        raise InputError(
            f"{source} lacks SBD's lists train.txt and val.txt or one of them; get {SBD_ARCHIVE.name} again."
        )


def _write_sbd_mask(masks: Path, devkit: Path, name: str, content: bytes) -> None:
    mask, photo = read_mat(content, f"{name}.mat"), devkit / "JPEGImages" / f"{name}.jpg"
    if not photo.is_file():
        raise InputError(f"{name}.mat of SBD belongs to a photo that is not in VOC: {photo} does not exist.")
    remedy = "they come from different releases"
    check_size(mask.shape, image_size(photo), f"{name}.mat of SBD", str(photo), remedy)
    write_mask(mask_path(masks, name), mask)


def _augmented_names(devkit: Path, own: Mapping[str, list[str]]) -> set[str]:
    folder = devkit / AUGMENTED
    if not folder.is_dir():
        return set()
    found = {path.stem for path in folder.glob("*.png") if not path.name.startswith(".")}
    missing = sorted({name for names in own.values() for name in names} - found)
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} masks of VOC's own, such as {missing[0]}.png; move it away and run the "
            "same command again with `--sbd`."
        )
    return found
