"""The exceptions of the package: the input is wrong, or a signal stopped the run."""

import re
import reprlib
import signal
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path


class InputError(ValueError):
    """Bad input from a user: a file, a folder, a tensor or an option.

    The message is one sentence or two: what was expected, what was found, in which file, and what to do. The
    command line prints it without a traceback and exits with status 2.
    """


def listed(values: Collection[object], most: int = 5) -> str:
    """The first of several values, for a message: `a, b, ...`."""
    return ", ".join(map(str, islice(values, most))) + (", ..." if len(values) > most else "")


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: object) -> str:
    """A value from a file for a message, shortened; values of any size and depth can be shown."""
    try:
        return _REPR.repr(value)
    except Exception:  # an integer of thousands of digits
        return f"a {type(value).__name__}"


def check_folder(folder: Path, what: str = "folder", remedy: str = "check the path") -> None:
    """Refuse a folder that does not exist.

    Args:
        folder: Where it should be.
        what: What it is called.
        remedy: What to do.
    """
    if not folder.is_dir():
        raise InputError(f"{what} {folder} does not exist; {remedy}.")


def check_size(
    found: Sequence[int], expected: Sequence[int], what: str, other: str, remedy: str = "write it at the image's size"
) -> None:
    """Refuse two pictures of different sizes.

    Args:
        found: Height and width.
        expected: Those of the other one.
        what: What the first is called.
        other: What the other one is called.
        remedy: What to do.
    """
    if tuple(found[:2]) != tuple(expected[:2]):
        sizes = [f"{width} x {height}" for height, width in (found[:2], expected[:2])]
        raise InputError(f"{what} is {sizes[0]} pixels, {other} is {sizes[1]}; {remedy}.")


_DEAD_WORKER = re.compile(r"DataLoader worker \(.*\) (?:is killed by signal: (\w[^.]*)|exited unexpectedly)")


def end_of_worker(error: BaseException) -> str | None:
    """Name the signal that ended a process of a data loader; None if the error says something else.

    torch raises it, a RuntimeError, in the middle of whatever the parent is doing, and that may turn it into another
    error: Python's `inspect` says "unsupported callable", a reader of checkpoints that the file is damaged. So the
    errors that it came from count as well, unless one was raised `from None`.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        said = [text for text in cause.args if isinstance(text, str)] if isinstance(cause, RuntimeError) else []
        if found := _DEAD_WORKER.search("".join(said)):
            return found[1] or "no signal"
        seen.add(id(cause))
        cause = cause.__cause__ if cause.__suppress_context__ else cause.__context__
    return None


STOP_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What asks a command to stop: Ctrl-C, whoever ends processes, and a batch system that warns of the end of a job."""


class Interrupted(BaseException):
    """A signal asks the process to stop. No error: nothing that handles errors should take it for one.

    Args:
        signum: One of `STOP_SIGNALS`.
        advice: How to continue, a sentence.
    """

    def __init__(self, signum: int, advice: str = "Run the same command again to continue.") -> None:
        super().__init__(signum, advice)
        self.signum = signum
        self.advice = advice

    def __str__(self) -> str:
        """Say what happened and how to continue."""
        return f"{'interrupted' if self.signum == signal.SIGINT else 'terminated'}. {self.advice}"

    @property
    def status(self) -> int:
        """Exit status that shells expect: 130 after SIGINT, otherwise 143, that of SIGTERM."""
        return 128 + (signal.SIGINT if self.signum == signal.SIGINT else signal.SIGTERM)
