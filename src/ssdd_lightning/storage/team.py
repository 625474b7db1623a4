"""The processes that make a product together."""

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Team:
    """One process that works alone; `ssdd_lightning.cli.launched` has those that a launcher started.

    What a process gets through the team, all of them get. So each has to make the same calls in the same order.

    Attributes:
        rank: Number of this process; process 0 decides, writes what is common, and speaks.
        size: Number of processes.
        neighbours: Those of them on this machine, this one included.
    """

    rank = 0
    size = 1
    neighbours = 1

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Wait for every process, and return the value of each.

        Args:
            value: Anything that JSON can hold.

        Raises:
            InputError: Another process failed.
        """
        return [value]

    def check(self) -> None:
        """Stop if another process failed.

        Raises:
            InputError: It did.
        """

    def share(self, items: Sequence[T]) -> list[T]:
        """What of these items is this process's to make."""
        return list(items[self.rank :: self.size])


ALONE = Team()
