"""Intervals of shares: k successes of m trials (Wilson 1927, without continuity correction)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri


def signed_end(k: np.ndarray, m: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The end of the Wilson score interval of k successes of m trials at a signed normal quantile."""
    square = z * z
    root = np.sqrt(4.0 * k * ((m - k) / m) + square)
    return (2.0 * k + square + z * root) / (2.0 * (m + square))


def check_counts(k: np.ndarray, m: np.ndarray) -> None:
    """Refuse counts that are none: k successes of m trials."""
    if k.size and (np.any(m <= 0) or np.any(k < 0) or np.any(k > m)):
        raise ValueError("Got counts outside 0 <= k <= m or m < 1, expected k successes of m >= 1 trials")


def wilson_interval(k: ArrayLike, m: ArrayLike, confidence: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the Wilson score interval.

    Raises `ValueError` for impossible counts or confidences.

    Parameters
    ----------
    k, m : array_like of int, broadcastable
        Successes and trials, 0 <= k <= m, m >= 1.
    confidence : array_like of float in [0, 1)

    Returns
    -------
    low, high : ndarray of float64
    """
    k, m, q = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (k, m, confidence)))
    check_counts(k, m)
    if np.any(q < 0) or np.any(q >= 1):
        raise ValueError("Got a confidence outside [0, 1), expected a probability below 1")
    z = ndtri(0.5 + 0.5 * q)
    low = np.where(k == 0, 0.0, signed_end(k, m, -z))
    high = np.where(k == m, 1.0, signed_end(k, m, z))
    return low, high
