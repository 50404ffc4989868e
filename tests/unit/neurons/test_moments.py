"""Streamed moments against NumPy on the whole arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from rdxcli.numerics.moments import (
    check_rows,
    check_source,
    column_statistics,
    read_columns,
    second_moments,
)


def data(n: int = 83, c: int = 6, u: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, c)) * np.array([1, 10, 0.1, 1, 5, 2.0]) + np.array([0, 1e4, 3, -2, 7, 0.0])
    Y = X @ rng.normal(size=(c, u)) + rng.normal(size=(n, u))
    return X, Y


@pytest.mark.parametrize("block_rows", [1, 7, 83, 200])
def test_second_moments_do_not_depend_on_blocks(block_rows: int) -> None:
    X, Y = data()
    rows = np.arange(5, 70)
    m = second_moments(X, Y, rows, centre_x=X.mean(axis=0), block_rows=block_rows)
    part_x, part_y = X[rows], Y[rows]
    x0, y0 = part_x - part_x.mean(axis=0), part_y - part_y.mean(axis=0)
    np.testing.assert_allclose(m.xx, x0.T @ x0 / len(rows), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(m.xy, x0.T @ y0 / len(rows), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(m.yy, part_y.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(m.mean_x, part_x.mean(axis=0))
    np.testing.assert_allclose(m.mean_y, part_y.mean(axis=0))


def test_the_centre_keeps_digits_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    X = 1e8 + rng.normal(size=(500, 2))
    m = second_moments(X, X, np.arange(500), centre_x=X.mean(axis=0), centre_y=X.mean(axis=0))
    np.testing.assert_allclose(m.xx, np.cov(X.T, bias=True), rtol=1e-6)


def test_sparse_memory_mapped_and_picked_columns_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    X = (rng.random((60, 8)) < 0.2).astype(np.float32)
    X[:, 5] = 1.0
    Y = rng.normal(size=(60, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows, columns, units = np.arange(0, 60, 2), np.array([1, 3, 5]), np.array([2, 0])
    options = {"columns": columns, "units": units, "block_rows": 9}
    dense = second_moments(X, Y, rows, **options)
    for source in (sparse.csr_array(X), mapped):
        other = second_moments(check_source(source, "x"), Y, rows, **options)
        for name in ("mean_x", "mean_y", "xx", "xy", "yy"):
            np.testing.assert_allclose(getattr(other, name), getattr(dense, name), atol=1e-12)
        assert other.constant_x.tolist() == dense.constant_x.tolist() == [False, False, True]
    assert dense.select(np.array([True, False, True])).xx.shape == (2, 2)


def test_single_precision_products() -> None:
    X, Y = data()
    rows = np.arange(len(X))
    exact = second_moments(X, Y, rows, centre_x=X.mean(axis=0), centre_y=Y.mean(axis=0))
    single = second_moments(X, Y, rows, centre_x=X.mean(axis=0), centre_y=Y.mean(axis=0), dtype="float32")
    scale = np.sqrt(np.outer(np.diag(exact.xx), np.diag(exact.xx)))
    assert np.abs((single.xx - exact.xx) / scale).max() < 1e-5
    assert not np.array_equal(single.xx, exact.xx)


@pytest.mark.parametrize("block_rows", [3, 11, 1000])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_column_statistics(block_rows: int, make: type) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(64, 5)) * (rng.random((64, 5)) < 0.5)
    X[:, 2] = 4.0
    rows = np.sort(rng.choice(64, 40, replace=False))
    s = column_statistics(check_source(make(X), "x"), rows, block_rows=block_rows)
    part = X[rows]
    np.testing.assert_allclose(s.mean, part.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(s.std, part.std(axis=0, ddof=1), atol=1e-14)
    np.testing.assert_allclose(s.top_mean, np.sort(part, axis=0)[-5:].mean(axis=0))
    assert s.minimum.tolist() == part.min(axis=0).tolist()
    assert s.maximum.tolist() == part.max(axis=0).tolist()
    assert s.constant.tolist() == [False, False, True, False, False]


def test_fewer_rows_than_the_top() -> None:
    s = column_statistics(np.array([[1.0], [3.0]]))
    assert (s.top_mean[0], s.std[0]) == (2.0, np.sqrt(2.0))


def test_columns_of_scattered_rows() -> None:
    X, _ = data()
    rows, columns = np.array([3, 4, 50, 81]), np.array([5, 0])
    np.testing.assert_array_equal(read_columns(X, rows, columns, "x"), X[np.ix_(rows, columns)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers(bad: float) -> None:
    X, Y = data()
    X[40, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite values in rows"):
        second_moments(X, Y, np.arange(83))
    with pytest.raises(ValueError, match="NaN or infinite values in rows"):
        column_statistics(X)
    second_moments(X, Y, np.arange(40))


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no rows|float64"), ([1, 1], "repeated"), ([10], "Got row 10"), ([-1], "Got row -1"), ([0.5], "row numbers")],
)
def test_bad_rows(rows: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(rows, 10, "train")


def test_masks_are_rows() -> None:
    assert check_rows(np.arange(6) % 2 == 1, 6, "train").tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match="mask of shape"):
        check_rows(np.ones(5, bool), 6, "train")


@pytest.mark.parametrize("source", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 3)), np.array([["a"]])])
def test_bad_sources(source: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Got"):
        check_source(source, "concepts")
