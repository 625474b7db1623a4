"""What an exception came from."""

import inspect

import pytest

from ssdd_lightning.errors import end_of_worker

DEAD = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of"


class Watched:
    """A callable during whose inspection torch's handler says that a worker died."""

    def __call__(self) -> None:
        """Do nothing."""

    @property
    def __signature__(self) -> inspect.Signature:
        raise RuntimeError(DEAD)


def test_a_dead_worker_is_found_behind_the_error_that_python_made_of_it() -> None:
    with pytest.raises(TypeError, match="unsupported callable") as caught:
        inspect.getfullargspec(Watched())
    assert end_of_worker(caught.value) == "Bus error"


def test_other_errors_name_no_signal() -> None:
    error, other = ValueError("one"), RuntimeError("two")
    error.__cause__, other.__cause__ = other, error  # nothing forbids a circle
    assert end_of_worker(error) is None
    assert end_of_worker(RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")) == "no signal"


def raised_while_handling(dead: str, hidden: bool) -> BaseException:
    try:
        try:
            raise RuntimeError(dead)
        except RuntimeError:
            if hidden:
                raise KeyError("another") from None
            raise KeyError("another")  # noqa: B904
    except KeyError as error:
        return error


def test_raising_from_none_hides_a_dead_worker() -> None:
    assert end_of_worker(raised_while_handling(DEAD, hidden=False)) == "Bus error"
    assert end_of_worker(raised_while_handling(DEAD, hidden=True)) is None


def test_strange_exceptions_are_no_trouble() -> None:
    class Strange(Exception):
        def __str__(self) -> str:
            return self.message  # type: ignore[attr-defined]

        def __eq__(self, other: object) -> bool:
            raise ValueError("not a truth value")

        def __len__(self) -> int:
            return 0

        __hash__ = None

    outer, inner = Strange(), Strange()
    outer.__cause__, inner.__cause__ = inner, RuntimeError(DEAD)
    assert end_of_worker(outer) == "Bus error"
