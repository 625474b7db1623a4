"""A cache bounded by memory, for lattices that depend on the image's size alone."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows how much memory it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


Item = TypeVar("Item", bound=Sized)


class BoundedCache(Generic[Item]):
    """Keeps the items used last, up to a number of bytes; safe for threads.

    Args:
        limit: Bytes to keep at most. An item larger than this is made anew each time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[Hashable, Item] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """The item under a key, made if it is not there; two threads may make it twice, to equal effect."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        item = make()
        with self._lock:
            self._items[key] = item
            while self._items and sum(kept.nbytes for kept in self._items.values()) > self._limit:
                self._items.popitem(last=False)
        return item
