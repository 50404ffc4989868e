"""The optimisation problems of UIBE and EDDP, for a batch of solutions trained side by side.

Symbols, with shapes (R solutions, I detectors, k learning coordinates, P positions, N images):

=========  ============  =======================================================================
``X``      (k, P)        features in learning coordinates, see `features.FeatureSpace`
``T``      (k, k)        standardisation used by step (a)
``W``      (R, I, k)     unit filters, one per row
``b``      (R, I)        thresholds
``M``      (R, I)        margins
``S``      (R, I, k)     signal vectors
=========  ============  =======================================================================

The steps are those of EDDP, appendix D: (a) orthonormal filters in a standardised space with one shared threshold and
margin; (b) free filters, thresholds and margins; (d) the same together with signal vectors. Every solution has its
own objective and nothing couples them, so training R at once gives the same as training each alone. Cost of one step:
O(R I P k) time, O(R I P) memory (times D / I with a head that is not pooled and linear).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from rdxcli.progress import turns

from .alignment import HeadOnShift, constrained_shift, unconstrained_shift
from .constraints import AugmentedLagrangian, WeightedSum
from .losses import (
    PositionTerms,
    excessively_active,
    filter_signal_orthogonality,
    inactive,
    maximum_margin,
    scores,
    self_weighted,
)
from .signals import closed_form

Alignment = Literal["constrained", "unconstrained"] | None
SignalMode = Literal["closed", "anchored", "learned"]


@contextmanager
def fitting_threads(activations: int) -> Iterator[None]:
    """One thread while it lasts when tensors are small: waiting for other threads then costs more than they save.

    On a busy machine that cost is a factor of ten or more. ``activations`` is the size R I P of the largest tensors.
    """
    threads = torch.get_num_threads()
    if activations >= 2_000_000 or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def inverse_softplus(value: Tensor) -> Tensor:
    """``v`` with ``softplus(v) = value`` for positive values; stable for large ones."""
    return value + torch.log(-torch.expm1(-value))


@dataclass(frozen=True)
class Solutions:
    """A batch of R solutions.

    Attributes
    ----------
    W : Tensor, shape (R, I, k)
    b, M : Tensor, shape (R, I)
    merit : Tensor, shape (R,)
        What ranks them, lower is better; comparable within one batch.
    S : Tensor, shape (R, I, k), optional
    """

    W: Tensor
    b: Tensor
    M: Tensor
    merit: Tensor
    S: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)

    def take(self, chosen: Tensor | list[int]) -> Solutions:
        """The solutions at the indices ``chosen``, in that order."""
        return Solutions(
            self.W[chosen],
            self.b[chosen],
            self.M[chosen],
            self.merit[chosen],
            None if self.S is None else self.S[chosen],
            {name: value[chosen] for name, value in self.terms.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Solutions]) -> Solutions:
        """One batch of several; signal vectors and terms are kept where all have them."""
        S = [part.S for part in parts if part.S is not None]
        shared = set.intersection(*(set(part.terms) for part in parts))
        return cls(
            torch.cat([part.W for part in parts]),
            torch.cat([part.b for part in parts]),
            torch.cat([part.M for part in parts]),
            torch.cat([part.merit for part in parts]),
            torch.cat(S) if len(S) == len(parts) else None,
            {name: torch.cat([part.terms[name] for part in parts]) for name in shared},
        )

    def distinct(self, limit: int, alike: float) -> list[int]:
        """Indices of the best ``limit`` solutions, leaving out those whose filters all have a twin in a better one."""
        kept: list[int] = []
        for index in torch.argsort(self.merit, stable=True).tolist():
            twins = (self.W[index] @ self.W[kept].transpose(1, 2)).abs().amax(2).amin(1) if kept else None
            if twins is not None and bool((twins > alike).any()):
                continue
            kept.append(index)
            if len(kept) == limit:
                break
        return kept


@dataclass(frozen=True)
class LearningProblem:
    """Data and constants that every step shares.

    Attributes
    ----------
    X : Tensor, shape (k, P)
    n_images : int
        P is a multiple of it; positions are ordered image by image.
    head : HeadOnShift or None
        None leaves alignment out.
    gamma, tau, rho, sharpness : float
        Constants of the losses, see `losses`.
    kappa : (float, float)
        Range of the random distance moved by alignment, drawn per position at every step; equal ends fix it.
    """

    X: Tensor
    n_images: int
    head: HeadOnShift | None
    gamma: float
    tau: float
    rho: float
    sharpness: float
    kappa: tuple[float, float]

    def images(self, chosen: Tensor) -> LearningProblem:
        """The same problem on some of the images."""
        X = self.X.reshape(self.X.shape[0], self.n_images, -1)[:, chosen].reshape(self.X.shape[0], -1)
        return replace(self, X=X, n_images=len(chosen), head=None if self.head is None else self.head.images(chosen))

    def detector_losses(self, z: Tensor, M: Tensor, late: bool = True, worst: bool = True) -> dict[str, Tensor]:
        """Losses of detectors with scores ``z`` (R, I, P), each of shape (R,); ``late`` adds EDDP's to UIBE's.

        ``worst=False`` leaves out the sparsity bound, which costs as much as all others together.
        """
        terms = PositionTerms.of(z)
        power = terms.mean_power(self.gamma)
        found = {
            "s": terms.entropy.mean(-1),
            "ma": terms.surprise.mean(-1),
            "ic": inactive(power, self.tau),
            "mm": maximum_margin(M),
        }
        if late:
            found["eac"] = excessively_active(power, self.rho, self.sharpness)
            if worst:
                found["sb"] = self_weighted(terms.entropy, self.sharpness)
        return found

    def moved_by(self, residual: Tensor, generator: torch.Generator) -> Tensor:
        """``kappa_p r_pi``: how far every position is moved along every shift direction."""
        low, high = self.kappa
        if low == high:
            return residual if low == 1.0 else low * residual
        draw = torch.rand(residual.shape[-1], generator=generator).to(residual)
        return residual * (low + (high - low) * draw)


class _Loop:
    """Adam with cosine decay, early stopping, and multiplier updates every few steps."""

    def __init__(
        self,
        parameters: list[Tensor],
        rate: float,
        steps: int,
        every: int = 10,
        patience: int = 5,
        tolerance: float = 1e-4,
    ) -> None:
        self.optimiser = torch.optim.Adam(parameters, lr=rate, foreach=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, max(steps, 1), eta_min=0.05 * rate)
        self.steps, self.every, self.patience, self.tolerance = steps, every, patience, tolerance
        self.taken = 0

    def run(
        self, said: str, evaluate: Callable[[], dict[str, Tensor]], combine: AugmentedLagrangian | WeightedSum
    ) -> None:
        """Take the steps, at most all; ``evaluate`` gives the losses of the present parameters."""
        best: Tensor | None = None
        since = 0
        for step in turns(said, self.steps):
            found = evaluate()
            self.optimiser.zero_grad(set_to_none=True)
            combine(found).sum().backward()
            self.optimiser.step()
            self.schedule.step()
            self.taken = step + 1
            if self.taken % self.every:
                continue
            combine.update({name: value.detach() for name, value in found.items()})
            merit = combine.merit(found)
            if best is not None and not bool((merit < best - self.tolerance * best.abs() - 1e-6).any()):
                since += 1
                if since >= self.patience:
                    break
            else:
                since = 0
            best = merit if best is None else torch.minimum(best, merit)


def search(
    problem: LearningProblem,
    T: Tensor,
    n_directions: int,
    n_starts: int,
    steps: int,
    rate: float,
    combine: AugmentedLagrangian | WeightedSum,
    generator: torch.Generator,
    margin: float = 0.5,
) -> Solutions:
    """Step (a) from random starts: orthonormal filters in the space standardised by ``T``.

    Returns solutions with filters in learning coordinates: ``w = T^T r / |T^T r|`` and ``b``, ``M`` divided by
    the same length (SPEC section 6.1).
    """
    k = T.shape[0]
    A = torch.randn(n_starts, k, n_directions, generator=generator).to(problem.X).requires_grad_()
    b = torch.full((n_starts, 1), 0.3).to(problem.X).requires_grad_()
    m = inverse_softplus(torch.full((n_starts, 1), margin)).to(problem.X).requires_grad_()
    standard = T @ problem.X
    back = torch.linalg.inv(T).T

    def current() -> tuple[Tensor, Tensor]:
        return torch.linalg.qr(A)[0].transpose(1, 2), softplus(m)

    def evaluate() -> dict[str, Tensor]:
        R, M = current()
        z = scores(R, b, M, standard)
        found = problem.detector_losses(z, M, late=False)
        if problem.head is not None:
            # Rows of `R` are orthonormal, so their pseudo-inverse is their transpose.
            found["align"] = problem.head.loss(R @ back, problem.moved_by(z * M.unsqueeze(-1), generator))
        return found

    _Loop([A, b, m], rate, steps).run("search for directions", evaluate, combine)
    with torch.no_grad():
        merit = combine.merit(evaluate())
        R, M = current()
        W = R @ T
        length = W.norm(dim=2)
        return Solutions(W / length.unsqueeze(2), b / length, M / length, merit)


def refine(
    problem: LearningProblem,
    start: Solutions,
    steps: int,
    rate: float,
    combine: AugmentedLagrangian | WeightedSum,
    generator: torch.Generator,
    alignment: Alignment = "constrained",
    signals: SignalMode | None = "closed",
    batch_images: int | None = None,
) -> Solutions:
    """Steps (b) and (d): free unit filters, a threshold and a margin for each, and signal vectors.

    ``signals=None`` is step (b). ``closed`` recomputes the signal vectors at every step and differentiates through
    them; ``learned`` makes them free parameters started from the closed form; ``anchored`` adds the loss ``anchor =
    mean(1 - cos(s, closed form))`` to that, so that they cannot drift off the data (SPEC section 5).
    """
    V = start.W.clone().requires_grad_()
    b = start.b.clone().requires_grad_()
    m = inverse_softplus(start.M).requires_grad_()
    parameters = [V, b, m]
    free: Tensor | None = None
    if signals in ("anchored", "learned"):
        S0 = start.S
        if S0 is None:
            with torch.no_grad():
                S0 = closed_form(problem.X, start.W @ problem.X, scores(start.W, start.b, start.M, problem.X))
        free = normalize(S0, dim=-1).clone().requires_grad_()
        parameters.append(free)

    def evaluate(on: LearningProblem) -> dict[str, Tensor]:
        W, M = normalize(V, dim=-1), softplus(m)
        out = (W.reshape(-1, W.shape[2]) @ on.X).reshape(*W.shape[:2], -1)
        residual = out - b.unsqueeze(-1)
        found = on.detector_losses(residual / M.unsqueeze(-1), M)
        S = free
        if signals in ("closed", "anchored"):
            closed = normalize(closed_form(on.X, out, residual), dim=-1)
            if free is None:
                S = closed
            else:
                found["anchor"] = (1 - (normalize(free, dim=-1) * closed).sum(-1)).mean(-1)
        if S is not None:
            found["fso"] = filter_signal_orthogonality(W, S)
        if on.head is not None and alignment is not None:
            inside = alignment == "constrained" and S is not None
            shift = constrained_shift(W, cast(Tensor, S)) if inside else unconstrained_shift(W)
            found["align"] = on.head.loss(shift, on.moved_by(residual, generator))
        return found

    def step() -> dict[str, Tensor]:
        if batch_images is None or batch_images >= problem.n_images:
            return evaluate(problem)
        chosen = torch.randperm(problem.n_images, generator=generator)[:batch_images]
        return evaluate(problem.images(chosen.sort().values))

    _Loop(parameters, rate, steps).run("refine the directions", step, combine)
    with torch.no_grad():
        found = evaluate(problem)
        W, M = normalize(V, dim=-1), softplus(m)
        S = normalize(free, dim=-1) if free is not None else None
        return Solutions(W, b.detach(), M, combine.merit(found), S, found)


def polish(
    problem: LearningProblem, start: Solutions, steps: int, rate: float, combine: AugmentedLagrangian, narrowest: float
) -> Solutions:
    """Fit thresholds and margins only, filters frozen; the merit afterwards tells true from mirror solutions.

    ``narrowest`` is the smallest margin to start from, in learning units.
    """
    out = (start.W.reshape(-1, start.W.shape[2]) @ problem.X).reshape(*start.W.shape[:2], -1)
    b = start.b.clone().requires_grad_()
    m = inverse_softplus(start.M.clamp_min(narrowest)).requires_grad_()

    def evaluate(worst: bool = False) -> dict[str, Tensor]:
        M = softplus(m)
        return problem.detector_losses((out - b.unsqueeze(-1)) / M.unsqueeze(-1), M, worst=worst)

    # thresholds and margins of frozen filters settle long before the last step
    _Loop([b, m], rate, steps, patience=2, tolerance=1e-3).run("thresholds of the directions", evaluate, combine)
    with torch.no_grad():
        found = evaluate(worst=True)
        return Solutions(start.W, b.detach(), softplus(m), combine.merit(found), start.S, found)
