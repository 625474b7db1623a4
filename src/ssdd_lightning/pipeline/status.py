"""How far a run is: a live table on a terminal, one line for each step elsewhere."""

import io
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.pipeline.steps import Step

STYLES = {"running": "bold green", "waiting": "dim", "left as it is": "dim"}


@dataclass
class _State:
    state: str = "waiting"
    seconds: str = ""
    size: str = ""
    scores: str = ""
    begun: float | None = None

    @property
    def time(self) -> str:
        return self.seconds if self.begun is None else f"{time.monotonic() - self.begun:.0f} s"


class LiveStream(io.TextIOBase):
    """Takes the place of a terminal's stream while a live table is on it.

    Lines appear above the table. What begins with a carriage return and has no end, which is how progress bars write,
    stands below it until something else is written.

    Args:
        stream: The terminal's own.
        live: The table.
        show: Takes the unfinished line.
    """

    def __init__(self, stream: TextIO, live: Live, show: "Status") -> None:
        self.stream = stream
        self.live = live
        self.status = show
        self._rest = ""
        self._process = os.getpid()

    def write(self, text: str) -> int:
        """Write above or below the table; past it, once it is gone or from a process of its own."""
        if not self.live.is_started or os.getpid() != self._process:
            return self.stream.write(text)
        if self._rest.startswith("\r") and text and text[0] not in "\r\n":
            self._rest = ""  # a bar's last state, which it leaves where it is
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self.live.console.print(Text.from_ansi("\n".join(line.rpartition("\r")[2].rstrip() for line in lines)))
        if lines or "\r" in self._rest:
            self.status.progress = self._rest.rpartition("\r")[2].strip()
        return len(text)

    def isatty(self) -> bool:
        """It is one."""
        return True

    def fileno(self) -> int:
        """That of the terminal."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the terminal."""
        return self.stream.encoding


class Status:
    """State, time, size and scores of every step of a run.

    Args:
        names: Names of the steps in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = {name: _State() for name in names}
        self.console = Console(file=sys.stdout)
        self.progress = ""
        """What the running step says of itself."""
        self._live = Live(
            get_renderable=self._shown, console=self.console, redirect_stdout=False, redirect_stderr=False
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the table on the terminal, below everything that is written meanwhile; do nothing if there is none."""
        if not sys.stdout.isatty() or self.console.is_dumb_terminal:
            yield
            return
        with self._live, ExitStack() as streams:
            streams.enter_context(redirect_stdout(LiveStream(sys.stdout, self._live, self)))
            if sys.stderr.isatty():
                streams.enter_context(redirect_stderr(LiveStream(sys.stderr, self._live, self)))
            yield

    def begin(self, step: Step) -> None:
        """Note that a step is running; if it runs in processes of its own, the terminal is theirs meanwhile."""
        self.rows[step.name] = _State("running", begun=time.monotonic())
        if step.processes > 1 and self._live.is_started:
            self._live.stop()

    def end(self, step: Step, scores: Sequence[Mapping[str, Any]], shown: bool) -> None:
        """Note that a step is finished.

        Args:
            step: The step.
            scores: Rows of the results that it gives.
            shown: Whether it belongs to this run.
        """
        texts = [f"{row['what']} {percent(row['miou'])}" for row in scores]
        seconds = f"{step.seconds:.0f} s" if step.made else ""
        size = f"{_bytes(step.folder) / 1e6:.1f} MB" if step.made else ""
        self.rows[step.name] = _State("finished" if shown else "left as it is", seconds, size, ", ".join(texts))
        self.progress = ""
        if isinstance(sys.stdout, LiveStream):
            self._live.start()
        elif shown:
            print("; ".join([f"{step.name}: {seconds}, {size}", *texts]), flush=True)

    def _shown(self) -> Group:
        progress = [Text(self.progress, no_wrap=True, overflow="crop")] if self.progress else []
        return Group(self.table(), *progress)

    def table(self) -> Table:
        """The table as it stands."""
        table = Table("step", "state", "time", "size", "mIoU (%)", box=None, header_style="bold")
        for name, row in self.rows.items():
            table.add_row(name, row.state, row.time, row.size, row.scores, style=STYLES.get(row.state))
        return table


def _bytes(folder: Path) -> int:
    """Size of a step's own files: those of its folder, its checkpoints and its difference maps."""
    folders = [folder, *folder.glob("checkpoints"), *folder.glob("d_*")]
    return sum(path.stat().st_size for each in folders for path in each.iterdir() if path.is_file())
