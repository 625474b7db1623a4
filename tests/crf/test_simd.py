from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from ssdd_lightning.crf import simd

F = np.float32


def apply(function: Callable[..., Any], *arguments: np.ndarray, count: int = 8) -> np.ndarray:
    """Run an operation on vectors of random numbers inside compiled code, vector after vector."""
    zeros = (F(0),) * count

    @numba.njit
    def run(arrays: tuple[np.ndarray, ...], result: np.ndarray) -> None:
        for at in range(0, len(result), count):
            values = function(arrays, np.uint64(at), zeros)
            simd.store(result, np.uint64(at), values)

    result = np.zeros(len(arguments[0]), np.float32)
    run(arguments, result)
    return result


@pytest.fixture
def numbers() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 30, 64).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "larger", "smaller", "less"])
def test_operations_on_two_vectors_round_as_numpy_does(name: str, count: int, numbers: list[np.ndarray]) -> None:
    operation = getattr(simd, name)
    expected: dict[str, Callable[..., Any]] = {
        "add": np.add,
        "subtract": np.subtract,
        "multiply": np.multiply,
        "larger": np.maximum,
        "smaller": np.minimum,
        "less": lambda a, b: (a < b).astype(np.float32),
    }

    @numba.njit
    def both(arrays: Any, at: Any, zeros: Any) -> Any:
        return operation(simd.load(arrays[0], at, zeros), simd.load(arrays[1], at, zeros))

    assert np.array_equal(apply(both, *numbers, count=count), expected[name](*numbers[:2]))


def test_a_number_is_spread_over_the_lanes(numbers: list[np.ndarray]) -> None:
    @numba.njit
    def scaled(arrays: Any, at: Any, zeros: Any) -> Any:
        return simd.multiply_add(simd.load(arrays[0], at, zeros), simd.load(arrays[1], at, zeros), F(1.5))

    assert np.allclose(apply(scaled, *numbers), numbers[0] + 1.5 * numbers[1], rtol=1e-6, atol=1e-5)


def test_rounded_takes_the_even_one_of_two() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999, 1e5 + 0.5, -7.0], np.float32)

    @numba.njit
    def rounded(arrays: Any, at: Any, zeros: Any) -> Any:
        return simd.rounded(simd.load(arrays[0], at, zeros))

    assert np.array_equal(apply(rounded, values), np.rint(values))


def test_exponential() -> None:
    values = np.linspace(-86.9, 0, 8000, dtype=np.float32)

    @numba.njit
    def exponential(arrays: Any, at: Any, zeros: Any) -> Any:
        return simd.exponential(simd.load(arrays[0], at, zeros))

    exact = np.exp(values.astype(np.float64))
    assert np.abs(apply(exponential, values) / exact - 1).max() < 4e-7
    assert apply(exponential, np.full(8, -1e30, np.float32)).max() < 2e-38
    assert (apply(exponential, np.zeros(8, np.float32)) == 1).all()


def test_highest_and_total_join_the_lanes(numbers: list[np.ndarray]) -> None:
    @numba.njit
    def joined(array: Any, zeros: Any) -> Any:
        vector = simd.load(array, np.uint64(8), zeros)
        return simd.highest(vector), simd.total(vector)

    highest, total = joined(numbers[0], (F(0),) * 8)
    assert highest == numbers[0][8:16].max()
    assert total == pytest.approx(numbers[0][8:16].sum(), rel=1e-5)
