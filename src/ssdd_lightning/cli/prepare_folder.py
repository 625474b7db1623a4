"""`ssdd prepare folder`."""

import argparse
from collections import Counter

from ssdd_lightning.cli.options import CLASSES, WORKERS, add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare folder`."""
    options = {
        "images DIR": "folder of .jpg, .jpeg, .bmp or .png photos with any names",
        "--labels FILE": "image-level labels (.csv, .json, .npy)",
        "--out DIR": "folder for lists, labels and class names",
        CLASSES: "file of class names, background first, or their number (default: by the labels)",
        "--truth DIR": "ground truth masks <name>.png of all or some photos, for scoring only",
        "--val X": "share of the photos to keep out of training",
        "--seed N": "seed of the choice of these photos",
        "--skip-missing": "leave out photos without labels and labels without a photo",
    }
    add_options(parser, options | WORKERS, ("labels", "out"), val=0.1, seed=0)


def run(args: argparse.Namespace) -> int:
    """Prepare the folder and print a summary.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.data.labels import read_label_file
    from ssdd_lightning.evaluation.text_table import text_table
    from ssdd_lightning.prepare.folder import FolderOptions, prepare_folder

    options = FolderOptions(**{name: getattr(args, name) for name in FolderOptions.__dataclass_fields__})
    made = prepare_folder(options, args.num_workers)
    labels = read_label_file(args.out / "labels.json", made.classes)
    counts = [Counter(index for name in names for index in labels[name]) for names in (made.train, made.val)]
    rows = [[name, *(str(count[index]) for count in counts)] for index, name in enumerate(made.classes.names)][1:]
    print(text_table(["class", "train", "val"], rows, [["photos", str(len(made.train)), str(len(made.val))]]))
    if made.left_out:
        print(f"{len(made.left_out)} names without a photo or a label are left out, such as {made.left_out[0]}.")
    if made.turned:
        print(
            f"{len(made.turned)} photos, such as {made.turned[0]}, have an EXIF orientation, which is ignored: "
            "masks will be oriented like the stored photos."
        )
    if made.unread:
        print(f"Subfolders are not read, but {', '.join(made.unread)} hold photos; move them to {args.images}.")
    print(f"Add --config {made.config} to the command of every stage.")
    return 0
