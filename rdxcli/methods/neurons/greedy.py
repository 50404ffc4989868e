"""Greedy choice of concepts for all units at once, from second moments.

Symbols: S the concepts chosen so far for a unit, r the Pearson correlation on the validation rows; train and val are
`rdxcli.numerics.moments.Moments` of raw concept and unit activations; ranking (u, q) the candidates of each unit, best
first, -1 where there are no more.

A least-squares refit and its validation correlation need nothing but moments, so no candidate costs a pass over the
samples:

    w = G_SS^-1 c_S,     r = w . c_val / sqrt((w^T G_val w) v_val)

Reference: Oikarinen and Weng (2024), section 4.2 and appendix B.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rdxcli.numerics.moments import Moments

DEPENDENT = 1e-4  # share of a concept's variance that must be new for it to count: its weight's variance stays bounded


@dataclass(frozen=True)
class Fit:
    """A refit of one unit on some concepts.

    Attributes
    ----------
    concepts : (l,) int64
        Columns, in order of selection.
    weights : (l,) float64
    correlation : float
        On the validation rows; 0 where the prediction does not vary there (it follows nothing), NaN where the unit
        does not (there is nothing to follow).
    """

    concepts: np.ndarray
    weights: np.ndarray
    bias: float
    correlation: float


@dataclass
class Search:
    """What the greedy search found for one unit.

    Attributes
    ----------
    steps : list of Fit
        The accepted set after each selection: ``steps[l - 1]`` has l concepts. Empty when no concept has a positive
        validation correlation.
    trace : list of (step, concept, correlation)
        Every candidate tried, in order, if asked for.
    """

    steps: list[Fit] = field(default_factory=list)
    trace: list[tuple[int, int, float]] = field(default_factory=list)


class Refit(Protocol):
    """A way to refit: validation correlations of candidates, and the fit of a set."""

    def correlations(self, units: np.ndarray, selected: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """(m, q) correlations of ``selected`` (m, l) plus each of ``candidates`` (m, q).

        A set whose prediction does not vary has correlation 0, as in the published trace; a candidate of which nothing
        is new beside ``selected`` has minus infinity (it is never chosen); units that do not vary and -1 candidates
        have NaN.
        """

    def fit(self, unit: int, concepts: np.ndarray) -> Fit:
        """The fit of one unit on some concepts."""


def correlation(moments: Moments, unit: int, concepts: np.ndarray, weights: np.ndarray) -> float:
    """Pearson correlation of a linear prediction and a unit, from moments; see `Fit.correlation` for constants."""
    if moments.constant_y[unit]:
        return float("nan")
    weights = np.where(moments.constant_x[concepts], 0.0, weights)  # their moments are rounding
    inner = moments.xx[np.ix_(concepts, concepts)]
    variance = float(weights @ inner @ weights)
    scale = float(np.abs(weights) @ np.sqrt(np.maximum(np.diagonal(inner), 0.0)))
    if variance <= 1e-24 * scale**2 or variance <= 0:
        return 0.0
    return float(weights @ moments.xy[concepts, unit] / np.sqrt(variance * moments.yy[unit]))


class LeastSquares:
    """Closed-form refits.

    Parameters
    ----------
    train, val : Moments
        Of raw activations.
    """

    def __init__(self, train: Moments, val: Moments) -> None:
        self.train, self.val = train, val

    def correlations(self, units: np.ndarray, selected: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        train, val = self.train, self.val
        u, v = units[:, None], np.maximum(candidates, 0)
        # one solve per unit for the chosen set, then each candidate by the Schur complement
        c_new, g_new = train.xy[v, u], train.xx[v, v]
        flat = val.constant_x[v]
        cv_new, gv_new = np.where(flat, 0.0, val.xy[v, u]), np.where(flat, 0.0, val.xx[v, v])
        if selected.shape[1]:
            s = selected
            G_ss = train.xx[s[:, :, None], s[:, None, :]]
            G_sc = train.xx[s[:, :, None], v[:, None, :]]
            c_s = train.xy[s, u]
            solved = np.linalg.solve(G_ss, np.concatenate([G_sc, c_s[:, :, None]], axis=2))
            Z, w = solved[:, :, :-1], solved[:, :, -1]
            rest = g_new - np.einsum("mlq,mlq->mq", G_sc, Z)
            gain = c_new - np.einsum("mlq,ml->mq", G_sc, w)
            beta = np.divide(gain, rest, out=np.zeros_like(gain), where=rest > DEPENDENT * g_new)
            weights = w[:, :, None] - Z * beta[:, None, :]
            G_val = val.xx[s[:, :, None], s[:, None, :]]
            Gv_sc = val.xx[s[:, :, None], v[:, None, :]]
            covariance = np.einsum("mlq,ml->mq", weights, val.xy[s, u]) + beta * cv_new
            variance = (
                np.einsum("mlq,mlk,mkq->mq", weights, G_val, weights)
                + 2.0 * beta * np.einsum("mlq,mlq->mq", weights, Gv_sc)
                + beta**2 * gv_new
            )
            size = np.einsum("mlq,ml->mq", np.abs(weights), np.sqrt(np.maximum(val.xx[s, s], 0.0)))
        else:
            beta = np.divide(c_new, g_new, out=np.zeros_like(c_new), where=~train.constant_x[v] & (g_new > 0))
            covariance, variance, size = beta * cv_new, beta**2 * gv_new, np.zeros_like(beta)
        size += np.abs(beta) * np.sqrt(np.maximum(gv_new, 0.0))
        defined = (candidates >= 0) & (variance > 1e-24 * size**2) & (variance > 0) & ~val.constant_y[u]
        scale = np.sqrt(np.where(defined, variance * val.yy[u], 1.0))
        r = np.where(defined, covariance / scale, np.where((candidates >= 0) & ~val.constant_y[u], 0.0, np.nan))
        if selected.shape[1]:  # nothing new in it: never chosen, so that the chosen set stays independent
            r[(rest <= DEPENDENT * g_new) & (candidates >= 0)] = -np.inf
        return r

    def fit(self, unit: int, concepts: np.ndarray) -> Fit:
        G = self.train.xx[np.ix_(concepts, concepts)]
        scale = np.sqrt(np.maximum(np.diagonal(G), 0.0))
        scale = np.where((scale > 0) & ~self.train.constant_x[concepts], scale, np.inf)
        # of the dependent ones the solution of smallest norm, on a common scale
        w = np.linalg.lstsq(G / np.outer(scale, scale), self.train.xy[concepts, unit] / scale, rcond=1e-13)[0] / scale
        bias = float(self.train.mean_y[unit] - w @ self.train.mean_x[concepts])
        return Fit(np.asarray(concepts), w, bias, correlation(self.val, unit, concepts, w))


class Adam:
    """The published refit: full-batch Adam on the mean squared error, a fixed number of steps, the last iterate.

    The gradient of the mean squared error is linear in the moments, so the iterates are those of the published code
    to rounding. They are not converged, which is why `LeastSquares` is the default.

    Parameters
    ----------
    start : callable (unit, length) -> (weights, bias), optional
        Starting point; default zeros.
    """

    def __init__(
        self, train: Moments, val: Moments, *, steps: int = 100, learning_rate: float = 0.3, start: Start | None = None
    ) -> None:
        self.train, self.val = train, val
        self.steps, self.learning_rate, self.start = steps, learning_rate, start

    def solve(self, units: np.ndarray, concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (m, l) and biases (m,) for ``concepts`` (m, l)."""
        train = self.train
        mean = train.mean_x[concepts]
        second = train.xx[concepts[:, :, None], concepts[:, None, :]] + mean[:, :, None] * mean[:, None, :]
        cross = train.xy[concepts, units[:, None]] + mean * train.mean_y[units][:, None]
        m, length = concepts.shape
        theta = np.zeros((m, length + 1))
        if self.start is not None:
            for row, unit in enumerate(units):
                weights, bias = self.start(int(unit), length)
                theta[row] = np.append(weights, bias)
        H = np.empty((m, length + 1, length + 1))
        H[:, :length, :length], H[:, :length, length], H[:, length, :length] = second, mean, mean
        H[:, length, length] = 1.0
        target = np.concatenate([cross, train.mean_y[units][:, None]], axis=1)
        first, square = np.zeros_like(theta), np.zeros_like(theta)
        for t in range(1, self.steps + 1):
            gradient = 2.0 * (np.einsum("mij,mj->mi", H, theta) - target)
            first = 0.9 * first + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            rate = self.learning_rate / (1.0 - 0.9**t)
            theta = theta - rate * first / (np.sqrt(square) / np.sqrt(1.0 - 0.999**t) + 1e-8)
        return theta[:, :length], theta[:, length]

    def correlations(self, units: np.ndarray, selected: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        out = np.full(candidates.shape, np.nan)
        row, place = np.nonzero(candidates >= 0)
        sets = np.concatenate([selected[row], candidates[row, place][:, None]], axis=1)
        weights, _ = self.solve(units[row], sets)
        for i, (r, p) in enumerate(zip(row, place, strict=True)):
            out[r, p] = correlation(self.val, int(units[r]), sets[i], weights[i])
        return out

    def fit(self, unit: int, concepts: np.ndarray) -> Fit:
        weights, bias = self.solve(np.array([unit]), np.asarray(concepts)[None, :])
        return Fit(np.asarray(concepts), weights[0], float(bias[0]), correlation(self.val, unit, concepts, weights[0]))


class Start(Protocol):
    """Starting point of `Adam`."""

    def __call__(self, unit: int, length: int) -> tuple[np.ndarray, float]: ...


def greedy_search(
    refit: Refit,
    units: Sequence[int] | np.ndarray,
    ranking: np.ndarray,
    *,
    max_length: int = 10,
    tolerance: float = 0.02,
    window: int = 10,
    trace: bool = False,
) -> list[Search]:
    """Forward selection inside a moving window of the ranking.

    Each round tries the first ``window`` ranked concepts that are neither chosen nor rejected. A candidate whose
    validation correlation gains less than ``tolerance`` on the current set is rejected for good (not in the first
    round); of the others the best is chosen. It ends at ``max_length`` or when a round chooses nothing. The first
    concept needs a positive correlation only. A candidate whose prediction does not vary has correlation 0: it is never
    chosen, and once something is chosen it is rejected like any other that gains nothing.

    Parameters
    ----------
    refit : Refit
        `LeastSquares` or `Adam`.
    units : (m,) int
    ranking : (m, q) int
        Candidates of each unit, best first; -1 fills short rows. ``window * (max_length + 1)`` are always enough.
    trace : bool
        Keep every candidate tried.

    Returns
    -------
    list of Search, one per unit

    Notes
    -----
    The published code returns the list rebuilt from the last candidate tried, which is wrong when the search ends by
    length; here the concepts are the chosen ones. All units advance together, round by round; they do not influence
    each other. O(max_length (u window l^2)) after one gather per round.
    """
    if max_length < 1 or window < 1:
        raise ValueError(f"Got max_length={max_length} and window={window}, expected positive integers")
    units = np.asarray(units, dtype=np.int64)
    ranking = np.asarray(ranking, dtype=np.int64)
    m = len(units)
    found = [Search() for _ in range(m)]
    selected = np.empty((m, 0), dtype=np.int64)
    open_ = ranking >= 0  # candidates neither chosen nor rejected
    best = np.zeros(m)
    running = np.arange(m)
    while len(running) and selected.shape[1] < max_length:
        length = selected.shape[1]
        candidates, place = _window(ranking[running], open_[running], window)
        r = refit.correlations(units[running], selected[running], candidates)
        if trace:
            for row, who in enumerate(running):
                tried = candidates[row] >= 0
                found[who].trace += [
                    (length, int(c), float(v)) for c, v in zip(candidates[row][tried], r[row][tried], strict=True)
                ]
        with np.errstate(invalid="ignore"):
            rejected = (r - best[running][:, None] < tolerance) & (length > 0)
            allowed = np.where(~rejected & (r > best[running][:, None]), r, -np.inf)
        out, spot = np.nonzero(rejected & (candidates >= 0))
        open_[running[out], place[out, spot]] = False
        winner = allowed.argmax(axis=1)
        rows = np.arange(len(running))
        won = np.isfinite(allowed[rows, winner])
        chosen, where, value = candidates[rows, winner], place[rows, winner], r[rows, winner]
        grown = np.full((m, length + 1), -1, dtype=np.int64)
        grown[:, :length] = selected
        grown[running[won], length] = chosen[won]
        selected = grown
        open_[running[won], where[won]] = False
        best[running[won]] = value[won]
        running = running[won]
        for who in running:
            found[who].steps.append(refit.fit(int(units[who]), selected[who]))
    return found


def _window(ranking: np.ndarray, open_: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """First ``window`` open candidates of each row and their places in the ranking; -1 where there are fewer."""
    m, q = ranking.shape
    order = np.argsort(~open_, axis=1, kind="stable")[:, : min(window, q)]
    rows = np.arange(m)[:, None]
    return np.where(open_[rows, order], ranking[rows, order], -1), order


def top_fit(refit: Refit, unit: int, ranking: np.ndarray, length: int) -> Fit | None:
    """The first ``length`` ranked concepts with one refit (appendix B.4); None when there is no candidate."""
    concepts = ranking[ranking >= 0][:length]
    return refit.fit(unit, concepts) if len(concepts) else None
