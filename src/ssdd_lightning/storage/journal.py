"""The journal of a product: which of its images are finished, by what they were made from and what was written.

`<product>.items.jsonl` has one line per finished image: its name, a fingerprint of its inputs, and the size and time of
each of its files. Process n > 0 of several appends to `<product>.items.<n>.jsonl`. An image that was made again has a
line more; any of its lines may be the one that is still true.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssdd_lightning.errors import InputError

States = list[list[int]]
"""Size in bytes and time in nanoseconds of each file of an image; an empty list for a file that is not there."""
_APART = (",", ":")


class Journal:
    """All lines of all processes, in memory as their text: a million images take as little as they can.

    Args:
        folder: Where the product lies.
        name: Its name.

    Raises:
        InputError: A file cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._lines: dict[str, str] = {}
        for path in self._paths():
            try:
                with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
                    for line in stream:
                        self._read(line)
            except OSError as error:
                raise InputError(f"cannot read {path} ({error.strerror or error}); remove it.") from error

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        """Names of the images, in the order of their first lines."""
        return iter(self._lines)

    def holds(self, name: str, made_from: str, states: States) -> bool:
        """Whether a line says that an image was made from these inputs, and that its files were so."""
        return _text(made_from, states) in self._lines.get(name, "").split("\n")

    def wrote(self, name: str, states: States) -> bool:
        """Whether a line says that an image's files were so, whatever they were made from."""
        return any(json.loads(line)[1] == states for line in self._lines.get(name, "").split("\n") if line)

    def append(self, items: Iterable[tuple[str, str, States]], rank: int = 0) -> None:
        """Add lines: the name of an image, the fingerprint of its inputs, and the states of its files."""
        lines = []
        for name, made_from, states in items:
            self._add(name, _text(made_from, states))
            lines.append(json.dumps([name, made_from, states]) + "\n")
        suffix = f".{rank}" if rank else ""
        with (self.folder / f"{self.name}.items{suffix}.jsonl").open("a+b") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 1))
            torn = stream.read(1) not in (b"", b"\n")  # a killed process left half a line
            stream.write(("\n" * torn + "".join(lines)).encode())

    def disregard(self) -> None:
        """Take no image for finished; the files stay."""
        self._lines.clear()

    def remove(self) -> None:
        """Remove the files of all processes."""
        self.disregard()
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        return list(self.folder.glob(f"{self.name}.items*.jsonl"))

    def _read(self, line: str) -> None:
        try:
            name, made_from, products = json.loads(line)
            self._add(str(name), _text(str(made_from), [list(map(int, state)) for state in products]))
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass  # a killed process left half a line: that image is pending

    def _add(self, name: str, text: str) -> None:
        earlier = self._lines.get(name)
        self._lines[name] = text if earlier is None else f"{earlier}\n{text}"


def _text(made_from: str, states: States) -> str:
    return json.dumps([made_from, states], separators=_APART)
