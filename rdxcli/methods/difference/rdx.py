"""RDX: representational difference explanations.

Symbols: R0 (n, d0) and R1 (n, d1), the same n images embedded by two models; D, diff, A as in
`rdxcli.methods.difference.graph`; k concepts per direction. Direction ``01``: images that model 0 puts close together
and model 1 keeps apart (closer in ``a``);
``10``: the reverse (closer in ``b``).

Reference: Kondapaneni, Mac Aodha and Perona, "Representational Difference Explanations", NeurIPS 2025 (arXiv
2505.23917).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.approximate import (
    AGREEMENT_ROWS,
    EXACT_UP_TO,
    OWN,
    Agreement,
    Approximate,
    agreement,
    draw_landmarks,
    fit_landmarks,
)
from rdxcli.methods.difference.graph import (
    DIFFERENCES,
    DIRECTIONS,
    DTYPES,
    SIMILARITIES,
    SYMMETRIES,
    Affinity,
    DifferenceGraph,
    Direction,
)
from rdxcli.methods.difference.grids import STRATEGIES, choose_images
from rdxcli.methods.difference.grouping import CLUSTERINGS, group
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.landmarks import difference_among
from rdxcli.methods.difference.results import DifferenceGroup, DirectionResult
from rdxcli.methods.difference.sides import Sides, pair_sides, taken
from rdxcli.methods.estimator import Estimator, clone
from rdxcli.numerics.neighbours import Array, resolve_device
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Count, Positive
from rdxcli.progress import human_count

__all__ = ["RDX", "DifferenceGroup", "DirectionResult"]

APPROXIMATE = ("auto", "never", "always")
LEAST_LANDMARKS = 50

RELIABLE = 0.7
"""Adjusted Rand index with the exact method below which approximate concepts are called unreliable."""


class RDX(Estimator):
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
    twins : float or None
        Concepts of one direction are joined where the excess of their mutual affinity over 1 is at least this share of
        the excess within the stronger: they are parts of one group. ``rdx compare`` takes 0.15; None is as published.
    sigma : int, default 7
        Neighbour that sets the length scale of ``local_scaling``.
    compat : bool, default False
        Reproduce the original's local scaling, where model 1 is multiplied by the distances of model 0 (trap T3).
    dtype : {"float32", "float64"}
        ``float32``: distances from one float64 matrix product, then float32. ``float64``: direct differences and
        float64 throughout, several times slower; ranks then differ from ``float32`` only where squared distances agree
        to about 6e-8.
    approximate : {"auto", "never", "always"}, default "auto"
        ``auto``: above 20,000 images an exact graph of ``landmarks`` of them is clustered and the others join it, see
        `rdxcli.methods.difference.landmarks`. ``always``: whenever there are more images than landmarks. A note says
        so, with the agreement measured on a subsample. ``never``: exact, with two n x n matrices.
    landmarks : int, default 8000
        More are more accurate: time grows with n x landmarks, memory with its square.
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
    agreement_ : dict of str to Agreement
        Per direction, for an approximate fit; empty for an exact one.
    doubts_ : dict of str to str
        Why the concepts of a direction of an approximate fit are not reliable; also the first of the notes.

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

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "similarity": SIMILARITIES,
        "difference": DIFFERENCES,
        "clustering": CLUSTERINGS,
        "selection": tuple(STRATEGIES),
        "symmetrize": SYMMETRIES,
        "dtype": DTYPES,
        "approximate": APPROXIMATE,
    }
    """Values of the parameters that are words."""

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        similarity: str = "neighborhood",
        difference: str = "locally_biased",
        gamma: Positive | None = 0.1,
        gamma_scale: Positive = 80.0,
        reference_n: Count | None = 5000,
        beta: Positive = 5.0,
        normalize: bool = False,
        clustering: str = "spectral",
        null_cluster: bool = True,
        num_samples: Count = 9,
        selection: str = "maximize_total_neighborhood_affinity",
        cluster_size: Count = 9,
        symmetrize: str = "affinity",
        affinity_threshold: float | None = None,
        twins: float | None = None,
        sigma: int = 7,
        compat: bool = False,
        dtype: str = "float32",
        approximate: str = "auto",
        landmarks: Count = 8000,
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
        self.twins = twins
        self.sigma = sigma
        self.compat = compat
        self.dtype = dtype
        self.approximate = approximate
        self.landmarks = landmarks
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
        pairs = pair_sides(R0, R1, labels0, labels1, mapped0, mapped1, mapped_labels0, mapped_labels1)
        self.directions_: dict[str, DirectionResult] = {}
        self.agreement_: dict[str, Agreement] = {}
        self.doubts_: dict[str, str] = {}
        self._graphs: dict[str, DifferenceGraph] = {}
        self._sides_of = pairs
        self._coordinates: dict[str, np.ndarray | None] = {}
        self._landmarks: np.ndarray | None = None
        if self.approximate_on(n):
            self._fit_landmarks(pairs)
        else:
            self._fit_exactly(pairs)
        return self

    def matrix_bytes(self, n: int) -> int:
        """Bytes of all matrices that a fit on n images holds at one time, besides the representations.

        Exact: the affinity and its symmetrised copy, or two wide rank matrices beside it. Approximate: the affinity
        and the sorted distances of the landmarks with their buckets, and the ranks of the images that are joining.
        """
        size = np.dtype(self.dtype).itemsize
        if self.approximate_on(n):
            return 6 * size * self.landmarks**2 + 8 * n * 4 * (self.n_clusters + 1)
        wide = self.symmetrize == "ranks" and n > 2**14
        return (2 * size + 4 * wide) * n**2

    def approximate_on(self, n: int) -> bool:
        """Whether a fit on n images is approximate.

        Raises
        ------
        ValueError
            Unknown ``approximate``, or too few landmarks.
        """
        if n <= self.landmarks or self.approximate == "never" or (self.approximate == "auto" and n <= EXACT_UP_TO):
            return False
        if self.landmarks < LEAST_LANDMARKS:
            raise ValueError(f"Got landmarks={self.landmarks}, expected at least {LEAST_LANDMARKS}")
        return True

    def _fit_exactly(self, pairs: Mapping[Direction, Sides], images: int | None = None) -> None:
        sides: Sides | None = None
        affinity: Affinity | None = None
        buffer: Array | None = None
        for direction in DIRECTIONS:
            if affinity is None or pairs[direction] is not sides:
                sides = pairs[direction]
                affinity = buffer = None  # freed before the next ones are made
                graph = self._graph(sides.first, sides.second, sides.first_labels, sides.second_labels, images)
                affinity = graph.affinity()
            self._graphs[direction] = graph
            groups, buffer = group(affinity, direction, self, self._note, buffer)
            samples = choose_images(
                self.selection,
                affinity,
                direction,
                groups.labels,
                graph.points[OWN[direction]],
                self.num_samples,
                generator(self.random_state, "rdx", "selection", direction),
                within=groups.within,
            )
            self._coordinates[direction] = groups.coordinates
            self.directions_[direction] = DirectionResult(
                direction, groups.labels, groups.affinities, groups.sizes, samples, groups.eigenvalues, groups.parts
            )

    def _fit_landmarks(self, pairs: Mapping[Direction, Sides]) -> None:
        n = self.n_
        self._landmarks = rows = draw_landmarks(n, self.landmarks, self.random_state)
        self._note(
            f"approximate: {len(rows):,} of {human_count(n, 'image')} are landmarks, which are grouped "
            "exactly; the others join them"
        )
        found: dict[Direction, Approximate] = {}
        shared = pairs["01"] is pairs["10"]
        for directions in (DIRECTIONS,) if shared else ((DIRECTIONS[0],), (DIRECTIONS[1],)):
            sides = pairs[directions[0]]
            part = sides.take(rows)
            graph = self._graph(part.first, part.second, part.first_labels, part.second_labels, images=n)
            self._graphs |= dict.fromkeys(directions, graph)
            found |= fit_landmarks(sides, graph, rows, directions, self, self._note)
        self.directions_ = {direction: found[direction].result for direction in DIRECTIONS}
        self._coordinates = {direction: found[direction].coordinates for direction in DIRECTIONS}
        self._measure(pairs, found)

    def _measure(self, pairs: Mapping[Direction, Sides], found: Mapping[Direction, Approximate]) -> None:
        """Compare with an exact fit on a subsample."""
        rows = np.sort(generator(self.random_state, "rdx", "agreement").permutation(self.n_)[:AGREEMENT_ROWS])
        exact = clone(self).set_params(approximate="never", gamma=self.gamma_)
        exact.n_, exact.notes_, exact._graphs, exact._coordinates, exact.directions_ = len(rows), [], {}, {}, {}
        try:
            exact._fit_exactly(taken(pairs, rows), images=self.n_)
        except ValueError as error:
            self._doubt(dict.fromkeys(DIRECTIONS, f"agreement with the exact method could not be measured: {error}"))
            return
        self.agreement_ = {
            direction: agreement(exact.directions_[direction], exact._coordinates[direction], found[direction], rows)
            for direction in DIRECTIONS
        }
        parts = [
            f"direction {direction}: adjusted Rand {one.rand:.2f}"
            + (f", subspace angle {one.angle:.0f} degrees" if one.angle is not None else "")
            + (f", shown images in the matching concept {one.shown:.0%}" if one.shown is not None else "")
            for direction, one in self.agreement_.items()
        ]
        self._doubt(
            {
                direction: f"the exact method finds others (adjusted Rand {one.rand:.2f}; 1 for the same, 0 by chance)"
                for direction, one in self.agreement_.items()
                if one.rand < RELIABLE
            }
        )
        drawn = (
            f"{human_count(len(rows), 'image')} drawn at random"
            if len(rows) < self.n_
            else f"all {human_count(self.n_, 'image')}"
        )
        self._note(f"agreement with the exact method on {drawn}: {'; '.join(parts)}")

    def _doubt(self, reasons: Mapping[str, str]) -> None:
        """Say first that concepts are not reliable, why, and what helps."""
        more = 2 * self.landmarks
        advice = f"landmarks={more}" if more < self.n_ else "approximate=never"
        for direction, reason in reasons.items():
            self.doubts_[direction] = (
                f"direction {direction}: not reliable at this size, {reason}; use {advice} or fewer concepts"
            )
        self.notes_[:0] = self.doubts_.values()

    def difference_rows(self, rows: np.ndarray, direction: Direction, columns: np.ndarray | None = None) -> np.ndarray:
        """The difference matrix of a direction for some rows, recomputed: float, negative where closer.

        For drawing; costs O(len(rows) n (d0 + d1 + log n)).

        Parameters
        ----------
        rows : int array
        direction : {"01", "10"}
        columns : int array, optional
            Default all images.

        Returns
        -------
        (len(rows), len(columns)) array
        """
        rows, graph = np.asarray(rows), self._graphs[direction]
        if self._landmarks is not None:
            columns = np.arange(self.n_) if columns is None else np.asarray(columns)
            among = difference_among(graph, self._sides_of[direction], rows, columns)
            return -among if direction == "01" else among
        block = graph.difference(rows, direction)
        block = block if isinstance(block, np.ndarray) else block.cpu().numpy()
        return block if columns is None else block[:, columns]

    def _graph(
        self, R0: ArrayLike, R1: ArrayLike, labels0: Any, labels1: Any, images: int | None = None
    ) -> DifferenceGraph:
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
            images=images,
            dtype=self.dtype,
            device=resolve_device(self.device),
        )
        self.gamma_ = graph.gamma
        if graph.whole_unit > 1.0:
            n = graph.n if images is None else images
            self._note(f"n = {n} is above {self.reference_n}: ranks are counted in units of {graph.whole_unit:.3g}")
        return graph

    def _note(self, text: str) -> None:
        if text not in self.notes_:
            self.notes_.append(text)

    def _check(self, n: int) -> None:
        for name, allowed in self.CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"Got {name}={getattr(self, name)!r}, expected one of {', '.join(map(repr, allowed))}")
        if self.twins is not None and not 0.0 < self.twins <= 1.0:
            raise ValueError(f"Got twins={self.twins!r}, expected None or a share above 0 and up to 1")
        for name in ("n_clusters", "num_samples", "cluster_size", "sigma", "landmarks"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Got {name}={value!r}, expected a positive integer")
        if self.clustering == "spectral":
            k = self.n_clusters + bool(self.null_cluster)
            what = f"n_clusters={self.n_clusters}" + (" and the null cluster" if self.null_cluster else "")
            if k > n:
                raise ValueError(
                    f"Got {what} with n={human_count(n, 'image')}, expected at most as many clusters as images"
                )
            if k == 1:
                raise ValueError("Got n_clusters=1 without a null cluster, expected at least two clusters")
        elif self.n_clusters > n:
            raise ValueError(
                f"Got n_clusters={self.n_clusters} with n={human_count(n, 'image')}, expected at most as "
                "many groups as images"
            )
