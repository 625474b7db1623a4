import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage import fingerprints as module
from ssdd_lightning.storage.fingerprints import fingerprint, fingerprints
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.lock import locked

SETTINGS = {"data": {"crop_size": 224}, "model": {"rate": 0.1}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.jpg").write_text(f"photo {name}")
    return folder


@pytest.fixture
def open_ledger(tmp_path: Path, photos: Path) -> Callable[..., Ledger]:
    def make(
        settings: Mapping[str, object] = SETTINGS,
        inputs: dict[str, str] | None = None,
        names: str = "abc",
        labels: str = "cat",
        rank: int = 0,
    ) -> Ledger:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        items = {name: Item((photos / f"{name}.jpg",), (out / f"{name}.png",), labels) for name in names}
        return Ledger(out, "masks", Recipe(settings, inputs or {"checkpoint": "1"}), items, rank)

    return make


def make_all(ledger: Ledger, names: list[str] | None = None) -> None:
    with ledger.working():
        for name in ledger.pending() if names is None else names:
            ledger.items[name].products[0].write_text(f"mask {name}")
            ledger.done([name])
        if not ledger.pending():
            ledger.close({"scores": {"miou": 0.5}})


def test_what_is_finished_stays_finished(open_ledger: Callable[..., Ledger]) -> None:
    first = open_ledger()
    assert first.pending() == ["a", "b", "c"]
    assert not first.finished
    make_all(first)
    again = open_ledger()
    assert (again.pending(), again.finished, again.difference) == ([], True, None)
    entry = json.loads(again.path.read_text())
    assert entry["results"] == {"scores": {"miou": 0.5}}
    assert entry["settings"] == SETTINGS
    assert entry["finished"] is True


def test_interrupted_work_goes_on(open_ledger: Callable[..., Ledger]) -> None:
    make_all(open_ledger(), ["a"])
    second = open_ledger()
    assert second.begun
    assert not second.finished
    assert second.pending() == ["b", "c"]
    make_all(second)
    assert open_ledger().finished


def test_a_changed_setting_is_said_and_makes_all_pending(
    open_ledger: Callable[..., Ledger], capsys: pytest.CaptureFixture[str]
) -> None:
    make_all(open_ledger())
    changed = open_ledger({"data": {"crop_size": 256}, "model": {"rate": 0.1}})
    assert changed.difference == "data.crop_size was 224 and is 256"
    assert changed.pending() == ["a", "b", "c"]
    capsys.readouterr()
    make_all(changed, ["a"])
    assert "masks: redone in " in (said := capsys.readouterr().out)
    assert "because data.crop_size was 224 and is 256." in said
    assert open_ledger({"data": {"crop_size": 256}, "model": {"rate": 0.1}}).pending() == ["b", "c"]


def test_a_changed_input_is_named(open_ledger: Callable[..., Ledger]) -> None:
    make_all(open_ledger())
    assert open_ledger(inputs={"checkpoint": "2"}).difference == "checkpoint changed"


@pytest.mark.parametrize("keep_time", [True, False])
def test_a_replaced_photo_makes_its_own_item_pending(
    open_ledger: Callable[..., Ledger], photos: Path, keep_time: bool
) -> None:
    make_all(open_ledger())
    stat = (photos / "b.jpg").stat()
    (photos / "b.jpg").write_text("another photo")
    if keep_time:
        os.utime(photos / "b.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = open_ledger()
    assert again.pending() == ["b"]
    assert not again.finished
    make_all(again)
    assert open_ledger().finished


def test_a_photo_that_was_only_touched_is_no_other(open_ledger: Callable[..., Ledger], photos: Path) -> None:
    make_all(open_ledger())
    os.utime(photos / "b.jpg", ns=(1, 1))
    assert open_ledger().finished


def test_other_labels_are_another_item(open_ledger: Callable[..., Ledger]) -> None:
    make_all(open_ledger())
    assert open_ledger(labels="dog").pending() == ["a", "b", "c"]


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_text("half")])
def test_a_product_that_is_not_what_was_written_is_made_again(
    open_ledger: Callable[..., Ledger], spoil: Callable[..., Any]
) -> None:
    ledger = open_ledger()
    make_all(ledger)
    spoil(ledger.items["c"].products[0])
    assert open_ledger().pending() == ["c"]


def test_more_items_are_pending_and_fewer_are_not(open_ledger: Callable[..., Ledger]) -> None:
    make_all(open_ledger(names="ab"), ["a", "b"])
    assert open_ledger(names="abc").pending() == ["c"]
    assert open_ledger(names="b").pending() == []


def test_half_a_line_of_a_killed_process_is_no_item(open_ledger: Callable[..., Ledger]) -> None:
    ledger = open_ledger()
    make_all(ledger)
    journal = ledger.folder / "masks.items.jsonl"
    journal.write_text(journal.read_text()[:-5])
    assert open_ledger().pending() == ["c"]


def test_an_item_after_half_a_line_is_not_lost(open_ledger: Callable[..., Ledger]) -> None:
    ledger = open_ledger()
    make_all(ledger)
    journal = ledger.folder / "masks.items.jsonl"
    journal.write_text(journal.read_text()[:-5])
    make_all(open_ledger())
    assert open_ledger().finished


def test_an_older_line_of_another_process_does_not_win(open_ledger: Callable[..., Ledger], photos: Path) -> None:
    make_all(open_ledger())
    (photos / "b.jpg").write_text("another photo")
    zero, one = open_ledger(), open_ledger(rank=1)
    zero.begin()
    one.items["b"].products[0].write_text("another mask")
    one.done(["b"])
    zero.close()
    assert open_ledger().finished


def test_items_that_are_made_again_are_named(
    open_ledger: Callable[..., Ledger], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_all(open_ledger())
    (photos / "b.jpg").write_text("another photo")
    make_all(open_ledger())
    assert "masks: 1 made again in " in (said := capsys.readouterr().out)
    assert "(b): their inputs or their files changed." in said


def test_several_processes_keep_journals_of_their_own(open_ledger: Callable[..., Ledger]) -> None:
    zero, one = open_ledger(), open_ledger(rank=1)
    zero.begin()
    for ledger, names in ((zero, "ac"), (one, "b")):
        for name in names:
            ledger.items[name].products[0].write_text(name)
        ledger.done(names)
    assert open_ledger().pending() == []


WRONG_SECONDS = (
    '{"ledger": 1, "settings": {}, "inputs": {}, "results": {}, "finished": true, "started": "", "seconds": null}'
)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"ledger": 2}', "{" * 10**5, "\0", WRONG_SECONDS])
def test_a_damaged_entry_is_a_sentence(open_ledger: Callable[..., Ledger], content: str) -> None:
    ledger = open_ledger()
    ledger.path.write_text(content)
    with pytest.raises(InputError, match=r"expected an entry of the ledger .*masks\.json.*; remove it to redo"):
        open_ledger()


def test_seconds_add_up_over_processes(open_ledger: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ssdd_lightning.storage.ledger.time.monotonic", lambda: now[0])
    for name, seconds in (("a", 5), ("b", 7)):
        ledger = open_ledger()
        with ledger.working():
            now[0] += seconds
            ledger.items[name].products[0].write_text(name)
            ledger.done([name])
    assert open_ledger().seconds == 12.0
    killed = open_ledger()
    killed.begin()
    now[0] += 61
    killed.tick()
    now[0] += 5  # lost
    assert open_ledger().seconds == 73.0


def test_a_known_file_is_not_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(photos.iterdir())
    first = fingerprints(paths)
    assert len(set(first)) == 3
    monkeypatch.setattr(module, "_digest", lambda path: pytest.fail(f"{path} is read"))
    assert fingerprints(paths) == first


def test_the_cache_does_not_wait_for_the_disk_after_every_image() -> None:
    with closing(module._open_cache()) as cache:
        assert cache.execute("PRAGMA synchronous").fetchone() == (0,)


@pytest.mark.parametrize("spoil", ["damaged", "read-only"])
def test_without_a_cache_files_are_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    cache = tmp_path / "cache" / "ssdd_lightning"
    if spoil == "damaged":
        cache.mkdir(parents=True)
        (cache / "fingerprints.sqlite").write_text("no data base" * 100)
    else:
        cache.parent.mkdir()
        cache.write_text("a file where the folder should be")
    expected = fingerprint(photos / "a.jpg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert fingerprint(photos / "a.jpg") == expected


def test_a_missing_file_is_a_sentence(photos: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*x\.jpg \(No such file"):
        fingerprint(photos / "x.jpg")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from ssdd_lightning.storage.lock import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"another run works in .* \(process {other.pid} on "), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"host": 1', '{"host": "elsewhere", "process": 1}'])
def test_what_a_killed_process_left_is_no_lock(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path), pytest.raises(InputError, match="another run works in"), locked(tmp_path):
        pass
