"""How far single concepts can be trusted: p-values against versions of one model, stability under resampling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.graph import DIRECTIONS, Affinity, Direction
from rdxcli.methods.difference.grouping import group
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.sides import pair_sides
from rdxcli.methods.difference.verdict import DifferenceTest, exceedance, strengths
from rdxcli.methods.estimator import clone
from rdxcli.numerics.seeding import generator
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import track

GRAPHS = 5  # of different images, over which the resamples of a large set are spread


def concept_stability(
    estimator: RDX,
    R0: ArrayLike,
    R1: ArrayLike,
    *,
    test: DifferenceTest | None = None,
    bootstraps: int = 20,
    fit_options: Mapping[str, ArrayLike] | None = None,
    max_rows: int = 1000,
    random_state: int = 0,
) -> dict[str, dict[int, dict[str, float | None]]]:
    """How far single concepts can be trusted.

    Parameters
    ----------
    estimator : RDX
        Fitted on ``R0, R1``.
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    test : DifferenceTest, optional
        Gives the p-values, when it was made with this estimator.
    bootstraps : int, default 20
        Resamplings of the images; 0 leaves the stability out.
    fit_options : mapping, optional
        Keyword arguments of ``estimator.fit`` (labels, mapped representations), resampled along.
    max_rows : int, default 1000
        Images of one graph; above, every fifth of the resamples has images of its own.
    random_state : int, default 0

    Returns
    -------
    dict
        ``{direction: {label: {"stability": float or None, "p_value": float or None}}}`` for every concept. Stability is
        the mean, over resamples, of the best Jaccard overlap between the concept (restricted to the images drawn) and a
        concept of the refit, as in Hennig (2007); above 0.75 counts as stable. The p-value is the probability that the
        strongest concept between two versions of one model is at least as strong, so that all concepts of a comparison
        can be read at once.
    """
    R0, R1 = check_pair(R0, R1)
    n = len(R0)
    options = {name: np.asarray(value) for name, value in (fit_options or {}).items() if value is not None}
    overlaps: dict[str, dict[int, list[float]]] = {
        direction: {concept.label: [] for concept in result.concepts}
        for direction, result in estimator.directions_.items()
    }

    graphs = GRAPHS if n > max_rows else 1
    with track("bootstrap of the images", bootstraps, "samples") as advance:
        for g in range(min(graphs, bootstraps)):
            base = np.sort(generator(random_state, "stability", "graph", g).permutation(n)[:max_rows])
            affinities = _affinities(estimator, R0[base], R1[base], {name: one[base] for name, one in options.items()})
            draws = range(g, bootstraps, graphs)
            resample = partial(_resample, estimator, affinities, len(base), random_state)
            for part, labels in map_in_threads(resample, draws):
                for side, found in labels.items():
                    _overlap(estimator.directions_[side].labels[base[part]], found, overlaps[side])
                advance(1)
    null = None if test is None else test.concepts_null
    out: dict[str, dict[int, dict[str, float | None]]] = {}
    for direction, result in estimator.directions_.items():
        found = strengths(result.affinities, result.sizes, n)
        out[direction] = {}
        for concept in result.concepts:
            values = overlaps[direction][concept.label]
            strength = float(found[concept.label])
            out[direction][concept.label] = {
                "stability": float(np.mean(values)) if values else None,
                "p_value": None if null is None else exceedance(strength, null),
            }
    return out


def _affinities(
    estimator: RDX, R0: np.ndarray, R1: np.ndarray, options: Mapping[str, np.ndarray]
) -> dict[Direction, Affinity]:
    """The graph of some images in both directions; empty when they cannot be compared (tiny or constant)."""
    fresh = clone(estimator).set_params(gamma=estimator.gamma_)
    fresh.notes_ = []
    names = ("labels0", "labels1", "mapped0", "mapped1", "mapped_labels0", "mapped_labels1")
    pairs = pair_sides(R0, R1, *(options.get(name) for name in names))
    affinities: dict[Direction, Affinity] = {}
    try:
        for direction in DIRECTIONS:
            sides = pairs[direction]
            if affinities and pairs["10"] is pairs["01"]:
                affinities[direction] = next(iter(affinities.values()))
                continue
            graph = fresh._graph(sides.first, sides.second, sides.first_labels, sides.second_labels)
            affinities[direction] = graph.affinity()
    except ValueError:
        return {}
    return affinities


def _resample(
    estimator: RDX, affinities: Mapping[Direction, Affinity], n: int, random_state: int, b: int
) -> tuple[np.ndarray, dict[Direction, np.ndarray]]:
    """Images drawn with replacement, each kept once, and the labels that clustering them anew gives.

    The graph of the images drawn is that of all of them, restricted: the difference is a ratio of ranks, and both ranks
    of a pair shrink alike when images are left out.
    """
    part = np.unique(generator(random_state, "stability", b).integers(0, n, size=n))
    labels: dict[Direction, np.ndarray] = {}
    buffer = None
    for direction, affinity in affinities.items():
        try:
            groups, buffer = group(affinity.restricted(part), direction, estimator, lambda _: None, buffer)
        except ValueError:
            continue
        labels[direction] = groups.labels
    return part, labels


def _overlap(ours: np.ndarray, theirs: np.ndarray, lists: dict[int, list[float]]) -> None:
    for label, values in lists.items():
        mine = ours == label
        if not mine.any():
            continue
        both = np.bincount(theirs[mine], minlength=int(theirs.max()) + 1)
        union = mine.sum() + np.bincount(theirs) - both
        values.append(float((both / union)[1:].max(initial=0.0)))
