"""How many directions? Fits with several numbers, compared by what holds on samples that they were not fitted on.

For every number the method runs on two halves of the samples. A number is *stable* when both halves give the same
detectors: the correlation of their outputs over all samples, partners chosen together, beside that of as many random
filters. Too many directions split what is one, and each half splits it elsewhere. The recommendation is the largest
number whose stability above chance, times the variance of unseen samples that it holds, is nearly the largest: fewer
directions would leave something out, more would not be found again.

Symbols: ``I`` directions; ``x`` (P, D) features by position. Cost: two fits for each number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import hypergeom
from sklearn.base import clone
from torch import Tensor

from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

from .base import Array, Directions
from .features import as_maps, positions
from .health import matched_cosines, variance
from .influence import claims, random_filters

AUTO = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)
"""Numbers that are tried unless some are given."""
NEARLY = 0.9
_POSITIONS = 16_384


@dataclass(frozen=True)
class Numbers:
    """What speaks for each number of directions.

    Attributes
    ----------
    rows : list of dict
        Per number: ``number``; ``explained``, share of the variance of unseen samples, beside ``random`` and ``best``
        directions; ``stability``, correlation of the detectors of both halves, beside ``chance``; ``cosine`` of their
        encoding directions; ``labels`` of samples that detectors tell on unseen samples, beside permuted labels
        (``labels_chance``), where there are labels.
    """

    rows: list[dict[str, float]]
    recommended: int
    reason: str


def how_many(
    estimator: Directions,
    features: Array | Tensor,
    head: Any = None,
    *,
    numbers: Iterable[int] | None = None,
    labels: Sequence[Any] | Array | None = None,
    random_state: int = 0,
) -> Numbers:
    """Compare numbers of directions of one method.

    Raises `ValueError` (fewer than two numbers that can be fitted on half of the samples).

    Parameters
    ----------
    estimator : Directions
        With ``n_directions``; it is not changed.
    features : array, shape (N, D, H, W) or (N, D)
    head : callable, optional
        For methods that use the network above the layer.
    numbers : iterable of int, optional
        Default is `AUTO`, as far as the features allow.
    labels : sequence, length N, optional
        Of the samples.
    """
    X = as_maps(features)
    order = generator(random_state, "how many").permutation(len(X))
    halves = [np.sort(part) for part in np.array_split(order, 2)]
    x = positions(X).double().numpy()
    x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), _POSITIONS)).astype(int))]
    rows, refused = [], ""
    for number in sorted(set(AUTO if numbers is None else numbers)):
        try:
            rows.append(_row(estimator, X, features.ndim == 2, head, halves, x, number, labels, random_state))
        except ValueError as error:
            refused = str(error)
            break
    if len(rows) < 2:
        raise ValueError(f"Got {len(rows)} number(s) that half of the samples allow, expected 2 or more. {refused}")
    return Numbers(rows, *_recommended(rows))


def _row(
    estimator: Directions,
    X: Tensor,
    flat: bool,
    head: Any,
    halves: list[Array],
    x: Array,
    number: int,
    labels: Sequence[Any] | Array | None,
    seed: int,
) -> dict[str, float]:
    found, explained = [], []
    for k, half in enumerate(halves):
        one = clone(estimator).set_params(n_directions=number)
        if "random_state" in one.get_params():
            one.set_params(random_state=seed + k)
        one.fit(X[half][:, :, 0, 0] if flat else X[half], head)
        dictionary = one.about()[1].get("dictionary")
        unseen = variance(one, X[halves[1 - k]])
        explained.append({**unseen, **({"explained": dictionary["explained_variance"]} if dictionary else {})})
        found.append(one)
    first, second = found
    shares = np.full(number, 1 / number)
    chance = random_filters(X[halves[1]], shares, random_state=seed, name="how many")
    row = {
        "number": number,
        **{name: float(np.mean([one[name] for one in explained])) for name in ("explained", "random", "best")},
        "stability": _alike(first, second, x),
        "chance": _alike(first, chance, x),
        "cosine": float(matched_cosines(first.encoding_, second.encoding_).mean()),
    }
    if labels is not None:
        own = np.array([str(label) for label in labels])
        rng = generator(seed, "how many labels")
        gained = [
            (_labels(one, X[rest], own[rest]), _labels(one, X[rest], rng.permutation(own[rest])))
            for one, rest in zip(found, halves[::-1], strict=True)
        ]
        row["labels"], row["labels_chance"] = (float(value) for value in np.mean(gained, axis=0))
    return row


def _alike(one: Directions, other: Directions, x: Array) -> float:
    """Mean |correlation| of the outputs of detectors with those of their partners."""
    outputs = []
    for directions in (one, other):
        z = x @ directions.decoding_.T
        z -= z.mean(0)
        outputs.append(z / np.maximum(np.linalg.norm(z, axis=0), np.finfo(float).tiny))
    correlation = np.abs(outputs[0].T @ outputs[1])
    rows, columns = linear_sum_assignment(-correlation)
    return float(correlation[rows, columns].sum() / len(correlation))


def _labels(directions: Directions, X: Tensor, labels: Array) -> int:
    """Labels that are over-represented where some detector fires, each detector by its best label."""
    fires = np.asarray(directions.detect(X)).reshape(len(X), len(directions.bias_), -1).any(2)
    names, of = np.unique(labels, return_inverse=True)
    both = fires.T.astype(float) @ np.eye(len(names))[of]
    p = hypergeom.sf(both - 1, len(X), np.bincount(of)[None], fires.sum(0)[:, None])
    corrected = np.minimum(p * len(names), 1.0)
    told = claims(corrected, 0.05)
    best = corrected.argmin(1)
    return len({int(best[i]) for i in np.flatnonzero(told.any(1))})


def _recommended(rows: list[dict[str, float]]) -> tuple[int, str]:
    above = np.array([(row["stability"] - row["chance"]) / max(1 - row["chance"], 1e-9) for row in rows])
    if above.max() < 0.25:
        chosen = rows[int(above.argmax())]
        return int(chosen["number"]), (
            f"no number is found again on the other half of the samples much better than random filters (at best "
            f"(correlation {chosen['stability']:.2f}, chance {chosen['chance']:.2f}): none is recommended over another"
        )
    merit = above * np.array([row["explained"] for row in rows])
    last = int(np.flatnonzero(merit >= NEARLY * merit.max())[-1])
    chosen = rows[last]
    reason = (
        f"{human_count(int(chosen['number']), 'direction', 'are')} found again on the other half of the samples "
        f"(correlation {chosen['stability']:.2f}, chance {chosen['chance']:.2f}) and hold "
        f"{chosen['explained']:.0%} of the variance"
    )
    if last + 1 < len(rows):
        after = rows[last + 1]
        reason += f"; with {after['number']:.0f} it is {after['stability']:.2f}"
    else:
        reason += "; more were not tried"
    return int(chosen["number"]), reason
