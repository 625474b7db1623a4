"""The command `ssdd`: Lightning's fit, validate, test and predict, and the commands that work on files."""

import argparse
import difflib
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

from ssdd_lightning.cli.mistakes import check_stage_words, stage_content
from ssdd_lightning.errors import STOP_SIGNALS, InputError, Interrupted

STAGE_COMMANDS = {
    "fit": "train a stage from a YAML file",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint under the testing protocol and write its masks",
    "predict": "write what a stage makes: score maps, seed masks or masks for retraining",
}
OTHER_NAMES = {"train": "fit", "eval": "evaluate", "score": "evaluate", "infer": "segment", "val": "validate"}
"""What other tools call these commands."""
FILE_COMMANDS = {
    "init": ("ssdd_lightning.cli.init", "write the YAML files of an experiment here, to read and edit"),
    "prepare": ("ssdd_lightning.cli.prepare", "prepare VOC 2012, COCO 2014 or your own photos for the stages"),
    "doctor": ("ssdd_lightning.cli.doctor", "check a devkit: counts, images, masks, labels, splits"),
    "run": ("ssdd_lightning.cli.run", "run all stages of an experiment folder in order; an interrupted run continues"),
    "segment": ("ssdd_lightning.cli.segment", "segment any photos with a checkpoint, without a dataset"),
    "package": ("ssdd_lightning.cli.package", "write a network as ONNX, torch.export or safetensors, and compare it"),
    "crf": ("ssdd_lightning.cli.crf", "refine a folder of score maps with the dense CRF"),
    "par": ("ssdd_lightning.cli.par", "refine a folder of score maps with pixel-adaptive refinement"),
    "merge": ("ssdd_lightning.cli.merge", "merge two folders of masks with their difference maps"),
    "sweep": ("ssdd_lightning.cli.sweep", "score that merge for a grid of biases"),
    "evaluate": ("ssdd_lightning.cli.evaluate", "score a folder of masks against the ground truth"),
    "report": ("ssdd_lightning.cli.report", "write a run, or folders of masks, as one page with pictures"),
    "submit": ("ssdd_lightning.cli.submit", "build or check an archive for the VOC server"),
    "convert-weights": ("ssdd_lightning.cli.convert_weights", "convert weights of MXNet, PSA, IRN or SSDD"),
    "import": ("ssdd_lightning.cli.import_files", "read other projects' files (PSA, IRN, arrays, masks)"),
    "export": ("ssdd_lightning.cli.export_files", "write score maps as files of PSA or IRN"),
    "refine": ("ssdd_lightning.cli.refine", "refine any two folders of masks or score maps with SSDD"),
    "devkit": ("ssdd_lightning.cli.devkit", "write the synthetic VOC devkit"),
    "completion": ("ssdd_lightning.cli.completion", "print a script that lets bash, zsh or tcsh complete commands"),
}

DEBUG = "--debug"
"""Option of every command: show tracebacks."""
FIRST_STEPS = {
    "ssdd init quickstart && ssdd run quickstart": "every stage on drawn photos",
    "ssdd run own_photos --images photos --labels labels.csv": "on photos of your own",
    "ssdd prepare voc --out . && ssdd run voc2012 --root VOCdevkit": "on VOC 2012",
    "ssdd report runs/quickstart": "a page that shows a run",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the words after `ssdd`; None means those of the process.

    Returns:
        Exit status: 0 on success.

    Raises:
        InputError: for bad input; `entry_point` turns it into one line and status 2.
    """
    words = [word for word in (sys.argv[1:] if args is None else args) if word != DEBUG]
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        print(f"ssdd-lightning {version('ssdd-lightning')}")
        return 0
    if words[0] in FILE_COMMANDS:
        parser = command_parser(words[0])
        module = importlib.import_module(FILE_COMMANDS[words[0]][0])
        status: int = module.run(parser.parse_args(spelt_as_declared(words[1:], parser)))
        return status
    if words[0] not in STAGE_COMMANDS:
        raise InputError(_unknown_command(words[0]))
    if set(words) & {"-h", "--help"}:
        from ssdd_lightning.pipeline.stage_help import stage_help

        print(stage_help(words, STAGE_COMMANDS[words[0]]))
        return 0
    with trusting(words) as words:
        if "--help-all" not in words:
            check_stage_words(words)
        words = ["--help" if word == "--help-all" else word for word in words]
        from ssdd_lightning.pipeline.lightning import run_command

        run_command(words)
    return 0


@contextmanager
def trusting(words: Sequence[str]) -> Iterator[list[str]]:
    """Obey the options that say whose code a stage command may run, while the block runs; yield the other words.

    `--import MODULE` imports a module, whose classes a checkpoint may then name. `--trusted_classes` refuses a
    configuration that names classes of others.

    Raises:
        InputError: A module cannot be imported, or the configuration names a class of others.
    """
    parser = CommandParser(prog=f"ssdd {words[0]}", add_help=False, allow_abbrev=False)
    parser.add_argument("--import", action="append", default=[], dest="modules")
    parser.add_argument("--trusted_classes", "--trusted-classes", action="store_true")
    given, rest = parser.parse_known_args(words)
    if not (given.modules or given.trusted_classes):
        yield rest
        return
    from ssdd_lightning.stages.trusted import check_trusted, import_modules, only_trusted_imports

    import_modules(given.modules)
    if given.trusted_classes:
        check_trusted(stage_content(rest))
    with only_trusted_imports() if given.trusted_classes else nullcontext():
        yield rest


class CommandParser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the words of a command, and what was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Raise an InputError in place of a page of usage.

        Raises:
            InputError: Always.
        """
        unknown = re.match(r"unrecognized arguments: (-[^\s=]+)", message)
        flags = [flag for action in self._actions for flag in action.option_strings]
        close = difflib.get_close_matches(unknown[1], flags, n=1) if unknown else []
        remedy = f"did you mean {close[0]}?" if close else f"`{self.prog} --help` lists what there is."
        raise InputError(f"`{self.prog}`: {message}; {remedy}")


def command_parser(command: str) -> argparse.ArgumentParser:
    """Build the parser of a command that works on files.

    Args:
        command: One of `FILE_COMMANDS`.
    """
    module, text = FILE_COMMANDS[command]
    parser = CommandParser(prog=f"ssdd {command}", description=text, allow_abbrev=False)
    importlib.import_module(module).add_arguments(parser)
    return parser


def _unknown_command(word: str) -> str:
    known = [*STAGE_COMMANDS, *FILE_COMMANDS]
    close = next(iter(difflib.get_close_matches(word, [*known, *OTHER_NAMES], n=1)), None)
    meant = OTHER_NAMES.get(str(close), close)
    remedy = f"did you mean `ssdd {meant}`?" if meant else f"expected one of {', '.join(known)}; see `ssdd --help`."
    return f"unknown command {word!r}: {remedy}"


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
    first = [f"  {command:<66} {text}" for command, text in FIRST_STEPS.items()]
    foot = (
        "`ssdd COMMAND --help` lists a command's options; stages are configured by --config FILE.yaml.\n"
        f"`{DEBUG}` with any command shows the traceback of an error."
    )
    return "\n".join([*head, "", "first steps:", *first, "", "commands:", *lines, "", foot])


def entry_point() -> None:
    """Run the command line of the process; bad input becomes one line on stderr and status 2, a signal 130 or 143.

    So does a fault of the machine, such as a full disk. `--debug` shows the traceback, too.
    """
    # OpenMP's threads spin while they wait; on a virtual machine with two cores that made a training step four times
    # slower. Read when torch is first imported, so it must be set before.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    raise_on_signals()
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever reads, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        said = plain_message(error) if isinstance(error, InputError) else fault(error)
        if said is None:
            raise
        end_progress_bars()
        if DEBUG in sys.argv:
            traceback.print_exc()
        print(f"ssdd: error: {said}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        end_progress_bars()
        ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
        if next((rank for rank in ranks if rank), "0") == "0":  # the first process speaks for all
            print(f"ssdd: {stop}", file=sys.stderr)
        sys.exit(stop.status)


def fault(error: Exception) -> str | None:
    """Say what the machine refused, and that it can be tried again; None if the error is a defect."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return "the memory is full. Take a smaller batch_size, crop or network; what is finished is kept."
    if not isinstance(error, OSError):
        return None
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename or error}; change its permissions or name another."
    reason = error.strerror or (str(error).strip().splitlines() or [type(error).__name__])[-1]  # a worker's traceback
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{reason}. What is finished is kept: mend this, and run the same command again to continue."


def raise_on_signals() -> None:
    """Let `STOP_SIGNALS` raise `Interrupted` in this process; processes forked from it die of them as usual."""
    process = os.getpid()

    def receive(signum: int, frame: FrameType | None) -> None:
        """Raise; a child leaves Ctrl-C, which reaches it too, to its parent."""
        if os.getpid() == process:
            raise Interrupted(signum)
        if signum == signal.SIGTERM:
            os._exit(128 + signum)

    for signum in STOP_SIGNALS:
        signal.signal(signum, receive)


def end_progress_bars() -> None:
    """Leave the line of an unfinished progress bar, so that a message does not stand at its end."""
    progress = sys.modules.get("ssdd_lightning.storage.progress")
    for bar in list(getattr(progress and progress.Progress, "_instances", [])):
        bar.close()


def plain_message(error: InputError) -> str:
    """Return the message alone, also when it comes with the traceback of a data-loading worker process."""
    return str(error).rsplit(f"{InputError.__name__}: ", maxsplit=1)[-1].strip()
