"""What concepts do over a data set, or over the images of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from rdxcli.progress import human_count

from .attribution import Attributions


@dataclass(frozen=True)
class ConceptSummary:
    """Mean concept scores of groups of images.

    Parameters
    ----------
    groups : sequence of str, length g
    sizes : ndarray (g,) int64
        Images in each group.
    empty : ndarray (g,) int64
        of which have no concepts.
    mean : ndarray (g, C) float64
        Mean score over all images of the group; absent concepts count as 0.
    error : ndarray (g, C) float64
        Standard error of that mean; NaN for a group of one.
    share : ndarray (g, C) float64
        Share of the group's images that have the concept.
    overall : ndarray (C,) float64
        Mean score over all images.
    """

    groups: Sequence[str]
    sizes: np.ndarray
    empty: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    share: np.ndarray
    overall: np.ndarray

    def top(self, group: int, names: Sequence[Any], k: int = 10, *, distinctive: bool = False) -> list[dict[str, Any]]:
        """The k concepts of one group with the largest mean score by absolute value.

        Parameters
        ----------
        names : sequence, length C
        distinctive : bool
            Rank by the difference to the other images' mean instead: what sets the group apart.
        """
        value = self.difference(group) if distinctive else self.mean[group]
        present = np.flatnonzero(value)
        order = present[np.lexsort((present, -np.abs(value[present])))][:k]
        return [
            {
                "concept": str(names[j]),
                "score": float(self.mean[group, j]),
                "error": None if np.isnan(self.error[group, j]) else float(self.error[group, j]),
                "share": float(self.share[group, j]),
                "difference": float(self.difference(group)[j]),
            }
            for j in order
        ]

    def difference(self, group: int) -> np.ndarray:
        """Mean of the group minus mean of all other images: (C,). Zero when there are no others."""
        n, m = int(self.sizes.sum()), int(self.sizes[group])
        if m in (0, n):
            return np.zeros_like(self.overall)
        return (self.mean[group] - self.overall) * (n / (n - m))


def summarise(attributions: Attributions, labels: Sequence[str] | np.ndarray | None = None) -> ConceptSummary:
    """Mean scores over the data set, or per label.

    Raises `ValueError` for a wrong number of labels or no images.

    Parameters
    ----------
    labels : sequence of str (n,), optional
        Without labels there is one group, ``all``.
    """
    scores = attributions.csr()
    n = scores.shape[0]
    if n == 0:
        raise ValueError("Got no images, expected at least one")
    if labels is not None and len(labels) != n:
        raise ValueError(f"Got {human_count(len(labels), 'label')} for {human_count(n, 'image')}, expected as many")
    names, member = np.unique(np.asarray(["all"] * n if labels is None else labels).astype(str), return_inverse=True)
    g = len(names)
    sizes = np.bincount(member, minlength=g)
    pick = csr_array((np.ones(n), (member, np.arange(n))), shape=(g, n))
    present = csr_array((np.ones(len(scores.data)), scores.indices, scores.indptr), shape=scores.shape)
    squares = csr_array((scores.data**2, scores.indices, scores.indptr), shape=scores.shape)
    mean, square, share = (np.asarray((pick @ part).toarray()) / sizes[:, None] for part in (scores, squares, present))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.maximum(square - mean**2, 0.0) / (sizes[:, None] - 1.0))
    error[sizes < 2] = np.nan
    return ConceptSummary(
        names.tolist(),
        sizes,
        np.bincount(member[~attributions.has_concepts], minlength=g),
        mean,
        error,
        share,
        (mean * sizes[:, None]).sum(axis=0) / n,
    )
