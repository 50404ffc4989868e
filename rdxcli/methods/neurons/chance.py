"""What a search for explanations finds where there is nothing to find.

Symbols: m units, N shuffled ones, n test rows, B orders; r score of a unit, a its activations on the test rows, q_j the
prediction by the explanation of shuffled unit j.

The shuffled units went through the same search on the same concepts, so their explanations are as complicated and as
lucky as chance makes them. A unit's own activations in random order, predicted by them, give its null distribution:

    p = (1 + #{(j, b): corr(q_j, a in order b) >= r}) / (1 + N B)

The explanations are shared by all units and the orders too, so that all p values together cost B products (N, n) x
(n, m). The distribution of the unit (few images or many, heavy tails) is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from rdxcli.numerics.moments import read_columns
from rdxcli.numerics.multiple import benjamini_hochberg
from rdxcli.numerics.seeding import generator

LEVEL = 0.05
ORDERS = 100
"""Random orders of the test rows; times `n_shuffled` 100 that is 10,000 draws for each unit."""


@dataclass(frozen=True)
class Chance:
    """Units against shuffled ones.

    Attributes
    ----------
    p_values : (m,) float64
        NaN where a unit has no score.
    adjusted : (m,) float64
        After Benjamini and Hochberg's correction over the units: among those called better than chance at most the
        level are expected to be mistaken.
    high : (m,) float64
        What 95 % of the shuffled explanations stay below.
    """

    p_values: np.ndarray
    adjusted: np.ndarray
    high: np.ndarray
    level: float = LEVEL

    @classmethod
    def of(cls, p_values: np.ndarray, high: np.ndarray) -> Chance:
        """With the p values, NaN where there is none, corrected over these units."""
        known, adjusted = np.isfinite(p_values), p_values.copy()
        adjusted[known] = benjamini_hochberg(p_values[known])
        return cls(p_values, adjusted, high)

    def select(self, units: Sequence[int]) -> Chance:
        """Those of some units, as if no other had been asked for."""
        return Chance.of(self.p_values[units], self.high[units])

    @property
    def better(self) -> np.ndarray:
        """(m,) bool: units whose explanation beats chance."""
        return np.asarray(np.nan_to_num(self.adjusted, nan=1.0) <= self.level)


class Shuffled:
    """Activations with further columns: those of some units, shuffled over the images within each part.

    A row source of shape (n, u + N), see `rdxcli.numerics.moments`.
    """

    def __init__(self, source: Any, extra: np.ndarray) -> None:
        self.source, self.extra = source, extra

    @classmethod
    def of(cls, source: Any, units: np.ndarray, parts: Sequence[np.ndarray], count: int, random_state: int) -> Shuffled:
        """``count`` columns of units drawn from ``units``; rows outside of ``parts`` are a part too.

        Parameters
        ----------
        source : row source (n, u)
        units : (m,) int
        parts : sequence of int arrays
            Disjoint rows.
        """
        n = source.shape[0]
        rng = generator(random_state, "shuffled", n)
        drawn = np.concatenate([rng.permutation(units) for _ in range(-(-count // len(units)))] or [units[:0]])[:count]
        places, where = np.unique(drawn, return_inverse=True)
        extra = np.empty((n, count))
        if count:
            extra[:] = read_columns(source, np.arange(n), places, "activations")[:, where]
        rest = np.setdiff1d(np.arange(n), np.concatenate(list(parts)))
        for rows in (*parts, rest):
            for column in range(count):
                extra[rows, column] = extra[rng.permutation(rows), column]
        return cls(source, extra)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, u + N)."""
        return self.source.shape[0], self.source.shape[1] + self.extra.shape[1]

    def __getitem__(self, rows: Any) -> np.ndarray:
        block = self.source[rows]
        block = block.toarray() if sparse.issparse(block) else np.asarray(block)
        return np.concatenate([block, self.extra[rows]], axis=1) if self.extra.shape[1] else block


def against_shuffled(
    scores: np.ndarray, truth: np.ndarray, shuffled: np.ndarray, *, orders: int = ORDERS, random_state: int = 0
) -> Chance:
    """p values of correlation scores.

    Parameters
    ----------
    scores : (m,) float
        NaN where undefined.
    truth : (n, m) float
        Activations on the test rows.
    shuffled : (n, N) float
        Predictions by the explanations of shuffled units; a constant one predicts nothing and has correlation 0.
    orders : int
        B.
    random_state : int
        Of the orders, which depend on it and n alone.
    """
    n = len(truth)
    known = np.flatnonzero(np.isfinite(scores))
    a, q = _unit_columns(truth[:, known]), _unit_columns(shuffled)
    hits = np.zeros(len(known))
    top = max(1, int(0.05 * orders * q.shape[1]))
    high = np.full((top, len(known)), -np.inf)
    rng = generator(random_state, "orders", n)
    for _ in range(orders):
        r = q[np.argsort(rng.permutation(n))].T @ a  # the few predictions in the order that undoes it
        hits += (r >= scores[known] - 1e-12).sum(axis=0)
        stacked = np.concatenate([high, r])
        high = np.partition(stacked, len(stacked) - top, axis=0)[len(stacked) - top :]
    p_values, edge = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    p_values[known] = (1.0 + hits) / (1.0 + orders * q.shape[1])
    edge[known] = high.min(axis=0)
    return Chance.of(p_values, edge)


def against_best(best: np.ndarray, shuffled: np.ndarray) -> Chance:
    """p values of the best similarity of each unit among those of shuffled units, for methods that only look for it.

    Parameters
    ----------
    best : (m,) float
        NaN where undefined.
    shuffled : (N,) float
    """
    ordered = np.sort(shuffled)
    known = np.flatnonzero(np.isfinite(best))
    p_values, edge = np.full(len(best), np.nan), np.full(len(best), np.nan)
    above = len(ordered) - np.searchsorted(ordered, best[known] - 1e-12 * np.abs(best[known]), side="left")
    p_values[known] = (1.0 + above) / (1.0 + len(ordered))
    edge[known] = np.quantile(ordered, 1.0 - LEVEL)
    return Chance.of(p_values, edge)


def against_orders(best: np.ndarray, draws: np.ndarray) -> Chance:
    """p values of scores among those of the same units in random orders of the images.

    Parameters
    ----------
    best : (m,) float
        NaN where undefined.
    draws : (B, m) float
    """
    known = np.flatnonzero(np.isfinite(best))
    p_values, edge = np.full(len(best), np.nan), np.full(len(best), np.nan)
    hits = (draws[:, known] >= best[known] - 1e-12).sum(axis=0)
    p_values[known] = (1.0 + hits) / (1.0 + len(draws))
    edge[known] = np.quantile(draws[:, known], 1.0 - LEVEL, axis=0)
    return Chance.of(p_values, edge)


def _unit_columns(values: np.ndarray) -> np.ndarray:
    """Columns centred and of length 1; constant ones become 0."""
    centred = np.asarray(values, dtype=np.float64) - np.mean(values, axis=0)
    length = np.linalg.norm(centred, axis=0)
    usable = (np.ptp(values, axis=0) > 0) & (length > 0)
    return np.asarray(np.where(usable, centred / np.where(usable, length, 1.0), 0.0))
