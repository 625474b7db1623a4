"""One task per image, on all cores, in constant memory."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.progress import Progress
from ssdd_lightning.storage.team import ALONE, Team

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(team: Team = ALONE) -> int:
    """Number of cores that this process may use, which it shares with those of its team on this machine."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // team.neighbours)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield results in the order of the items, with at most two per thread in flight, so memory stays constant.

    Args:
        work: What to do with an item; its first exception ends the iteration.
        items: The items.
        workers: Number of threads.

    Raises:
        InputError: `workers` is below 1.
    """
    if workers < 1:
        raise InputError(f"num_workers: expected at least 1, found {workers}.")
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="ssdd") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def with_bar(
    work: Callable[[Item], Result],
    items: Collection[Item],
    what: str,
    workers: int | None = None,
    progress: bool = True,
    leave: bool = True,
) -> Iterable[Result]:
    """As `in_threads`, with a bar.

    Args:
        work: What to do with an item, such as an image.
        items: The items.
        what: What the bar is called.
        workers: Number of threads; None means one per core.
        progress: Whether to show it.
        leave: Whether it stays on a terminal.
    """
    done = in_threads(work, items, cores() if workers is None else workers)
    return Progress(done, what, len(items), unit="image", shown=progress, leave=leave)
