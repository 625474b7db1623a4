"""`ssdd report`: a run, or folders of masks, as one page."""

import argparse
from pathlib import Path

from ssdd_lightning.cli.options import add_options
from ssdd_lightning.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd report`."""
    run = "folder of a run: --out of `ssdd run` or `ssdd refine`, finished or not"
    parser.add_argument("run", nargs="?", type=Path, help=run)
    options = {
        "--predictions DIR": "instead of a run, a folder of masks <name>.png or maps <name>.map.png; needs --images",
        "--images DIR": "folder of photos (default: the run's)",
        "--truth DIR": "folder of ground truth masks (default: the run's, if it has one)",
        "--knowledge DIR": "masks or score maps to compare with (default: the run's)",
        "--advice DIR": "the same of another origin (default: the run's)",
        "--split FILE": "list of the images to show and to score (default: those that the run scores, or all)",
        "--classes FILE": "class names, one per line, or a JSON object (default: the run's, or PASCAL VOC's)",
        "--figure FILE": "instead of the page, a PNG: a few photos with K, d_K, A, d_A, refined, prediction and truth",
        "--photos NAME ...": "photos of the figure (default: 4, drawn by chance)",
        "--out DIR": "folder to write (default: report in the folder of the run)",
    }
    add_options(parser, options)


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is.

    Returns:
        The exit status, 0.

    Raises:
        InputError: A folder, file or option is wrong.
    """
    from ssdd_lightning.report.figure import write_figure
    from ssdd_lightning.report.job import ReportJob
    from ssdd_lightning.report.material import FolderOptions, folder_material
    from ssdd_lightning.report.runs import run_material

    if (args.run is None) == (args.predictions is None):
        raise InputError("expected the folder of a run, or a folder of masks with --predictions, and not both.")
    options = FolderOptions(args.images, args.truth, args.knowledge, args.advice, args.split, args.classes)
    if args.run is not None:
        material, out = run_material(args.run, options), args.out or args.run / "report"
    elif args.out is None and args.figure is None:
        raise InputError("a report of --predictions needs a folder to be written to; name it with --out.")
    else:
        material, out = folder_material(args.predictions, options), args.out
    if args.figure is not None:
        print(f"{args.figure} shows {', '.join(write_figure(material, args.figure, args.photos or ()))}.")
        return 0
    if args.photos:
        raise InputError("--photos names the photos of a figure; give the figure's file with --figure, too.")
    index = ReportJob(material, out).run()
    print(f"{index} shows {len(material.photos)} images; open it in a browser.")
    return 0
