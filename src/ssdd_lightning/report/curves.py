"""Curves of a training, from the files of TensorBoard and of Lightning's CSV logger, without either of them."""

import csv
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

POINTS = 400
"""Points of a curve that are kept; more cannot be told apart on a page."""
_LEFT_OUT = ("epoch", "hp_metric", "test/")
"""Values that are no curves: counters, and scores of a single moment."""
Points = list[tuple[int, float]]


class Curve(NamedTuple):
    """Values of one measure by training step.

    Attributes:
        stage: What was trained: the name of its folder.
        measure: What was measured, such as train/loss.
        points: Step and value, ascending; values are finite.
    """

    stage: str
    measure: str
    points: Points


def read_curves(stage: str, folder: Path) -> list[Curve]:
    """Read what was logged in a folder and below, of all versions of the run.

    A training that was resumed or redone continues where the later version begins: what an earlier one logged from
    there on is dropped.

    Args:
        stage: Name for the curves.
        folder: `trainer.default_root_dir` of the training.
    """
    files = [*folder.rglob("events.out.tfevents.*"), *folder.rglob("metrics.csv")]
    curves: dict[str, Points] = {}
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        for measure, points in _measures(path).items():
            start = min(step for step, _ in points)
            kept = [point for point in curves.get(measure, []) if point[0] < start]
            curves[measure] = kept + sorted(dict(points).items())
    shown = {measure: points for measure, points in curves.items() if not measure.startswith(_LEFT_OUT)}
    return [Curve(stage, measure, _thinned(points)) for measure, points in sorted(shown.items())]


def _measures(path: Path) -> dict[str, Points]:
    """Finite values in a file; a damaged or half written one gives what comes before the damage."""
    found: dict[str, Points] = {}
    scalars = _csv_scalars(path) if path.suffix == ".csv" else _event_scalars(path)
    for measure, step, value in scalars:
        if math.isfinite(value):
            found.setdefault(measure, []).append((step, value))
    return found


def _csv_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        for row in csv.DictReader(stream):
            for measure, text in row.items():
                try:
                    if measure not in (None, "step", "epoch"):
                        yield str(measure), int(row["step"]), float(text)
                except (KeyError, TypeError, ValueError):
                    continue  # a cell without a value


def _event_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Scalars of a TensorBoard file: records of length (8 bytes), checksum (4), an Event message, checksum (4)."""
    end = path.stat().st_size
    with path.open("rb") as stream:
        while len(head := stream.read(12)) == 12:
            size = struct.unpack("<Q", head[:8])[0]
            if size > end:
                return
            if size > 1 << 16:  # pictures; a scalar takes some fifty bytes
                stream.seek(size + 4, 1)
                continue
            record = stream.read(size)
            if len(stream.read(4)) < 4:
                return
            try:
                yield from _scalars_of(record)
            except (IndexError, ValueError, struct.error):
                return


def _scalars_of(event: bytes) -> Iterator[tuple[str, int, float]]:
    """Event: 2 = step, 5 = Summary; Summary: 1 = Value; Value: 1 = tag, 2 = simple_value."""
    fields = list(_fields(event))
    step = next((value for number, value in fields if number == 2 and isinstance(value, int)), 0)
    for summary in _messages(fields, 5):
        for content in _messages(_fields(summary), 1):
            parts = dict(_fields(content))
            tag, scalar = parts.get(1), parts.get(2)
            if isinstance(tag, bytes) and isinstance(scalar, bytes) and len(scalar) == 4:
                yield tag.decode("utf-8", "replace"), step, struct.unpack("<f", scalar)[0]


def _messages(fields: Iterable[tuple[int, int | bytes]], wanted: int) -> Iterator[bytes]:
    return (value for number, value in fields if number == wanted and isinstance(value, bytes))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a protocol buffer: integers, or the bytes of anything else."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _thinned(points: Points) -> Points:
    """At most `POINTS` points, evenly chosen, the last one always among them."""
    step = max(1, math.ceil(len(points) / POINTS))
    return points[::-step][::-1]
