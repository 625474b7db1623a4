"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
from typing import Any

from tqdm import tqdm

EVERY = 60.0
"""Seconds between two lines where there is no terminal; work that takes less says nothing there."""


class Progress(tqdm):  # type: ignore[type-arg]
    """tqdm's bar; in a pipe or a log file it writes a line a minute instead of drawing over itself.

    Args:
        iterable: What to count.
        desc: What is being done.
        total: How many there are.
        shown: Whether to show anything.
        **options: Others of tqdm.
    """

    def __init__(
        self,
        iterable: Any = None,  # noqa: ANN401 - tqdm's own
        desc: str | None = None,
        total: float | None = None,
        shown: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.lines = not sys.stderr.isatty()
        if self.lines:
            options |= {"delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY, "leave": False}
        super().__init__(iterable, desc, total, disable=not shown, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line."""
        if not self.lines:
            super().display(msg, pos)
        elif msg is None:  # an empty one clears a bar, and there is none
            count = self.format_sizeof if self.unit_scale else str
            of = "" if self.total is None else f" of {count(self.total)}"
            elapsed = self.format_interval(self.format_dict["elapsed"])
            self.fp.write(f"{self.desc.removesuffix(': ')}: {count(self.n)}{of}, {elapsed}\n")
            self.fp.flush()
