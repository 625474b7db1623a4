"""`ssdd prepare coco`."""

import argparse
from pathlib import Path

from ssdd_lightning.data.official import COCO_COUNTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare coco`."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder that receives COCO2014")
    add(
        "--coco",
        type=Path,
        metavar="DIR",
        help="folder of train2014.zip, val2014.zip and annotations_trainval2014.zip, or of what is in them, unpacked",
    )
    add("--download", action="store_true", help="download what is not there: 20 GB in all")
    add("--no-checksum", dest="checksum", action="store_false", help="accept given archives of any checksum")
    add("--num_workers", type=int, help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Prepare COCO and say what there is.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.prepare.coco import REPORT, prepare_coco
    from ssdd_lightning.prepare.download import Obtaining

    obtaining = Obtaining(args.out / "downloads", args.download, args.checksum)
    made = prepare_coco(args.out, obtaining, args.coco, args.num_workers)
    for split, count in made.splits.items():
        official = "" if count == COCO_COUNTS[split] else f"   usually {COCO_COUNTS[split]}"
        print(f"{split:<10}{count:>7}{official}; {made.left_out[split]} without an object, see {made.devkit / REPORT}")
    print(f"{made.classes} classes: {made.devkit / 'classes.txt'}")
    return 0
