"""`ssdd refine`: SSDD between any two folders of masks or score maps."""

import argparse
from pathlib import Path

from ssdd_lightning.cli.options import CLASSES, add_options, add_repeated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd refine`."""
    options = {
        "--images DIR": "folder of photos (.jpg, .jpeg, .bmp, .png)",
        "--knowledge DIR": "folder of masks <name>.png or score maps <name>.map.png",
        "--advice crf|par|DIR": "the knowledge's dense CRF or pixel-adaptive refinement, or a folder of other masks or "
        "score maps",
        "--out DIR": "folder for everything that is written",
        "--labels FILE": "image-level labels (.csv, .json, .npy) (default: the classes that each knowledge mask shows)",
        CLASSES: "file of class names, or their number (default: by the labels or masks)",
        "--truth DIR": "ground truth masks <name>.png, for scoring only",
        "--skip-missing": "leave out images that lack a photo, mask, score map or label",
        "--device NAME": "where to run",
        "--backbone NAME": "resnet38 or a timm name",
        "--weights SOURCE": "imagenet, offline, none, or a file, which resnet38 needs (default: imagenet)",
        "--epochs N": "training epochs (default: 10, or as many tens as it takes to reach 300 steps)",
        "--batch_size N": "images per batch",
        "--crop_size N": "side of the training crop (default: by the images, at most 448)",
        "--num_workers N": "loader processes",
        "--seed N": "seed of everything",
    }
    defaults = {"device": "auto", "backbone": "tf_efficientnet_lite0", "batch_size": 16, "num_workers": 2, "seed": 0}
    needed = ("images", "knowledge", "advice", "out")
    add_options(parser, options, needed, {"device": ("auto", "cpu", "cuda")}, **defaults)
    text = "another option of the stage, such as model.init_args.ssdd.init_args.biases.dd_bias=0.2"
    add_repeated(parser, "--set", "KEY=VALUE", text)


def run(args: argparse.Namespace) -> int:
    """Refine, say where everything is, and print the scores if there is ground truth.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.evaluation.table import scores_table
    from ssdd_lightning.pipeline.advice import MAPPINGS
    from ssdd_lightning.pipeline.config import parse_settings
    from ssdd_lightning.pipeline.refine import RefineOptions, refine
    from ssdd_lightning.pipeline.refine_options import Recipe

    given = vars(args)
    given["settings"] = parse_settings(given.pop("set"))
    recipe = Recipe(**{name: given.pop(name) for name in Recipe.__dataclass_fields__})
    given["advice"] = given["advice"] if given["advice"] in MAPPINGS else Path(given["advice"])
    card = refine(RefineOptions(**given, recipe=recipe))
    if card is not None:
        print(scores_table(card, "refined"))
    print(f"{args.out / 'refined'} holds the merged masks, and the difference maps in d_knowledge and d_advice.")
    return 0
