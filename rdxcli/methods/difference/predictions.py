"""Predictions of two models on the same images: what changes, for the better or the worse, and where.

Symbols: n images; y_a, y_b predicted classes; y true classes, if known. Churn is the share of images with y_a != y_b. A
negative flip is right in a and wrong in b, a positive flip the reverse.

References: Milani Fard et al., "Launch and iterate: reducing prediction churn", NeurIPS 2016; Yan et al.,
"Positive-congruent training: towards regression-free model updates", CVPR 2021; Wilson, JASA 1927; Newcombe,
"Interval estimation for the difference between independent proportions", Statistics in Medicine 1998 (method 10);
McNemar, Psychometrika 1947.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

NORMAL = 1.959963984540054  # 97.5 % of the standard normal distribution


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = count / total, NORMAL**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    margin = NORMAL / (1 + z2 / total) * float(np.sqrt(share * (1 - share) / total + z2 / (4 * total**2)))
    return max(0.0, centre - margin), min(1.0, centre + margin)


def newcombe(first: int, of_first: int, second: int, of_second: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two independent shares."""
    p, q = first / of_first, second / of_second
    (low_p, high_p), (low_q, high_q) = wilson(first, of_first), wilson(second, of_second)
    below = float(np.sqrt((p - low_p) ** 2 + (high_q - q) ** 2))
    above = float(np.sqrt((high_p - p) ** 2 + (q - low_q) ** 2))
    return p - q - below, p - q + above


def mcnemar(negative: int, positive: int) -> float:
    """Exact two-sided p-value that flips go both ways equally often."""
    total = negative + positive
    if total == 0:
        return 1.0
    k = np.arange(min(negative, positive) + 1)
    log_mass = gammaln(total + 1) - gammaln(k + 1) - gammaln(total - k + 1) - total * np.log(2.0)
    return min(1.0, 2.0 * float(np.exp(log_mass).sum()))


def fisher(inside: int, group: int, every: int, n: int) -> float:
    """Exact two-sided p-value that a group has as many marked images as a random one of its size.

    Parameters
    ----------
    inside : int
        Marked images in the group.
    group : int
        Images in the group.
    every : int
        Marked images in all.
    n : int
        Images in all.
    """
    k = np.arange(max(0, group + every - n), min(group, every) + 1)
    mass = hypergeometric(k, group, every, n)
    return min(1.0, float(mass[mass <= mass[k == inside][0] * (1.0 + 1e-7)].sum()))


def hypergeometric(k: np.ndarray, group: int, every: int, n: int) -> np.ndarray:
    """Probability of k marked images in a random group; see `fisher`."""

    def choose(total: int, part: np.ndarray) -> np.ndarray:
        return np.asarray(gammaln(total + 1) - gammaln(part + 1) - gammaln(total - part + 1))

    return np.asarray(np.exp(choose(every, k) + choose(n - every, group - k) - choose(n, np.array(group))))


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected.tolist()


def compare_predictions(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | None = None,
) -> dict[str, Any]:
    """What changes between the predictions of two models.

    Parameters
    ----------
    first, second : (n,) array-like of str or int
        Predicted classes.
    labels : (n,) array-like, optional
        True classes, spelled as the predictions are.
    groups : mapping of str to (n,) array-like of bool, optional
        Images that are looked at by themselves, such as the concepts of a comparison.

    Returns
    -------
    dict
        ``n``, ``churn``, with labels also ``accuracy_a``, ``accuracy_b``, ``negative_flips``, ``positive_flips`` (each
        ``{count, value, low, high}``, 95 %), ``flips_p`` (McNemar), ``classes`` (by true class, or by the first
        prediction) and ``groups``: counts, the rate of negative flips (without labels: of changed predictions), its
        difference from all other images with an interval, and a p-value (Fisher) corrected for the number of groups
        (Holm).

    Raises
    ------
    ValueError
        Different numbers of predictions or labels, or none.
    """
    a, b = (np.asarray(one).astype(str) for one in (first, second))
    n = len(a)
    if n == 0 or a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"Got predictions of shapes {a.shape} and {b.shape}, expected one per image and model")
    changed = a != b
    marks: dict[str, np.ndarray] = {"churn": changed}
    truth = None
    if labels is not None:
        truth = np.asarray(labels).astype(str)
        if truth.shape != a.shape:
            raise ValueError(f"Got labels of shape {truth.shape}, expected ({n},)")
        right_a, right_b = a == truth, b == truth
        marks |= {
            "accuracy_a": right_a,
            "accuracy_b": right_b,
            "negative_flips": right_a & ~right_b,
            "positive_flips": ~right_a & right_b,
        }
    everything = np.ones(n, dtype=bool)
    out: dict[str, Any] = {"n": n, **_rates(marks, everything)}
    if truth is not None:
        counts = [int(marks[name].sum()) for name in ("negative_flips", "positive_flips")]
        out["flips_p"] = mcnemar(counts[0], counts[1])
    by = a if truth is None else truth
    out["classes"] = {str(name): {"n": int((by == name).sum()), **_rates(marks, by == name)} for name in np.unique(by)}
    # Where labels are known, what gets worse matters; else any change.
    what = "churn" if truth is None else "negative_flips"
    out["tested"] = what
    out["groups"] = _groups(marks, what, {name: np.asarray(mask, dtype=bool) for name, mask in (groups or {}).items()})
    return out


def _rates(marks: Mapping[str, np.ndarray], inside: np.ndarray) -> dict[str, dict[str, float | int]]:
    total = int(inside.sum())
    out: dict[str, dict[str, float | int]] = {}
    for name, mark in marks.items():
        count = int((mark & inside).sum())
        low, high = wilson(count, total)
        out[name] = {"count": count, "value": count / total if total else 0.0, "low": low, "high": high}
    return out


def _groups(marks: Mapping[str, np.ndarray], what: str, groups: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    mark = marks[what]
    n, every = len(mark), int(mark.sum())
    out: dict[str, dict[str, Any]] = {}
    for name, inside in groups.items():
        size, count = int(inside.sum()), int((mark & inside).sum())
        if not 0 < size < n:
            continue
        low, high = newcombe(count, size, every - count, n - size)
        out[name] = {
            "n": size,
            **_rates(marks, inside),
            "rest": (every - count) / (n - size),
            "difference": count / size - (every - count) / (n - size),
            "low": low,
            "high": high,
            "p_value": fisher(count, size, every, n),
        }
    for name, corrected in zip(out, holm([one["p_value"] for one in out.values()]), strict=True):
        out[name]["p_corrected"] = corrected
    return out
