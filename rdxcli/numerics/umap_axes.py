"""Points placed so that near neighbours stay near (UMAP), by the package of that name."""

from __future__ import annotations

import warnings

import numpy as np

from rdxcli.errors import DependencyError, installed

NEIGHBOURS, MIN_DIST = 15, 0.1
"""What the library uses by default."""

STARTING, PER_ROW = 20.0, 0.003
"""Seconds on one thread: compiling the library at its first use in a process, and each row."""


def require_umap() -> None:
    """Refuse before any work. Raises `DependencyError` (the extra ``umap`` is not installed)."""
    if not installed("umap"):
        raise DependencyError("umap-learn", "umap")


def umap_seconds(rows: int) -> float:
    """About how long the map of so many rows takes on one thread."""
    return STARTING + PER_ROW * rows


def umap_axes(
    values: np.ndarray,
    seed: int,
    components: int = 2,
    neighbours: int = NEIGHBOURS,
    min_dist: float = MIN_DIST,
) -> np.ndarray:
    """Coordinates of the rows of ``values`` by UMAP with Euclidean distances, on one thread: the same every time.

    Raises `DependencyError` (the extra ``umap`` is not installed).

    Parameters
    ----------
    values : (n, d) float
    seed : int
        In [0, 2**31).
    neighbours : int
        Of each row; at most n - 1 are used.

    Returns
    -------
    (n, components) float64
    """
    require_umap()
    n = len(values)
    if n < components + 2:  # the library needs more rows than axes
        return np.zeros((n, components))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns at import, and about running on one thread
        from umap import UMAP

        reducer = UMAP(
            n_components=components,
            n_neighbors=min(neighbours, n - 1),
            min_dist=min_dist,
            metric="euclidean",
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(reducer.fit_transform(values), dtype=np.float64)
