"""`ssdd prepare`: published datasets, or your own photos, in the layout that the stages read."""

import argparse
from collections import Counter

from ssdd_lightning.cli.options import CLASSES, WORKERS, add_obtaining, add_options
from ssdd_lightning.data.official import COCO_COUNTS, VOC_COUNTS


def add_voc(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare voc`."""
    options = {
        "--out DIR": "folder that receives VOCdevkit/VOC2012",
        "--voc FILE|DIR": "VOCtrainval_11-May-2012.tar, or the folder unpacked from it",
        "--sbd FILE|DIR": "SBD's benchmark.tgz, or the folder unpacked from it",
    }
    add_options(parser, options, ("out",))
    add_obtaining(parser, "VOC 2.0 GB, SBD 1.4 GB")


def run_voc(args: argparse.Namespace) -> None:
    """Prepare VOC and print a summary."""
    from ssdd_lightning.evaluation.text_table import text_table
    from ssdd_lightning.prepare.download import Obtaining
    from ssdd_lightning.prepare.voc import LABEL_FILE, prepare_voc

    made = prepare_voc(args.out, Obtaining.of(args), args.voc, args.sbd, args.num_workers)
    rows = [[split, str(count), str(VOC_COUNTS[split])] for split, count in made.splits.items()]
    print(text_table(["split", "images", "official"], rows))
    print(f"{made.devkit / LABEL_FILE} holds the labels of {made.labelled} images.")
    if "trainaug" not in made.splits:
        print("There is no trainaug and no SegmentationClassAug; give SBD with `--sbd` or `--download`.")


def add_coco(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare coco`."""
    options = {
        "--out DIR": "folder that receives COCO2014",
        "--coco DIR": "folder of train2014.zip, val2014.zip and annotations_trainval2014.zip, or of their content",
    }
    add_options(parser, options, ("out",))
    add_obtaining(parser, "20 GB in all")


def run_coco(args: argparse.Namespace) -> None:
    """Prepare COCO and print a summary."""
    from ssdd_lightning.evaluation.text_table import text_table
    from ssdd_lightning.prepare.coco import REPORT, prepare_coco
    from ssdd_lightning.prepare.download import Obtaining

    made = prepare_coco(args.out, Obtaining.of(args), args.coco, args.num_workers)
    rows = [
        [split, str(count), str(COCO_COUNTS[split]), str(made.left_out[split])] for split, count in made.splits.items()
    ]
    print(text_table(["split", "images", "usual", "without an object"], rows))
    print(f"{made.devkit / REPORT} lists the images without an object, which are left out.")
    print(f"{made.devkit / 'classes.txt'} names the {made.num_classes} classes.")


def add_folder(parser: argparse.ArgumentParser) -> None:
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


def run_folder(args: argparse.Namespace) -> None:
    """Prepare the folder and print a summary."""
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


KINDS = {
    "voc": ("VOC 2012 and SBD: devkit, SegmentationClassAug, trainaug, labels", add_voc, run_voc),
    "coco": ("COCO 2014: photos, masks of 81 classes, labels", add_coco, run_coco),
    "folder": ("your own photos with a file of labels", add_folder, run_folder),
}
"""What can be prepared: what it is, its options, and its command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd prepare`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for kind, (text, add, _) in KINDS.items():
        add(kinds.add_parser(kind, help=text, description=text, allow_abbrev=False))


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset, and say what it holds.

    Returns:
        The exit status, 0.
    """
    KINDS[args.kind][2](args)
    return 0
