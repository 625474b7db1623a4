"""What W&B wrote in offline mode, read back from disk."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 1 << 15
HEADER = 7


def records(path: Path) -> Iterator[bytes]:
    """The whole records of a .wandb file: LevelDB's log format after a header of seven bytes.

    W&B's own process may still write: a record whose end is missing is left for the next reading.
    """
    content = path.read_bytes()
    assert b":W&B".startswith(content[:4])
    at, parts = HEADER, b""
    while at + HEADER <= len(content):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if not kind:
            at += room
            continue
        end = at + HEADER + length
        if end > len(content):
            return
        parts += content[at + HEADER : end]
        at = end
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


class OfflineRun:
    """One folder offline-run-*: settings, configuration, history and summary of what one process logged."""

    def __init__(self, folder: Path) -> None:
        from wandb.proto import wandb_internal_pb2 as proto

        self.folder = folder
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        for content in (record for path in folder.glob("*.wandb") for record in records(path)):
            record = proto.Record()
            record.ParseFromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                _update(self.config, record.run.config.update)
            elif kind == "config":
                _update(self.config, record.config.update)
            elif kind == "history":
                row: dict[str, Any] = {}
                _update(row, record.history.item)
                for key in [key for key, value in row.items() if isinstance(value, dict)]:  # W&B before 0.18
                    row |= {f"{key}/{name}": value for name, value in row.pop(key).items()}
                self.history.append(row)
            elif kind == "summary":
                _update(self.summary, record.summary.update)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def values(self, key: str) -> list[tuple[Any, Any]]:
        """Step and value of a metric."""
        return [(row["trainer/global_step"], row[key]) for row in self.history if key in row]


def _update(into: dict[str, Any], items: Any) -> None:
    for item in items:
        into["/".join(item.nested_key) or item.key] = json.loads(item.value_json)


def offline_runs(folder: Path, patience: float = 30) -> list[OfflineRun]:
    """All finished runs below a folder, in the order of their start; W&B's own process writes the end of the files."""
    deadline = time.monotonic() + patience
    while True:
        found = [OfflineRun(path) for path in folder.rglob("offline-run-*") if path.is_dir()]
        if all(run.exit_code is not None for run in found) or time.monotonic() > deadline:
            return sorted(found, key=lambda run: run.run.start_time.ToNanoseconds())  # names know only the second
        time.sleep(0.1)
