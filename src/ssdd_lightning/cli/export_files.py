"""`ssdd export`: our score maps as files of PSA or IRN."""

import argparse

from ssdd_lightning.cli.options import WORKERS, add_options
from ssdd_lightning.interop.export_folder import WRITERS, export_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd export`."""
    source, out = {"source DIR": "folder of score maps <name>.map.png"}, {"--out DIR": "folder to write"}
    add_options(parser, source | out | WORKERS, ("out",))
    help_text = "psa-cam (out_cam, without background), psa-aff (out_aff, 0 = background) or irn"
    parser.add_argument("--to", dest="format", choices=sorted(WRITERS), required=True, help=help_text)


def run(args: argparse.Namespace) -> int:
    """Write the files; finished ones are kept.

    Returns:
        The exit status, 0.
    """
    written = export_folder(**vars(args))
    print(f"{args.out}: {written} files written.")
    return 0
