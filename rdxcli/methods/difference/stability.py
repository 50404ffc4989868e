"""How far single concepts can be trusted: p-values against versions of one model, stability under resampling."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.verdict import DifferenceTest, exceedance, strengths
from rdxcli.numerics.seeding import generator
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import track


def concept_stability(
    estimator: RDX,
    R0: ArrayLike,
    R1: ArrayLike,
    *,
    test: DifferenceTest | None = None,
    bootstraps: int = 20,
    fit_options: Mapping[str, ArrayLike] | None = None,
    max_rows: int = 1500,
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
    max_rows : int, default 1500
        Largest resample.
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

    def resample(b: int) -> tuple[np.ndarray, RDX | None]:
        rng = generator(random_state, "stability", b)
        part = np.unique(rng.integers(0, n, size=n))
        if len(part) > max_rows:
            part = np.sort(rng.permutation(part)[:max_rows])
        return part, _refit(estimator, R0[part], R1[part], {name: value[part] for name, value in options.items()})

    with track("bootstrap of the images", bootstraps, "samples") as advance:
        for part, refit in map_in_threads(resample, range(bootstraps)):
            for direction, result in estimator.directions_.items():
                if refit is not None:
                    _overlap(result.labels[part], refit.directions_[direction].labels, overlaps[direction])
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


def _refit(estimator: RDX, R0: np.ndarray, R1: np.ndarray, options: Mapping[str, np.ndarray]) -> RDX | None:
    """The estimator on a resample, or None when the resample cannot be clustered (tiny or constant)."""
    fresh = clone(estimator).set_params(gamma=estimator.gamma_, approximate="never")
    try:
        return fresh.fit(R0, R1, **options)
    except ValueError:
        return None


def _overlap(ours: np.ndarray, theirs: np.ndarray, lists: dict[int, list[float]]) -> None:
    for label, values in lists.items():
        mine = ours == label
        if not mine.any():
            continue
        both = np.bincount(theirs[mine], minlength=int(theirs.max()) + 1)
        union = mine.sum() + np.bincount(theirs) - both
        values.append(float((both / union)[1:].max(initial=0.0)))
