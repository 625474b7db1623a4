"""The command `ssdd`: Lightning's fit, validate, test and predict, and the commands that turn files into files."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ssdd_lightning.errors import InputError, Interrupted

STAGE_COMMANDS = {
    "fit": "train a stage from a YAML file",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint under the testing protocol and write its masks",
    "predict": "write a stage's product: activation maps, seed masks or masks for retraining",
}
FILE_COMMANDS = {
    "prepare": ("ssdd_lightning.prepare.command", "make VOC 2012, COCO 2014 or your own photos ready for the stages"),
    "doctor": ("ssdd_lightning.doctor.command", "check a devkit: counts, images, masks, labels, splits"),
    "run": ("ssdd_lightning.pipeline", "run all stages of an experiment folder, in order; resumes where it stopped"),
    "segment": ("ssdd_lightning.segment.segment_command", "segment any photos by a checkpoint, without a dataset"),
    "crf": ("ssdd_lightning.crf.command", "refine a folder of score maps by the dense CRF"),
    "merge": ("ssdd_lightning.merge.merge_command", "merge two folders of masks by their difference maps"),
    "sweep": ("ssdd_lightning.merge.sweep_command", "score that merge for a grid of biases"),
    "evaluate": ("ssdd_lightning.evaluation.command", "score a folder of masks against the truth"),
    "submit": ("ssdd_lightning.evaluation.submit_command", "build or check an archive for the VOC server"),
    "convert-weights": ("ssdd_lightning.weights.command", "convert weights of MXNet, PSA, IRN or SSDD"),
    "import": ("ssdd_lightning.interop.import_command", "read other projects' files (PSA, IRN, arrays, masks)"),
    "export": ("ssdd_lightning.interop.export_command", "write score maps as files of PSA or IRN"),
    "refine": ("ssdd_lightning.interop.refine_command", "refine any two folders of masks or maps by SSDD"),
    "devkit": ("ssdd_lightning.synthetic.command", "write the synthetic VOC devkit"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the words after `ssdd`; None means the process's own.

    Returns:
        Exit status: 0 on success.

    Raises:
        InputError: for bad input; `entry_point` turns it into one line and status 2.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if words[0] in FILE_COMMANDS:
        module = importlib.import_module(FILE_COMMANDS[words[0]][0])
        parser = argparse.ArgumentParser(
            prog=f"ssdd {words[0]}", description=FILE_COMMANDS[words[0]][1], allow_abbrev=False
        )
        module.add_arguments(parser)
        status: int = module.run(parser.parse_args(spelt_as_declared(words[1:], parser)))
        return status
    if words[0] not in STAGE_COMMANDS:
        known = ", ".join([*STAGE_COMMANDS, *FILE_COMMANDS])
        raise InputError(f"unknown command {words[0]!r}: expected one of {known}; `ssdd --help` explains them.")
    from ssdd_lightning.lightning_cli import run_stage

    run_stage(words)
    return 0


def spelt_as_declared(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Write options as a parser has them: `--num-workers` and `--num_workers` are one option.

    Args:
        words: Options and values as they were typed.
        parser: With all its options.
    """
    declared = {flag.replace("-", "_"): flag for action in parser._actions for flag in action.option_strings}

    def spelt(word: str) -> str:
        """Respell one word if it is an option."""
        flag, equals, value = word.partition("=")
        return declared.get(flag.replace("-", "_"), flag) + equals + value if word.startswith("--") else word

    return [spelt(word) for word in words]


def help_text() -> str:
    """List all commands."""
    commands = {**STAGE_COMMANDS, **{name: text for name, (_, text) in FILE_COMMANDS.items()}}
    lines = [f"  {name:<15} {text}" for name, text in commands.items()]
    head = [
        "usage: ssdd COMMAND [options]",
        "",
        "Weakly-supervised segmentation by self-supervised difference detection.",
    ]
    foot = "`ssdd COMMAND --help` lists a command's options; stages are configured by --config FILE.yaml."
    return "\n".join([*head, "", "commands:", *lines, "", foot])


def entry_point() -> None:
    """Run the command line of the process; bad input becomes one line on stderr and status 2, a signal 130 or 143."""
    # OpenMP's threads spin while they wait; on a virtual machine with two cores that made a training step four times
    # slower. Read when torch is first imported, so it must be set before.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    raise_on_signals()
    try:
        sys.exit(main())
    except InputError as error:
        end_progress_bars()
        print(f"ssdd: error: {plain_message(error)}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:
        end_progress_bars()
        print(
            f"ssdd: error: no permission for {error.filename or error}; change its rights or name another.",
            file=sys.stderr,
        )
        sys.exit(2)
    except Interrupted as stop:
        end_progress_bars()
        if not os.environ.get("LOCAL_RANK", "0").strip("0"):  # the first process of a machine speaks for all
            print(f"ssdd: {stop}", file=sys.stderr)
        sys.exit(stop.status)


def raise_on_signals() -> None:
    """Let SIGINT and SIGTERM raise `Interrupted` in this process; processes forked from it die of them as usual."""
    process = os.getpid()

    def receive(signum: int, frame: FrameType | None) -> None:
        """Raise; a child leaves Ctrl-C, which reaches it too, to its parent."""
        if os.getpid() == process:
            raise Interrupted(signum)
        if signum == signal.SIGTERM:
            os._exit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, receive)


def end_progress_bars() -> None:
    """Leave the line of an unfinished progress bar, so that a message does not stand at its end."""
    tqdm = sys.modules.get("tqdm")
    for bar in list(getattr(tqdm and tqdm.tqdm, "_instances", [])):
        bar.close()


def plain_message(error: InputError) -> str:
    """Return the message alone, also when it comes with the traceback of a data-loading worker process."""
    return str(error).rsplit(f"{InputError.__name__}: ", maxsplit=1)[-1].strip()


def existing_folder(text: str) -> Path:
    """Argument type: a folder that exists."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected an existing folder, found none at {path}")
    return path
