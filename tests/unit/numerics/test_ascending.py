"""Counting smaller values must equal a binary search for every kind of row."""

import numpy as np
import pytest

from rdxcli.numerics.ascending import BLOCK, AscendingRows


def rows_of(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    values = {
        "normal": lambda: rng.normal(size=shape),
        "long tail": lambda: rng.lognormal(sigma=6.0, size=shape),
        "ties": lambda: rng.integers(4, size=shape).astype(float),
        "constant": lambda: np.full(shape, 2.5),
        "two values, far apart": lambda: np.where(rng.random(shape) < 0.5, 1e-30, 1e30),
        "next to each other": lambda: 1.0 + rng.integers(3, size=shape) * 2e-7,
        "itself first": lambda: np.concatenate(
            [np.zeros((shape[0], 1)), 1e3 + rng.random((shape[0], shape[1] - 1))], 1
        ),
    }[kind]()
    return np.sort(values, axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "kind", ["normal", "long tail", "ties", "constant", "two values, far apart", "next to each other", "itself first"]
)
@pytest.mark.parametrize("columns", [1, 2, 700])
def test_as_a_binary_search(kind: str, dtype: type, columns: int) -> None:
    rng = np.random.default_rng(columns)
    values = rows_of(kind, rng, (5, columns)).astype(dtype)
    queries = np.concatenate(
        [values, rng.permuted(values, axis=1) * dtype(1.0001), rng.normal(size=(5, 40)), [[-1e30, 1e30, 0.0]] * 5],
        axis=1,
    ).astype(dtype)
    expected = [np.searchsorted(row, some) for row, some in zip(values, queries, strict=True)]
    np.testing.assert_array_equal(AscendingRows(values).smaller(queries), expected)


def test_more_queries_than_a_block_and_more_rows_than_walk_together() -> None:
    rng = np.random.default_rng(3)
    values = np.sort(rng.normal(size=(40, 9)), axis=1)
    for count in (1, 3, BLOCK + 1):
        queries = rng.normal(size=(40, count))
        expected = [np.searchsorted(row, some) for row, some in zip(values, queries, strict=True)]
        np.testing.assert_array_equal(AscendingRows(values).smaller(queries), expected)


def test_counts_beyond_sixteen_bits() -> None:
    values = np.arange(70_000, dtype=np.float32)[None]
    np.testing.assert_array_equal(
        AscendingRows(values).smaller(np.float32([[69_999.5, 40_000, 0]])), [[70_000, 40_000, 0]]
    )
