"""Predictions of two models on the same images: what changes, for the better or the worse, and where.

Symbols: n images; y_a, y_b predicted classes; y true classes, if known. Churn is the share of images with y_a != y_b. A
negative flip is right in a and wrong in b, a positive flip the reverse.

References: Milani Fard et al., "Launch and iterate: reducing prediction churn", NeurIPS 2016; Yan et al.,
"Positive-congruent training: towards regression-free model updates", CVPR 2021; Wilson, JASA 1927; Newcombe,
"Interval estimation for the difference between independent proportions", Statistics in Medicine 1998 (method 10);
McNemar, Psychometrika 1947.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, stdtr, stdtrit

from rdxcli.numerics.multiple import holm
from rdxcli.numerics.shares import wilson_interval

NORMAL = 1.959963984540054  # 97.5 % of the standard normal distribution


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share; everything where there are no trials."""
    if total == 0:
        return 0.0, 1.0
    low, high = wilson_interval(count, total, 0.95)
    return float(low), float(high)


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


def compare_predictions(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | None = None,
    confidences: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[str, Any]:
    """What changes between the predictions of two models.

    Raises `ValueError` (different numbers of predictions or labels, or none).

    Parameters
    ----------
    first, second : (n,) array-like of str or int
        Predicted classes.
    labels : (n,) array-like, optional
        True classes, spelled as the predictions are.
    groups : mapping of str to (n,) array-like of bool, optional
        Images that are looked at by themselves, such as the concepts of a comparison.
    confidences : two (n,) array-likes, optional
        Probability of the predicted class in both models.

    Returns
    -------
    dict
        ``n``, ``churn``, with labels also ``accuracy_a``, ``accuracy_b``, ``negative_flips``, ``positive_flips`` (each
        ``{count, value, low, high}``, 95 %), ``flips_p`` (McNemar), ``classes`` (by true class, or by the first
        prediction) and ``groups``: counts, and ``tests`` of what ``tested`` lists, negative and positive flips (without
        labels churn): the rate of all other images, the difference from it with an interval, and a p-value (Fisher)
        corrected for the number of groups and tests (Holm). With confidences ``confidence_a``, ``confidence_b`` (means)
        and ``confidence_shift``, in all and by group: the mean of the second minus the first, with the interval and the
        p-value of a paired t test.
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
    out["tested"] = ["churn"] if truth is None else ["negative_flips", "positive_flips"]
    masks = {name: np.asarray(mask, dtype=bool) for name, mask in (groups or {}).items()}
    out["groups"] = _groups(marks, out["tested"], masks)
    if confidences is not None:
        sure = np.stack([np.asarray(one, dtype=np.float64) for one in confidences])
        for place, inside in ((out, everything), *((out["groups"][name], masks[name]) for name in out["groups"])):
            place |= dict(zip(("confidence_a", "confidence_b"), sure[:, inside].mean(axis=1).tolist(), strict=True))
            place["confidence_shift"] = paired_shift(sure[1, inside] - sure[0, inside])
    return out


def paired_shift(differences: np.ndarray) -> dict[str, float]:
    """Mean of paired differences with its 95 % interval and two-sided p-value (Student's t)."""
    m, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(m)) if m > 1 else 0.0
    if error == 0.0:
        return {"value": mean, "low": mean, "high": mean, "p_value": 1.0 if mean == 0.0 or m < 2 else 0.0}
    margin = float(stdtrit(m - 1, 0.975)) * error
    p_value = float(2.0 * stdtr(m - 1, -abs(mean) / error))
    return {"value": mean, "low": mean - margin, "high": mean + margin, "p_value": p_value}


def _rates(marks: Mapping[str, np.ndarray], inside: np.ndarray) -> dict[str, dict[str, float | int]]:
    total = int(inside.sum())
    out: dict[str, dict[str, float | int]] = {}
    for name, mark in marks.items():
        count = int((mark & inside).sum())
        low, high = wilson(count, total)
        out[name] = {"count": count, "value": count / total if total else 0.0, "low": low, "high": high}
    return out


def _groups(
    marks: Mapping[str, np.ndarray], tested: Sequence[str], groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    n = len(next(iter(marks.values())))
    out: dict[str, dict[str, Any]] = {}
    tests: list[dict[str, float]] = []
    for name, inside in groups.items():
        size = int(inside.sum())
        if not 0 < size < n:
            continue
        out[name] = {"n": size, **_rates(marks, inside), "tests": {}}
        for what in tested:
            count, every = int((marks[what] & inside).sum()), int(marks[what].sum())
            low, high = newcombe(count, size, every - count, n - size)
            rest = (every - count) / (n - size)
            test = {"rest": rest, "difference": count / size - rest, "low": low, "high": high}
            tests.append({**test, "p_value": fisher(count, size, every, n)})
            out[name]["tests"][what] = tests[-1]
    for test, corrected in zip(tests, holm(np.array([one["p_value"] for one in tests])), strict=True):
        test["p_corrected"] = float(corrected)
    return out
