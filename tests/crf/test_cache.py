from dataclasses import dataclass

from ssdd_lightning.crf.cache import BoundedCache


@dataclass
class Item:
    nbytes: int


def test_makes_an_item_once() -> None:
    cache: BoundedCache[Item] = BoundedCache(100)
    made: list[str] = []
    for _ in range(3):
        cache.get("a", lambda: made.append("a") or Item(10))
    assert made == ["a"]


def test_forgets_what_was_used_longest_ago() -> None:
    cache: BoundedCache[Item] = BoundedCache(100)
    made: list[str] = []

    def get(key: str) -> Item:
        return cache.get(key, lambda: made.append(key) or Item(40))

    for key in ("a", "b", "a", "c", "a", "b"):  # c puts b out, not a
        get(key)
    assert made == ["a", "b", "c", "b"]


def test_does_not_keep_what_is_larger_than_its_limit() -> None:
    cache: BoundedCache[Item] = BoundedCache(100)
    first = cache.get("a", lambda: Item(101))
    assert cache.get("a", lambda: Item(101)) is not first
