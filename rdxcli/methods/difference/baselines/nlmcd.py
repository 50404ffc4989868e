"""NLMCD: non-linear multi-dimensional concept discovery, concepts as clusters of a UMAP embedding.

Symbols: E (n, c) embedding of one model; S (n, q) soft memberships in its q clusters; Delta (q0, q1) difference between
clusters of both models.

References: Vielhaben et al., NLMCD, 2024; Campello et al., HDBSCAN, 2013; McInnes et al., UMAP, 2018; specification of
RDX, section 4.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from scipy.optimize import linear_sum_assignment

from rdxcli.errors import DependencyError, installed
from rdxcli.methods.difference.baselines.base import Baseline
from rdxcli.methods.difference.graph import DIRECTIONS
from rdxcli.numerics.seeding import generator, integer_seed
from rdxcli.numerics.umap_axes import umap_axes
from rdxcli.parameters import Count, NonNegative
from rdxcli.progress import human_count


class NLMCD(Baseline):
    """Clusters of each model without a counterpart in the other one.

    Needs the package ``umap-learn`` (the extra ``umap``) unless ``components`` is None.

    Parameters
    ----------
    n_clusters : int, default 3
        Clusters shown per model.
    num_samples : int, default 9
        Members drawn at random.
    components : int or None, default 50
        Dimensions of the UMAP embedding; None clusters the representations as they are.
    neighbours : int, default 30
    min_dist : float, default 0.01
    min_cluster_size : int, default 50
    min_samples : int, default 20
    stride : int, default 5
        Every so many-th image is used to compare clusters.
    most_shared : bool, default False
        Show the clusters that are most alike in both models, as the original's code does although its documentation
        says the opposite (trap T1).
    random_state : int, default 0

    Attributes
    ----------
    difference_ : (q0, q1) float64
        Difference between the clusters of both models, 0 = same behaviour.
    match_ : (2, min(q0, q1)) int64
        Pairs of clusters with the smallest total difference, for orientation.
    """

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        num_samples: Count = 9,
        components: Count | None = 50,
        neighbours: Annotated[int, Ge(2)] = 30,
        min_dist: NonNegative = 0.01,
        min_cluster_size: Annotated[int, Ge(2)] = 50,
        min_samples: Count = 20,
        stride: Count = 5,
        most_shared: bool = False,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.components = components
        self.neighbours = neighbours
        self.min_dist = min_dist
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.stride = stride
        self.most_shared = most_shared
        self.random_state = random_state

    def _fit(self, R0: np.ndarray, R1: np.ndarray) -> None:
        n = len(R0)
        for module, package in (("hdbscan", "hdbscan"), ("umap", "umap-learn")):
            if not installed(module) and not (module == "umap" and self.components is None):
                raise DependencyError(package, "umap")
        least = max(
            2 * self.min_cluster_size, self.neighbours + 1, 0 if self.components is None else self.components + 2
        )
        if n < least:
            raise ValueError(
                f"Got n={human_count(n, 'image')}, expected at least {least} for NLMCD with these settings"
            )
        clusters = []
        for model, R in enumerate((R0, R1)):
            E = R if self.components is None else self._embed(R, model, self.components)
            found = soft_clusters(E, self.min_cluster_size, self.min_samples)
            if found.count == 0:
                raise ValueError(f"HDBSCAN finds no cluster in model {'ab'[model]}; lower min_cluster_size")
            clusters.append(found)
        self.difference_ = cluster_difference(clusters[0].soft[:: self.stride], clusters[1].soft[:: self.stride])
        self.match_ = best_match(self.difference_)
        for model, direction in enumerate(DIRECTIONS):
            picked = np.sort(pick(self.difference_.min(axis=1 - model), self.n_clusters, most_shared=self.most_shared))
            rng = generator(self.random_state, "nlmcd", "images", model)
            labels = np.zeros(n, dtype=np.int64)
            samples = []
            for label, cluster in enumerate(picked, start=1):
                members = np.flatnonzero(clusters[model].hard == cluster)
                labels[members] = label
                samples.append(rng.permutation(members)[: self.num_samples])
            self._store(direction, labels, samples)

    def _embed(self, R: np.ndarray, model: int, components: int) -> np.ndarray:
        seed = integer_seed(self.random_state, "nlmcd", "umap", model)
        return umap_axes(R, seed, components, self.neighbours, self.min_dist)


@dataclass(frozen=True)
class SoftClusters:
    """HDBSCAN clusters of one embedding.

    Attributes
    ----------
    labels : (n,) int64
        -1 = noise.
    soft : (n, q) float64
        Memberships of every point.
    hard : (n,) int64
        Approximate prediction for the same points, -1 = noise.
    strength : (n,) float64
        How central each point is in its cluster; 0 for noise.
    """

    labels: np.ndarray
    soft: np.ndarray
    hard: np.ndarray
    strength: np.ndarray

    @property
    def count(self) -> int:
        """Number of clusters q."""
        return int(self.soft.shape[1])

    def centroids(self, E: np.ndarray) -> np.ndarray:
        """Means of the members of each cluster weighted by their strength: (q, c)."""
        return np.stack(
            [
                np.average(E[own], axis=0, weights=self.strength[own])
                for c in range(self.count)
                for own in [self.labels == c]
            ]
        )


def soft_clusters(E: np.ndarray, min_cluster_size: int, min_samples: int) -> SoftClusters:
    """Leaf clusters of HDBSCAN with Euclidean distances and their soft memberships."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old spellings inside the library
        import hdbscan

        model = hdbscan.HDBSCAN(
            min_cluster_size=min_cluster_size,
            min_samples=min_samples,
            cluster_selection_method="leaf",
            metric="euclidean",
            prediction_data=True,
            core_dist_n_jobs=1,
        ).fit(E)
        n = len(E)
        q = int(model.labels_.max()) + 1
        if q == 0:
            return SoftClusters(model.labels_.astype(np.int64), np.zeros((n, 0)), np.full(n, -1), np.zeros(n))
        soft = np.asarray(hdbscan.membership_vector(model, E), dtype=np.float64).reshape(n, -1)
        hard, _ = hdbscan.approximate_predict(model, E)
    return SoftClusters(model.labels_.astype(np.int64), soft, np.asarray(hard, dtype=np.int64), model.probabilities_)


def cluster_difference(S0: np.ndarray, S1: np.ndarray) -> np.ndarray:
    """Delta[a, b]: half the mean over pairs i < j of | |S0_ia - S0_ja| - |S1_ib - S1_jb| |.

    Parameters
    ----------
    S0, S1 : (m, q0) and (m, q1) arrays

    Returns
    -------
    (q0, q1) float64
        In [0, 1/2].

    Notes
    -----
    As ||x| - |y|| = |x - y| + |x + y| - |x| - |y|, the mean is made of four mean absolute differences between
    pairs of numbers (S0_a - S1_b, S0_a + S1_b, S0_a, S1_b), each of which needs one sort: O(q0 q1 m log m) instead of
    O(q0 q1 m^2).
    """
    if len(S0) < 2:
        raise ValueError(f"Got {human_count(len(S0), 'image')} to compare clusters on, expected at least two")
    own = [_mean_gap(S) for S in (S0, S1)]
    out = np.empty((S0.shape[1], S1.shape[1]))
    for a in range(S0.shape[1]):
        column = S0[:, a : a + 1]
        out[a] = _mean_gap(column - S1) + _mean_gap(column + S1) - own[0][a] - own[1]
    return np.maximum(out / 2.0, 0.0)


def _mean_gap(values: np.ndarray) -> np.ndarray:
    """Mean over pairs i < j of |v_i - v_j|, per column."""
    m = len(values)
    weights = 2.0 * np.arange(m) - (m - 1)
    return weights @ np.sort(values, axis=0) / (m * (m - 1) / 2)


def best_match(difference: np.ndarray) -> np.ndarray:
    """One-to-one pairs (2, min(q0, q1)) with the smallest total difference."""
    return np.stack(linear_sum_assignment(difference)).astype(np.int64)


def pick(smallest: np.ndarray, k: int, *, most_shared: bool = False) -> np.ndarray:
    """Positions of the k clusters that differ most from their best counterpart, most different first.

    Parameters
    ----------
    smallest : (q,) array
        Smallest difference of each cluster to any cluster of the other model.
    most_shared : bool
        The k smallest instead, smallest first.
    """
    return np.argsort(smallest if most_shared else -smallest, kind="stable")[:k]
