"""`ssdd segment`: masks of any photos from a checkpoint, without a dataset."""

import argparse

from ssdd_lightning.cli.options import CLASSES, add_modules, add_options
from ssdd_lightning.crf.settings import PRESETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd segment`."""
    add_options(parser, {"checkpoint FILE": "checkpoint of the baseline, static or dynamic stage"})
    parser.add_argument("inputs", nargs="+", metavar="input", help="image, folder of images, or pattern like 'a/*.jpg'")
    flags = {
        "--flip": "also average over the mirrored image (default: the checkpoint's)",
        "--crf": "dense CRF after the average (default: the checkpoint's)",
    }
    for flag, text in flags.items():
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
    options = {
        "--out DIR": "folder for the masks <name>.png",
        "--labels FILE": "image-level labels (.csv, .json, .npy): predict only an image's own classes (default: all)",
        "--overlays": "also write the photos with their masks drawn over them",
        "--scales X ...": "scales to average over (default: the checkpoint's)",
        "--crf_preset NAME": "dense CRF with these published widths and weights (default: the checkpoint's)",
        "--max_side N": "segment photos with a longer side at this size; masks keep the photo's "
        "(default: the photo's own size, up to 33 million pixels)",
        CLASSES: "file of class names, or their number, for checkpoints that do not store their classes",
        "--device DEVICE": "auto (a GPU if there is one), cpu, cuda, cuda:1, ...",
    }
    add_options(parser, options, ("out",), {"crf_preset": sorted(PRESETS)}, device="auto")
    add_modules(parser)


def run(args: argparse.Namespace) -> int:
    """Segment the photos; finished masks are kept.

    Returns:
        The exit status, 0.

    Raises:
        InputError: The checkpoint, a photo or an option is wrong.
    """
    from ssdd_lightning.data.labels import read_label_file
    from ssdd_lightning.folders.device import find_device
    from ssdd_lightning.folders.segment import NAME, SegmentJob
    from ssdd_lightning.folders.segment_checkpoint import change_protocol, load_stage
    from ssdd_lightning.folders.segment_inputs import find_photos
    from ssdd_lightning.storage.fingerprints import fingerprint

    photos = find_photos(args.inputs)
    stage, classes = load_stage(args.checkpoint, find_device(args.device), args.classes, args.modules)
    change_protocol(stage, args.scales, args.flip, args.crf, args.crf_preset)
    labels = None if args.labels is None else read_label_file(args.labels, classes)
    settings = {
        "stage": type(stage).__name__,
        "image_labels": args.labels is not None,
        **stage.protocol(),
        "max_side": args.max_side,
        "classes": {str(i): name for i, name in zip(classes.indices, classes.selected_names, strict=True)},
    }
    job = SegmentJob(stage, classes, args.out, labels, args.overlays, args.max_side)
    written = job.run(photos, settings, {"the checkpoint": fingerprint(args.checkpoint)})
    used = "not used" if labels is None else f"used: only the classes that {args.labels} names could be predicted"
    print(f"{args.out} holds {len(photos)} masks, {len(photos) - written} of them from an earlier run.")
    print(f"Image-level labels were {used}. {args.out / NAME}.json names the checkpoint and the settings.")
    return 0
