"""The numbers beside a comparison: how well the shown groups fit, how alike the models are, what was planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rdxcli.errors import UsageError
from rdxcli.methods.difference.change import neighbour_lists, shared
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.planted import Planted, recovery
from rdxcli.methods.difference.scores import EvaluationDistances, linear_cka, score_grids
from rdxcli.methods.difference.similarity import KNN_ROWS, mutual_neighbours, rsa
from rdxcli.progress import log
from rdxcli.representations.joining import Joined
from rdxcli.services.compare.predicted import Predictions

ALL_DISTANCES_BELOW = 20_000
"""Above this n the Euclidean and locally scaled scores, which need a pass over all pairs, are left out."""

DIRECT_BELOW = 3000
"""Below this n distances are direct differences; above, matrix products."""

PROBE_ROWS = 10_000

NEIGHBOURS = 10
"""Of each image, for what moved."""

PREFIXES = {"silb": "", "mned": "_euclidean", "zplsed": "_local"}

KNOWN_MERGES = {"digits-cnn-m35": ("3", "5"), "digits-cnn-m49": ("4", "9")}
"""Embedded models whose training called two digits one."""

KNOWN_TRUE = "digits-cnn"


class Evaluation:
    """Scores every method on one input; what does not depend on the method is computed once.

    Parameters
    ----------
    joined : Joined
    planted : Planted, optional
    seed : int
    """

    def __init__(self, joined: Joined, planted: Planted | None, seed: int) -> None:
        self.joined = joined
        self.planted = planted
        self.seed = seed
        self.predictions: Predictions | None = None
        """Of the linear probes, once `orientation` was asked for."""
        self._distances: dict[str, EvaluationDistances | None] = {}

    def scores(self, grids: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float | int | None]:
        """Every metric for the grids ``{"a": [...], "b": [...]}`` of one method.

        Raises nothing: what cannot be computed is None.
        """

        a, b = self.joined.a.values, self.joined.b.values
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
            n = self.joined.a.n
            self._distances[name] = None
            if name == "silb" or n <= ALL_DISTANCES_BELOW:
                try:
                    self._distances[name] = EvaluationDistances(
                        self.joined.a.values, self.joined.b.values, name, exact=n <= DIRECT_BELOW
                    )
                except ValueError as error:
                    log.warning("no %s scores: %s", name, error)
        return self._distances[name]

    @cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The ten nearest neighbours of every image in both: two (n, k) arrays; None above `ALL_DISTANCES_BELOW`."""
        n = self.joined.a.n
        if not 1 < n <= ALL_DISTANCES_BELOW:
            return None
        return neighbour_lists(*check_pair(self.joined.a.values, self.joined.b.values), min(NEIGHBOURS, n - 1))

    def _mutual_neighbours(self) -> float:
        if self.neighbours is not None and self.joined.a.n <= KNN_ROWS:
            first, second = self.neighbours
            return float(shared(first, second).mean() / first.shape[1])
        return mutual_neighbours(self.joined.a.values, self.joined.b.values, k=NEIGHBOURS, random_state=self.seed)

    @cached_property
    def orientation(self) -> dict[str, float | int | None]:
        """CKA, mutual nearest neighbours, RSA, and the probe where labels are known; the same for every method."""

        a, b = self.joined.a.values, self.joined.b.values
        out: dict[str, float | int | None] = {}
        for name, compute in (
            ("cka", lambda: linear_cka(a, b)),
            ("mutual_knn", self._mutual_neighbours),
            ("rsa", lambda: rsa(a, b, random_state=self.seed)),
        ):
            try:
                out[name] = compute()
            except ValueError as error:
                log.warning("no %s: %s", name, error)
                out[name] = None
        labels = self.joined.a.labels
        if labels is not None and len(a) <= PROBE_ROWS:
            from rdxcli.methods.difference.probe import classification_probe  # scikit-learn takes a second to load

            try:
                probe = classification_probe(a, b, labels, random_state=self.seed)
            except ValueError as error:
                log.info("no classification probe: %s", error)
            else:
                out["probe_accuracy_a"], out["probe_accuracy_b"] = map(float, probe.accuracy.mean(axis=1))
                out["probe_agreement"] = float(probe.agreement.mean())
                a_b = [np.asarray(probe.classes[row]).astype(str) for row in probe.predictions[:2]]
                self.predictions = Predictions(a_b[0], a_b[1], "linear probe, 5-fold")
        return out

    def _recovery(self, grids: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float | int | None]:

        if self.planted is None or self.joined.a.labels is None:
            return {}
        out: dict[str, float | int | None] = {}
        for side in ("a", "b"):
            found = recovery(self.planted, side, grids[side], self.joined.a.labels)
            out |= {f"hit_{side}": found.hit, f"good_grids_{side}": found.good, f"grids_{side}": found.grids}
        return out


def planted_difference(text: str | None, joined: Joined) -> Planted | None:
    """What is known of the true difference: ``--planted``, or the embedded models that are compared.

    Parameters
    ----------
    text : str, optional
        Classes that a model merges, for example ``3,5`` (the first model) or ``b:3,5``; both with ``a:3,5;b:4,9``.
    joined : Joined

    Raises
    ------
    UsageError
        Not of that form, no labels, or classes that the labels do not have.
    """
    labels = joined.a.labels
    if text is None:
        merged = [KNOWN_MERGES.get(side.name.partition("@")[0], ()) for side in (joined.a, joined.b)]
        known = {*KNOWN_MERGES, KNOWN_TRUE}
        both = all(side.name.partition("@")[0] in known for side in (joined.a, joined.b))
        if labels is None or not both or merged[0] == merged[1]:
            return None
        return Planted(*map(frozenset, merged))
    if labels is None:
        raise UsageError("--planted needs labels", "give them with --labels FILE, or use a data set that has them")
    sides: dict[str, frozenset[str]] = {}
    for part in text.split(";"):
        side, colon, names = part.partition(":")
        side, names = (side.strip(), names) if colon else ("a", part)
        classes = frozenset(name.strip() for name in names.split(",") if name.strip())
        if side not in ("a", "b") or len(classes) < 2 or side in sides:
            raise UsageError(f"--planted takes classes that a model merges, got `{text}`", "for example 3,5 or b:3,5")
        sides[side] = classes
    unknown = frozenset().union(*sides.values()) - _classes(labels)
    if unknown:
        raise UsageError(f"--planted: no image has the label {', '.join(f'`{name}`' for name in sorted(unknown))}")
    return Planted(sides.get("a", frozenset()), sides.get("b", frozenset()))


def _classes(labels: np.ndarray) -> frozenset[str]:
    return frozenset(map(str, labels.tolist()))


def describe_planted(planted: Planted | None) -> dict[str, Any] | None:
    """For the result document."""
    return None if planted is None else {side: sorted(planted.merged(side)) for side in ("a", "b")}
