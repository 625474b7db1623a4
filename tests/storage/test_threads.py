import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.threads import cores, in_threads


def test_few_items_are_under_way_at_once_and_results_keep_their_order() -> None:
    started = []

    def work(item: int) -> int:
        started.append(item)
        return 2 * item

    results = in_threads(work, range(100), 2)
    assert next(results) == 0
    assert len(started) <= 4
    assert list(results) == list(range(2, 200, 2))
    assert cores() >= 1


def test_an_error_ends_everything() -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        if item == 3:
            raise ValueError(item)

    with pytest.raises(ValueError, match="3"):
        list(in_threads(work, range(1000), 2))
    assert len(started) < 20


def test_no_thread_is_bad_input() -> None:
    with pytest.raises(InputError, match="num_workers: expected at least 1, found -1"):
        list(in_threads(str, [1], -1))
