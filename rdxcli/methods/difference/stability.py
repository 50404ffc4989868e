"""How far single concepts can be trusted: p-values against versions of one model, stability under resampling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.approximate import contingency, found_again
from rdxcli.methods.difference.graph import DIRECTIONS, Affinity, Direction
from rdxcli.methods.difference.grouping import group
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.sides import pair_sides
from rdxcli.methods.difference.verdict import DifferenceTest, strengths
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
) -> dict[str, dict[int, dict[str, Any]]]:
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
        ``{direction: {label: {"stability", "p_value", "effect", "strength", "interval"}}}`` for every concept, None for
        what was not measured. The strength is (mean affinity - 1) x (share of the images), what the concept explains;
        its interval of 95 % over images takes the group as it was found. Stability is the mean, over resamples, of the
        best Jaccard overlap between the concept (restricted to the images drawn) and a concept of the refit, as in
        Hennig (2007); above 0.75 counts as stable. The p-value is the probability that the strongest concept between
        two versions of one model is at least as strong, so that all concepts of a comparison can be read at once; the
        effect is how many standard deviations of that null the strength lies above its mean, which goes on where the
        p-value has reached its floor.
    """
    R0, R1 = check_pair(R0, R1)
    n = len(R0)
    options = {name: np.asarray(value) for name, value in (fit_options or {}).items() if value is not None}
    overlaps: dict[str, dict[int, list[float]]] = {
        direction: {concept.label: [] for concept in result.concepts}
        for direction, result in estimator.directions_.items()
    }

    drawn: dict[str, dict[int, list[float]]] = {
        side: {label: [] for label in lists} for side, lists in overlaps.items()
    }
    sizes: list[int] = []
    graphs = GRAPHS if n > max_rows else 1
    with track("bootstrap of the images", bootstraps, "samples") as advance:
        for g in range(min(graphs, bootstraps)):
            base = np.sort(generator(random_state, "stability", "graph", g).permutation(n)[:max_rows])
            affinities = _affinities(estimator, R0[base], R1[base], {name: one[base] for name, one in options.items()})
            draws = range(g, bootstraps, graphs)
            ours = {side: result.labels[base] for side, result in estimator.directions_.items()}
            resample = partial(_resample, estimator, affinities, ours, random_state)
            for part, labels, within in map_in_threads(resample, draws):
                sizes.append(len(part))
                for side, found in labels.items():
                    mine = ours[side][part]
                    _overlap(mine, found, overlaps[side])
                    for label, values in drawn[side].items():
                        inside = within[side][mine == label]
                        values.append(float((inside - 1.0).sum() / len(part)))
                advance(1)
    # A part of m of the n images varies less, or more, around all of them than these around all there could be.
    scale = np.sqrt(np.mean(sizes) / (n - np.mean(sizes))) if sizes and np.mean(sizes) < n else 1.0
    null = None if test is None else test.concepts
    out: dict[str, dict[int, dict[str, Any]]] = {}
    for direction, result in estimator.directions_.items():
        found = strengths(result.affinities, result.sizes, n)
        out[direction] = {}
        for concept in result.concepts:
            values = overlaps[direction][concept.label]
            strength = float(found[concept.label])
            margin = 1.96 * scale * float(np.std(drawn[direction][concept.label])) if values else None
            out[direction][concept.label] = {
                "stability": float(np.mean(values)) if values else None,
                "p_value": None if null is None else null.p_value(strength),
                "effect": None if null is None else null.effect(strength),
                "strength": strength,
                "interval": None if margin is None else (strength - margin, strength + margin),
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
    estimator: RDX,
    affinities: Mapping[Direction, Affinity],
    ours: Mapping[str, np.ndarray],
    random_state: int,
    b: int,
) -> tuple[np.ndarray, dict[Direction, np.ndarray], dict[Direction, np.ndarray]]:
    """Images drawn with replacement, each kept once, the labels that clustering them anew gives, and how close each
    image is on average to those of its own concept.

    The graph of the images drawn is that of all of them, restricted: the difference is a ratio of ranks, and both ranks
    of a pair shrink alike when images are left out.
    """
    n = len(next(iter(ours.values())))
    part = np.unique(generator(random_state, "stability", b).integers(0, n, size=n))
    labels: dict[Direction, np.ndarray] = {}
    within: dict[Direction, np.ndarray] = {}
    buffer = None
    for direction, affinity in affinities.items():
        some = affinity.restricted(part)
        try:
            groups, buffer = group(some, direction, estimator, lambda _: None, buffer)
        except ValueError:
            continue
        labels[direction] = groups.labels
        within[direction] = some.within(direction, ours[direction][part])
    return part, labels, within


def _overlap(ours: np.ndarray, theirs: np.ndarray, lists: dict[int, list[float]]) -> None:
    counts = contingency(theirs, ours, int(ours.max()))
    for label, (overlap, _) in enumerate(found_again(counts), start=1):
        if label in lists and counts[:, label].any():
            lists[label].append(overlap)
