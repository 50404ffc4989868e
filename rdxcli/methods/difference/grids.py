"""Which images stand for a cluster: the strategies of the RDX specification, section 2.7.

"Own model" is the model in which the cluster's images are close: model 1 for direction 10, model 0 for direction 01.
Distances are Euclidean in its unmapped representation. A is the unsymmetrised affinity of the direction.
"""

from __future__ import annotations

import numpy as np

from rdxcli.methods.difference.graph import Affinity, Direction
from rdxcli.numerics.neighbours import Points, nearest, to_numpy

STRATEGIES = (
    "maximize_total_neighborhood_affinity",
    "max_affinity",
    "max_affinity_neighborhood",
    "max_affinity_spectral_neighborhood",
    "max_affinity_euclidean_neighborhood",
    "spectral_cluster_centroid",
    "centroid",
    "spectral_centrality",
    "random",
)

WHOLE_SET = ("centroid", "max_affinity_euclidean_neighborhood")

GATHER_ELEMENTS = 2**22


def choose_images(
    strategy: str,
    affinity: Affinity,
    direction: Direction,
    labels: np.ndarray,
    own: Points,
    num_samples: int,
    rng: np.random.Generator,
    *,
    within: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The images shown for every cluster.

    Parameters
    ----------
    strategy : str
        ``maximize_total_neighborhood_affinity`` (published default): for each member its k nearest members in the own
        model, itself included; of these sets the one with the largest total affinity over ordered pairs, nearest first.
        ``max_affinity``: members with the largest mean affinity to their cluster.
        ``max_affinity_neighborhood`` (also ``max_affinity_spectral_neighborhood``): the nearest members of the best of
        these.
        ``max_affinity_euclidean_neighborhood``: its nearest images of the whole set (the original crashes here, trap
        T9).
        ``spectral_cluster_centroid``: members nearest to the cluster's mean. ``centroid``: images of the whole set
        nearest to it.
        ``spectral_centrality``: members by the leading eigenvector of the block's unnormalised Laplacian, its largest
        entry positive.
        ``random``: members without replacement.
    direction : {"01", "10"}
    labels : (n,) int
        Every label from 0 to its maximum; a label without members gets an empty list.
    own : Points
        The own model.
    num_samples : int
        k = min(cluster size, num_samples) images are chosen; strategies that search the whole set choose num_samples.
    rng : numpy Generator
        Used by ``random`` only.
    within : (n,) float64, optional
        ``affinity.within(direction, labels)``, if known.

    Returns
    -------
    list of int64 arrays
        Row indices per label, best first. Ties go to the lower index.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Got selection={strategy!r}, expected one of {', '.join(map(repr, STRATEGIES))}")
    if strategy.startswith("max_affinity") and within is None:
        within = affinity.within(direction, labels)
    chosen = []
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        k = min(len(members), num_samples)
        if strategy in WHOLE_SET:
            k = min(len(labels), num_samples)
        if len(members) == 0:
            chosen.append(members)
        elif strategy == "maximize_total_neighborhood_affinity":
            chosen.append(_tightest_neighbourhood(affinity, direction, own, members, k))
        elif strategy == "spectral_centrality":
            chosen.append(_spectral_centrality(affinity, direction, members)[:k])
        elif strategy == "random":
            chosen.append(rng.choice(members, size=k, replace=False))
        elif strategy in ("centroid", "spectral_cluster_centroid"):
            pool = members if strategy == "spectral_cluster_centroid" else np.arange(len(labels))
            chosen.append(pool[_to_mean(own, members, pool)[:k]])
        else:
            assert within is not None
            ranked = members[np.argsort(-within[members], kind="stable")]
            if strategy == "max_affinity":
                chosen.append(ranked[:k])
            elif strategy == "max_affinity_euclidean_neighborhood":
                chosen.append(nearest(own, k, ranked[:1])[0])
            else:
                anchor = np.searchsorted(members, ranked[:1])
                chosen.append(members[nearest(own, k, anchor, members=members)[0]])
    return chosen


def neighbourhoods(
    affinity: Affinity, direction: Direction, own: Points, members: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each member with its k - 1 nearest members: (m, k) int64, itself first, and the total affinity of each set."""
    neighbours = members[nearest(own, k, members=members)]
    # Two members with one neighbour set must tie exactly, so the set is summed in ascending order of index.
    ordered = np.sort(neighbours, axis=1)
    totals = np.empty(len(members))
    step = max(1, GATHER_ELEMENTS // (k * k))
    for start in range(0, len(members), step):
        part = ordered[start : start + step]
        totals[start : start + step] = affinity.take(direction, part[:, :, None], part[:, None, :]).sum(axis=(1, 2))
    return neighbours, totals


def _tightest_neighbourhood(
    affinity: Affinity, direction: Direction, own: Points, members: np.ndarray, k: int
) -> np.ndarray:
    neighbours, totals = neighbourhoods(affinity, direction, own, members, k)
    return np.asarray(neighbours[int(np.argmax(totals))])


def _to_mean(own: Points, members: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Positions in ``pool`` by ascending distance to the mean of ``members``."""
    values = to_numpy(own.values)
    offset = values[pool] - values[members].mean(axis=0)
    return np.argsort((offset * offset).sum(axis=1), kind="stable")


def _spectral_centrality(affinity: Affinity, direction: Direction, members: np.ndarray) -> np.ndarray:
    block = affinity.take(direction, members[:, None], members[None, :])
    weights = (block + block.T) / 2
    np.fill_diagonal(weights, 0.0)
    vector = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights)[1][:, -1]
    if vector[np.argmax(np.abs(vector))] < 0:
        vector = -vector
    return members[np.argsort(-vector, kind="stable")]
