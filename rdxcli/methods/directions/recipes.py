"""Loss weights, bounds and schedules of every step, as published and as we use them.

Names of losses: ``s`` sparsity, ``sb`` sparsity bound, ``ma`` maximum activation, ``mm`` maximum margin, ``ic``
inactive classifier, ``eac`` excessively active classifier, ``fso`` filter-signal orthogonality, ``align`` uncertainty
region alignment (unconstrained in steps (a) and (b), constrained or not in (d)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .constraints import AugmentedLagrangian, WeightedSum

LOSSES = frozenset({"s", "sb", "ma", "mm", "ic", "eac", "fso", "align", "anchor"})


@dataclass(frozen=True)
class Stage:
    """One training step.

    Attributes
    ----------
    weights : mapping of str to float
        Losses that are minimised.
    bounds : mapping of str to float
        Losses that are kept below a bound; empty for a plain weighted sum.
    tau : float
        Share of the positions that all detectors must own together.
    rho : float
        Largest share one detector may own, in units of ``1 / I``.
    steps : int
        Adam steps at most.
    rate : float
        Learning rate at the start.
    penalty : float
        Penalty of the augmented Lagrangian.
    """

    weights: Mapping[str, float]
    bounds: Mapping[str, float] = field(default_factory=dict)
    tau: float = 1.0
    rho: float = 1.5
    steps: int = 300
    rate: float = 1e-2
    penalty: float = 1.0

    def combine(self) -> AugmentedLagrangian | WeightedSum:
        """A fresh objective for one run of this step."""
        if self.bounds:
            return AugmentedLagrangian(self.weights, self.bounds, penalty=self.penalty)
        return WeightedSum(self.weights)

    def largest_share(self, n_directions: int) -> float:
        """``rho`` as a share of the positions."""
        return min(self.rho / n_directions, 0.9)


_JOINT_BOUNDS = {"ma": 0.8, "mm": 8.0, "ic": 0.1, "eac": 0.1}
_WEIGHTED = {"s": 0.85, "sb": 2.6, "ma": 2.8, "mm": 0.6, "ic": 15.0, "eac": 15.0, "align": 0.25}

RECIPES: dict[str, dict[str, Stage]] = {
    # EDDP, appendices E and I (synthetic and small models), but `align` 2.0 instead of 0.25 in (a) and `fso` 0.03
    # instead of 0.1 in (d): SPEC sections 6.4 and 13. Rates and numbers of steps are ours.
    "lagrangian": {
        "a": Stage({"s": 2.6, "align": 2.0}, {"ma": 0.8, "mm": 8.0, "ic": 0.1}, steps=250, rate=2e-2),
        "b": Stage({"s": 0.85, "sb": 2.6, "align": 0.25}, _JOINT_BOUNDS, steps=0, rate=1.5e-3),
        "d": Stage({"s": 0.85, "sb": 2.6, "align": 0.25}, {**_JOINT_BOUNDS, "fso": 0.03}, steps=400, rate=1.5e-3),
    },
    # EDDP, table 7 and appendix F (real networks).
    "weighted": {
        "a": Stage({"s": 2.6, "ma": 2.8, "mm": 0.6, "ic": 5.0, "align": 0.25}, tau=0.9, steps=300, rate=1e-2),
        "b": Stage(_WEIGHTED, tau=0.9, rho=12 * 0.9, steps=300, rate=1.5e-3),
        "d": Stage({**_WEIGHTED, "fso": 1.0}, tau=0.2, rho=70 * 0.2, steps=400, rate=1.5e-3),
    },
}


def recipe(
    combine: str,
    weights: Mapping[str, float] | None,
    bounds: Mapping[str, float] | None,
    steps: Mapping[str, int] | None,
) -> dict[str, Stage]:
    """The named recipe with changes.

    Raises `ValueError` (unknown names, or negative values).

    Parameters
    ----------
    weights, bounds : mapping of str to float, optional
        New values, for every step that uses the loss.
    steps : mapping of str to int, optional
        New numbers of steps, by step ("a", "b", "d").
    """
    if combine not in RECIPES:
        raise ValueError(f"Got combine={combine!r}, expected one of {sorted(RECIPES)}")
    found = dict(RECIPES[combine])
    for what, changes in (("weights", weights or {}), ("bounds", bounds or {})):
        used = frozenset().union(*(getattr(step, what) for step in found.values()))
        if set(changes) - used:
            raise ValueError(f"Got {what} for {sorted(set(changes) - used)}, expected names among {sorted(used)}")
        if any(not value >= 0 for value in changes.values()):
            raise ValueError(f"Got {what}={dict(changes)}, expected numbers of at least 0")
        for name, step in found.items():
            old = getattr(step, what)
            new = {**old, **{loss: value for loss, value in changes.items() if loss in old}}
            found[name] = replace(step, weights=new) if what == "weights" else replace(step, bounds=new)
    for name, count in (steps or {}).items():
        if name not in found or count < 0 or (name != "b" and count < 1):
            raise ValueError(
                f"Got steps={dict(steps or {})}, expected numbers of steps for 'a', 'b' (may be 0) and 'd'"
            )
        found[name] = replace(found[name], steps=int(count))
    return found
