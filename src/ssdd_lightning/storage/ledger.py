"""The ledger: the inputs of every product, which of its items are finished, and how long they took.

A product is what a command makes: the checkpoint of a fit, or a folder of masks. Its entry `<name>.json` lies beside it
and holds the settings that decide it and a fingerprint of each input. A product of many images also has a journal
(storage/journal.py) with one line per finished image: a fingerprint of its inputs, and the size and time of its files.
If any of these changes, the product or the image is pending again. Nothing else makes it pending.
Images that were made once and are no longer asked for are listed in the entry. Their files stay, and readers of the
folder leave them out.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ssdd_lightning.errors import InputError, listed
from ssdd_lightning.storage.files import atomic_write, remove_leftovers
from ssdd_lightning.storage.fingerprints import digest_of, fingerprints
from ssdd_lightning.storage.journal import Journal
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.team import ALONE, Team
from ssdd_lightning.storage.threads import in_threads

FORMAT = 1
WRITTEN = "the names of its products"
"""Input of a product that is made of products: their names."""
TICK = 60.0
"""Seconds of work that a killed process may lose from the sum of all seconds."""
_SHOWN = 3
_AT_ONCE = 4096
"""Images whose inputs are looked up together."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a product.

    Args:
        sources: Its input files.
        products: Its output files.
        values: Anything else that decides the result, as text, such as its labels.
    """

    sources: tuple[Path, ...]
    products: tuple[Path, ...]
    values: str = ""


class Items(Mapping[str, Item]):
    """The images of a product by name; each is put together when it is asked for, so that only the names take memory.

    All are put together once at the start, so that a name that cannot be a file is refused before any work.

    Args:
        names: Their names, in order.
        item: Takes a name and returns the image's item.
    """

    def __init__(self, names: Iterable[str], item: Callable[[str], Item]) -> None:
        self._names = dict.fromkeys(names)
        self._item = item
        for name in self._names:
            item(name)

    def __getitem__(self, name: str) -> Item:
        if name not in self._names:
            raise KeyError(name)
        return self._item(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __reduce__(self) -> tuple[type[dict[str, Item]], tuple[dict[str, Item]]]:
        """Another process gets them put together: functions within functions do not travel."""
        return dict, (dict(self),)


@dataclass(frozen=True)
class Recipe:
    """What decides a product as a whole.

    Args:
        settings: Nested plain values; nothing that cannot change the product, such as paths, workers or devices.
        inputs: Name -> fingerprint of each input.
        regardless: Dotted names of settings that are stored but not compared, and of what is below them.
        gone: Dotted name -> value of settings that there were once, and that always have this value now.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    regardless: tuple[str, ...] = ()
    gone: Mapping[str, Any] = field(default_factory=dict)

    def difference(self, entry: Mapping[str, Any]) -> str | None:
        """Say which setting or input of an entry has changed; None if none has."""
        now, then = _flat(_plain(self.settings)), _flat(entry["settings"])
        then = {k: value for k, value in then.items() if k in now or k not in self.gone or value != self.gone[k]}
        changed = [
            f"{key} was {_text(then.get(key))} and is {_text(now.get(key))}"
            for key in {**then, **now}
            if then.get(key) != now.get(key) and not any(f"{key}.".startswith(f"{name}.") for name in self.regardless)
        ]
        inputs = entry["inputs"]
        changed += [f"{key} changed" for key in {**inputs, **self.inputs} if inputs.get(key) != self.inputs.get(key)]
        more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        return ", ".join(changed[:_SHOWN]) + more if changed else None


class Ledger:
    """The entry of one product.

    Args:
        folder: Folder of the product.
        name: Name of the product, for the file and for messages: fit, test, predict, crf.
        recipe: The current settings and inputs.
        items: The product's images by name, if it has any.
        rank: Number of this process among those that make the product; only process 0 writes the entry.

    Raises:
        InputError: The entry is damaged, or of a newer version.
    """

    def __init__(
        self, folder: Path, name: str, recipe: Recipe, items: Mapping[str, Item] | None = None, rank: int = 0
    ) -> None:
        self.folder = folder
        self.name = name
        self.recipe = recipe
        self.items: Mapping[str, Item] = {} if items is None else items
        self.rank = rank
        self.path = folder / f"{name}.json"
        self.earlier = read_entry(self.path)
        self.difference = None if self.earlier is None else recipe.difference(self.earlier)
        """What changed since the product was made; None if nothing did or there is none."""
        self._journal = Journal(folder, name)
        made = chain(_left_over(self.earlier), self._journal)
        self.left_over = sorted({name for name in made if name not in self.items})
        """Names of images that were made once and are no longer asked for."""
        if not self.begun:
            self._journal.disregard()
        self._now = dict(self._fingerprints())
        self._finished = bool(self.begun and self.earlier and self.earlier["finished"])
        self._ticked = time.monotonic()

    @property
    def begun(self) -> bool:
        """Whether a part of the product exists and was made with the current settings and inputs."""
        return self.earlier is not None and self.difference is None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._finished and self.left_over == _left_over(self.earlier) and not self.pending()

    def pending(self, names: Iterable[str] | None = None) -> list[str]:
        """Names of the items that are not finished, or no longer are, in order."""
        return [name for name in (self.items if names is None else names) if not self._is_finished(name)]

    def wrote(self, name: str) -> bool:
        """Whether an item's files are as they were written, even if its inputs have changed since."""
        return self._journal.wrote(name, [_state(path) for path in self.items[name].products])

    def make(
        self,
        work: Callable[[list[str]], Iterable[str]],
        results: Mapping[str, Any] | None = None,
        progress: bool = True,
        team: Team = ALONE,
    ) -> int:
        """Make what is pending, or say that nothing is.

        Args:
            work: Takes the names of the pending items and yields each when its files are written.
            results: Results to store in the entry, see `close`.
            progress: Whether to show a bar.
            team: Those who make it together; each makes its share.

        Returns:
            How many items were pending.
        """
        pending, finished = team.gather(None if team.rank else [self.pending(), self.finished])[0]
        if finished:
            print(f"{self.name}: finished in {self.folder}, nothing to do.", flush=True)
            return 0
        mine, shown = team.share(pending), progress and not team.rank
        with self.working():
            team.gather(None)  # nobody writes before process 0 has begun
            for name in Progress(work(mine), self.name, len(mine), unit="image", shown=shown):
                self.done([name])
                team.check()
            team.gather(None)
            self.close(results)
        return len(pending)

    def make_each(self, work: Callable[[str], object], workers: int, progress: bool = True, team: Team = ALONE) -> int:
        """Make every pending item in threads, by a function of its name; see `make`."""

        def made(names: list[str]) -> Iterator[str]:
            for name, _ in zip(names, in_threads(work, names, workers), strict=True):
                yield name

        return self.make(made, progress=progress, team=team)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Enclose the work: the entry is written before and after it, also if it fails."""
        self.begin()
        try:
            yield
        finally:
            if not self._finished:  # `close` wrote it
                self._write()

    def begin(self) -> None:
        """Start the work; if there is an earlier product, say why it no longer counts."""
        self._ticked = time.monotonic()
        if self.rank:
            return
        if self.difference:
            print(f"{self.name}: redone in {self.folder}, because {self.difference}.", flush=True)
        if not self.begun:
            if self.earlier is not None and self.left_over != _left_over(self.earlier):
                self._save({**self.earlier, "left_over": self.left_over})  # only the journal, soon gone, has them
            self._forget()
        elif again := [name for name in self.pending() if name in self._journal]:
            said = f"made again in {self.folder} ({listed(again, _SHOWN)}): their inputs or their files changed"
            print(f"{self.name}: {len(again)} {said}.", flush=True)
        if there := [name for name in self.left_over if any(map(Path.is_file, self._products_of(name)))]:
            said = "their files stay, and what reads the folder leaves them out"
            count = f"{len(there)} images in {self.folder}"
            print(f"{self.name}: {count} are no longer asked for ({listed(there, _SHOWN)}): {said}.", flush=True)
        self._clean()
        self.difference, self._finished = None, False
        self._write()

    def done(self, names: Iterable[str]) -> None:
        """Note that items are finished; their files must exist."""
        lines = []
        for name in names:
            item = self.items[name]
            self._now[name] = self._made_from(item, fingerprints(item.sources))
            lines.append((name, self._now[name], [_state(path) for path in item.products]))
        self._journal.append(lines, self.rank)
        self.tick()

    def tick(self, least: float = TICK) -> None:
        """Store the seconds up to now, if the work has begun and at least `least` of them have passed."""
        if self.begun and time.monotonic() - self._ticked >= least:
            self._write()

    def reads_like(self, other: "Ledger") -> bool:
        """Whether both have the same settings and inputs, whatever was written in between."""
        mine, theirs = ({k: v for k, v in one.recipe.inputs.items() if k != WRITTEN} for one in (self, other))
        return mine == theirs and _plain(self.recipe.settings) == _plain(other.recipe.settings)

    def settle(self) -> None:
        """Record everything that exists as the finished product, whatever made it."""
        if self.difference:
            self._forget()
        self.difference = None
        self._ticked = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        there = [name for name, item in self.items.items() if all(map(Path.is_file, item.products))]
        self.done([name for name in there if not self._is_finished(name)])
        self.close()

    def accept(self) -> None:
        """Accept the product as current, as far as its files exist.

        Without an entry there is nothing to accept.
        """
        if self.earlier is None or self.rank:
            return
        there = [name for name, item in self.items.items() if all(map(Path.is_file, (*item.products, *item.sources)))]
        whole, finished = len(there) == len(self.items), bool(self.earlier["finished"])
        changed = self.difference or any(name in self._journal for name in self.pending())
        if changed:
            reason = self.difference or "inputs of its images changed"
            print(f"{self.name}: kept in {self.folder}, although {reason}.", flush=True)
        self.difference, self._finished = None, finished and whole
        self._ticked = time.monotonic()
        self.done([name for name in there if not self._is_finished(name)])
        self._write()

    def close(self, results: Mapping[str, Any] | None = None) -> None:
        """Mark the product as finished.

        Args:
            results: Results to store, such as scores.
        """
        self._finished = True
        self._write(results)

    @property
    def seconds(self) -> float:
        """How long the product took, in all processes that worked on it."""
        return float(self.earlier["seconds"]) if self.earlier is not None else 0.0

    def _write(self, results: Mapping[str, Any] | None = None) -> None:
        if self.rank:
            return
        now = time.monotonic()
        earlier = self.earlier or {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": 0.0}
        self.earlier = {
            "ledger": FORMAT,
            "product": self.name,
            "version": version("ssdd-lightning"),
            "settings": _plain(self.recipe.settings),
            "inputs": dict(self.recipe.inputs),
            "started": earlier["started"],
            "seconds": round(earlier["seconds"] + now - self._ticked, 1),
            "finished": self._finished,
            "left_over": self.left_over,
            "results": _plain(results) if results is not None else earlier.get("results", {}),
        }
        self._ticked = now
        self._save(self.earlier)

    def _save(self, entry: Mapping[str, Any]) -> None:
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(entry, indent=2).encode())

    def _clean(self) -> None:
        """Remove what a killed process left half written."""
        for folder in {self.folder, *(path.parent for item in self.items.values() for path in item.products)}:
            remove_leftovers(folder)

    def _forget(self) -> None:
        self.earlier = None
        self._journal.remove()

    def _products_of(self, name: str) -> list[Path]:
        """Where the files of an image outside the items would lie, judging by the files of an item."""
        known, item = next(iter(self.items.items()), (name, Item((), ())))
        return [path.with_name(name + path.name.removeprefix(known)) for path in item.products]

    def _fingerprints(self) -> Iterator[tuple[str, str]]:
        """Fingerprints of the current inputs of the finished items; items that lack a file are pending."""
        names = (name for name in self.items if name in self._journal)
        while some := {name: self.items[name] for name in islice(names, _AT_ONCE)}:
            there = {name: item for name, item in some.items() if all(path.is_file() for path in item.sources)}
            found = iter(fingerprints([path for item in there.values() for path in item.sources]))
            for name, item in there.items():
                yield name, self._made_from(item, [next(found) for _ in item.sources])

    @staticmethod
    def _made_from(item: Item, digests: Iterable[str]) -> str:
        return digest_of([item.values, *digests])

    def _is_finished(self, name: str) -> bool:
        if name not in self._journal or name not in self._now:
            return False
        return self._journal.holds(name, self._now[name], [_state(path) for path in self.items[name].products])


def read_entry(path: Path) -> dict[str, Any] | None:
    """Read an entry; None if there is none.

    Raises:
        InputError: The file is damaged, or of a newer version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}); remove it to redo its product.") from error
    try:
        entry = json.loads(text)
        float(entry["seconds"]), str(entry["started"])
        dictionaries = all(isinstance(entry[part], dict) for part in ("settings", "inputs", "results"))
        left_over = entry.get("left_over", [])
        names = isinstance(left_over, list) and all(isinstance(name, str) for name in left_over)
        if entry["ledger"] == FORMAT and dictionaries and names and isinstance(entry["finished"], bool):
            return dict(entry)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    raise InputError(
        f"expected an entry of the ledger (format {FORMAT}) in {path}, found something else; remove it to "
        "redo its product."
    )


def asked_for(folder: Path, names: Collection[str], say: bool = True) -> list[str]:
    """Leave out images whose files a command made earlier, but is no longer asked for.

    Files that no command with a ledger made count as asked for.

    Args:
        folder: The folder of the command's product.
        names: Images with files in the folder.
        say: Whether to say how many are left out.

    Returns:
        The other names, in their order.

    Raises:
        InputError: An entry there is damaged.
    """
    journals = sorted({path.name.split(".items")[0] for path in folder.glob("*.items*.jsonl")})
    left_over, made = set[str](), set[str]()
    for name in journals:
        there = set(_left_over(read_entry(folder / f"{name}.json")))
        left_over |= there
        made |= set(Journal(folder, name)) - there
    gone = left_over - made
    left_out = [name for name in names if name in gone]
    if left_out and say:
        said = "their files are of an earlier run, and the last one was not asked for them"
        print(f"{len(left_out)} images in {folder} are left out ({listed(left_out, _SHOWN)}): {said}.", flush=True)
    return [name for name in names if name not in gone]


def _left_over(entry: Mapping[str, Any] | None) -> list[str]:
    return [] if entry is None else list(entry.get("left_over", []))


def _state(path: Path) -> list[int]:
    """Size and time of a file; an empty list if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Values as they come back from JSON."""
    return json.loads(json.dumps(value, default=str))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}.{key}" if prefix else key).items()}


def _text(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
