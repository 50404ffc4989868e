"""How several losses become one number to minimise.

Two ways, both for a batch of R solutions that are trained side by side:

* `AugmentedLagrangian`: some losses are minimised, others only have to stay below a bound
  (EDDP, appendices E and I; the standard form for inequalities, Nocedal and Wright, section 17.3).
* `WeightedSum`: everything is added with fixed weights (EDDP, table 7).

For a constraint ``g_c = L_c - t_c <= 0`` with multiplier ``eta_c >= 0`` and penalty ``mu_c > 0`` the term is
``(max(0, eta_c + mu_c g_c)^2 - eta_c^2) / (2 mu_c)``; every few steps ``eta_c <- max(0, eta_c + mu_c g_c)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def _weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    chosen = [weights[name] * losses[name] for name in weights if name in losses]
    if not chosen:
        raise ValueError(f"Got losses {sorted(losses)}, expected at least one of {sorted(weights)}")
    return torch.stack(chosen).sum(0)


class WeightedSum:
    """``sum_c weight_c L_c``; losses without a weight are ignored.

    Parameters
    ----------
    weights : mapping of str to float
        Weight of each loss.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The value to minimise, shape (R,)."""
        return _weighted(losses, self.weights)

    def update(self, losses: Mapping[str, Tensor]) -> None:
        """Nothing to update; here so that both ways are used alike."""

    def merit(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Value by which solutions are ranked, shape (R,)."""
        return self(losses).detach()


class AugmentedLagrangian:
    """Objective plus augmented terms for the inequality constraints ``L_c <= bound_c``.

    Parameters
    ----------
    weights : mapping of str to float
        Losses that are minimised, with their weights.
    bounds : mapping of str to float
        Losses that are constrained, with their bounds. Bounds on losses that are not given later are ignored.
    penalty : float
        ``mu`` at the start.
    growth : float
        Factor on ``mu`` at an update when a violation did not shrink to 90 % of the one before; 1 keeps ``mu`` fixed.
    max_penalty : float
        Largest ``mu``.

    Attributes
    ----------
    multipliers_ : dict of str to Tensor, shape (R,)
        ``eta_c`` of each solution.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        bounds: Mapping[str, float],
        penalty: float = 1.0,
        growth: float = 1.0,
        max_penalty: float = 100.0,
    ) -> None:
        if penalty <= 0 or growth < 1:
            raise ValueError(f"Got penalty={penalty}, growth={growth}, expected penalty > 0 and growth >= 1")
        self.weights = dict(weights)
        self.bounds = dict(bounds)
        self.penalty = penalty
        self.growth = growth
        self.max_penalty = max_penalty
        self.multipliers_: dict[str, Tensor] = {}
        self._mu: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    def _state(self, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
        if name not in self.multipliers_:
            self.multipliers_[name] = torch.zeros_like(like)
            self._mu[name] = torch.full_like(like, self.penalty)
        return self.multipliers_[name], self._mu[name]

    def violations(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``g_c = L_c - bound_c`` of every constraint, each of shape (R,)."""
        return {name: losses[name] - bound for name, bound in self.bounds.items() if name in losses}

    def objective(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the minimised losses, shape (R,)."""
        return _weighted(losses, self.weights)

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The value to minimise, shape (R,)."""
        total = self.objective(losses)
        for name, g in self.violations(losses).items():
            eta, mu = self._state(name, g.detach())
            total = total + (torch.relu(eta + mu * g).square() - eta.square()) / (2 * mu)
        return total

    @torch.no_grad()
    def update(self, losses: Mapping[str, Tensor]) -> None:
        """Move the multipliers by the present violations."""
        for name, g in self.violations(losses).items():
            eta, mu = self._state(name, g)
            self.multipliers_[name] = torch.relu(eta + mu * g)
            if self.growth > 1:
                last = self._last.get(name)
                if last is not None:
                    stuck = (g > 0) & (g > 0.9 * last)
                    self._mu[name] = torch.where(stuck, (mu * self.growth).clamp_max(self.max_penalty), mu)
                self._last[name] = g.clone()

    def keep(self, chosen: Tensor) -> None:
        """Forget the solutions that are not in ``chosen`` (indices into the batch)."""
        for state in (self.multipliers_, self._mu, self._last):
            for name in state:
                state[name] = state[name][chosen]

    @torch.no_grad()
    def merit(self, losses: Mapping[str, Tensor], tolerance: float = 0.0, weight: float = 5.0) -> Tensor:
        """Objective plus ``weight`` times the violations above ``tolerance``: ranks solutions, shape (R,)."""
        total = self.objective(losses)
        for g in self.violations(losses).values():
            total = total + weight * torch.relu(g - tolerance)
        return total
