"""RDX: representational difference explanations.

Symbols: R0 (n, d0) and R1 (n, d1), the same n images embedded by two models; D, diff, A as in
`rdxcli.methods.difference.graph`; k concepts per direction. Direction ``01``: images that model 0 puts close together
and model 1 keeps apart (closer in ``a``);
``10``: the reverse (closer in ``b``).

Reference: Kondapaneni, Mac Aodha and Perona, "Representational Difference Explanations", NeurIPS 2025 (arXiv
2505.23917).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from rdxcli.methods.difference.centrality import eigenvector_centrality, greedy_groups, pagerank
from rdxcli.methods.difference.graph import DIRECTIONS, Affinity, DifferenceGraph, Direction
from rdxcli.methods.difference.grids import STRATEGIES, choose_images
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.results import Concept, DirectionResult
from rdxcli.numerics.neighbours import Array, Points, resolve_device
from rdxcli.numerics.seeding import generator, integer_seed
from rdxcli.numerics.spectral import cluster, spectral_embedding

__all__ = ["RDX", "Concept", "DirectionResult"]

CLUSTERINGS = ("spectral", "pagerank", "eigenvector")


@dataclass(frozen=True)
class _Groups:
    """Clusters of one direction before images are chosen: see `DirectionResult`; ``within`` is per row."""

    labels: np.ndarray
    affinities: np.ndarray
    sizes: np.ndarray
    eigenvalues: np.ndarray
    within: np.ndarray


class RDX(BaseEstimator):
    """Groups of images that two models see differently.

    Distances of each model -> locally biased difference -> affinity graph -> clusters of the graph -> a compact set of
    images per cluster, in both directions. No labels, no training. Note that there are always clusters, also where the
    models do not differ: see `rdxcli.methods.difference.significance`.

    Parameters
    ----------
    n_clusters : int, default 3
        Concepts per direction (3 for the paper's MNIST experiments, 5 for the others).
    similarity : {"neighborhood", "max_normalized", "local_scaling"}
        Distances that are compared; the paper's RDX uses neighbour ranks.
    difference : {"locally_biased", "standard"}
    gamma : float or None, default 0.1
        Slope of the locally biased difference. The published runs use 0.1 (MNIST modifications and CUB, n about 5,000)
        and 0.05 (n at most 2,000); None takes the original code's default ``gamma_scale / n``, which no published run
        uses. 0.1 is the default at every n because the difference is a ratio of ranks: (q - p) / (1 + min(p, q)) barely
        changes when both ranks grow with n, so a gamma that shrinks with n would fade the graph out.
    gamma_scale : float, default 80
        Used when ``gamma`` is None.
    reference_n : int or None, default 5000
        Only the "1 +" in that ratio depends on n. Above ``reference_n`` images (the paper's largest set) ranks are
        therefore counted in units of n / reference_n: the same pair then has the same difference as in a subsample of
        ``reference_n`` images, and gamma keeps its meaning. None: the published formula at every n. No effect up to
        ``reference_n`` images.
    beta : float, default 5
        Affinity exp(-beta diff), in [exp(-beta), exp(beta)].
    normalize : bool, default False
        Divide the difference by its largest absolute entry (published for ``difference="standard"``).
    clustering : {"spectral", "pagerank", "eigenvector"}
        ``pagerank`` and ``eigenvector`` pick ``n_clusters`` central nodes with their strongest neighbours.
    null_cluster : bool, default True
        Spectral only: ask for one cluster more and set the one with the lowest mean affinity aside as label 0.
    num_samples : int, default 9
        Images shown per concept (published: a 3 x 3 grid).
    selection : str
        How they are chosen, see `rdxcli.methods.difference.grids.choose_images`.
    cluster_size : int, default 9
        Group size of the centrality methods.
    symmetrize : {"affinity", "ranks"}
        ``affinity``: as in the paper, W = (A + A^T) / 2. ``ranks``: (D + D^T) / 2 before the difference (a later
        upstream variant).
    affinity_threshold : float or None
        Clusters with a mean affinity below it are no concepts (label 0).
    sigma : int, default 7
        Neighbour that sets the length scale of ``local_scaling``.
    compat : bool, default False
        Reproduce the original's local scaling, where model 1 is multiplied by the distances of model 0 (trap T3).
    dtype : {"float32", "float64"}
        ``float32``: distances from one float64 matrix product, then float32. ``float64``: direct differences and
        float64 throughout, several times slower; ranks then differ from ``float32`` only where squared distances agree
        to about 6e-8.
    device : {"auto", "cpu", "cuda"}
    random_state : int, default 0
        Each direction has its own random stream.

    Attributes
    ----------
    directions_ : dict of str to DirectionResult
        Keys ``01`` and ``10``.
    gamma_ : float
        Slope that was used.
    notes_ : list of str
        Remarks a reader must see.
    n_ : int

    Notes
    -----
    Time O(n^2 (d0 + d1 + log n)) for the graph and O(n^2 b) per step of the eigensolver, b about k + 5. Memory: two
    n x n matrices of ``dtype`` (the affinity and its symmetrised copy), 8 n^2 bytes in float32, plus O(n (d0 + d1)).
    With ``symmetrize="ranks"`` two integer rank matrices (int16 up to n = 16,384, so together one float32 matrix) take
    the place of the symmetrised copy while the affinity is computed.

    Examples
    --------
    >>> import numpy as np
    >>> from rdxcli.methods.difference.rdx import RDX
    >>> rng = np.random.default_rng(0)
    >>> group = np.repeat(np.arange(4), 15)
    >>> where = rng.normal(size=(4, 6)) * 5
    >>> a = where[np.where(group == 3, 2, group)] + rng.normal(size=(60, 6))   # model a merges groups 2 and 3
    >>> b = where[group] + rng.normal(size=(60, 6))
    >>> rdx = RDX(n_clusters=1).fit(a, b)
    >>> sorted(set(group[rdx.directions_["01"].concepts[0].samples].tolist()))
    [2, 3]
    """

    def __init__(
        self,
        n_clusters: int = 3,
        *,
        similarity: str = "neighborhood",
        difference: str = "locally_biased",
        gamma: float | None = 0.1,
        gamma_scale: float = 80.0,
        reference_n: int | None = 5000,
        beta: float = 5.0,
        normalize: bool = False,
        clustering: str = "spectral",
        null_cluster: bool = True,
        num_samples: int = 9,
        selection: str = "maximize_total_neighborhood_affinity",
        cluster_size: int = 9,
        symmetrize: str = "affinity",
        affinity_threshold: float | None = None,
        sigma: int = 7,
        compat: bool = False,
        dtype: str = "float32",
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.similarity = similarity
        self.difference = difference
        self.gamma = gamma
        self.gamma_scale = gamma_scale
        self.reference_n = reference_n
        self.beta = beta
        self.normalize = normalize
        self.clustering = clustering
        self.null_cluster = null_cluster
        self.num_samples = num_samples
        self.selection = selection
        self.cluster_size = cluster_size
        self.symmetrize = symmetrize
        self.affinity_threshold = affinity_threshold
        self.sigma = sigma
        self.compat = compat
        self.dtype = dtype
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        R0: ArrayLike,
        R1: ArrayLike,
        *,
        labels0: ArrayLike | None = None,
        labels1: ArrayLike | None = None,
        mapped0: ArrayLike | None = None,
        mapped1: ArrayLike | None = None,
        mapped_labels0: ArrayLike | None = None,
        mapped_labels1: ArrayLike | None = None,
    ) -> RDX:
        """Find the concepts of both directions.

        Parameters
        ----------
        R0, R1 : array-like of shapes (n, d0) and (n, d1)
            Row i of both belongs to image i.
        labels0, labels1 : (n,) array-like, optional
            Guidance: a label per image for each model (the data set's classes for both, or each model's predictions).
            Pairs that a model labels differently count as far apart in it.
        mapped0, mapped1 : (n, d0) and (n, d1) array-like, optional
            Aligned mode: R0 mapped towards R1 and R1 mapped towards R0. Direction 10 then compares (mapped0, R1) and
            direction 01 (R0, mapped1). The chosen images still follow distances in R0 and R1.
        mapped_labels0, mapped_labels1 : (n,) array-like, optional
            Guidance for the mapped representations; default ``labels0`` and ``labels1``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Different numbers of rows, NaN or infinite values, constant representations, more clusters than images,
            unknown or contradictory options.
        """
        R0, R1 = check_pair(R0, R1)
        n = len(R0)
        self._check(n)
        self.n_ = n
        self.notes_: list[str] = []
        if (mapped0 is None) != (mapped1 is None):
            raise ValueError("Got one mapped representation, expected both mapped0 and mapped1 or none")
        own = {"01": R0, "10": R1}
        self.directions_: dict[str, DirectionResult] = {}
        self._graphs: dict[str, DifferenceGraph] = {}
        if mapped0 is None or mapped1 is None:
            graph = self._graph(R0, R1, labels0, labels1)
            self._graphs = {"01": graph, "10": graph}
            affinity = graph.affinity()
            buffer: Array | None = None
            for direction, points in zip(DIRECTIONS, graph.points, strict=True):
                self.directions_[direction], buffer = self._direction(affinity, direction, points, buffer)
            return self
        if labels0 is not None and mapped_labels0 is None:
            mapped_labels0 = labels0
        if labels1 is not None and mapped_labels1 is None:
            mapped_labels1 = labels1
        for name, mapped in (("mapped0", mapped0), ("mapped1", mapped1)):
            if np.ndim(mapped) != 2 or len(np.asarray(mapped)) != n:
                raise ValueError(f"Got {name} of shape {np.shape(mapped)}, expected ({n}, d)")
        pairs: dict[Direction, tuple[Any, ...]] = {
            "01": (R0, mapped1, labels0, mapped_labels1),
            "10": (mapped0, R1, mapped_labels0, labels1),
        }
        for direction, (first, second, first_labels, second_labels) in pairs.items():
            graph = self._graphs[direction] = self._graph(first, second, first_labels, second_labels)
            points = Points(own[direction], exact=self.dtype == "float64", device=graph.device)
            self.directions_[direction], _ = self._direction(graph.affinity(), direction, points, None)
        return self

    def difference_rows(self, rows: np.ndarray, direction: Direction) -> np.ndarray:
        """The difference matrix of a direction for some rows, recomputed: (len(rows), n) float, negative where closer.

        For drawing; costs O(len(rows) n (d0 + d1 + log n)).
        """
        block = self._graphs[direction].difference(np.asarray(rows), direction)
        return block if isinstance(block, np.ndarray) else block.cpu().numpy()

    def _graph(self, R0: ArrayLike, R1: ArrayLike, labels0: Any, labels1: Any) -> DifferenceGraph:
        graph = DifferenceGraph(
            R0,
            R1,
            similarity=self.similarity,
            difference=self.difference,
            gamma=self.gamma,
            gamma_scale=self.gamma_scale,
            beta=self.beta,
            normalize=self.normalize,
            labels0=labels0,
            labels1=labels1,
            sigma=self.sigma,
            transposed_scaling=self.compat,
            symmetrize=self.symmetrize,
            reference_n=self.reference_n,
            dtype=self.dtype,
            device=resolve_device(self.device),
        )
        self.gamma_ = graph.gamma
        if graph.unit > 1.0:
            self._note(f"n = {graph.n} is above {self.reference_n}: ranks are counted in units of {graph.unit:.3g}")
        return graph

    def _direction(
        self, affinity: Affinity, direction: Direction, own: Points, buffer: Array | None
    ) -> tuple[DirectionResult, Array | None]:
        groups, buffer = self._group(affinity, direction, buffer)
        rng = generator(self.random_state, "rdx", "selection", direction)
        samples = choose_images(
            self.selection, affinity, direction, groups.labels, own, self.num_samples, rng, within=groups.within
        )
        result = DirectionResult(direction, groups.labels, groups.affinities, groups.sizes, samples, groups.eigenvalues)
        return result, buffer

    def _group(
        self, affinity: Affinity, direction: Direction, buffer: Array | None = None
    ) -> tuple[_Groups, Array | None]:
        """Cluster one direction; ``buffer`` is a matrix to overwrite, returned for the next call."""
        eigenvalues = np.empty(0)
        if affinity.largest_difference == 0.0:
            self._note("the two representations agree on every pair: there is no difference to explain")
            clusters = np.zeros(affinity.n, dtype=np.int64)
        elif self.clustering == "spectral":
            clusters, eigenvalues, buffer = self._spectral(affinity, direction, buffer)
        else:
            buffer = affinity.symmetric(direction, buffer, lower=True)
            if self.clustering == "pagerank":
                score = pagerank(buffer)
            else:
                score = eigenvector_centrality(buffer, generator(self.random_state, "rdx", "centrality", direction))
            clusters = greedy_groups(affinity, direction, score, self.n_clusters, self.cluster_size)
        within = affinity.within(direction, clusters)
        labels, affinities, sizes = self._number(clusters, within, direction)
        if sizes[0]:
            if len(np.unique(clusters[labels == 0])) > 1:  # several clusters became one
                within = affinity.within(direction, labels)
            affinities[0] = within[labels == 0].mean()
        return _Groups(labels, affinities, sizes, eigenvalues, within), buffer

    def _spectral(
        self, affinity: Affinity, direction: Direction, buffer: Array | None
    ) -> tuple[np.ndarray, np.ndarray, Array]:
        k = self.n_clusters + bool(self.null_cluster)
        buffer = affinity.symmetric(direction, buffer)
        embedding = spectral_embedding(buffer, k, generator(self.random_state, "rdx", "eigenvectors", direction))
        if embedding.residual > 1e-3:
            self._note(
                f"direction {direction}: the eigenvectors converged only to a residual of {embedding.residual:.1g}; "
                "the graph has no clear clusters"
            )
        labels = cluster(embedding.coordinates, k, integer_seed(self.random_state, "rdx", "k-means", direction))
        if labels.max() + 1 < k:
            self._note(f"direction {direction}: found {labels.max() + 1} distinct clusters instead of {k}")
        return labels, embedding.eigenvalues, buffer

    def _number(
        self, labels: np.ndarray, within: np.ndarray, direction: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give concepts the labels 1, 2, ... and everything else 0."""
        found = int(labels.max()) + 1
        sizes = np.bincount(labels, minlength=found)
        means = np.bincount(labels, weights=within, minlength=found) / np.maximum(sizes, 1)
        if self.clustering == "spectral":
            order = np.argsort(means, kind="stable")
            dropped = set(order[:1].tolist()) if self.null_cluster or found == 1 else set()
        else:
            order = np.arange(found)
            dropped = {0}
        if self.affinity_threshold is not None:
            weak = {int(label) for label in order if means[label] < self.affinity_threshold} - dropped
            if weak:
                self._note(
                    f"direction {direction}: {len(weak)} cluster{'s' * (len(weak) > 1)} with a mean affinity below "
                    f"{self.affinity_threshold:g} left out"
                )
            dropped |= weak
        kept = [int(label) for label in order if int(label) not in dropped]
        numbers = np.zeros(found, dtype=np.int64)
        numbers[kept] = np.arange(1, len(kept) + 1)
        new = numbers[labels]
        affinities = np.concatenate([[np.nan], means[kept]])
        new_sizes = np.bincount(new, minlength=len(kept) + 1)
        return new, affinities, new_sizes

    def _note(self, text: str) -> None:
        if text not in self.notes_:
            self.notes_.append(text)

    def _check(self, n: int) -> None:
        if self.clustering not in CLUSTERINGS:
            raise ValueError(f"Got clustering={self.clustering!r}, expected one of {', '.join(map(repr, CLUSTERINGS))}")
        if self.selection not in STRATEGIES:
            raise ValueError(f"Got selection={self.selection!r}, expected one of {', '.join(map(repr, STRATEGIES))}")
        for name in ("n_clusters", "num_samples", "cluster_size", "sigma"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Got {name}={value!r}, expected a positive integer")
        if self.clustering == "spectral":
            k = self.n_clusters + bool(self.null_cluster)
            what = f"n_clusters={self.n_clusters}" + (" and the null cluster" if self.null_cluster else "")
            if k > n:
                raise ValueError(f"Got {what} with n={n} images, expected at most as many clusters as images")
            if k == 1:
                raise ValueError("Got n_clusters=1 without a null cluster, expected at least two clusters")
        elif self.n_clusters > n:
            raise ValueError(
                f"Got n_clusters={self.n_clusters} with n={n} images, expected at most as many groups as images"
            )
