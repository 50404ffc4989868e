"""Checks that every method which compares two representations needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.progress import human_count

__all__ = ["check_pair", "check_representation"]


def check_representation(X: ArrayLike, name: str = "R", *, minimum_rows: int = 2) -> np.ndarray:
    """A finite, non-constant (n, d) array of floating-point numbers.

    Raises `ValueError` (not two-dimensional, not numeric, complex, too few rows, no columns, NaN or infinite entries,
    or all rows equal).

    Parameters
    ----------
    X : array-like of shape (n, d)
    name : str
        How to call it in messages.
    minimum_rows : int
        Smallest n that the caller can use.

    Returns
    -------
    ndarray of shape (n, d), float32 or float64
        Not copied when it has such a type already.
    """
    values = np.asarray(X)
    if values.ndim != 2:
        raise ValueError(f"{name}: Got an array of shape {values.shape}, expected (n, d)")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name}: Got values of type {values.dtype}, expected real numbers")
    n, d = values.shape
    if n < minimum_rows:
        raise ValueError(f"{name}: Got {n} row{'s' * (n != 1)}, expected at least {minimum_rows}")
    if d < 1:
        raise ValueError(f"{name}: Got no columns, expected at least one")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"{name}: Got NaN or infinite values in {len(bad)} of {human_count(n, 'row')} (first: row {bad[0]}), "
            "expected finite numbers"
        )
    if (values == values[0]).all():
        raise ValueError(
            f"{name}: Got {human_count(n, 'equal row')} (a constant representation), expected rows that differ"
        )
    return values


def check_pair(
    R0: ArrayLike, R1: ArrayLike, names: tuple[str, str] = ("R0", "R1"), *, minimum_rows: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Two representations of the same n samples; their widths may differ.

    Raises `ValueError` as `check_representation`, or the numbers of rows differ.
    """
    first = check_representation(R0, names[0], minimum_rows=minimum_rows)
    second = check_representation(R1, names[1], minimum_rows=minimum_rows)
    if len(first) != len(second):
        raise ValueError(
            f"Got {human_count(len(first), 'row')} in {names[0]} and {len(second)} in {names[1]}, "
            "expected the same samples in both"
        )
    return first, second
