"""Numba for the lattice on the CPU: machine code made on first use and kept on disk for the next process."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Decorator: compile on first use, release the interpreter lock while running, keep the code on disk.

    Where neither the package's folder nor the user's cache folder can be written to, the code is compiled
    once a process instead (some ten seconds). Numba's fastmath stays off: rounding decides which simplex a
    pixel lies in.
    """
    try:
        result = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba's "no locator available": no writable folder
        return numba.njit(nogil=True)(function)
    _forget_stale(Path(function.__code__.co_filename).stem, function.__qualname__, result.stats.cache_path)
    return result


def _forget_stale(module: str, name: str, folder: str) -> None:
    """Drop machine code older than any file of this package; numba looks at the function's own file only."""
    newest = max(source.stat().st_mtime for source in Path(__file__).parent.glob("*.py"))
    for index in Path(folder).glob(f"{module}.{name}-*.nbi"):
        with suppress(OSError):  # another process may have dropped it already
            if index.stat().st_mtime < newest:
                index.unlink()


def inlined(function: Function) -> Function:
    """Decorator: a part of compiled functions, put into its callers as a call a pixel would cost too much."""
    return numba.njit(nogil=True, forceinline=True)(function)
