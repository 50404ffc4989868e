"""Grouping by centrality: the alternative to spectral clustering in RDX (specification, section 2.6).

The graph is the affinity's lower triangle mirrored, with self loops, because that is what an undirected graph library
keeps of an asymmetric matrix (later edges overwrite earlier ones).
"""

from __future__ import annotations

import numpy as np

from rdxcli.lazy import torch
from rdxcli.methods.difference.graph import Affinity, Direction
from rdxcli.numerics.neighbours import Array
from rdxcli.numerics.spectral import leading_eigenpairs
from rdxcli.progress import human_count


def _product(weights: Array, vectors: np.ndarray) -> np.ndarray:
    if not isinstance(weights, np.ndarray):
        right = torch.as_tensor(vectors, device=weights.device).to(weights.dtype)
        return (weights @ right).cpu().numpy().astype(np.float64)
    return (weights @ vectors.astype(weights.dtype)).astype(np.float64)


def pagerank(weights: Array, damping: float = 0.85, tolerance: float = 1e-6, max_iterations: int = 100) -> np.ndarray:
    """PageRank of a dense undirected weighted graph: (n,) float64, sum 1.

    Raises `ValueError` (no convergence, which for a connected graph takes a ``damping`` close to 1).

    Parameters
    ----------
    weights : (n, n) symmetric, positive row sums
    damping : float
        Probability to follow an edge.
    tolerance : float
        Stop when the L1 change of one iteration is below ``n * tolerance``, as published.
    """
    n = len(weights)
    degree = _product(weights, np.ones((n, 1)))[:, 0]
    score = np.full(n, 1.0 / n)
    for _ in range(max_iterations):
        fresh = damping * _product(weights, (score / degree)[:, None])[:, 0] + (1.0 - damping) / n
        change = np.abs(fresh - score).sum()
        score = fresh
        if change < n * tolerance:
            return score
    raise ValueError(f"PageRank did not converge in {human_count(max_iterations, 'iteration')} (damping {damping})")


def eigenvector_centrality(weights: Array, rng: np.random.Generator, tolerance: float | None = None) -> np.ndarray:
    """Leading eigenvector of a dense positive matrix: (n,) float64, non-negative, norm 1."""
    n = len(weights)
    norm = float(_product(weights, np.ones((n, 1))).max())  # bounds the largest eigenvalue
    if tolerance is None:
        tolerance = 1e-5 if weights.itemsize == 4 else 1e-11
    pairs = leading_eigenpairs(lambda block: _product(weights, block) / norm, n, 1, rng, tolerance=tolerance)
    vector = pairs.vectors[:, 0]
    return np.abs(vector) / np.linalg.norm(vector)


def greedy_groups(
    affinity: Affinity, direction: Direction, score: np.ndarray, n_clusters: int, cluster_size: int
) -> np.ndarray:
    """Groups around the most central nodes: (n,) int64, 0 background, 1 .. n_clusters in the order of picking.

    ``n_clusters`` times: the free node with the largest score and, of the free nodes, the ``cluster_size - 1`` with the
    largest affinity in its row (its own column, affinity 1, is a candidate like any other).
    """
    labels = np.zeros(len(score), dtype=np.int64)
    everything = np.arange(len(score))
    for label in range(1, n_clusters + 1):
        free = np.flatnonzero(labels == 0)
        if not len(free):
            break
        seed = free[np.argmax(score[free])]
        row = affinity.take(direction, np.full(len(everything), seed), everything)
        nearest = free[np.argsort(-row[free], kind="stable")[: cluster_size - 1]]
        labels[seed] = label
        labels[nearest] = label
    return labels
