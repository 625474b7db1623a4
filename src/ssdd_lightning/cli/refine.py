"""`ssdd refine`: SSDD between any two folders of masks or score maps."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd refine`."""
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of photos (.jpg, .jpeg, .bmp, .png)")
    add(
        "--knowledge",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of masks <name>.png or score maps <name>.map.png",
    )
    add(
        "--advice",
        required=True,
        metavar="DIR|crf",
        help="second folder of masks or score maps, or crf for the CRF of the knowledge",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for everything that is written")
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="image-level labels (.csv, .json, .npy) (default: the classes that each knowledge mask shows)",
    )
    add("--classes", metavar="FILE|N", help="file of class names, or their number (default: by the labels or masks)")
    add("--truth", type=Path, metavar="DIR", help="ground truth masks <name>.png, for scoring only")
    add("--skip-missing", action="store_true", help="leave out images that lack a photo, mask, score map or label")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run (default: auto)")
    add("--backbone", default="tf_efficientnet_lite0", help="resnet38 or a timm name (default: tf_efficientnet_lite0)")
    add("--weights", help="imagenet, offline, none, or a file, which resnet38 needs (default: imagenet)")
    add("--epochs", type=int, help="training epochs (default: 10, or as many tens as it takes to reach 300 steps)")
    add("--batch_size", type=int, default=16, help="images per batch (default: 16)")
    add("--crop_size", type=int, help="side of the training crop (default: by the images, at most 448)")
    add("--num_workers", type=int, default=2, help="loader processes (default: 2)")
    add("--seed", type=int, default=0, help="seed of everything (default: 0)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another option of the stage, such as model.init_args.ssdd.init_args.biases.dd_bias=0.2; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Refine, say where everything is, and print the scores if there is ground truth.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.evaluation.table import scores_table
    from ssdd_lightning.pipeline.config import parse_settings
    from ssdd_lightning.pipeline.refine import CRF, RefineOptions, refine
    from ssdd_lightning.pipeline.refine_options import Recipe

    given = vars(args)
    given["settings"] = parse_settings(given.pop("set"))
    recipe = Recipe(**{name: given.pop(name) for name in Recipe.__dataclass_fields__})
    given["advice"] = given["advice"] if given["advice"] == CRF else Path(given["advice"])
    card = refine(RefineOptions(**given, recipe=recipe))
    if card is not None:
        print(scores_table(card, "refined"))
    print(f"{args.out / 'refined'} holds the merged masks, and the difference maps in d_knowledge and d_advice.")
    return 0
