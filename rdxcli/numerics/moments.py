"""Means, spreads and second moments of the columns of row sources, in one or two passes over blocks of rows.

Symbols: X (n, c) concepts, Y (n, u) units, both read in blocks of rows; rows (m,) the rows that count.

A row source is an ndarray, a memory-mapped array, a CSR array, or any object with ``shape`` and ``__getitem__`` that
turns row numbers into a block. Only moments are kept, so n does not matter for memory: O(c^2 + c u) numbers.
Sums are accumulated in float64 around a given centre, so large offsets cost no digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from rdxcli.lazy import torch
from rdxcli.progress import human_count, track

BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ColumnStatistics:
    """Per-column statistics over some rows.

    Attributes
    ----------
    n : int
        Rows counted.
    mean, std : (c,) float64
        Standard deviation with n - 1; 0 for a single row.
    top_mean : (c,) float64
        Mean of the ``top`` largest values.
    minimum, maximum : (c,) float64
    """

    n: int
    mean: np.ndarray
    std: np.ndarray
    top_mean: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        """(c,) bool: columns whose values do not differ."""
        return self.minimum == self.maximum


@dataclass(frozen=True)
class Moments:
    """Centred second moments of X and Y over some rows, each divided by n.

    Attributes
    ----------
    mean_x : (c,) float64
    mean_y : (u,) float64
    xx : (c, c) float64
        Covariance of X (divisor n).
    xy : (c, u) float64
        Covariance of X and Y (divisor n).
    yy : (u,) float64
        Variance of Y (divisor n).
    constant_x : (c,) bool
    constant_y : (u,) bool
        Columns whose values do not differ at all in these rows.
    """

    n: int
    mean_x: np.ndarray
    mean_y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    constant_x: np.ndarray
    constant_y: np.ndarray

    def select(self, keep: np.ndarray) -> Moments:
        """The moments of some columns of X: ``keep`` (c,) bool or column numbers."""
        keep = np.arange(len(self.mean_x))[keep]
        xx, xy = self.xx[np.ix_(keep, keep)], self.xy[keep]
        return Moments(self.n, self.mean_x[keep], self.mean_y, xx, xy, self.yy, self.constant_x[keep], self.constant_y)


def check_source(source: Any, name: str) -> Any:
    """A two-dimensional row source; lists become arrays, sparse arrays become CSR.

    Raises `ValueError` (not two-dimensional, empty, or not real numbers).
    """
    if sparse.issparse(source):
        source = sparse.csr_array(source)
    elif not hasattr(source, "shape") or not hasattr(source, "__getitem__"):
        source = np.asarray(source)
    if len(source.shape) != 2:
        raise ValueError(f"{name}: Got an array of shape {tuple(source.shape)}, expected (n, columns)")
    if min(source.shape) < 1:
        raise ValueError(f"{name}: Got an empty array of shape {tuple(source.shape)}")
    dtype = getattr(source, "dtype", None)
    if dtype is not None and np.dtype(dtype).kind not in "fiub":
        raise ValueError(f"{name}: Got values of type {dtype}, expected real numbers")
    return source


def check_rows(rows: Any, n: int, name: str) -> np.ndarray:
    """Sorted unique row numbers. Raises `ValueError` (empty, repeated, out of range, or a mask of the wrong length)."""
    values = np.asarray(rows)
    if values.dtype == bool:
        if values.shape != (n,):
            raise ValueError(f"{name}: Got a mask of shape {values.shape}, expected ({n},)")
        values = np.flatnonzero(values)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{name}: Got {values.dtype} of shape {values.shape}, expected row numbers")
    if not len(values):
        raise ValueError(f"{name}: Got no rows, expected at least one")
    ordered = np.unique(values.astype(np.int64))
    if len(ordered) != len(values):
        raise ValueError(
            f"{name}: Got {human_count(len(values) - len(ordered), 'repeated row number')}, expected each row once"
        )
    if ordered[0] < 0 or ordered[-1] >= n:
        raise ValueError(f"{name}: Got row {ordered[-1] if ordered[-1] >= n else ordered[0]}, expected 0..{n - 1}")
    return ordered


def blocks(
    rows: np.ndarray, columns: int, block_rows: int | None = None, said: str | None = None
) -> Iterator[np.ndarray]:
    """Consecutive pieces of ``rows``, each about `BLOCK_BYTES` of float64 when ``columns`` wide.

    ``said`` is what is done with them, for people who wait for it.
    """
    step = block_rows or max(64, BLOCK_BYTES // (8 * max(1, columns)))
    if said is None or step >= len(rows):
        yield from (rows[start : start + step] for start in range(0, len(rows), step))
        return
    with track(said, len(rows), "images") as advance:
        for start in range(0, len(rows), step):
            yield rows[start : start + step]
            advance(min(step, len(rows) - start))


def read(source: Any, rows: np.ndarray, name: str, columns: np.ndarray | None = None) -> Any:
    """A block as float64, dense or CSR; contiguous rows are read as a slice.

    Raises `ValueError` (NaN or infinite values).
    """
    contiguous = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    block = source[int(rows[0]) : int(rows[-1]) + 1] if contiguous else source[rows]
    if sparse.issparse(block):
        block = sparse.csr_array(block).astype(np.float64)
        values = block.data
        block = block if columns is None else block[:, columns]
    else:
        block = np.asarray(block)
        block = block if columns is None else block[:, columns]
        values = block = block.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: Got NaN or infinite values in rows {rows[0]}..{rows[-1]}, expected finite numbers")
    return block


def read_columns(source: Any, rows: np.ndarray, columns: np.ndarray, name: str) -> np.ndarray:
    """Some columns of some rows as a dense float64 array, read block by block."""
    out = np.empty((len(rows), len(columns)))
    start = 0
    for part in blocks(rows, source.shape[1]):
        block = read(source, part, name, columns)
        out[start : start + len(part)] = block.toarray() if sparse.issparse(block) else block
        start += len(part)
    return out


def column_statistics(
    source: Any, rows: np.ndarray | None = None, *, top: int = 5, name: str = "X", block_rows: int | None = None
) -> ColumnStatistics:
    """Mean, standard deviation (n - 1), extremes and mean of the largest values of every column.

    Parameters
    ----------
    source : row source of shape (n, c)
    rows : (m,) int, optional
        Rows that count; default all.
    top : int
        How many of the largest values ``top_mean`` averages (all rows when there are fewer).
    name : str
        How to call the data in messages.

    Notes
    -----
    One pass. The variance is merged block by block (Chan, Golub and LeVeque 1983), so it is accurate for columns far
    from zero. O(n c) time, O(top c) memory beside one block.
    """
    n, c = source.shape
    rows = np.arange(n) if rows is None else rows
    top = min(top, len(rows))
    count, mean, m2 = 0, np.zeros(c), np.zeros(c)
    largest = np.full((top, c), -np.inf)
    low, high = np.full(c, np.inf), np.full(c, -np.inf)
    for part in blocks(rows, c, block_rows, f"statistics of {c:,} {name}"):
        block = read(source, part, name)
        block = block.toarray() if sparse.issparse(block) else block
        b = len(block)
        block_mean = block.mean(axis=0)
        delta = block_mean - mean
        m2 += ((block - block_mean) ** 2).sum(axis=0) + delta**2 * (count * b / (count + b))
        mean += delta * (b / (count + b))
        count += b
        low = np.minimum(low, block.min(axis=0))
        high = np.maximum(high, block.max(axis=0))
        head = np.partition(block, b - top, axis=0)[b - top :] if b > top else block
        stacked = np.concatenate([largest, head])
        largest = np.partition(stacked, len(stacked) - top, axis=0)[len(stacked) - top :]
    std = np.sqrt(m2 / max(count - 1, 1))
    return ColumnStatistics(count, mean, std, largest.mean(axis=0), low, high)


def second_moments(
    X: Any,
    Y: Any,
    rows: np.ndarray,
    *,
    columns: np.ndarray | None = None,
    units: np.ndarray | None = None,
    centre_x: np.ndarray | None = None,
    centre_y: np.ndarray | None = None,
    device: str = "cpu",
    dtype: str = "float64",
    block_rows: int | None = None,
) -> Moments:
    """Centred second moments of some columns of X and Y over some rows.

    Parameters
    ----------
    X : row source of shape (n, c)
    Y : row source of shape (n, u)
    rows : (m,) int
    columns, units : int arrays, optional
        Which columns of X and of Y; default all. They are picked block by block.
    centre_x, centre_y : arrays, optional
        Any values near the means (for instance the means over all rows). They change rounding only.
    device : str
        Torch device of the products. Sums stay in float64.
    dtype : {"float64", "float32"}
        Type of the products of one block.

    Notes
    -----
    O(m c (c + u)) time, O(c^2 + c u) memory beside one block. CSR concepts (labels) use sparse products, O(m s^2) for
    s entries per row.
    """
    c = X.shape[1] if columns is None else len(columns)
    u = Y.shape[1] if units is None else len(units)
    centre_x = np.zeros(c) if centre_x is None else centre_x
    centre_y = np.zeros(u) if centre_y is None else centre_y
    kind = torch.float32 if dtype == "float32" else torch.float64
    xx = torch.zeros((c, c), dtype=torch.float64, device=device)
    xy = torch.zeros((c, u), dtype=torch.float64, device=device)
    sum_x, sum_y, yy = np.zeros(c), np.zeros(u), np.zeros(u)
    sparse_xx: Any = None
    first_x: np.ndarray | None = None
    first_y: np.ndarray | None = None
    constant_x, constant_y = np.ones(c, dtype=bool), np.ones(u, dtype=bool)
    said = f"second moments of {human_count(c, 'concept')} and {human_count(u, 'unit')}"
    for part in blocks(rows, max(c, u, X.shape[1], Y.shape[1]), block_rows, said):
        y = read(Y, part, "activations", units)
        y = (y.toarray() if sparse.issparse(y) else y) - centre_y
        first_y = y[0].copy() if first_y is None else first_y
        constant_y &= (y == first_y).all(axis=0)
        sum_y += y.sum(axis=0)
        yy += (y**2).sum(axis=0)
        x = read(X, part, "concepts", columns)
        if sparse.issparse(x):  # sums around zero: counts of labels are exact
            low, high = x.min(axis=0).toarray().ravel(), x.max(axis=0).toarray().ravel()
            first_x = low if first_x is None else first_x
            constant_x &= (low == first_x) & (high == first_x)
            sparse_xx = x.T @ x if sparse_xx is None else sparse_xx + x.T @ x
            sum_x += np.asarray(x.sum(axis=0)).ravel()
            xy += torch.as_tensor(x.T @ y, dtype=torch.float64, device=device)
            continue
        x -= centre_x
        first_x = x[0].copy() if first_x is None else first_x
        constant_x &= (x == first_x).all(axis=0)
        sum_x += x.sum(axis=0)
        tx = torch.as_tensor(x, dtype=kind, device=device)
        ty = torch.as_tensor(y, dtype=kind, device=device)
        if kind is torch.float64:
            xx.addmm_(tx.T, tx)
            xy.addmm_(tx.T, ty)
        else:
            xx += tx.T @ tx
            xy += tx.T @ ty
    m = len(rows)
    mean_x, mean_y = sum_x / m, sum_y / m
    if sparse_xx is not None:
        full = np.asarray(sparse_xx.toarray(), dtype=np.float64)
        centre_x = np.zeros(c)
    else:
        full = xx.cpu().numpy()
    full /= m
    full -= np.outer(mean_x, mean_x)
    cross = xy.cpu().numpy() / m - np.outer(mean_x, mean_y)
    variance = np.maximum(yy / m - mean_y**2, 0.0)
    return Moments(m, mean_x + centre_x, mean_y + centre_y, full, cross, variance, constant_x, constant_y)
