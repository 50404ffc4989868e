"""Scores of explanations: correlation, its uncertainty, summaries, and paired comparisons of methods.

Symbols: y (n, u) true activations, p (n, u) predictions, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rdxcli.numerics.seeding import generator

BLOCK_ELEMENTS = 2**22


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
    """Percentile bootstrap intervals.

    Attributes
    ----------
    low, high : (u,) float64
        NaN where the score is undefined.
    standard_error : (u,) float64
        Standard deviation over resamples.
    """

    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray


def bootstrap_correlation(
    p: np.ndarray, y: np.ndarray, *, n_resamples: int = 1000, confidence: float = 0.95, random_state: int = 0
) -> Interval:
    """Percentile interval of each column's correlation over resampled images.

    Parameters
    ----------
    p, y : (n, u) float
    n_resamples : int
    confidence : float in (0, 1)
    random_state : int
        The resamples depend on the seed and n alone and are the same for every unit and every method, so that
        grouping, order and selection of units change nothing and intervals of two methods can be compared.

    Notes
    -----
    A resample is a vector of counts; the five sums a correlation needs are products of counts and columns. O(B n u).
    """
    if n_resamples < 2 or not 0 < confidence < 1:
        raise ValueError(f"Got n_resamples={n_resamples} and confidence={confidence}, expected at least 2 and (0, 1)")
    exact = pearson(p, y)
    n, u = np.shape(p)
    p0 = np.asarray(p, dtype=np.float64) - np.mean(p, axis=0)
    y0 = np.asarray(y, dtype=np.float64) - np.mean(y, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        p0, y0 = p0 / p0.std(axis=0), y0 / y0.std(axis=0)
    low, high, error = (np.full(u, np.nan) for _ in range(3))
    known = np.flatnonzero(np.isfinite(exact))
    if not len(known):
        return Interval(low, high, error)
    counts = resamples(n, n_resamples, random_state)
    step = max(1, BLOCK_ELEMENTS // (5 * n))
    tail = 100.0 * (1.0 - confidence) / 2.0
    for start in range(0, len(known), step):
        units = known[start : start + step]
        a, b = p0[:, units], y0[:, units]
        columns = np.concatenate([a, b, a * a, b * b, a * b], axis=1)
        rows = max(1, BLOCK_ELEMENTS // n)
        sums = np.concatenate(
            [counts[i : i + rows].astype(np.float64) @ columns for i in range(0, n_resamples, rows)], axis=0
        )
        sa, sb, saa, sbb, sab = np.split(sums / n, 5, axis=1)
        variance = (saa - sa**2) * (sbb - sb**2)
        r = np.divide(
            sab - sa * sb, np.sqrt(np.maximum(variance, 0.0)), out=np.full_like(sab, np.nan), where=variance > 1e-14
        )
        usable = np.isfinite(r).sum(axis=0) >= 0.9 * n_resamples  # else too few images vary
        r, units = np.clip(r[:, usable], -1.0, 1.0), units[usable]
        if len(units):
            low[units], high[units] = np.nanpercentile(r, [tail, 100.0 - tail], axis=0)
            error[units] = np.nanstd(r, axis=0, ddof=1)
    return Interval(low, high, error)


def resamples(n: int, n_resamples: int, random_state: int) -> np.ndarray:
    """How often each of n images is in each resample: (n_resamples, n) float32. They depend on these numbers alone."""
    rng = generator(random_state, "bootstrap", n)
    return np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(n_resamples)]).astype(np.float32)


@dataclass(frozen=True)
class Summary:
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


def summarise(scores: np.ndarray, *, ddof: int = 1) -> Summary:
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
    return Summary(float(known.mean()) if m else None, error, m, len(scores) - m)


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the same units.

    Attributes
    ----------
    first, second : str
    units : int
        Units for which both scores are defined.
    difference : float
        Mean of first minus second.
    standard_error : float
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

    Parameters
    ----------
    scores : mapping of method name to (u,) float
        Same units in the same order; NaN where undefined.
    n_permutations : int
    random_state : int

    Returns
    -------
    list of PairedTest, in the order of the names

    Raises
    ------
    ValueError
        Different numbers of units, or a pair with fewer than 2 common units.
    """
    from scipy.stats import t as student

    names = list(scores)
    if len({len(scores[name]) for name in names}) > 1:
        raise ValueError(f"Got {', '.join(str(len(scores[name])) for name in names)} scores, expected the same units")
    found: list[dict[str, float | int | str]] = []
    for first, second in combinations(names, 2):
        d = np.asarray(scores[first], dtype=np.float64) - np.asarray(scores[second], dtype=np.float64)
        d = d[np.isfinite(d)]
        m = len(d)
        if m < 2:
            raise ValueError(f"Got {m} units that both {first} and {second} score, expected at least 2")
        error = float(d.std(ddof=1) / np.sqrt(m))
        half = float(student.ppf(0.975, m - 1)) * error
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


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction: (m,) adjusted p-values in the order given."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    stepped = np.maximum.accumulate(p_values[order] * (m - np.arange(m)))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
