"""`ssdd import`: other projects' files into our folders of score maps and masks."""

import argparse
from pathlib import Path

from ssdd_lightning.interop.detection import FORMATS
from ssdd_lightning.interop.formats import CHANNELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd import`."""
    parser.add_argument("source", type=Path, help="folder of files named like the images")
    parser.add_argument(
        "--from",
        dest="format",
        choices=FORMATS,
        help="psa-cam (out_cam), psa-aff (out_aff, out_aff_crf), irn (and CLIP-ES), arrays (.npy, .npz or .pt of "
        "C x H x W) or masks (.png) (default: what the files look like)",
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="image-level labels (.npy, .csv, .json): keep only their classes"
    )
    parser.add_argument(
        "--classes", metavar="FILE|N", help="file of class names, or their number (default: those of VOC)"
    )
    parser.add_argument(
        "--alpha", type=float, default=4.0, help="background of files without one: (1 - max) ** alpha (default: 4)"
    )
    parser.add_argument("--logits", action="store_true", help="the scores are logits: apply a softmax")
    parser.add_argument(
        "--channels", choices=CHANNELS, help="what the channels of plain arrays are (default: by their number)"
    )
    parser.add_argument("--key", help="name of the scores in files that hold several arrays")
    parser.add_argument("--stretch", action="store_true", help="accept scores with another aspect ratio than the image")
    parser.add_argument("--num_workers", type=int, help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Convert the folder; finished outputs are kept.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.interop.import_folder import ImportOptions, import_folder

    options = vars(args)
    source, images, out, workers = (options.pop(name) for name in ("source", "images", "out", "num_workers"))
    written = import_folder(source, images, out, ImportOptions(**options), workers)
    print(f"{out}: {written} files written.")
    return 0
