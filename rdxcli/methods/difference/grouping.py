"""Clusters of a difference graph, numbered as concepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rdxcli.methods.difference.centrality import eigenvector_centrality, greedy_groups, pagerank
from rdxcli.methods.difference.graph import Affinity, Direction
from rdxcli.numerics.neighbours import Array
from rdxcli.numerics.seeding import generator, integer_seed
from rdxcli.numerics.spectral import cluster, spectral_embedding
from rdxcli.progress import human_count

CLUSTERINGS = ("spectral", "pagerank", "eigenvector")


class Grouping(Protocol):
    """The parameters of `rdxcli.methods.difference.rdx.RDX` that matter here."""

    n_clusters: int
    clustering: str
    null_cluster: bool
    cluster_size: int
    affinity_threshold: float | None
    twins: float | None
    random_state: int


@dataclass(frozen=True)
class Groups:
    """Clusters of one direction before images are chosen.

    Attributes
    ----------
    labels, affinities, sizes, parts, eigenvalues
        See `rdxcli.methods.difference.results.DirectionResult`.
    within : (n,) float64
        Mean affinity of each row to its cluster.
    coordinates : (n, k) float64 or None
        In which spectral clustering found the clusters.
    clusters : (n,) int64
        As they were found, before they were numbered.
    """

    labels: np.ndarray
    affinities: np.ndarray
    sizes: np.ndarray
    parts: np.ndarray
    eigenvalues: np.ndarray
    within: np.ndarray
    coordinates: np.ndarray | None
    clusters: np.ndarray


def group(
    affinity: Affinity,
    direction: Direction,
    settings: Grouping,
    note: Callable[[str], None],
    buffer: Array | None = None,
) -> tuple[Groups, Array | None]:
    """Cluster one direction; ``buffer`` is a matrix to overwrite, returned for the next call."""
    eigenvalues = np.empty(0)
    coordinates: np.ndarray | None = None
    if affinity.largest_difference == 0.0:
        note("the two representations agree on every pair: there is no difference to explain")
        clusters = np.zeros(affinity.n, dtype=np.int64)
    elif settings.clustering == "spectral":
        buffer = affinity.symmetric(direction, buffer)
        clusters, coordinates, eigenvalues = _spectral(buffer, direction, settings, note)
    else:
        buffer = affinity.symmetric(direction, buffer, lower=True)
        if settings.clustering == "pagerank":
            score = pagerank(buffer)
        else:
            score = eigenvector_centrality(buffer, generator(settings.random_state, "rdx", "centrality", direction))
        clusters = greedy_groups(affinity, direction, score, settings.n_clusters, settings.cluster_size)
    labels, affinities, sizes, parts, within = numbered(affinity, direction, clusters, settings, note)
    return Groups(labels, affinities, sizes, parts, eigenvalues, within, coordinates, clusters), buffer


def numbered(
    affinity: Affinity,
    direction: Direction,
    clusters: np.ndarray,
    settings: Grouping,
    note: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clusters as concepts: labels, mean affinities, sizes, clusters of which each was joined, and the mean affinity of
    each row to its label.
    """
    within = affinity.within(direction, clusters)
    labels, affinities, sizes = _number(clusters, within, direction, settings, note)
    parts = np.ones(len(sizes), dtype=np.int64)
    if settings.twins is not None and len(sizes) > 2:
        joined = join_twins(affinity.between(direction, labels), sizes, settings.twins)
        if (fewer := len(sizes) - len(np.unique(joined))) > 0:
            kept = len(sizes) - 1 - fewer
            note(
                f"direction {direction}: {human_count(len(sizes) - 1, 'concept')} became {kept}: parts "
                "of one group are shown as one "
                "(`--param twins=null` leaves them apart)"
            )
            labels = joined[labels]
            within = affinity.within(direction, labels)
            means = np.bincount(labels, weights=within) / np.maximum(1, np.bincount(labels))
            found = np.unique(joined)[1:]
            numbers = np.zeros(len(sizes), dtype=np.int64)
            numbers[found[np.argsort(means[found], kind="stable")]] = np.arange(1, kept + 1)
            parts = np.bincount(numbers[joined], minlength=kept + 1)
            labels = numbers[labels]
            affinities = np.concatenate([affinities[:1], np.sort(means[found], kind="stable")])
            sizes = np.bincount(labels, minlength=kept + 1)
    if sizes[0]:
        if len(np.unique(clusters[labels == 0])) > 1:  # several clusters became one
            within = affinity.within(direction, labels)
        affinities[0] = within[labels == 0].mean()
    return labels, affinities, sizes, parts, within


def join_twins(between: np.ndarray, sizes: np.ndarray, limit: float) -> np.ndarray:
    """Join clusters that are parts of one group, the closest first.

    Two clusters are as close as the excess affinity (above 1) between them is large beside that within the stronger of
    them: the ratio is 1 for a group that was cut at random and 0 for two groups that the other model tells apart no
    more and no less than this one. Beside the stronger, so that a weak cluster does not dilute a clear one.

    Parameters
    ----------
    between : (k, k) array
        Mean affinities of clusters; cluster 0 is left alone.
    sizes : (k,) array
    limit : float
        Least ratio of a pair that is joined.

    Returns
    -------
    (k,) int64
        The cluster that each one belongs to.
    """
    into = np.arange(len(sizes))
    count = sizes.astype(np.float64)
    excess = (between - 1.0) * np.outer(count, count)  # sums, which joining adds up
    alive = [i for i in range(1, len(sizes)) if count[i]]
    while len(alive) > 1:
        mean = excess[np.ix_(alive, alive)] / np.outer(count[alive], count[alive])
        own = np.maximum(np.diag(mean), 1e-12)
        ratio = np.where(np.tri(len(alive), k=-1) > 0, mean / np.maximum.outer(own, own), -np.inf)
        one, other = np.unravel_index(int(ratio.argmax()), ratio.shape)
        if ratio[one, other] < limit:
            break
        i, j = alive[int(one)], alive[int(other)]
        into[into == i] = j
        excess[:, j] += excess[:, i]
        excess[j, :] += excess[i, :]
        count[j] += count[i]
        alive.remove(i)
    return into


def _spectral(
    weights: Array, direction: Direction, settings: Grouping, note: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k = settings.n_clusters + bool(settings.null_cluster)
    embedding = spectral_embedding(weights, k, generator(settings.random_state, "rdx", "eigenvectors", direction))
    if embedding.residual > 1e-3:
        note(
            f"direction {direction}: the eigenvectors converged only to a residual of {embedding.residual:.1g}; "
            "the graph has no clear clusters"
        )
    labels = cluster(embedding.coordinates, k, integer_seed(settings.random_state, "rdx", "k-means", direction))
    if labels.max() + 1 < k:
        note(f"direction {direction}: found {human_count(labels.max() + 1, 'distinct cluster')} instead of {k}")
    return labels, embedding.coordinates, embedding.eigenvalues


def _number(
    labels: np.ndarray, within: np.ndarray, direction: str, settings: Grouping, note: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give concepts the labels 1, 2, ... and everything else 0."""
    found = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=found)
    means = np.bincount(labels, weights=within, minlength=found) / np.maximum(sizes, 1)
    if settings.clustering == "spectral":
        order = np.argsort(means, kind="stable")
        dropped = set(order[:1].tolist()) if settings.null_cluster or found == 1 else set()
    else:
        order = np.arange(found)
        dropped = {0}
    if settings.affinity_threshold is not None:
        weak = {int(label) for label in order if means[label] < settings.affinity_threshold} - dropped
        if weak:
            note(
                f"direction {direction}: {len(weak)} cluster{'s' * (len(weak) > 1)} with a mean affinity below "
                f"{settings.affinity_threshold:g} left out"
            )
        dropped |= weak
    kept = [int(label) for label in order if int(label) not in dropped]
    numbers = np.zeros(found, dtype=np.int64)
    numbers[kept] = np.arange(1, len(kept) + 1)
    new = numbers[labels]
    affinities = np.concatenate([[np.nan], means[kept]])
    new_sizes = np.bincount(new, minlength=len(kept) + 1)
    return new, affinities, new_sizes
