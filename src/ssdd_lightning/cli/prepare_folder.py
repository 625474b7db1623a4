"""`ssdd prepare folder`."""

import argparse
from collections import Counter
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare folder`."""
    add = parser.add_argument
    add("images", type=Path, help="folder of .jpg, .jpeg, .bmp or .png photos of any names")
    add("--labels", type=Path, required=True, metavar="FILE", help="image-level labels (.csv, .json, .npy)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for lists, labels and class names")
    add("--classes", metavar="FILE|N", help="class names, background first, or how many (default: as the labels say)")
    add("--truth", type=Path, metavar="DIR", help="true masks <name>.png of all or some photos, for scoring only")
    add("--val", type=float, default=0.1, help="share of the photos to keep out of training (default: 0.1)")
    add("--seed", type=int, default=0, help="another seed, another choice of them (default: 0)")
    add("--skip-missing", action="store_true", help="go on without photos that lack labels, and the other way round")
    add("--num_workers", type=int, help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Prepare the folder and say what there is.

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
        print(f"left out: {len(made.left_out)} without photo or label, such as {made.left_out[0]}")
    if made.turned:
        print(
            f"{len(made.turned)} photos, such as {made.turned[0]}, carry a note that they are to be turned (EXIF), "
            "which is not followed: masks will lie as the photos are stored"
        )
    if made.unread:
        print(f"subfolders with photos are not read: {', '.join(made.unread)}; all photos must lie in {args.images}")
    print(f"options for every stage: --config {made.config}")
    return 0
