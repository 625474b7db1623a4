"""`ssdd crf`: refine a folder of score maps with the dense CRF."""

import argparse
from collections.abc import Mapping, Sequence

from ssdd_lightning.cli.launched import launched
from ssdd_lightning.cli.options import add_options
from ssdd_lightning.crf.settings import PRESETS, CRFOptions

WIDTHS = {
    "gaussian_sxy": "width of the smoothness kernel in pixels",
    "gaussian_compat": "weight of the smoothness kernel",
    "bilateral_sxy": "spatial width of the appearance kernel in pixels",
    "bilateral_srgb": "colour width of the appearance kernel in grey values",
    "bilateral_compat": "weight of the appearance kernel",
}
"""Options that replace a value of the preset."""


FOLDERS = {
    "--images DIR": "folder of photos <name>.jpg",
    "--maps DIR": "folder of score maps <name>.map.png",
    "--out DIR": "folder to write",
}
WORK = {
    "--background_alpha X": "first make the background score (1 - largest class score) ** X (default: keep it)",
    "--write WHAT": "what to write: score maps, masks or both",
    "--num_workers N": "processes or threads (default: all cores)",
    "--device DEVICE": "cpu, cuda, cuda:1, ...",
}
"""Options of every mapping function of score maps, before and after its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd crf`."""
    options = {
        "--preset NAME": "published widths and weights",
        **{f"--{option} X": f"{text} (default: the preset's)" for option, text in WIDTHS.items()},
        "--iterations N": "mean-field iterations",
    }
    add_mapping(parser, options, {"preset": sorted(PRESETS)}, preset="psa")


def add_mapping(
    parser: argparse.ArgumentParser,
    options: Mapping[str, str],
    choices: Mapping[str, Sequence[str]] | None = None,
    **defaults: object,
) -> None:
    """Declare the options of a mapping function of score maps: those of all, and its own; see `add_options`."""
    shared = {"iterations": 10, "write": "maps", "device": "cpu"}
    chosen = {**(choices or {}), "write": ("maps", "masks", "both")}
    add_options(parser, {**FOLDERS, **options, **WORK}, ("images", "maps", "out"), chosen, **shared, **defaults)


def run(args: argparse.Namespace) -> int:
    """Refine the folder; finished outputs are kept.

    Returns:
        The exit status, 0.
    """
    from ssdd_lightning.folders.crf import CRFJob

    options = vars(args)
    workers = options.pop("num_workers")
    crf = CRFOptions(options.pop("preset"), **{name: options.pop(name) for name in WIDTHS})
    with launched() as team:
        CRFJob(**options, crf=crf).run(workers, team=team)
    return 0
