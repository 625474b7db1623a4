"""Time of a training crop beside bare decoding and resizing of the same files.

    python benchmarks/input.py
    python benchmarks/input.py --photos VOC2012/JPEGImages --masks VOC2012/SegmentationClass --crop 448 --resize 448 768

The peer opens a photo (and its two masks) and resizes it to the crop's size: no window, no flip, no colours, no
padding, no checks, no tensors. Both take each photo in turns; the figures are processor time of one thread, least of
the rounds, mean over the photos. `times` is the ratio of these. Without --photos, photos of 500 x 375 and of 3,000 x
2,000 are drawn.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from machine import report
from PIL import Image
from tables import Row

from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.dataset import FolderDataset, Record
from ssdd_lightning.data.transforms import TrainTransform
from ssdd_lightning.storage.images import find_images
from ssdd_lightning.storage.masks import write_mask

SIZES = {"photos of 500 x 375": (375, 500), "photos of 3,000 x 2,000": (2000, 3000)}
TABLE = ClassTable.select(VOC_CLASSES, None)


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = arguments()
    cv2.setNumThreads(0)
    with TemporaryDirectory() as folder:
        sets = chosen(options) if options.photos else drawn(Path(folder), options.count)
        rows = [row for name, files in sets.items() for row in compare(name, files, options)]
    report("training crops, one thread", rows, options)


def arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos; default: drawn ones")
    parser.add_argument("--masks", type=Path, help="folder of masks <name>.png of these photos")
    parser.add_argument("--count", type=int, default=40, help="photos (default: 40)")
    parser.add_argument("--rounds", type=int, default=5, help="crops of each photo (default: 5)")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--resize", type=int, nargs=2, default=(192, 320), help="smallest and largest longest side")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> dict[str, list[tuple[Path, Path | None]]]:
    """Photos of a folder, evenly picked, with their masks."""
    found = [
        (photo, None if options.masks is None else options.masks / f"{name}.png")
        for name, photo in find_images(options.photos).items()
    ]
    files = [(photo, mask) for photo, mask in found if mask is None or mask.is_file()]
    return {f"{options.photos.name} of {options.photos.parent.name}": files[:: max(1, len(files) // options.count)]}


def drawn(folder: Path, count: int) -> dict[str, list[tuple[Path, Path | None]]]:
    """Smooth coloured blobs with some grain, as JPEG, and masks of blobs."""
    rng = np.random.default_rng(0)
    sets: dict[str, list[tuple[Path, Path | None]]] = {}
    for name, (height, width) in SIZES.items():
        for number in range(count if height < 1000 else max(1, count // 10)):
            coarse = rng.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
            grain = rng.integers(0, 16, (height, width, 3), dtype=np.uint8)
            picture = cv2.add(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), grain)
            photo, mask = folder / f"{height}-{number}.jpg", folder / f"{height}-{number}.png"
            Image.fromarray(picture).save(photo, quality=90)
            blobs = cv2.resize(rng.random((6, 8, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
            write_mask(mask, np.array([0, 8, 12])[blobs.argmax(2)])
            sets.setdefault(name, []).append((photo, mask))
    return sets


def compare(name: str, files: list[tuple[Path, Path | None]], options: argparse.Namespace) -> list[Row]:
    """Ours and the peer in turns, photos alone and with two masks."""
    transform = TrainTransform(Augmentation(options.crop, tuple(options.resize)))
    rows = []
    for guides in ((), ("knowledge", "advice")):
        if guides and any(mask is None for _, mask in files):
            continue
        records = [Record(photo.stem, photo, (8, 12), guides=dict.fromkeys(guides, mask)) for photo, mask in files]
        dataset = FolderDataset(records, TABLE, transform)
        ours, bare = np.empty((2, len(files), options.rounds))
        for index, (photo, mask) in enumerate(files):
            masks = [mask] * len(guides)
            for number in range(options.rounds):
                ours[index, number] = seconds(dataset.__getitem__, (index, number))
                bare[index, number] = seconds(decode_and_resize, photo, masks, options.crop)
        fast, peer = 1e3 * ours.min(1).mean(), 1e3 * bare.min(1).mean()
        what = "photo and two masks" if guides else "photo"
        row = {"input": name, "of each": what, "crop, ms": fast, "bare, ms": peer, "times": fast / peer}
        rows.append({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def decode_and_resize(photo: Path, masks: list[Path], side: int) -> None:
    """What any input does at least."""
    with Image.open(photo) as image:
        cv2.resize(np.asarray(image), (side, side), interpolation=cv2.INTER_LINEAR)
    for path in masks:
        with Image.open(path) as mask:
            cv2.resize(np.asarray(mask), (side, side), interpolation=cv2.INTER_NEAREST)


def seconds(work: Callable[..., object], *given: object) -> float:
    """Processor time of this thread."""
    start = time.thread_time()
    work(*given)
    return time.thread_time() - start


if __name__ == "__main__":
    main()
