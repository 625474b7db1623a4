"""Mutants of whole files in every reader: only results and sentences, in little time and memory.

`make fuzz` does the same with many more; `MUTANTS` is their number for each reader and `FIRST` the first one's seed.
"""

import os
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from ssdd_lightning.errors import InputError
from tests.helpers.mutants import Reader, readers

resource = pytest.importorskip("resource", reason="limits of memory are POSIX's")
MUTANTS = int(os.environ.get("MUTANTS", "40"))
FIRST = int(os.environ.get("FIRST", "0"))
SECONDS = 10
"""Of the processor, for one file."""
MEMORY = 3 << 30
NAMES = [
    *(
        "annotation",
        "labels.csv",
        "labels.json",
        "labels.npy",
        "classes",
        "class table",
        "list",
        "names",
        "YAML",
        "COCO",
    ),
    *("entry", "journal", "mask", "map", "photo.png", "photo", "arrays.npy", "arrays.npz", "arrays.pt", "pickle"),
    *("checkpoint", "weights", "params", "zip", "tar", "tgz", "submission", "SBD"),
]


class TooLong(BaseException):
    """No reader may catch this."""


@pytest.fixture(scope="module")
def limits() -> Iterator[None]:
    """Limit memory, and the processor's time of each file."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooLong

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGVTALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[0][1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before[0])
    signal.signal(signal.SIGVTALRM, before[1])


@pytest.fixture(scope="module")
def under_attack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("seeds"))


def test_every_reader_is_attacked(under_attack: dict[str, Reader]) -> None:
    assert list(under_attack) == NAMES


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("name", NAMES)
def test_mutants(under_attack: dict[str, Reader], tmp_path: Path, name: str) -> None:
    if name == "COCO":
        pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `coco`)")
    reader = under_attack[name]
    path = tmp_path / reader.name
    answered = 0
    for content in reader.seeds:
        path.write_bytes(content)
        try:
            reader.read(path)
            answered += 1
        except InputError:
            pass
    assert answered, "no seed is a whole file"
    for number in range(FIRST, FIRST + MUTANTS):
        draw = random.Random(f"{name} {number}")
        path.write_bytes(reader.mutate(draw.choice(reader.seeds), draw))
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(path)
        except InputError:
            pass
        except BaseException as error:
            kept = Path(os.environ.get("KEEP", tmp_path)) / f"{number}-{reader.name}"
            kept.write_bytes(path.read_bytes())
            raise AssertionError(f"mutant {number} of {name}, kept as {kept}: {error!r}") from error
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
