"""`ssdd submit`: archives for the VOC server."""

import argparse

from ssdd_lightning.cli.options import WORKERS, add_options
from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.submission import (
    COMPETITIONS,
    Expected,
    SubmissionError,
    build_submission,
    check_submission,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd submit`."""
    options = {
        "--root DIR": "folder that holds VOCdevkit/VOC2012, with test images",
        "--split NAME": "name of a split, or its list",
        "--predictions DIR": "folder of masks <name>.png or score maps <name>.map.png to pack",
        "--out FILE": "archive to write, .tgz",
        "--competition NAME": "comp5 means trained on VOC's data alone",
        "--check FILE": "check this archive instead of building one",
    }
    choices = {"competition": COMPETITIONS}
    add_options(parser, options | WORKERS, ("root",), choices, split="test", competition=COMPETITIONS[0])


def run(args: argparse.Namespace) -> int:
    """Build or check an archive; say what is wrong with it.

    Returns:
        The exit status: 0 if the archive is right, 1 if the server would refuse it; it is not written then.

    Raises:
        InputError: Options contradict each other, or the devkit is incomplete.
    """
    building = args.predictions is not None and args.out is not None
    if building == (args.check is not None) or (args.check is not None and (args.predictions or args.out)):
        raise InputError("expected either --predictions and --out, to build an archive, or --check, to check one.")
    expected = Expected.of(args.root, args.split)
    count = len(expected.names)
    try:
        if building:
            build_submission(args.predictions, expected, args.out, args.competition, args.num_workers)
            print(f"{args.out} holds {count} masks for {args.competition}.")
        else:
            print(
                f"{args.check} is right: {count} masks for {check_submission(args.check, expected, args.num_workers)}."
            )
    except SubmissionError as error:
        print("\n".join(f"{problem}." for problem in error.problems))
        print(f"Problems: {len(error.problems)}." + (" Nothing was written." if building else ""))
        return 1
    return 0
