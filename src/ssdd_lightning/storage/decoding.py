"""What a decoder raises on a file that others made becomes one sentence; what the disk raises stays what it is."""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ssdd_lightning.errors import InputError, end_of_worker

MOST_NODES = 10_000_000
"""Values that a file may hold by naming others again; those that it spells out are as many as it has bytes for."""
_LONGEST = 300
_DISK = {
    *(errno.EIO, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTUNREACH, errno.EREMOTEIO),
}
"""Errors of the machine: the content of the file is not to blame, and trying again may help."""


@contextmanager
def decoding(what: str, remedy: str, missing: str = "check the path") -> Iterator[None]:
    """Read a file that others made: whatever its decoder raises is one sentence about the file.

    Decoders promise nothing about what they raise on damaged or crafted files: LookupError for an unknown encoding in
    XML, IndexError for a PNG, RecursionError for JSON. What the disk raises, such as an input/output error, is left
    alone, and so is what stops the program.

    Args:
        what: What is read, such as `annotation x.xml`.
        remedy: What to do, for the message.
        missing: What to do if the file does not exist.

    Raises:
        InputError: The file does not exist, or cannot be decoded; an InputError of the reader's own is left as it is.
        OSError: The disk failed, or permission is denied.

    Examples:
        >>> with decoding("list x.json", "write it again"):
        ...     [][0]
        Traceback (most recent call last):
        ssdd_lightning.errors.InputError: cannot read list x.json (IndexError: list index out of range); write it again.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist; {missing}.") from error
    except Exception as error:
        if of_the_machine(error):
            raise
        raise InputError(f"cannot read {what} ({reason(error)}); {remedy}.") from error


def of_the_machine(error: Exception) -> bool:
    """Whether an error tells of the disk or of another process, and nothing of the file that was being read."""
    return (isinstance(error, OSError) and error.errno in _DISK) or end_of_worker(error) is not None


def reason(error: BaseException) -> str:
    """Say on one line what a decoder complains of."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(error).split()).rstrip(".")
    if not text or isinstance(
        error, (LookupError, TypeError, AttributeError, AssertionError)
    ):  # whose texts are for programmers
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_expanded(content: Any, parts: Callable[[Any], Iterable[Any]], most: int = MOST_NODES) -> None:  # noqa: ANN401
    """Refuse content that names its own parts again and again, so that a few bytes stand for gigabytes.

    Args:
        content: The whole.
        parts: The parts of a part; none of a plain value.
        most: Values that it may stand for in any case.

    Raises:
        InputError: It stands for more than `most` values and twice what it spells out, or contains itself.
    """
    sizes: dict[int, int | None] = {}
    spelt = 0

    def size_of(part: Any) -> int:  # noqa: ANN401
        """Values that a part stands for, its own parts counted each time they are named."""
        nonlocal spelt
        inner = list(parts(part))
        if not inner:
            return 1
        known = sizes.get(id(part), -1)
        if known is None:
            raise InputError("it contains itself.")
        if known < 0:
            spelt += len(inner)
            sizes[id(part)] = None
            known = sizes[id(part)] = 1 + sum(map(size_of, inner))
        return known

    expanded = size_of(content)
    if expanded > max(most, 2 * spelt):
        raise InputError(f"it names the same values again and again, {min(expanded, 10**18)} in all; do not trust it.")


def inside(value: Any) -> Iterable[Any]:  # noqa: ANN401
    """The parts of a list, tuple or dict; see `check_expanded`."""
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, (list, tuple, set)) else ()
