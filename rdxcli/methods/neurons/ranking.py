"""The sparse fit that ranks concepts: standardised problems from raw moments, and the ways to solve them.

Symbols: X = (P - mean)/std of the training rows (std with n - 1), Y = (A - mean)/std of the units; G, C, v, W as in
`rdxcli.numerics.elastic_net`.

Reference: Oikarinen and Weng (2024), section 4.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rdxcli.methods.neurons.saga import saga
from rdxcli.numerics import elastic_net
from rdxcli.numerics.elastic_net import Problem
from rdxcli.numerics.moments import Moments, read_columns


def concept_scale(train: Moments) -> np.ndarray:
    """Standard deviation (n - 1) of each concept on the training rows: (c,)."""
    return np.asarray(np.sqrt(np.diagonal(train.xx) * (train.n / max(train.n - 1.0, 1.0))))


def standardised(
    moments: Moments, scale: np.ndarray, spread: np.ndarray, units: np.ndarray, lam: float, alpha: float
) -> Problem:
    """The regression of standardised units on standardised concepts.

    Parameters
    ----------
    moments : Moments
        Of raw activations.
    scale : (c,) float
        Divisor of each concept, see `concept_scale`.
    spread : (m,) float
        Divisor of each of ``units``.
    units : (m,) int
        Columns of the moments.
    lam, alpha : float
        Penalty after the division by alpha.
    """
    G = moments.xx / scale
    G /= scale[:, None]
    C = np.ascontiguousarray((moments.xy[:, units] / scale[:, None] / spread).T)
    return Problem(G, C, moments.yy[units] / spread**2, lam, alpha)


def best_on_path(
    problem: Problem,
    held_out: Problem,
    shift_x: np.ndarray,
    shift_y: np.ndarray,
    *,
    size: int,
    epsilon: float,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """For each unit the solution on a path of penalties with the lowest squared validation error.

    Parameters
    ----------
    problem, held_out : Problem
        Training and validation moments in the same (training) standardisation.
    shift_x : (c,) float
    shift_y : (m,) float
        Validation mean minus training mean in that standardisation.
    size, epsilon : int, float
        Grid from 1 / max(0.001, alpha) down to epsilon times that, the same for all units (correlations are at most 1).

    Returns
    -------
    W : (m, c) float64
    lams : (m,) float64
    """
    grid = elastic_net.lambda_grid(1.0 / max(0.001, problem.alpha), epsilon, size, zero=False)
    best, lams = np.zeros_like(problem.C), np.full(len(problem.C), grid[0])
    error = np.full(len(problem.C), np.inf)
    last: np.ndarray | None = None
    for lam in grid:
        last = elastic_net.exact(problem.at(float(lam)), start=last, device=device)
        offset = last @ shift_x - shift_y
        square = 2.0 * held_out.at(0.0).objective(last) + offset**2
        better = square < error
        best[better], error[better], lams[better] = last[better], square[better], lam
    return best, lams


def saga_weights(
    concepts: Any,
    activations: Any,
    rows: np.ndarray,
    *,
    columns: np.ndarray,
    units: np.ndarray,
    centre: tuple[np.ndarray, np.ndarray],
    divisor: tuple[np.ndarray, np.ndarray],
    batch: int,
    **options: Any,
) -> np.ndarray:
    """Weights of the published solver, ``batch`` units at a time: (m, c). Reads the training rows into memory."""
    X = (read_columns(concepts, rows, columns, "concepts") - centre[0]) / divisor[0]
    Y = (read_columns(activations, rows, units, "activations") - centre[1]) / divisor[1]
    parts = [saga(X, Y[:, start : start + batch], **options).W for start in range(0, len(units), batch)]
    return np.concatenate(parts)


def certificate(problem: Problem, W: np.ndarray, lams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objective and duality gap of each row with its own penalty: (m,), (m,)."""
    objective, gap = np.empty(len(W)), np.empty(len(W))
    for lam in np.unique(lams):
        rows = np.flatnonzero(lams == lam)
        for start in range(0, len(rows), 64):  # few at a time, so that few columns are in use
            part = rows[start : start + 64]
            one = Problem(problem.G, problem.C[part], problem.v[part], float(lam), problem.alpha)
            objective[part], gap[part] = one.objective(W[part]), one.duality_gap(W[part])
    return objective, gap
