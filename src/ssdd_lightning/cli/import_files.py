"""`ssdd import`: other projects' files into our folders of score maps and masks."""

import argparse

from ssdd_lightning.cli.launched import launched
from ssdd_lightning.cli.options import CLASSES, WORKERS, add_options
from ssdd_lightning.interop.detection import FORMATS
from ssdd_lightning.interop.formats import CHANNELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd import`."""
    parser.add_argument(
        "--from",
        dest="format",
        choices=FORMATS,
        help="psa-cam (out_cam), psa-aff (out_aff, out_aff_crf), irn (and CLIP-ES), arrays (.npy, .npz or .pt of "
        "C x H x W) or masks (.png) (default: what the files look like)",
    )
    options = {
        "source DIR": "folder of files named like the images",
        "--images DIR": "folder of the photos",
        "--out DIR": "folder to write",
        "--labels FILE": "image-level labels (.npy, .csv, .json): keep only their classes",
        CLASSES: "file of class names, or their number (default: those of VOC)",
        "--alpha X": "background of files without one: (1 - max) ** alpha",
        "--logits": "the scores are logits: apply a softmax",
        "--channels NAME": "what the channels of plain arrays are (default: by their number)",
        "--key NAME": "name of the scores in files that hold several arrays",
        "--stretch": "accept scores with another aspect ratio than the image",
    }
    add_options(parser, options | WORKERS, ("images", "out"), {"channels": CHANNELS}, alpha=4.0)


def run(args: argparse.Namespace) -> int:
    """Convert the folder; finished outputs are kept.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.interop.import_folder import ImportOptions, import_folder

    options = vars(args)
    source, images, out, workers = (options.pop(name) for name in ("source", "images", "out", "num_workers"))
    with launched() as team:
        written = import_folder(source, images, out, ImportOptions(**options), workers, team=team)
        print(f"{out}: {written} files written.")
    return 0
