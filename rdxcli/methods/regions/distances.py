"""Three distances between samples, and the nearest samples under each.

Configuration distance counts differing bits; Euclidean and cosine distance compare the features themselves. The paper
sets them side by side: samples of different classes that share a concept are near in configuration and far in features.

Reference: Chang, Kwon and Choi, AAAI 2024 (arXiv 2312.17285), figure 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import scipy
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.numerics import hamming
from rdxcli.numerics.neighbours import row_blocks

METRICS = ("configuration", "euclidean", "cosine")


def distance_matrix(
    values: Configurations | ArrayLike,
    first: ArrayLike | None = None,
    second: ArrayLike | None = None,
    *,
    metric: str = "configuration",
) -> np.ndarray:
    """Distances between two lists of samples.

    Raises `ValueError` (unknown metric; features that are not (n, d) or not finite).

    Parameters
    ----------
    values : Configurations or (n, d) array-like
        Configurations for ``configuration``, features otherwise.
    first, second : index or mask array-like, optional
        Default all samples.
    metric : {"configuration", "euclidean", "cosine"}

    Returns
    -------
    (a, b) array
        int32 for ``configuration``, else float64. Cosine distance is 1 - similarity in [0, 2], and a row of zeros is at
        distance 1 from everything, itself included.
    """
    _known(metric)
    if metric == "configuration":
        if not isinstance(values, Configurations):
            raise ValueError(f"Got {type(values).__name__}, expected Configurations for metric='configuration'")
        left, right = (values.words[_rows(index, values.n)] for index in (first, second))
        if len(left) > hamming.FEW:
            return hamming.pairs(left, right, values.m)
        return np.stack([hamming.distances(right, query) for query in left])
    if isinstance(values, Configurations):
        raise ValueError(f"Got Configurations, expected features (n, d) for metric={metric!r}")
    X = as_features(values)
    left, right = (X[_rows(index, len(X))].astype(np.float64) for index in (first, second))
    if metric == "euclidean":
        return scipy.spatial.distance.cdist(left, right)
    return _cosine(_normalised(left), _normalised(right))


def nearest_features(
    features: ArrayLike, rows: ArrayLike, k: int, *, metric: str = "euclidean"
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest samples of some rows by their features, themselves included.

    Raises `ValueError` as `distance_matrix`, or k out of range.

    Parameters
    ----------
    features : (n, d) array-like
        Maps are flattened.
    rows : (r,) int
    metric : {"euclidean", "cosine"}

    Returns
    -------
    index : (r, k) int64
        Itself first, then by ascending distance; distances that agree in float32 tie and go by row number.
    distance : (r, k) float64
    """
    _known(metric)
    X = as_features(features).astype(np.float64)
    rows = np.asarray(rows, dtype=np.int64)
    if not 1 <= k <= len(X):
        raise ValueError(f"Got k={k}, expected between 1 and the number of rows, {len(X)}")
    if metric == "cosine":
        X = _normalised(X)
    index = np.empty((len(rows), k), dtype=np.int64)
    distance = np.empty((len(rows), k))
    for part in row_blocks(len(rows), len(X)):
        block = scipy.spatial.distance.cdist(X[rows[part]], X) if metric == "euclidean" else _cosine(X[rows[part]], X)
        for i, line in zip(range(part.start, part.stop), block, strict=True):
            keys = line.astype(np.float32)
            keys[rows[i]] = -1.0
            index[i] = hamming.smallest(keys, k)
            distance[i] = line[index[i]]
    return index, distance


def as_features(values: ArrayLike) -> np.ndarray:
    """Finite features, flattened to (n, d)."""
    X = np.asarray(values)
    if X.ndim < 2 or X.dtype.kind not in "fiub":
        raise ValueError(f"Got features of shape {X.shape} and type {X.dtype}, expected real numbers (n, d)")
    X = X.reshape(len(X), -1)
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        raise ValueError("Got NaN or infinite features, expected finite numbers")
    return X


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"Got metric={metric!r}, expected one of {', '.join(map(repr, METRICS))}")


def _rows(index: ArrayLike | None, n: int) -> np.ndarray:
    return np.atleast_1d(np.arange(n) if index is None else np.arange(n)[np.asarray(index)])


def _normalised(X: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(norm > 0, norm, 1.0)


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.clip(1.0 - left @ right.T, 0.0, 2.0)
