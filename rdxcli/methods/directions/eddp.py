"""EDDP: encoding-decoding direction pairs, found without labels (EDDP, OpenReview g7wLilhGhh, January 2025).

The data model is ``x_p = S a_p + D b_p + mean`` with signal vectors S (encoding directions), signal values ``a_p`` of
which few are large at any position, and distractors D. A filter (decoding direction) reads one signal value and no
other: ``w_i . s_j = (i == j)``, ``w_i . d = 0``.

Steps, by the letters of appendix D: (a) `uibe.search_all`, many random starts; candidates from the best of them
(`mirror`, `independence`); (b) `learning.refine` without signal vectors, skipped by default; (c) closed-form signal
vectors; (d) `learning.refine` with them; then our own last touches, `independence` from where (d) ended and
`learning.polish` of the thresholds and margins, which also decides between the candidates.

Symbols: ``W`` (I, D) filters, ``S`` (I, D) signal vectors, ``b`` (I,) thresholds, ``M`` (I,) margins, k learning
coordinates, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rdxcli.numerics.seeding import torch_generator
from rdxcli.parameters import Count, Positive
from rdxcli.progress import awaited, human_count

from .alignment import frozen
from .base import Directions, closed_form_signals
from .constraints import AugmentedLagrangian
from .independence import ClusterFilters, dependence, independent_filters, settle, varying_filters
from .learning import Alignment, LearningProblem, SignalMode, Solutions, fitting_threads, polish, refine
from .losses import scores
from .mirror import candidates
from .recipes import Stage, recipe
from .thresholds import single_owner_thresholds
from .uibe import MODES, Workspace, search_all, starts_for

START_MARGIN = 0.15
"""Margin at the start of (d), in learning units; wider ones lose almost correct starts (SPEC section 6.4, item 5)."""

_MAX_COORDINATES = 64
"""Beyond this many coordinates, covariances of higher order would need more positions than there usually are."""


class EDDP(Directions):
    """Encoding-decoding direction pairs.

    Parameters
    ----------
    n_directions : int
        I, number of direction pairs; at most the rank of the features.
    combine : "lagrangian" or "weighted"
        Losses under constraints (the papers' choice for synthetic data and small networks; steadier) or a weighted
        sum with the published weights for ResNet-18 on Places365. See `recipes.RECIPES`.
    alignment : "constrained", "unconstrained" or None
        Uncertainty region alignment of step (d); needs a head. None also leaves it out of (a).
    signals : "closed", "anchored" or "learned"
        Signal vectors in (d): recomputed in closed form at every step, free but held near the closed form, or free
        (the paper's reading, which drifts off the data: SPEC section 13).
    n_starts : int or "auto"
        Random starts for each standardisation; "auto" is 16, fewer on big problems.
    standardisations : sequence of str
        Of "global", "whiten", "channel".
    n_candidates : int or "auto"
        Distinct solutions that go through (d); "auto" is 4, fewer on big problems.
    mirror : bool
        Also try mirrored versions of the solutions of (a), see `mirror`.
    independence : bool or "auto"
        Use independence of the signal values inside clusters, for candidates and for a last touch after (d), see
        `independence`. "auto" does so up to 64 coordinates. False leaves EDDP as published.
    steps : mapping, optional
        Adam steps at most, by step: ``{"a": 250, "b": 0, "d": 400}``.
    weights, bounds : mapping, optional
        Changes to the recipe, by loss name.
    thresholds : "single" or "trained"
        Last thresholds: those that leave most positions with exactly one active detector (`thresholds`), or as (d)
        left them.
    gamma, sharpness : float
        1.1 and 4.0 (EDDP, appendix E).
    kappa : (float, float)
        Range of the distance moved by alignment; (1, 1) for small models, (0.5, 0.9) on real networks (appendix F).
    subspace : "auto", int or None
        Principal directions used, see `features.FeatureSpace.of`.
    search_images : int
        Images used by (a) and for choosing candidates.
    batch_images : int or None
        Images in one step of (d); None takes all, at random otherwise.
    clamp : bool
        Keep moved features at or above 0 in alignment, for layers that end in a ReLU.
    random_state : int
        Seed.
    device : str
        Torch device.

    Attributes
    ----------
    merit_ : float
        Value by which the solution won, lower is better: the objective, and how far the filters' outputs still depend
        on each other inside clusters (the objective alone is 0 for every set of clear detectors). Compare it between
        seeds on the same data, never between data.
    losses_ : dict of str to float
        Losses of the solution on all data (base-2 logarithms; alignment divided by ``log K``).
    sharpened_ : bool
        Whether the last touch by independence was taken.

    See Also
    --------
    Directions : the results, and how to read features with them.

    Examples
    --------
    >>> from rdxcli.methods.directions.synthetic import named, generate
    >>> case = generate(named("paper_table", images_per_class=60))
    >>> eddp = EDDP(3, n_starts=4, steps={"a": 60, "d": 60}).fit(case.X, case.head)
    >>> eddp.encoding_.shape
    (3, 16)
    """

    def __init__(
        self,
        n_directions: Count = 16,
        *,
        combine: str = "lagrangian",
        alignment: Alignment = "constrained",
        signals: SignalMode = "closed",
        n_starts: int | str = "auto",
        standardisations: Sequence[str] = MODES,
        n_candidates: int | str = "auto",
        mirror: bool = True,
        independence: bool | str = "auto",
        steps: Mapping[str, int] | None = None,
        weights: Mapping[str, float] | None = None,
        bounds: Mapping[str, float] | None = None,
        thresholds: str = "single",
        gamma: Positive = 1.1,
        sharpness: Positive = 4.0,
        kappa: tuple[float, float] = (1.0, 1.0),
        subspace: str | int | None = "auto",
        search_images: Count = 500,
        batch_images: Count | None = None,
        clamp: bool = False,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.n_directions = n_directions
        self.combine = combine
        self.alignment = alignment
        self.signals = signals
        self.n_starts = n_starts
        self.standardisations = standardisations
        self.n_candidates = n_candidates
        self.mirror = mirror
        self.independence = independence
        self.steps = steps
        self.weights = weights
        self.bounds = bounds
        self.thresholds = thresholds
        self.gamma = gamma
        self.sharpness = sharpness
        self.kappa = kappa
        self.subspace = subspace
        self.search_images = search_images
        self.batch_images = batch_images
        self.clamp = clamp
        self.random_state = random_state
        self.device = device

    def fit(self, features: np.ndarray | Tensor, head: Any = None) -> Self:
        """Find direction pairs.

        Parameters
        ----------
        features : array, shape (N, D, H, W) or (N, D)
            Feature maps of the layer, or vectors.
        head : callable, optional
            ``f+``: maps feature maps (n, D, H, W) to logits (n, K), differentiably; a `alignment.PooledLinearHead` is
            much faster than others. Without it there is no alignment.

        Raises
        ------
        ValueError
            Features or parameters that cannot be used.
        """
        self.notes_ = []
        self._check_choices()
        plan = recipe(self.combine, self.weights, self.bounds, self.steps)
        used = head if self.alignment is not None else None
        if used is None and self.alignment is not None:
            self.notes_.append("no head was given, so the directions are not aligned with the network's uncertainty")
        with frozen(used, self.device) if used is not None else nullcontext():
            work = Workspace.of(
                features,
                used,
                self.n_directions,
                plan["a"],
                gamma=self.gamma,
                sharpness=self.sharpness,
                kappa=self.kappa,
                subspace=self.subspace,
                clamp=self.clamp,
                device=self.device,
            )
            with fitting_threads(16 * self.n_directions * work.problem.X.shape[1]):
                solution = self._solve(work, plan)
        self.merit_ = float(solution.merit[0])
        self.losses_ = {name: float(value[0]) for name, value in solution.terms.items()}
        W, b, M = work.restore(solution)
        mean = work.space.mean.numpy()
        S = closed_form_signals(work.X, W, b, mean)
        if solution.S is not None and not self.sharpened_:
            S = (solution.S[0].cpu().double() @ work.space.Q).numpy()
        self._store(S, W, b, M, mean)
        self._remarks(work)
        return self

    def _check_choices(self) -> None:
        for name, allowed in (
            ("alignment", ("constrained", "unconstrained", None)),
            ("signals", ("closed", "anchored", "learned")),
            ("independence", (True, False, "auto")),
            ("thresholds", ("single", "trained")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Got {name}={getattr(self, name)!r}, expected one of {allowed}")
        for name in ("search_images", "batch_images", "n_candidates"):
            value = getattr(self, name)
            if isinstance(value, str) and (name, value) != ("n_candidates", "auto"):
                raise ValueError(f"Got {name}={value!r}, expected a number" + " or 'auto'" * (name == "n_candidates"))
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Got {name}={value}, expected at least 1")

    def _stream(self, name: str) -> torch.Generator:
        return torch_generator(self.random_state, "eddp", name)

    def _solve(self, work: Workspace, plan: dict[str, Stage]) -> Solutions:
        """All steps; returns one solution (R = 1)."""
        n_detectors = self.n_directions
        use_independence = (
            work.space.size <= _MAX_COORDINATES if self.independence == "auto" else bool(self.independence)
        )
        with awaited("directions"):
            small = work.sample(self.search_images, self._stream("search images"))
            found = search_all(
                small, work.space, n_detectors, self.standardisations, self.n_starts, plan["a"], self.random_state
            )
            start = self._choose(small, found, use_independence)
            if plan["b"].steps:
                start = self._refine(work.problem, start, plan["b"], None)
            trained = self._refine(work.problem, start, plan["d"], self.signals)
            solution, taken = self._sharpen(work.problem, trained) if use_independence else (trained, [])
            ranked = _polish_parts(work.problem, solution, 250)
            apart = [
                dependence(W @ work.problem.X, (W @ work.problem.X - b[:, None]).argmax(0))
                for W, b in zip(ranked.W, ranked.b, strict=True)
            ]
            ranked = replace(ranked, merit=ranked.merit + torch.tensor(apart).to(ranked.merit))
        best = int(ranked.merit.argmin())
        self.sharpened_ = bool(taken) and taken[best]
        if taken and not self.sharpened_:
            self.notes_.append(
                "the features do not determine the filters (signal values that look Gaussian and vary alike inside "
                "their clusters, or clusters of few positions): encoding directions may be mixtures, compare seeds"
            )
        chosen = ranked.take([best])
        if self.thresholds == "single":
            outputs = (chosen.W[0] @ work.problem.X).cpu().numpy()
            b, _ = single_owner_thresholds(outputs, chosen.b[0].cpu().numpy())
            chosen = replace(chosen, b=torch.from_numpy(b).to(chosen.b)[None])
        else:
            chosen = replace(chosen, b=trained.b[[best]], M=trained.M[[best]])
        return replace(chosen, terms={**trained.take([best]).terms, **chosen.terms})

    def _choose(self, problem: LearningProblem, found: list[Solutions], use_independence: bool) -> Solutions:
        """Distinct starting points for (d), ranked by how well they do with thresholds and margins fitted."""
        n_detectors = self.n_directions
        pool: list[Solutions] = []
        source: list[tuple[int, int]] = []
        most = starts_for(n_detectors, problem, most=6)
        for number, solutions in enumerate(found):
            for index in solutions.distinct(most, 0.99):
                family = [candidates(problem.X, solutions, index, START_MARGIN, self.mirror)]
                if use_independence:
                    family += self._independent(problem, solutions.take([index]), f"{number} {index}")
                pool += family
                source += [(number, index)] * sum(len(part.merit) for part in family)
        ranked = _polish_parts(problem, Solutions.joined(pool), 120)
        count = self.n_candidates
        if not isinstance(count, int):
            count = starts_for(n_detectors, problem, most=4)
        keep = ranked.distinct(count, 0.99)
        if not use_independence and self.mirror:
            # Before (d) the objective cannot tell a solution from its mirror images, so they stay together.
            families = {source[index] for index in keep}
            keep = [index for index, family in enumerate(source) if family in families]
        kept = ranked.take(keep)
        return replace(kept, M=kept.M.clamp(0.05, START_MARGIN))

    def _independent(self, problem: LearningProblem, one: Solutions, name: str) -> list[Solutions]:
        """The independent filters of the clusters of one solution of (a), found in two ways, if they can be."""
        n_detectors = self.n_directions
        b, M = one.b.expand(1, n_detectors), one.M.expand(1, n_detectors)
        owner = scores(one.W, b, M, problem.X)[0].argmax(0)
        stream = self._stream(f"independence {name}")
        settled = [
            settle(owner, lambda own, W: independent_filters(problem.X, own, n_detectors, stream, W)),
            settle(owner, lambda own, W: varying_filters(problem.X, own, n_detectors)),
        ]
        return [
            Solutions(found.W[None], found.b[None], torch.full_like(M, START_MARGIN), one.merit)
            for found in settled
            if found is not None
        ]

    def _refine(self, problem: LearningProblem, start: Solutions, step: Stage, signals: SignalMode | None) -> Solutions:
        if signals == "anchored":
            step = replace(step, weights={**step.weights, "anchor": 1.0})
        return refine(
            _for(problem, step, self.n_directions),
            start,
            step.steps,
            step.rate,
            step.combine(),
            self._stream("refine" if signals is None else "refine with signals"),
            self.alignment,
            signals,
            self.batch_images,
        )

    def _sharpen(self, problem: LearningProblem, solutions: Solutions) -> tuple[Solutions, list[bool]]:
        """Move each solution to the independent filters next to it, if they are well determined and really near."""
        taken = []
        parts = []
        for index in range(len(solutions.merit)):
            one = solutions.take([index])
            owner = scores(one.W, one.b, one.M, problem.X)[0].argmax(0)
            both = (
                independent_filters(
                    problem.X, owner, self.n_directions, self._stream(f"sharpen {index}"), start=one.W[0]
                ),
                varying_filters(problem.X, owner, self.n_directions),
            )
            near = max((found for found in both if found is not None), key=_least_certain, default=None)
            close = near is not None and _least_certain(near) > 5 and _alike(problem.X, one.W[0], near.W)
            taken.append(close)
            parts.append(replace(one, W=near.W[None], b=near.b[None]) if near is not None and close else one)
        return Solutions.joined(parts), taken

    def _remarks(self, work: Workspace) -> None:
        if work.space.size < work.space.rank:
            self.notes_.append(
                f"the last {work.space.rank - work.space.size} of "
                f"{human_count(work.space.rank, 'principal direction')} were left out "
                + ("as asked" if isinstance(self.subspace, int) else "because they look like noise")
            )
        detected = self.responses(work.X) > 0
        share = detected.mean((0, 2, 3))
        idle = np.flatnonzero(detected.sum((0, 2, 3)) < 8)
        if idle.size:
            self.notes_.append(
                f"detectors {idle.tolist()} are active at fewer than 8 positions; their encoding directions use their "
                "top-scoring positions instead"
            )
        crowded = np.flatnonzero(share > 0.5)
        if crowded.size:
            self.notes_.append(f"detectors {crowded.tolist()} are active at more than half of the positions")


def _for(problem: LearningProblem, step: Stage, n_directions: int) -> LearningProblem:
    return replace(problem, tau=step.tau, rho=step.largest_share(n_directions))


def _least_certain(found: ClusterFilters) -> float:
    return float(found.certainty.min())


def _alike(X: Tensor, old: Tensor, new: Tensor) -> bool:
    """Whether outputs of filters (I, k) and of their replacements correlate by more than 0.8, each with its own."""
    before, after = ((W @ X) - (W @ X).mean(1, keepdim=True) for W in (old, new))
    return bool(((before * after).sum(1) > 0.8 * before.norm(dim=1) * after.norm(dim=1)).all())


def _polish_parts(problem: LearningProblem, solutions: Solutions, steps: int, most: int = 8_000_000) -> Solutions:
    """Fit thresholds and margins to frozen filters; the merit afterwards ranks the solutions.

    The objective is like that of SPEC section 6.4, item 8, but without the sparsity bound and with loose bounds on the
    shares of the detectors, so that concepts of unequal size are not ranked below mirror solutions. Solutions go
    through in parts of at most ``most`` activations.
    """
    count, n_detectors = solutions.b.shape
    problem = replace(problem, tau=1.0, rho=min(1.5 / n_detectors, 0.9))
    size = max(1, most // (n_detectors * problem.X.shape[1]))
    parts = []
    for first in range(0, count, size):
        part = solutions.take(list(range(first, min(first + size, count))))
        combine = AugmentedLagrangian({"s": 1.0, "ma": 1.0}, {"mm": 24.0, "ic": 0.3, "eac": 0.3}, penalty=5.0)
        parts.append(polish(problem, part, steps, 2e-2, combine, 1 / 24))
    return Solutions.joined(parts)
