"""COCO 2014 in the layout of VOC: photos, masks of classes, lists, image-level labels, class names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssdd_lightning.data.labels import Labels
from ssdd_lightning.errors import InputError, check_size
from ssdd_lightning.prepare.coco_masks import Photo, Split, draw_mask, read_split, require_pycocotools
from ssdd_lightning.prepare.download import Obtaining, Remote
from ssdd_lightning.prepare.folders import Read, is_made, place, whole_folder
from ssdd_lightning.storage.archives import zip_files
from ssdd_lightning.storage.files import atomic_write, write_text
from ssdd_lightning.storage.images import image_size
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.score_maps import mask_path
from ssdd_lightning.storage.threads import cores, with_bar

SITE = "http://images.cocodataset.org"
PHOTOS = {
    "train": Remote("train2014.zip", f"{SITE}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", "train2014"),
    "val": Remote("val2014.zip", f"{SITE}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3", "val2014"),
}
ANNOTATIONS = Remote(
    "annotations_trainval2014.zip",
    f"{SITE}/annotations/annotations_trainval2014.zip",
    "0a379cfc70b0e71301e0f377548639bd",
    "annotations",
)
PARTS = (ANNOTATIONS, *PHOTOS.values())
LARGEST_JSON = 2 << 30
REPORT = "left_out.json"


@dataclass(frozen=True)
class PreparedCoco:
    """What a preparation made.

    Args:
        devkit: The folder `COCO2014`.
        splits: Split -> number of images with labels.
        num_classes: Number of classes, background included.
        left_out: Split -> number of images without labels.
    """

    devkit: Path
    splits: dict[str, int]
    num_classes: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """What the lists and the label file need of a split.

    Args:
        names: Class names, background first.
        labels: Image name -> labels, of images with labels.
        left_out: Reason -> names of the other images.
    """

    names: tuple[str, ...]
    labels: dict[str, Labels]
    left_out: dict[str, list[str]]

    @classmethod
    def of(cls, split: Split) -> "Summary":
        """Forget the segmentations."""
        photos = sorted(split.photos.items())
        bare = {name: bool(photo.crowds) for name, photo in photos if not photo.labels}
        left_out = {
            "without annotation": [name for name, crowded in bare.items() if not crowded],
            "crowds alone": [name for name, crowded in bare.items() if crowded],
        }
        return cls(split.names, {name: photo.labels for name, photo in photos if photo.labels}, left_out)


def prepare_coco(
    out: Path, obtaining: Obtaining, source: Path | None = None, num_workers: int | None = None
) -> PreparedCoco:
    """Make `COCO2014` from COCO's archives; it appears when it is complete.

    It holds `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation/{train,val}.txt`, `labels.json`, `classes.txt`,
    and `left_out.json`, which names the images that no object is annotated in: none at all, or crowd regions alone.

    Args:
        out: Folder that receives `COCO2014`.
        obtaining: How archives are come by.
        source: Folder of the archives, or of what was unpacked from them (train2014, val2014, annotations); photos of
            folders are linked, not copied.
        num_workers: Threads; None means one per core.

    Raises:
        InputError: An archive is missing, damaged, dangerous or incomplete, the target cannot be written, or
            pycocotools is not installed, or another run works in `out`.
    """
    devkit = out / "COCO2014"
    if not devkit.is_dir():
        require_pycocotools()
    with locked(out):
        if is_made(devkit, _read(_at_hand(source, obtaining))):
            said = f"is there already: --coco {source} is not read" if source is not None else "is there already"
            print(f"{devkit} {said}")
        else:
            _make(devkit, obtaining, source, num_workers or cores())
    left_out = json.loads((devkit / REPORT).read_text())
    lists = {split: devkit / "ImageSets" / "Segmentation" / f"{split}.txt" for split in PHOTOS}
    return PreparedCoco(
        devkit,
        {split: len(path.read_text().split()) for split, path in lists.items()},
        len((devkit / "classes.txt").read_text().splitlines()),
        {split: sum(map(len, names.values())) for split, names in left_out.items()},
    )


def _make(devkit: Path, obtaining: Obtaining, source: Path | None, workers: int) -> None:
    annotations, *photo_sources = (obtaining.obtain(remote, source, "--coco") for remote in PARTS)
    with whole_folder(devkit, _read([annotations, *photo_sources])) as part:
        summaries = {}
        for split, photo_source in zip(PHOTOS, photo_sources, strict=True):  # one after the other: the annotations of
            content = _read_annotations(annotations, split, obtaining.progress)  # train alone fill some GB of memory
            photos = {name: photo for name, photo in content.photos.items() if photo.labels}
            _write_photos(part, split, photos, photo_source, obtaining.progress)
            _write_masks(part, photos, workers, obtaining.progress)
            summaries[split] = Summary.of(content)
        _write_texts(part, summaries)


def _read(parts: list[Path]) -> Read:
    """What is unpacked or converted; photos of folders are placed."""
    if not parts:
        return {}
    texts = sorted(parts[0].glob("instances_*.json")) if parts[0].is_dir() else parts[:1]
    return {"COCO": [*texts, *(path for path in parts[1:] if path.is_file())]}


def _at_hand(source: Path | None, obtaining: Obtaining) -> list[Path]:
    """What there is of all parts without a download; nothing if one of them is not there."""
    found = [obtaining.at_hand(remote, source) or obtaining.at_hand(remote, None) for remote in PARTS]
    parts = [path for path in found if path is not None]
    return parts if len(parts) == len(found) else []


def _read_annotations(source: Path, split: str, progress: bool) -> Split:
    name = f"instances_{split}2014.json"
    if source.is_dir():
        if not (source / name).is_file():
            raise InputError(f"{source} lacks {name}; unpack {ANNOTATIONS.name} there.")
        return read_split((source / name).read_bytes(), str(source / name))
    for _, content in zip_files(source, lambda path: path.name == name, LARGEST_JSON, progress):
        return read_split(content, f"{source}/{name}")
    raise InputError(f"{source} lacks {name}; expected {ANNOTATIONS.name}.")


def _write_photos(devkit: Path, split: str, photos: Mapping[str, Photo], source: Path, progress: bool) -> None:
    folder = devkit / "JPEGImages"

    def wanted(path: PurePosixPath) -> bool:
        labelled = path.parts[-2:-1] == (f"{split}2014",) and path.suffix == ".jpg" and path.stem in photos
        return labelled and not (folder / path.name).is_file()

    if source.is_dir():
        present = [photo.file for photo in photos.values() if (source / photo.file).is_file()]
        for file in Progress(present, f"link {split}", unit="file", shown=progress, delay=1, leave=False):
            place(source / file, folder / file)
    else:
        for path, content in zip_files(source, wanted, progress=progress):
            with atomic_write(folder / path.name) as stream:
                stream.write(content)
    missing = [photo.file for photo in photos.values() if not (folder / photo.file).is_file()]
    if missing:
        raise InputError(f"{source} lacks {len(missing)} of {len(photos)} photos of {split}, such as {missing[0]}.")


def _write_masks(devkit: Path, photos: Mapping[str, Photo], workers: int, progress: bool) -> None:
    def write(name: str) -> None:
        """Write one photo's mask unless it is there."""
        target, photo = mask_path(devkit / "SegmentationClass", name), photos[name]
        if target.is_file():
            return
        size, remedy = image_size(devkit / "JPEGImages" / photo.file), "they come from different releases"
        check_size(size, (photo.height, photo.width), f"photo {photo.file}", "the size in its annotation", remedy)
        write_mask(target, draw_mask(photo))

    for _ in with_bar(write, photos, "masks", workers, progress, leave=False):
        pass


def _write_texts(devkit: Path, splits: Mapping[str, Summary]) -> None:
    names = {split.names for split in splits.values()}
    if len(names) > 1:
        raise InputError("the annotations of train and val have different categories; get both from one release.")
    for split, content in splits.items():
        path = devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
        write_text(path, "".join(f"{name}\n" for name in content.labels))
    write_text(devkit / "classes.txt", "\n".join(names.pop()) + "\n")
    write_text(devkit / "labels.json", json.dumps({k: v for split in splits.values() for k, v in split.labels.items()}))
    write_text(devkit / REPORT, json.dumps({split: content.left_out for split, content in splits.items()}, indent=1))
