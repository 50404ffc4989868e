"""The numbers beside a comparison: how well the shown groups fit, how alike the models are, what was planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from rdxcli.methods.difference.change import neighbour_lists, shared
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.planted import Planted, recovery
from rdxcli.methods.difference.probe import classification_probe
from rdxcli.methods.difference.scores import EvaluationDistances, linear_cka, score_grids
from rdxcli.methods.difference.similarity import KNN_ROWS, mutual_neighbours, rsa
from rdxcli.progress import log

ALL_DISTANCES_BELOW = 20_000
"""Above this n the Euclidean and locally scaled scores, which need a pass over all pairs, are left out."""

DIRECT_BELOW = 3000
"""Below this n distances are direct differences; above, matrix products."""

PROBE_ROWS = 10_000

NEIGHBOURS = 10
"""Of each image, for what moved."""

PREFIXES = {"silb": "", "mned": "_euclidean", "zplsed": "_local"}


class Evaluation:
    """Scores every method on one input; what does not depend on the method is computed once.

    Parameters
    ----------
    a, b : (n, d0) and (n, d1) arrays
    labels : (n,) array, optional
        Classes of the images.
    planted : Planted, optional
        What is known of the true difference.

    Attributes
    ----------
    probed : (n,) array and (n,) array, or None
        What linear probes predict from a and from b, once `orientation` was asked for.
    """

    def __init__(
        self,
        a: np.ndarray,
        b: np.ndarray,
        labels: np.ndarray | None = None,
        planted: Planted | None = None,
        random_state: int = 0,
    ) -> None:
        self.a, self.b, self.labels, self.planted, self.random_state = a, b, labels, planted, random_state
        self.probed: tuple[np.ndarray, np.ndarray] | None = None
        self._distances: dict[str, EvaluationDistances | None] = {}

    def scores(self, grids: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float | int | None]:
        """Every metric for the grids ``{"a": [...], "b": [...]}`` of one method.

        Raises nothing: what cannot be computed is None.
        """

        a, b = self.a, self.b
        out: dict[str, float | int | None] = {}
        for name, suffix in PREFIXES.items():
            distances = self._evaluation_distances(name)
            found = score_grids(a, b, grids["a"], grids["b"], distances, means=False) if distances is not None else None
            for side, one in (("a", found.first), ("b", found.second)) if found else ():
                out |= {f"bsr{suffix}_{side}": one.bsr, f"ties{suffix}_{side}": one.ties}
                out |= {f"tsd{suffix}_{side}": one.difference}
            if found:
                out |= {f"bsr{suffix}_mean": found.mean_bsr, f"tsd{suffix}_mean": found.mean_difference}
        return {**out, **self._recovery(grids), **self.orientation}

    def _evaluation_distances(self, name: str) -> EvaluationDistances | None:

        if name not in self._distances:
            n = len(self.a)
            self._distances[name] = None
            if name == "silb" or n <= ALL_DISTANCES_BELOW:
                try:
                    self._distances[name] = EvaluationDistances(self.a, self.b, name, exact=n <= DIRECT_BELOW)
                except ValueError as error:
                    log.warning("no %s scores: %s", name, error)
        return self._distances[name]

    @cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The ten nearest neighbours of every image in both: two (n, k) arrays; None above `ALL_DISTANCES_BELOW`."""
        n = len(self.a)
        if not 1 < n <= ALL_DISTANCES_BELOW:
            return None
        return neighbour_lists(*check_pair(self.a, self.b), min(NEIGHBOURS, n - 1))

    def _mutual_neighbours(self) -> float:
        if self.neighbours is not None and len(self.a) <= KNN_ROWS:
            first, second = self.neighbours
            return float(shared(first, second).mean() / first.shape[1])
        return mutual_neighbours(self.a, self.b, k=NEIGHBOURS, random_state=self.random_state)

    @cached_property
    def orientation(self) -> dict[str, float | int | None]:
        """CKA, mutual nearest neighbours, RSA, and the probe where labels are known; the same for every method."""

        a, b = self.a, self.b
        out: dict[str, float | int | None] = {}
        for name, compute in (
            ("cka", lambda: linear_cka(a, b)),
            ("mutual_knn", self._mutual_neighbours),
            ("rsa", lambda: rsa(a, b, random_state=self.random_state)),
        ):
            try:
                out[name] = compute()
            except ValueError as error:
                log.warning("no %s: %s", name, error)
                out[name] = None
        labels = self.labels
        if labels is not None and len(a) <= PROBE_ROWS and _learnable(labels):
            try:
                probe = classification_probe(a, b, labels, random_state=self.random_state)
            except ValueError as error:
                log.info("no classification probe: %s", error)
            else:
                out["probe_accuracy_a"], out["probe_accuracy_b"] = map(float, probe.accuracy.mean(axis=1))
                out["probe_agreement"] = float(probe.agreement.mean())
                a_b = [np.asarray(probe.classes[row]).astype(str) for row in probe.predictions[:2]]
                self.probed = a_b[0], a_b[1]
        return out

    def _recovery(self, grids: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float | int | None]:

        if self.planted is None or self.labels is None:
            return {}
        out: dict[str, float | int | None] = {}
        for side in ("a", "b"):
            found = recovery(self.planted, side, grids[side], self.labels)
            out |= {f"hit_{side}": found.hit, f"good_grids_{side}": found.good, f"grids_{side}": found.grids}
        return out


def _learnable(labels: np.ndarray) -> bool:
    """Whether most rows share their label with another one: no classifier learns a label from no example."""
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts[counts > 1].sum() * 2 >= counts.sum())
