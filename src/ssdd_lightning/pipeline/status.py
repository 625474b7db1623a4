"""How far a run is: a table on a terminal, one line for each step elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ssdd_lightning.evaluation.table import percent
from ssdd_lightning.pipeline.steps import Step


@dataclass
class _State:
    state: str = "waiting"
    seconds: str = ""
    size: str = ""
    scores: str = ""


class Status:
    """State, time, size and scores of every step of a run.

    Args:
        names: Names of the steps in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = {name: _State() for name in names}
        self.console = Console()

    def begin(self, name: str) -> None:
        """Note that a step is running; a terminal shows the table."""
        self.rows[name].state = "running"
        if self.console.is_terminal:
            self.console.print(self.table())

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
        if shown and not self.console.is_terminal:
            print("; ".join([f"{step.name}: {seconds}, {size}", *texts]), flush=True)

    def table(self) -> Table:
        """The table as it stands."""
        table = Table("step", "state", "time", "size", "mIoU (%)", box=None, header_style="bold")
        styles = {"running": "bold green", "waiting": "dim", "left as it is": "dim"}
        for name, row in self.rows.items():
            table.add_row(name, row.state, row.seconds, row.size, row.scores, style=styles.get(row.state))
        return table


def _bytes(folder: Path) -> int:
    """Size of a step's own files: those of its folder, its checkpoints and its difference maps."""
    folders = [folder, *folder.glob("checkpoints"), *folder.glob("d_*")]
    return sum(path.stat().st_size for each in folders for path in each.iterdir() if path.is_file())
