"""RDR: relaxed decision regions.

Symbols: C (n, m) configurations, the on/off states of m neurons in n samples; k neighbours, t neurons. For one target:
the k samples with the fewest differing states -> the t neurons on which they all agree while the rest of the data does
not -> the region, all samples with those t states. No labels are used.

Reference: Chang, Kwon and Choi, "Understanding Distributed Representations of Concepts in Deep Neural Networks without
Supervision", AAAI 2024 (arXiv 2312.17285).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.regions.catalogue import MergedRegion, merge_regions
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.distances import METRICS, nearest_features
from rdxcli.methods.regions.region import EMPTY, UNBOUNDED, Region, build_region, membership
from rdxcli.methods.regions.selection import SELECTIONS, choose_neurons
from rdxcli.methods.regions.targets import Labels, Targets, choose_targets
from rdxcli.numerics import hamming
from rdxcli.numerics.neighbours import resolve_device
from rdxcli.parameters import Count
from rdxcli.progress import human_count, track

CHUNK = 1024  # targets whose neighbours are searched together


class RDR(Estimator):
    """Concepts as sets of samples that share a few neuron states.

    Parameters
    ----------
    n_neighbors : int, default 8
        k, the target counted among them (published).
    n_neurons : int or None, default 10
        t (published); None takes every unanimous neuron.
    threshold : float, "median", "quantile:Q" or array-like, default 0
        A neuron is on above it; see `Configurations.from_activations`.
    pool : {"none", "avg", "max"}
        Reduce maps to one neuron per channel first; the published method does not.
    mismatches : int, default 0
        States a member may violate (published: none).
    selection : {"ranked", "joint"}
        ``ranked``: neurons one by one by the rarity of their state (published). ``joint``: each neuron must remove most
        of what the earlier ones left, which needs fewer neurons and gives smaller regions.
    metric : {"configuration", "euclidean", "cosine"}
        How neighbours are found; the others than ``configuration`` compare ``features``.
    merge_overlap : float, default 0.5
        Regions that overlap a leading one by this Jaccard share become one concept.
    min_support : int, default 1
        Smallest number of regions in a concept.
    device : {"auto", "cpu", "cuda"}
        Where the matrix products for many targets run; the result is the same.
    random_state : int, default 0
        Draws the target when none is given.

    Attributes
    ----------
    configurations_ : Configurations
    targets_ : (r,) int64
    regions_ : list of Region
        One per target, in their order.
    concepts_ : list of MergedRegion
        The catalogue of merged regions.
    labels_ : Labels
    notes_ : list of str
        Remarks a reader must see: unbounded regions, ties, thresholds that do not fit.
    n_ : int

    Notes
    -----
    One-time: O(n m) to pack and count. Per target O(n m / 64 + k m / 64 + m + n t). Memory n m / 8 bytes, plus about
    1 MiB. All targets: O(n^2 m), in blocks, never n x n; then the members of n regions.

    Distances are small integers, so ties are the rule. They are resolved by row number (neighbours) and by the higher
    neuron (equal scores) on every machine; the original leaves them to an unstable sort that depends on the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> from rdxcli.methods.regions.rdr import RDR
    >>> rng = np.random.default_rng(0)
    >>> centre = rng.normal(size=(4, 64))
    >>> group = np.repeat(np.arange(4), 25)
    >>> z = centre[group] + 0.3 * rng.normal(size=(100, 64))
    >>> region = RDR().fit(z, targets=30, labels=group).regions_[0]
    >>> region.scores["label"], region.scores["purity"]
    ('1', 1.0)
    """

    def __init__(
        self,
        n_neighbors: Count = 8,
        n_neurons: Count | None = 10,
        *,
        threshold: float | str | ArrayLike = 0.0,
        pool: str = "none",
        mismatches: int = 0,
        selection: str = "ranked",
        metric: str = "configuration",
        merge_overlap: float = 0.5,
        min_support: Count = 1,
        device: str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_neurons = n_neurons
        self.threshold = threshold
        self.pool = pool
        self.mismatches = mismatches
        self.selection = selection
        self.metric = metric
        self.merge_overlap = merge_overlap
        self.min_support = min_support
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        activations: ArrayLike | Configurations,
        *,
        targets: Targets = None,
        labels: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        features: ArrayLike | None = None,
    ) -> RDR:
        """Find the region of every target.

        Parameters
        ----------
        activations : (n, d) or (n, c, h, w) array-like, or Configurations
            Configurations are used as they are; ``threshold`` and ``pool`` then have no effect.
        targets : int, sequence of int, str or None
            Rows, ``all``, ``class:NAME``, ``predicted:NAME``, ``misclassified`` or ``misclassified:NAME``; None draws
            one row.
        labels, predictions : (n,) array-like, optional
            True and predicted class of each sample. They score regions and choose targets, nothing else.
        features : (n, d) array-like, optional
            What the Euclidean and cosine metrics compare; default the activations.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            NaN, equal configurations for all samples, k above n, options out of range, labels of another length,
            targets that do not exist.
        """
        self._check_options()
        given = isinstance(activations, Configurations)
        if isinstance(activations, Configurations):
            configurations = activations
        else:
            configurations = Configurations.from_activations(activations, self.threshold, pool=self.pool)
        n = configurations.n
        if self.n_neighbors > n:
            raise ValueError(
                f"Got n_neighbors={self.n_neighbors} with {human_count(n, 'sample')}, expected at most {n}"
            )
        if n < 2 or configurations.constant:
            raise ValueError(
                f"Got {n} sample{'s' * (n > 1)} with one and the same configuration, expected states that differ: "
                "another threshold, for example 'median', or another layer"
            )
        if self.metric != "configuration" and features is None:
            if given:
                raise ValueError(f"Got metric={self.metric!r} with configurations only, expected features as well")
            features = activations  # type: ignore[assignment]
        if features is not None and len(np.asanyarray(features)) != n:
            raise ValueError(f"Got features of {human_count(len(np.asanyarray(features)), 'sample')}, expected {n}")
        self.n_ = n
        self.configurations_ = configurations
        self.labels_ = Labels.from_arrays(n, labels, predictions)
        self.targets_ = choose_targets(targets, self.labels_, n, self.random_state)
        self.regions_: list[Region] = []
        with track("regions", len(self.targets_), "targets") as advance:
            for start in range(0, len(self.targets_), CHUNK):
                chunk = self.targets_[start : start + CHUNK]
                for found in zip(chunk, *self._neighbours(configurations, chunk, features), strict=True):
                    self.regions_.append(self._region(*found))
                    advance(1)
        self.concepts_: list[MergedRegion] = merge_regions(
            self.regions_, n, overlap=self.merge_overlap, min_support=self.min_support
        )
        self.notes_ = [*configurations.notes, *self._remarks()]
        return self

    def membership(self, activations: ArrayLike | Configurations) -> np.ndarray:
        """Which samples, for example new ones, belong to which region.

        Parameters
        ----------
        activations : as in `fit`, with any number of samples
            The thresholds of the fitted data are used.

        Returns
        -------
        (n, number of regions) bool
            An unbounded region has no members.
        """
        if not isinstance(activations, Configurations):
            activations = self.configurations_.encode(activations)
        if activations.m != self.configurations_.m:
            raise ValueError(f"Got {human_count(activations.m, 'neuron')}, expected {self.configurations_.m}")
        return membership(self.regions_, activations)

    def documents(self, *, merged: bool = False) -> list[dict[str, Any]]:
        """``regions`` of the result document: one entry per target, or one per concept."""
        entries: list[Region] | list[MergedRegion] = self.concepts_ if merged else self.regions_
        return [entry.document(self.configurations_) for entry in entries]

    def _neighbours(
        self, configurations: Configurations, targets: np.ndarray, features: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, distances and whether the cut went through a tie, one more neighbour than k being looked at."""
        k = self.n_neighbors
        more = min(k + 1, configurations.n)
        index: np.ndarray
        if self.metric == "configuration":
            device = resolve_device(self.device)
            index, distance = hamming.nearest(configurations.words, configurations.m, targets, more, device=device)
            tied = distance[:, -1] == distance[:, k - 1] if more > k else np.zeros(len(targets), dtype=bool)
        else:
            assert features is not None  # set by fit
            index, distance = nearest_features(features, targets, more, metric=self.metric)
            ends = distance[:, [k - 1, more - 1]].astype(np.float32)
            tied = (ends[:, 0] == ends[:, 1]) & (more > k)
        return index[:, :k], distance[:, :k], tied

    def _region(self, target: int, neighbours: np.ndarray, distances: np.ndarray, tied: bool) -> Region:
        rule = choose_neurons(self.configurations_, neighbours, self.n_neurons, self.selection)
        return build_region(
            self.configurations_,
            int(target),
            neighbours,
            distances,
            rule,
            self.labels_,
            mismatches=self.mismatches,
            tied_neighbours=bool(tied),
        )

    def _remarks(self) -> list[str]:
        total = len(self.regions_)
        of = f"of {total} region{'s' * (total > 1)}"
        free = sum(not len(region.rule) for region in self.regions_)
        unbounded = sum(region.status == UNBOUNDED for region in self.regions_) - free
        empty = sum(region.status == EMPTY for region in self.regions_)
        few = sum(0 < len(region.rule) < (self.n_neurons or 0) for region in self.regions_)
        broad = sum(region.bounded and region.scores["coverage"] > 0.5 for region in self.regions_)
        cut = sum(region.tied_neighbours for region in self.regions_)
        level = sum(region.rule.tied for region in self.regions_)
        notes = []
        if free:
            notes.append(
                f"{free} {of} unbounded: there is no neuron on which all "
                f"{human_count(self.n_neighbors, 'neighbour', 'agree')}; "
                "use fewer neighbours"
            )
        if unbounded:
            notes.append(f"{unbounded} {of} unbounded: the rule holds for every sample")
        if empty:
            notes.append(f"{empty} {of} empty")
        if few and self.selection == "ranked":
            notes.append(
                f"{few} {of} with fewer than {human_count(self.n_neurons or 0, 'neuron')}: not more are unanimous"
            )
        if broad:
            notes.append(f"{broad} {of} hold more than half of all samples and say little")
        if cut:
            notes.append(f"{cut} {of} with a tie at neighbour {self.n_neighbors}, resolved by row number")
        if level:
            notes.append(f"{level} {of} with a tie at the last neuron, resolved by neuron number")
        if self.selection == "ranked" and not isinstance(self.configurations_.thresholds, float):
            rarity = self.configurations_.counts
            if np.ptp(rarity) <= 1:
                notes.append(
                    "every neuron is on equally often, so that all states are equally rare and the ranking follows the "
                    "neuron number; selection='joint' chooses by what a neuron removes"
                )
        return notes

    def _check_options(self) -> None:
        for name, least in (("n_neighbors", 1), ("n_neurons", 1), ("mismatches", 0), ("min_support", 1)):
            value = getattr(self, name)
            if name == "n_neurons" and value is None:
                continue
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise ValueError(f"Got {name}={value!r}, expected an integer of at least {least}")
        if self.n_neurons is not None and self.mismatches >= self.n_neurons:
            raise ValueError(
                f"Got mismatches={self.mismatches} with n_neurons={self.n_neurons}, expected fewer: all samples match"
            )
        for name, known in (("selection", SELECTIONS), ("metric", METRICS)):
            if getattr(self, name) not in known:
                raise ValueError(f"Got {name}={getattr(self, name)!r}, expected one of {', '.join(map(repr, known))}")
        if not 0 < self.merge_overlap <= 1:
            raise ValueError(f"Got merge_overlap={self.merge_overlap}, expected a share in (0, 1]")
