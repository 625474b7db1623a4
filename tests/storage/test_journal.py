import pickle
import tracemalloc
from pathlib import Path

import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.journal import Journal
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.score_maps import mask_path


def test_any_line_of_an_image_may_be_the_true_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "masks")
    journal.append([("a", "1", [[5, 7]]), ("b\n", "2", [[1, 1], []])])
    journal.append([("a", "3", [[6, 8]])], rank=1)
    for found in (journal, Journal(tmp_path, "masks")):
        assert (list(found), "b\n" in found, "c" in found) == (["a", "b\n"], True, False)
        assert found.holds("a", "1", [[5, 7]])
        assert found.holds("a", "3", [[6, 8]])
        assert not found.holds("a", "1", [[6, 8]])
        assert not found.holds("c", "1", [[5, 7]])
        assert found.holds("b\n", "2", [[1, 1], []])
        assert found.wrote("a", [[5, 7]])
        assert not found.wrote("a", [[5, 8]])
        assert not found.wrote("c", [])


def test_half_a_line_is_no_image_and_the_next_one_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "masks.items.jsonl"
    path.write_bytes(b'["a", "1", [[5, 7]]]\n["b", "1", [[5\n{}\n\xff\n["c", "1"')
    journal = Journal(tmp_path, "masks")
    assert list(journal) == ["a"]
    journal.append([("c", "1", [[5, 7]])])
    assert list(Journal(tmp_path, "masks")) == ["a", "c"]


def test_to_disregard_is_not_to_remove(tmp_path: Path) -> None:
    Journal(tmp_path, "masks").append([("a", "1", [[5, 7]])])
    journal = Journal(tmp_path, "masks")
    journal.disregard()
    assert (list(journal), list(Journal(tmp_path, "masks"))) == ([], ["a"])
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "masks.items.jsonl").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*masks\.items\.jsonl \(Is a directory\)"):
        Journal(tmp_path, "masks")


def test_items_are_a_dictionary_that_holds_only_names(tmp_path: Path) -> None:
    items = Items("ba", lambda name: Item((), (tmp_path / name,)))
    assert (list(items), len(items), "a" in items, "c" in items) == (["b", "a"], 2, True, False)
    assert items["a"].products == (tmp_path / "a",)
    assert pickle.loads(pickle.dumps(items)) == dict(items)
    with pytest.raises(KeyError):
        items["c"]


def test_a_name_that_cannot_be_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the image name .* control character"):
        Items(["a", "x\ty"], lambda name: Item((), (mask_path(tmp_path, name),)))


def test_many_images_are_looked_up_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ssdd_lightning.storage.ledger._AT_ONCE", 2)
    items = Items("abcde", lambda name: Item((tmp_path / f"{name}.jpg",), (tmp_path / f"{name}.png",)))
    for name, item in items.items():
        for path in (*item.sources, *item.products):
            path.write_text(name)
    with (made := Ledger(tmp_path, "masks", Recipe(), items)).working():
        made.done("abcde")
    (tmp_path / "d.jpg").write_text("another")
    assert Ledger(tmp_path, "masks", Recipe(), items).pending() == ["d"]


def test_a_finished_image_takes_half_a_kilobyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [f"2007_{number:06d}" for number in range(2000)]
    lines = [(name, "0" * 32, [[12_345, 1_764_590_000_000_000_000 + n]]) for n, name in enumerate(names)]
    Ledger(tmp_path, "masks", Recipe()).begin()
    Journal(tmp_path, "masks").append(lines)
    tracemalloc.start()
    try:
        ledger = Ledger(tmp_path, "masks", Recipe(), Items(names, lambda name: Item((), (tmp_path / f"{name}.png",))))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(ledger.pending()) == len(names)
    assert taken < 500 * len(names)
