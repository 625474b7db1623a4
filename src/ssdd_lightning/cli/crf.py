"""`ssdd crf`: refine a folder of score maps with the dense CRF."""

import argparse
from pathlib import Path

from ssdd_lightning.crf.settings import PRESETS, CRFOptions

WIDTHS = {
    "gaussian_sxy": "width of the smoothness kernel in pixels",
    "gaussian_compat": "weight of the smoothness kernel",
    "bilateral_sxy": "spatial width of the appearance kernel in pixels",
    "bilateral_srgb": "colour width of the appearance kernel in grey values",
    "bilateral_compat": "weight of the appearance kernel",
}
"""Options that replace a value of the preset."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd crf`."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photos <name>.jpg")
    parser.add_argument("--maps", type=Path, required=True, metavar="DIR", help="folder of score maps <name>.map.png")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="psa", help="published widths and weights (default: psa)"
    )
    for option, text in WIDTHS.items():
        parser.add_argument(f"--{option}", type=float, metavar="X", help=f"{text} (default: the preset's)")
    parser.add_argument("--iterations", type=int, default=10, help="mean-field iterations (default: 10)")
    parser.add_argument(
        "--background_alpha",
        type=float,
        metavar="ALPHA",
        help="first replace the background score by (1 - largest class score) ** ALPHA (default: keep it)",
    )
    parser.add_argument(
        "--write",
        choices=("maps", "masks", "both"),
        default="maps",
        help="what to write: score maps, masks or both (default: maps)",
    )
    parser.add_argument("--num_workers", type=int, help="processes or threads (default: all cores)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Refine the folder; finished outputs are kept.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.folders.crf import CRFJob

    options = vars(args)
    workers = options.pop("num_workers")
    crf = CRFOptions(options.pop("preset"), **{name: options.pop(name) for name in WIDTHS})
    CRFJob(**options, crf=crf).run(workers)
    return 0
