"""UIBE: unsupervised interpretable basis extraction (arXiv 2303.10523, as restated in EDDP, appendices A and D).

An orthonormal set of filters in a standardised feature space, found so that each position switches on few detectors,
the winner fully, every detector somewhere, and with wide margins. It is step (a) of EDDP without alignment.

Symbols are those of `learning`: filters ``W`` (I, D), thresholds ``b`` (I,), margins ``M`` (I,), signal vectors ``S``
(I, D).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rdxcli.numerics.seeding import torch_generator
from rdxcli.parameters import Count, Positive

from .alignment import Head, HeadOnShift, frozen
from .base import Directions, closed_form_signals
from .features import FeatureSpace, as_maps
from .learning import LearningProblem, Solutions, fitting_threads, search
from .recipes import Stage, recipe

MODES = ("global", "whiten", "channel")


@dataclass(frozen=True)
class Workspace:
    """Features ready for learning."""

    X: Tensor
    space: FeatureSpace
    problem: LearningProblem

    @classmethod
    def of(
        cls,
        features: np.ndarray | Tensor,
        head: Head | None,
        n_directions: int,
        step: Stage,
        *,
        gamma: float,
        sharpness: float,
        kappa: tuple[float, float],
        subspace: str | int | None,
        clamp: bool,
        device: str,
    ) -> Workspace:
        """Check the input and put it into learning coordinates on ``device``."""
        if gamma < 1 or sharpness <= 0 or not 0 < kappa[0] <= kappa[1] <= 1:
            raise ValueError(
                f"Got gamma={gamma}, sharpness={sharpness}, kappa={kappa}, "
                "expected gamma >= 1, sharpness > 0 and 0 < kappa[0] <= kappa[1] <= 1"
            )
        X = as_maps(features)
        space = FeatureSpace.of(X, n_directions, subspace)
        on_device = None
        if head is not None:
            basis = (space.Q * space.unit).float().to(device)
            on_device = HeadOnShift(head, X.to(device), basis, clamp)
        problem = LearningProblem(
            space.reduce(X).to(device),
            len(X),
            on_device,
            gamma,
            step.tau,
            step.largest_share(n_directions),
            sharpness,
            kappa,
        )
        return cls(X, space, problem)

    def sample(self, n_images: int | None, generator: torch.Generator) -> LearningProblem:
        """The problem on a random choice of images, in their order."""
        if n_images is None or n_images >= self.problem.n_images:
            return self.problem
        chosen = torch.randperm(self.problem.n_images, generator=generator)[:n_images].sort().values
        return self.problem.images(chosen.to(self.problem.X.device))

    def restore(self, solution: Solutions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Filters (I, D), thresholds and margins (I,) of one solution (R = 1) in feature units, float64."""
        W = (solution.W[0].cpu().double() @ self.space.Q).numpy()
        b = solution.b[0].expand(len(W)).cpu().double().numpy() * self.space.unit + W @ self.space.mean.numpy()
        M = solution.M[0].expand(len(W)).cpu().double().numpy() * self.space.unit
        return W, b, M


def starts_for(n_directions: int, problem: LearningProblem, most: int = 16, budget: float = 2e8) -> int:
    """How many starts fit into one batch: ``most`` on small problems, fewer when a step would cost too much."""
    k, P = problem.X.shape
    deep = problem.head is not None and not problem.head.short
    return _affordable(n_directions, P, k, most, budget / 8 if deep else budget)


def _affordable(n_directions: int, positions: float, dimensions: float, most: int = 16, budget: float = 2e8) -> int:
    return int(max(1, min(most, budget // (n_directions * positions * max(dimensions, 8)))))


def search_work(estimator: Any, positions: float, dimensions: float) -> dict[str, float]:
    """Steps ``e`` and random starts ``s`` of step (a) of an estimator, as `rdxcli.methods.costs` calls them."""
    given = (
        estimator.steps if isinstance(estimator.steps, Mapping) or estimator.steps is None else {"a": estimator.steps}
    )
    step = recipe(estimator.combine, estimator.weights, estimator.bounds, given)["a"]
    auto = isinstance(estimator.n_starts, str)
    starts = _affordable(estimator.n_directions, positions, dimensions) if auto else estimator.n_starts
    return {"e": step.steps, "s": starts}


class UIBE(Directions):
    """Orthonormal interpretable directions (step (a) of EDDP).

    Parameters
    ----------
    n_directions : int
        I, number of directions; at most the rank of the features.
    combine : "lagrangian" or "weighted"
        How losses are combined, see `recipes.RECIPES`.
    align : bool
        Add uncertainty region alignment when a head is given (EDDP's step (a)); False is plain UIBE.
    n_starts : int or "auto"
        Random starts for each standardisation; "auto" is 16, fewer on big problems.
    standardisations : sequence of str
        Of "global", "whiten", "channel" (the paper's); the objective chooses among them.
    steps : int, optional
        Adam steps at most.
    gamma : float
        Sharpening power of activity, 1.1 (EDDP, appendix E).
    weights, bounds : mapping, optional
        Changes to the recipe, by loss name.
    subspace : "auto", int or None
        Principal directions used, see `features.FeatureSpace.of`.
    search_images : int or None
        Images the filters are learned on (a random choice); None takes all.
    random_state : int
        Seed.
    device : str
        Torch device.

    Attributes
    ----------
    merit_ : float
        Objective plus violations of the solution that was kept.

    See Also
    --------
    Directions : the results, and how to read features with them.
    """

    def __init__(
        self,
        n_directions: Count = 16,
        *,
        combine: str = "lagrangian",
        align: bool = False,
        n_starts: int | str = "auto",
        standardisations: Sequence[str] = MODES,
        steps: Count | None = None,
        gamma: Positive = 1.1,
        weights: Mapping[str, float] | None = None,
        bounds: Mapping[str, float] | None = None,
        subspace: str | int | None = "auto",
        search_images: Count | None = 2000,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.n_directions = n_directions
        self.combine = combine
        self.align = align
        self.n_starts = n_starts
        self.standardisations = standardisations
        self.steps = steps
        self.gamma = gamma
        self.weights = weights
        self.bounds = bounds
        self.subspace = subspace
        self.search_images = search_images
        self.random_state = random_state
        self.device = device

    def fit(self, features: np.ndarray | Tensor, head: Any = None) -> Self:
        """Find directions.

        Parameters
        ----------
        features : array, shape (N, D, H, W) or (N, D)
        head : callable, optional
            Feature maps -> logits; used only with ``align=True``.

        Raises
        ------
        ValueError
            Features or parameters that cannot be used.
        """
        self.notes_ = []
        step = recipe(self.combine, self.weights, self.bounds, None if self.steps is None else {"a": self.steps})["a"]
        used = head if self.align else None
        if self.align and head is None:
            self.notes_.append("no head was given, so the directions are not aligned with the network's uncertainty")
        with frozen(used, self.device) if used is not None else nullcontext():
            work = Workspace.of(
                features,
                used,
                self.n_directions,
                step,
                gamma=self.gamma,
                sharpness=4.0,
                kappa=(1.0, 1.0),
                subspace=self.subspace,
                clamp=False,
                device=self.device,
            )
            problem = work.sample(self.search_images, torch_generator(self.random_state, "uibe", "images"))
            with fitting_threads(16 * self.n_directions * problem.X.shape[1]):
                found = search_all(
                    problem,
                    work.space,
                    self.n_directions,
                    self.standardisations,
                    self.n_starts,
                    step,
                    self.random_state,
                )
        best = min(found, key=lambda solutions: float(solutions.merit.min()))
        best = best.take([int(best.merit.argmin())])
        self.merit_ = float(best.merit[0])
        W, b, M = work.restore(best)
        mean = work.space.mean.numpy()
        self._store(closed_form_signals(work.X, W, b, mean), W, b, M, mean)
        return self


def search_all(
    problem: LearningProblem,
    space: FeatureSpace,
    n_directions: int,
    modes: Sequence[str],
    n_starts: int | str,
    step: Stage,
    seed: int,
) -> list[Solutions]:
    """Step (a) in every standardisation; one stream of random numbers for each."""
    if not modes:
        raise ValueError("Got no standardisations, expected at least one")
    if isinstance(n_starts, str):
        if n_starts != "auto":
            raise ValueError(f"Got n_starts={n_starts!r}, expected 'auto' or a number")
        n_starts = starts_for(n_directions, problem)
    if n_starts < 1:
        raise ValueError(f"Got n_starts={n_starts}, expected at least 1")
    return [
        search(
            problem,
            space.standardisation(mode).to(problem.X),
            n_directions,
            n_starts,
            step.steps,
            step.rate,
            step.combine(),
            torch_generator(seed, "uibe", mode),
        )
        for mode in modes
    ]
