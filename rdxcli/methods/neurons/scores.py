"""Scores of explanations: correlation, its uncertainty, summaries, and paired comparisons of methods.

Symbols: y (n, u) true activations, p (n, u) predictions, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rdxcli.lazy import scipy
from rdxcli.numerics.multiple import holm
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

BLOCK_ELEMENTS = 2**22
MOST = 1.0 - 1e-9  # correlation that counts as perfect: its z is finite


def pearson(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation column by column: (u,) float64, NaN where either column does not vary.

    Parameters
    ----------
    p, y : (n, u) float
    """
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if p.shape != y.shape or p.ndim != 2:
        raise ValueError(f"Got predictions {p.shape} and activations {y.shape}, expected the same shape (n, u)")
    varies = (np.ptp(p, axis=0) > 0) & (np.ptp(y, axis=0) > 0)
    p0, y0 = p - p.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt((p0**2).sum(axis=0) * (y0**2).sum(axis=0))
    r = np.divide((p0 * y0).sum(axis=0), scale, out=np.full(p.shape[1], np.nan), where=varies & (scale > 0))
    return np.asarray(np.clip(r, -1.0, 1.0))


@dataclass(frozen=True)
class Interval:
    """Intervals of some scores.

    Attributes
    ----------
    low, high : (u,) float64
        NaN where the score is undefined.
    standard_error : (u,) float64
    """

    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray


def correlation_interval(p: np.ndarray, y: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Interval of each column's correlation over images: jackknife of Fisher's z, Student's t.

    Parameters
    ----------
    p, y : (n, u) float
    confidence : float in (0, 1)

    Notes
    -----
    Where few images carry a unit, its percentile bootstrap covers 50 to 90 % instead of 95. Here z = arctanh r is left
    out image by image; the spread of the n values gives the standard error, raised to 1 / sqrt(n - 3) where it is
    smaller (that of independent columns: a jackknife that misses the few images that matter is too sure). How well n
    values of this kurtosis k determine a variance sets the degrees of freedom, 2 n / (k - 1), so that intervals
    of heavy-tailed units are wide. Coverage: ``tests/benchmarks/levels_units.py``. O(n u).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Got confidence={confidence}, expected a number in (0, 1)")
    r = pearson(p, y)
    n, u = np.shape(p)
    low, high, error = (np.full(u, np.nan) for _ in range(3))
    known = np.flatnonzero(np.isfinite(r))
    if n < 4:
        return Interval(low, high, error)
    step = max(1, BLOCK_ELEMENTS // n)
    for start in range(0, len(known), step):
        units = known[start : start + step]
        a = np.asarray(p[:, units], dtype=np.float64) - np.mean(p[:, units], axis=0)
        b = np.asarray(y[:, units], dtype=np.float64) - np.mean(y[:, units], axis=0)
        a, b = a / np.sqrt((a * a).sum(axis=0)), b / np.sqrt((b * b).sum(axis=0))
        grown = n / (n - 1)
        left_a, left_b = 1.0 - grown * a * a, 1.0 - grown * b * b
        usable = (left_a > 1e-12) & (left_b > 1e-12)  # else one image alone varies
        without = ((a * b).sum(axis=0) - grown * a * b) / np.sqrt(np.where(usable, left_a * left_b, 1.0))
        z = np.arctanh(np.clip(np.where(usable, without, 0.0), -MOST, MOST))
        half, spread = _jackknife(z, confidence, 1.0 / np.sqrt(n - 3))
        half = np.where(usable.all(axis=0), half, np.inf)  # without that image nothing is known
        centre = np.arctanh(np.clip(r[units], -MOST, MOST))
        low[units], high[units] = np.tanh(centre - half), np.tanh(centre + half)
        error[units] = (1.0 - r[units] ** 2) * spread
    return Interval(low, high, error)


def ratio_interval(found: np.ndarray, worst: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Interval of 1 - sum found / sum worst over images, column by column: jackknife of log(1 - score), Student's t.

    Parameters
    ----------
    found, worst : (n, u) float
        At least 0.
    confidence : float in (0, 1)

    Notes
    -----
    As in `correlation_interval`, degrees of freedom come from the kurtosis of the left-out values. A score of 1
    (nothing was found) is its own interval; where one image carries the whole effect nothing is known: NaN.
    Coverage: ``tests/benchmarks/levels_units.py``. O(n u).
    """
    top, bottom = found.sum(axis=0), worst.sum(axis=0)
    left_top, left_bottom = top - found, bottom - worst
    usable = (left_top > 1e-12 * top).all(axis=0) & (left_bottom > 1e-12 * bottom).all(axis=0)
    shape = found.shape
    z = np.log(np.divide(left_top, left_bottom, out=np.ones(shape), where=usable & (left_top > 0) & (left_bottom > 0)))
    half, spread = _jackknife(z, confidence)
    ratio = np.divide(top, bottom, out=np.full(shape[1], np.nan), where=bottom > 0)
    exact = (top == 0) & (bottom > 0)
    low, high, error = 1.0 - ratio * np.exp(half), 1.0 - ratio * np.exp(-half), ratio * spread
    for values, known in ((low, 1.0), (high, 1.0), (error, 0.0)):
        values[~usable] = np.nan
        values[exact] = known
    return Interval(low, high, error)


def _jackknife(z: np.ndarray, confidence: float, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Half width and standard error of statistics from their left-out values (n, u); no error is below ``floor``."""
    n = len(z)
    square = (z - z.mean(axis=0)) ** 2
    total = square.sum(axis=0)
    spread = np.sqrt((n - 1) / n * total)
    kurtosis = np.divide(n * (square**2).sum(axis=0), total**2, out=np.full_like(total, n), where=total > 0)
    freedom = np.clip(2.0 * n / np.maximum(kurtosis - 1.0, 1e-9), 1.0, max(n - 1.0, 1.0))
    return scipy.stats.t.ppf(0.5 + confidence / 2.0, freedom) * np.maximum(spread, floor), spread


@dataclass(frozen=True)
class ScoreSummary:
    """Mean of a score over units.

    Attributes
    ----------
    mean, standard_error : float or None
        None when there are too few units.
    count : int
        Units with a defined score.
    undefined : int
        Units without one (dead or constant), left out.
    """

    mean: float | None
    standard_error: float | None
    count: int
    undefined: int


def summarise(scores: np.ndarray, *, ddof: int = 1) -> ScoreSummary:
    """Mean and standard error std / sqrt(count) of the defined scores.

    Parameters
    ----------
    scores : (u,) float
        NaN where undefined.
    ddof : int
        1 for correlation scores and 0 for ablation scores in the paper.
    """
    known = np.asarray(scores, dtype=np.float64)
    known = known[np.isfinite(known)]
    m = len(known)
    error = float(known.std(ddof=ddof) / np.sqrt(m)) if m > 1 else None
    return ScoreSummary(float(known.mean()) if m else None, error, m, len(scores) - m)


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the same units.

    Attributes
    ----------
    units : int
        Units for which both scores are defined.
    difference : float
        Mean of first minus second.
    low, high : float
        95 % interval of the mean difference (Student's t).
    wins, losses, ties : int
        Units on which first is higher, lower, equal.
    p_value : float
        Two-sided sign-flip permutation test of mean difference zero.
    p_adjusted : float
        The same after Holm's correction over all pairs.
    """

    first: str
    second: str
    units: int
    difference: float
    standard_error: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p_value: float
    p_adjusted: float


def sign_flip_p_value(differences: np.ndarray, *, n_permutations: int = 9999, seed: int = 0, name: str = "") -> float:
    """Two-sided p-value of mean zero when the sign of every difference is arbitrary.

    All 2^m patterns up to 13 differences, otherwise ``n_permutations`` random ones, counting the observed one.
    """
    d = np.asarray(differences, dtype=np.float64)
    observed = abs(d.sum()) * (1 - 1e-12)
    if len(d) <= 13:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
        return float((np.abs(signs @ d) >= observed).mean())
    rng = generator(seed, "paired", name)
    hits, done = 1, 0
    rows = max(1, BLOCK_ELEMENTS // len(d))
    while done < n_permutations:
        size = min(rows, n_permutations - done)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (size, len(d)))
        hits += int((np.abs(signs @ d) >= observed).sum())
        done += size
    return hits / (n_permutations + 1)


def compare_methods(
    scores: Mapping[str, np.ndarray], *, n_permutations: int = 9999, random_state: int = 0
) -> list[PairedTest]:
    """Every pair of methods on the units where both have a score.

    Raises `ValueError` (different numbers of units, or a pair with fewer than 2 common units).

    Parameters
    ----------
    scores : mapping of method name to (u,) float
        Same units in the same order; NaN where undefined.
    """
    names = list(scores)
    if len({len(scores[name]) for name in names}) > 1:
        raise ValueError(f"Got {', '.join(str(len(scores[name])) for name in names)} scores, expected the same units")
    found: list[dict[str, float | int | str]] = []
    for first, second in combinations(names, 2):
        d = np.asarray(scores[first], dtype=np.float64) - np.asarray(scores[second], dtype=np.float64)
        d = d[np.isfinite(d)]
        m = len(d)
        if m < 2:
            raise ValueError(f"Got {human_count(m, 'unit')} that both {first} and {second} score, expected at least 2")
        error = float(d.std(ddof=1) / np.sqrt(m))
        half = float(scipy.stats.t.ppf(0.975, m - 1)) * error
        p = sign_flip_p_value(d, n_permutations=n_permutations, seed=random_state, name=f"{first}/{second}")
        mean = float(d.mean())
        found.append(
            {
                **{"first": first, "second": second, "units": m, "difference": mean, "standard_error": error},
                **{"low": mean - half, "high": mean + half, "p_value": p},
                **{"wins": int((d > 0).sum()), "losses": int((d < 0).sum()), "ties": int((d == 0).sum())},
            }
        )
    adjusted = holm(np.array([pair["p_value"] for pair in found], dtype=np.float64))
    return [PairedTest(**pair, p_adjusted=float(p)) for pair, p in zip(found, adjusted, strict=True)]  # type: ignore[arg-type]
