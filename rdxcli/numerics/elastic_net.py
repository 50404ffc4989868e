"""The elastic net for many targets at once, from second moments alone.

Symbols: X (n, c) standardised design, Y (n, u) targets; G = X^T X / n (c, c), C = (Y - mean Y)^T X / n (u, c),
v (u,) variance of Y with divisor n, W (u, c) weights. One row of W is one target; the rows are independent:

    F(w) = 1/2 (v - 2 c.w + w G w) + l1 |w|_1 + l2/2 |w|^2,     l1 = lam alpha,  l2 = lam (1 - alpha)

which is the objective of scikit-learn's ``ElasticNet(alpha=lam, l1_ratio=alpha)`` with the best intercept. Three ways
to a solution, none of which reads the samples again:

- `exact`: the minimum, by an active-set method on signs, with a duality gap as certificate;
- `rdxcli.numerics.proximal_flow.time_matched`: the point an early-stopped proximal gradient flow reaches (what GLM-SAGA
  with its usual budget gives);
- `path`: `exact` for a falling sequence of ``lam``, each from the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

SOLVE_ELEMENTS = 2**24  # numbers in one batch of small systems: 128 MiB of float64


def soft_threshold(values: np.ndarray, threshold: float, shrink: float = 0.0) -> np.ndarray:
    """Proximal map of ``threshold |.|_1 + shrink/2 |.|^2``, elementwise.

    Parameters
    ----------
    threshold, shrink : float, at least 0
    """
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0.0) / (1.0 + shrink)


def group_soft_threshold(values: np.ndarray, threshold: float, shrink: float = 0.0) -> np.ndarray:
    """Proximal map of the group lasso with one group per column of (u, c).

    A column that is zero stays zero (dividing by its norm would give NaN).
    """
    norm = np.linalg.norm(values, axis=0, keepdims=True)
    factor = np.where(norm > 0, np.maximum(norm - threshold, 0.0) / np.where(norm > 0, norm, 1.0), 0.0)
    return values * factor / (1.0 + shrink)


@dataclass(frozen=True)
class Problem:
    """Moments of one family of regressions.

    Parameters
    ----------
    G : (c, c) float
    C : (u, c) float
    v : (u,) float
    lam : float
        Strength of the penalty, at least 0.
    alpha : float
        Share of the l1 penalty, in [0, 1].
    """

    G: np.ndarray
    C: np.ndarray
    v: np.ndarray
    lam: float
    alpha: float

    def __post_init__(self) -> None:
        c = len(self.G)
        if self.G.shape != (c, c) or self.C.ndim != 2 or self.C.shape[1] != c or self.v.shape != (len(self.C),):
            raise ValueError(
                f"Got G {self.G.shape}, C {self.C.shape}, v {self.v.shape}, expected (c, c), (u, c) and (u,)"
            )
        if not (np.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"Got lam={self.lam}, expected a number of at least 0")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"Got alpha={self.alpha}, expected a number in [0, 1]")

    @property
    def l1(self) -> float:
        """Weight of the l1 penalty."""
        return self.lam * self.alpha

    @property
    def l2(self) -> float:
        """Weight of half the squared l2 penalty."""
        return self.lam * (1.0 - self.alpha)

    def at(self, lam: float) -> Problem:
        """The same regressions with another penalty."""
        return Problem(self.G, self.C, self.v, lam, self.alpha)

    def gradient(self, W: np.ndarray) -> np.ndarray:
        """Negative gradient of the smooth part, C - W G - l2 W: (u, c). Columns of zeros cost nothing."""
        used = np.flatnonzero((W != 0).any(axis=0))
        return self.C - W[:, used] @ self.G[used] - self.l2 * W

    def objective(self, W: np.ndarray) -> np.ndarray:
        """F of each row: (u,)."""
        used = np.flatnonzero((W != 0).any(axis=0))
        w = W[:, used]
        quadratic = np.einsum("uc,uc->u", w @ self.G[np.ix_(used, used)], w)
        smooth = 0.5 * (self.v - 2.0 * np.einsum("uc,uc->u", self.C[:, used], w) + quadratic)
        return smooth + self.l1 * np.abs(w).sum(axis=1) + 0.5 * self.l2 * (w**2).sum(axis=1)

    def duality_gap(self, W: np.ndarray) -> np.ndarray:
        """F minus the best dual bound along the residual, per row: (u,). At most this far from the minimum.

        The elastic net is a lasso on the design with sqrt(n l2) I appended; its dual point is the scaled residual.
        With l1 = 0 the minimum is a linear system and the gap is |gradient|^2 / (2 smallest curvature), given here
        only where l2 > 0; otherwise it is infinite unless the gradient vanishes.
        """
        Q = self.gradient(W)
        largest = np.abs(Q).max(axis=1)
        if self.l1 == 0:
            square = (Q**2).sum(axis=1)
            if self.l2 > 0:
                return square / (2.0 * self.l2)
            return np.where(largest <= 1e-9 * (1.0 + np.abs(self.C).max()), 0.0, np.inf)
        used = np.flatnonzero((W != 0).any(axis=0))
        w = W[:, used]
        cw = np.einsum("uc,uc->u", self.C[:, used], w)
        quadratic = np.einsum("uc,uc->u", w @ self.G[np.ix_(used, used)], w) + self.l2 * (w**2).sum(axis=1)
        residual = np.maximum(self.v - 2.0 * cw + quadratic, 0.0)
        along = self.v - cw
        bound = self.l1 / np.maximum(largest, 1e-300)
        scale = np.clip(np.divide(along, residual, out=np.ones_like(along), where=residual > 0), -bound, bound)
        dual = scale * along - 0.5 * scale**2 * residual
        return np.maximum(self.objective(W) - dual, 0.0)


def lambda_max(C: np.ndarray, alpha: float, *, grouped: bool = False) -> float:
    """Smallest ``lam`` for which every weight is zero: max |C| / max(0.001, alpha).

    Parameters
    ----------
    C : (u, c) float
        X^T (Y - mean Y) / n, transposed.
    grouped : bool
        Group lasso over targets: the largest column norm instead of the largest entry.
    """
    largest = np.linalg.norm(C, axis=0).max() if grouped else np.abs(C).max()
    return float(largest / max(0.001, alpha))


def lambda_grid(largest: float, epsilon: float, k: int, *, zero: bool = True) -> np.ndarray:
    """``k`` values from ``largest`` down to ``epsilon largest``, equally spaced in logarithm, then 0 if asked: float64.

    Raises `ValueError` (k below 1, or epsilon outside (0, 1]).
    """
    if k < 1 or not 0 < epsilon <= 1:
        raise ValueError(f"Got k={k} and epsilon={epsilon}, expected k of at least 1 and epsilon in (0, 1]")
    grid = largest * np.logspace(0.0, np.log10(epsilon), k)
    return np.append(grid, 0.0) if zero else grid


def exact(
    problem: Problem,
    *,
    start: np.ndarray | None = None,
    tolerance: float = 1e-10,
    device: str = "cpu",
    max_iterations: int = 10_000,
) -> np.ndarray:
    """The minimum of every row.

    An active-set method: on a fixed set of columns with fixed signs F is a quadratic with a closed-form minimum. The
    iterate moves towards it, drops the first column whose weight would change sign, and admits the columns that violate
    |C - W G - l2 W| <= l1 most. Every move lowers F, so it ends after finitely many, with the minimum to rounding.
    All targets advance together as batches of small Cholesky systems. Always float64.

    Parameters
    ----------
    start : (u, c) float, optional
        Warm start; its signs are what counts.
    tolerance : float
        Admitted violation of the optimality condition, relative to max(l1, 1e-3 max |C|).
    max_iterations : int
        Rounds of admission; far above what is needed, a guard against rounding.

    Returns
    -------
    (u, c) float64

    Notes
    -----
    O(rounds (u s^3 + u s c)) for s non-zero weights per row, usually 10 to 40 rounds. See `Problem.duality_gap` for the
    certificate.
    """
    u, c = problem.C.shape
    if problem.l1 == 0:
        return _ridge(problem)
    W = np.zeros((u, c)) if start is None else np.array(start, dtype=np.float64)
    if W.shape != (u, c):
        raise ValueError(f"Got a start of shape {W.shape}, expected {(u, c)}")
    G = torch.as_tensor(problem.G, dtype=torch.float64, device=device)
    slack = tolerance * max(problem.l1, 1e-3 * float(np.abs(problem.C).max()))
    chunk = max(1, min(u, 2**23 // max(c, 64**2)))
    for begin in range(0, u, chunk):
        rows = slice(begin, begin + chunk)
        C = torch.as_tensor(problem.C[rows], dtype=torch.float64, device=device)
        first = torch.as_tensor(W[rows], dtype=torch.float64, device=device)
        solver = _ActiveSet(G, C, problem.l1, problem.l2, first)
        solver.run(slack, max_iterations)
        W[rows] = solver.weights().cpu().numpy()
    return W


def _ridge(problem: Problem) -> np.ndarray:
    """Minimum without an l1 penalty; the one of smallest norm where it is not unique."""
    values, vectors = np.linalg.eigh(problem.G)
    curvature = np.maximum(values, 0.0) + problem.l2
    usable = curvature > max(values[-1], 1e-300) * len(values) * np.finfo(float).eps
    inverse = np.where(usable, 1.0 / np.where(usable, curvature, 1.0), 0.0)
    return ((problem.C @ vectors) * inverse) @ vectors.T


class _ActiveSet:
    """State of `exact` for a chunk of targets.

    ``index`` (u, s) columns, ``live`` (u, s) which entries are real, ``w`` their weights, ``sign`` their fixed signs.
    """

    def __init__(self, G: torch.Tensor, C: torch.Tensor, l1: float, l2: float, start: torch.Tensor) -> None:
        self.G, self.C, self.l1, self.l2 = G, C, l1, l2
        live = start != 0
        width = int(live.sum(dim=1).max())
        order = torch.argsort((~live).to(torch.uint8), dim=1, stable=True)[:, :width]
        self.index = order
        self.live = torch.gather(live, 1, order)
        self.w = torch.where(self.live, torch.gather(start, 1, order), torch.zeros((), dtype=C.dtype, device=C.device))
        self.sign = torch.sign(self.w)

    def weights(self) -> torch.Tensor:
        W = torch.zeros_like(self.C)
        return W.scatter_add_(1, self.index, torch.where(self.live, self.w, torch.zeros_like(self.w)))

    def run(self, slack: float, max_iterations: int) -> None:
        u = len(self.C)
        todo = torch.arange(u, device=self.C.device)
        few = torch.zeros(u, dtype=torch.bool, device=self.C.device)  # admit one column at a time
        if self.index.shape[1]:
            self._settle(todo)
        for _ in range(max_iterations):
            Q = self._gradient(todo)
            violation = Q.abs() - self.l1
            inside = torch.zeros_like(violation, dtype=torch.uint8)
            inside.scatter_add_(1, self.index[todo], self.live[todo].to(torch.uint8))  # dead entries may repeat columns
            violation.masked_fill_(inside > 0, -1.0)
            worst = violation.max(dim=1).values
            keep = worst > slack
            todo, violation, Q, worst = todo[keep], violation[keep], Q[keep], worst[keep]
            if not len(todo):
                return
            before = self._signature(todo)
            self._admit(todo, violation, Q, worst, slack, few[todo])
            self._settle(todo)
            same = (self._signature(todo) == before).all(dim=1)
            # every newcomer was dropped again: rounding. One at a time, then the row is as good as it gets.
            stuck = same & few[todo]
            few[todo] = same
            todo = todo[~stuck]
            if not len(todo):
                return

    def _signature(self, rows: torch.Tensor) -> torch.Tensor:
        """Two numbers that tell supports apart: their size and the sum of hashed columns."""
        live = self.live[rows]
        hashed = (self.index[rows] * 2654435761 + 97) % 1_000_000_007
        return torch.stack([live.sum(dim=1), torch.where(live, hashed, torch.zeros_like(hashed)).sum(dim=1)], dim=1)

    def _gradient(self, rows: torch.Tensor) -> torch.Tensor:
        W = torch.zeros((len(rows), self.C.shape[1]), dtype=self.C.dtype, device=self.C.device)
        W.scatter_add_(1, self.index[rows], torch.where(self.live[rows], self.w[rows], 0.0))
        used = torch.nonzero((W != 0).any(dim=0)).ravel()
        if not len(used):
            return self.C[rows].clone()
        return self.C[rows] - W[:, used] @ self.G[used] - self.l2 * W

    def _admit(
        self,
        rows: torch.Tensor,
        violation: torch.Tensor,
        Q: torch.Tensor,
        worst: torch.Tensor,
        slack: float,
        few: torch.Tensor,
    ) -> None:
        size = int(self.live[rows].sum(dim=1).max())
        most = min(violation.shape[1], max(8, size // 4))
        value, column = torch.topk(violation, most, dim=1)
        enter = (value > slack) & (value >= 0.3 * worst[:, None])
        enter[:, 1:] &= ~few[:, None]
        # repack so that dead entries make room
        order = torch.argsort((~self.live).to(torch.uint8), dim=1, stable=True)
        width = int(self.live.sum(dim=1).max())
        order = order[:, :width]
        u = len(self.C)
        fresh = {
            "index": torch.zeros((u, most), dtype=self.index.dtype, device=self.index.device),
            "live": torch.zeros((u, most), dtype=torch.bool, device=self.index.device),
            "w": torch.zeros((u, most), dtype=self.w.dtype, device=self.w.device),
            "sign": torch.zeros((u, most), dtype=self.w.dtype, device=self.w.device),
        }
        fresh["index"][rows] = column
        fresh["live"][rows] = enter
        fresh["sign"][rows] = torch.sign(Q.gather(1, column)) * enter
        for name, extra in fresh.items():
            setattr(self, name, torch.cat([getattr(self, name).gather(1, order), extra], dim=1))

    def _settle(self, rows: torch.Tensor) -> None:
        """Move each row to the minimum on its columns and signs, dropping columns on the way."""
        while len(rows):
            target = self._minimum(rows)
            w, sign, live = self.w[rows], self.sign[rows], self.live[rows]
            wrong = live & (target * sign <= 0)
            bad = wrong.any(dim=1)
            good = rows[~bad]
            self.w[good] = torch.where(live[~bad], target[~bad], 0.0)
            rows, w, live, wrong, target = rows[bad], w[bad], live[bad], wrong[bad], target[bad]
            if not len(rows):
                return
            newcomer = wrong & (w == 0)
            at_zero = newcomer.any(dim=1)
            ratio = torch.where(wrong & (w != 0), w / (w - target), torch.inf)
            length, first = ratio.min(dim=1)
            length = torch.where(at_zero, 0.0, length)
            moved = torch.where(live, w + length[:, None] * (target - w), 0.0)
            drop = newcomer | (~at_zero[:, None] & (ratio <= length[:, None]))
            drop[torch.arange(len(rows), device=rows.device), first] |= ~at_zero
            self.w[rows] = torch.where(drop, 0.0, moved)
            self.live[rows] = live & ~drop

    def _minimum(self, rows: torch.Tensor) -> torch.Tensor:
        out = torch.zeros((len(rows), self.index.shape[1]), dtype=self.C.dtype, device=self.C.device)
        width = self.index.shape[1]
        step = max(1, SOLVE_ELEMENTS // max(1, width * width))
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            live, index = self.live[part], self.index[part]
            both = live[:, :, None] & live[:, None, :]
            H = torch.where(both, self.G[index[:, :, None], index[:, None, :]], 0.0)
            diagonal = torch.diagonal(H, dim1=1, dim2=2)
            diagonal += 1.0 + live.to(H.dtype) * (self.l2 - 1.0)
            right = torch.where(live, self.C[part].gather(1, index) - self.l1 * self.sign[part], 0.0)
            factor, info = torch.linalg.cholesky_ex(H)
            if bool((info > 0).any()):  # exactly dependent columns without an l2 penalty
                jitter = torch.where(info > 0, 1e-10, 0.0)[:, None] * torch.ones_like(diagonal)
                diagonal += jitter
                factor, _ = torch.linalg.cholesky_ex(H)
            out[begin : begin + step] = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        return out


def path(problem: Problem, lams: np.ndarray, *, tolerance: float = 1e-10, device: str = "cpu") -> np.ndarray:
    """`exact` for each value of ``lams``, each started from the last.

    Parameters
    ----------
    problem : Problem
        Its own ``lam`` is not used.
    lams : (k,) float
        Best in falling order, for example from `lambda_grid`.

    Returns
    -------
    (k, u, c) float64
    """
    out = np.empty((len(lams), *problem.C.shape))
    last: np.ndarray | None = None
    for k, lam in enumerate(lams):
        last = out[k] = exact(problem.at(float(lam)), start=last, tolerance=tolerance, device=device)
    return out
