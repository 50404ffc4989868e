"""Ablation scores: how much of a unit's effect on the model's loss does its simulated activation keep?

Symbols: L loss per sample with true activations; L_sim with the unit replaced by its simulated activation, L_mean by
its mean over the validation images; T calibration temperature of the logits.

    score = 1 - sum_test |L_sim - L| / sum_test |L_mean - L|

1 is perfect, 0 is as good as the constant mean, and it may be negative: the sums are over absolute changes of the loss,
most of which lie in the images that the model gets wrong, and a prediction that follows the true class says there what
the unit should have done (`AblationScores.wrong_share`; `controls` gives the two ends of the scale on the same data).

The model is a function `Losses` that gives the per-sample loss for replaced activations of one unit: `LinearHead` for a
layer that feeds a linear classifier (ResNet layer4 after pooling), anything else through a forward hook of the caller.

Reference: Oikarinen and Weng (2024), section 5.2 and appendix B.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike

from rdxcli.methods.neurons.scores import Interval, ScoreSummary, pearson, ratio_interval, summarise
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

Variant = Literal["optim", "norm"]


class Losses(Protocol):
    """Loss of each of some samples when the pooled activation of one unit is replaced."""

    def __call__(self, unit: int, values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Per-sample loss (m,), differentiable in ``values`` (m,).

        Parameters
        ----------
        unit : int
            Column of the activations.
        values : (m,) tensor
            New activations of the samples ``rows``.
        rows : (m,) int
        """


class _HeadLoss(torch.autograd.Function):
    """Cross entropy of logits + change w, with its slope in the change: one exponential per logit."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, old: torch.Tensor, logits: torch.Tensor, w: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        z = torch.addcmul(logits, (values - old)[:, None], w[None, :])
        top = z.max(dim=1, keepdim=True).values
        own = z.gather(1, y[:, None])[:, 0] - top[:, 0]
        p = z.sub_(top).exp_()
        total = p.sum(dim=1)
        ctx.save_for_backward(p @ w / total - w[y])
        return total.log() - own

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None, None, None


class LinearHead:
    """Cross entropy of a linear classifier on pooled activations, logits divided by a temperature.

    Replacing one input changes the logits by a multiple of one column of the weight, so no full product is needed.
    Raises `ValueError` (shapes that do not fit, labels out of range, NaN, temperature not positive).

    Parameters
    ----------
    features : (n, d) array-like
        What the classifier sees: the pooled activations.
    weight : (k, d) array-like
    bias : (k,) array-like
    labels : (n,) int array-like
    temperature : float
        1.1 in the paper.
    """

    def __init__(
        self,
        features: ArrayLike,
        weight: ArrayLike,
        bias: ArrayLike,
        labels: ArrayLike,
        *,
        temperature: float = 1.1,
        device: str = "cpu",
    ) -> None:
        X, W = np.asarray(features, dtype=np.float64), np.asarray(weight, dtype=np.float64)
        b, y = np.asarray(bias, dtype=np.float64), np.asarray(labels)
        if X.ndim != 2 or W.ndim != 2 or X.shape[1] != W.shape[1] or b.shape != (len(W),) or y.shape != (len(X),):
            raise ValueError(
                f"Got features {X.shape}, weight {W.shape}, bias {b.shape}, labels {y.shape}, "
                "expected (n, d), (k, d), (k,) and (n,)"
            )
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= len(W):
            raise ValueError(f"Got labels outside 0..{len(W) - 1}")
        if not temperature > 0:
            raise ValueError(f"Got temperature={temperature}, expected a positive number")
        if not (np.isfinite(X).all() and np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError("Got NaN or infinite values, expected finite numbers")
        self.features = torch.as_tensor(X, device=device)
        self.weight = torch.as_tensor(W / temperature, device=device)
        self.logits = self.features @ self.weight.T + torch.as_tensor(b / temperature, device=device)
        self.labels = torch.as_tensor(y.astype(np.int64), device=device)

    def __call__(self, unit: int, values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        pick = torch.as_tensor(rows, device=self.logits.device)
        moved = values.to(self.logits)
        args = (self.features[pick, unit], self.logits[pick], self.weight[:, unit], self.labels[pick])
        return _HeadLoss.apply(moved, *args).to(values.device)


@dataclass(frozen=True)
class AblationScores:
    """Ablation scores of some units.

    Attributes
    ----------
    units : (m,) int64
        Columns of the activations.
    scores : (m,) float64
        NaN where undefined: replacing the unit by its mean changes no loss, or its prediction does not vary ("norm").
    scale, shift : (m,) float64
        c and d of the simulated activation c prediction + d.
    summary : ScoreSummary
        Mean and std (n) / sqrt(units).
    right_scores : (m,) float64 or None
        Scores over the test rows that the model gets right alone, with the same c and d.
    wrong_share : (m,) float64 or None
        Share of sum |L_mean - L| that the others carry.
    interval : Interval or None
        95 % over test images, see `rdxcli.methods.neurons.scores.ratio_interval`; c and d are not fitted anew.
    """

    units: np.ndarray
    scores: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    summary: ScoreSummary
    notes: tuple[str, ...]
    right_scores: np.ndarray | None = None
    wrong_share: np.ndarray | None = None
    interval: Interval | None = None


def ablation_scores(
    predictions: ArrayLike,
    activations: ArrayLike,
    losses: Losses,
    *,
    val: ArrayLike,
    test: ArrayLike,
    units: Sequence[int] | np.ndarray | None = None,
    variant: Variant = "optim",
    steps: int = 100,
    learning_rate: float = 0.01,
    right: ArrayLike | None = None,
    intervals: bool = True,
    advance: Callable[[int], None] | None = None,
) -> AblationScores:
    """Ablation score of each unit.

    Raises `ValueError` (shapes that do not fit, NaN, or an unknown variant).

    Parameters
    ----------
    predictions : (n, m) array-like
        Simulated activations, one column per entry of ``units`` (see `rdxcli.methods.neurons.simulation.simulate`).
    activations : (n, u) array-like
        True pooled activations of the layer.
    losses : Losses
        The model.
    val, test : int arrays
        The validation part gives the mean and the parameters, the test part the score.
    units : sequence of int, optional
        Column of ``activations`` of each prediction; default the first m.
    variant : {"optim", "norm"}
        "optim": c prediction + d, with c and d fitted on the validation part by ``steps`` Adam steps that minimise
        sum |L_sim - L| from c = 1, d = 0. "norm": the prediction standardised over the test part, times the validation
        correlation and the validation standard deviation, plus the validation mean.
    steps, learning_rate : int, float
        Of the fit.
    right : (n,) bool array-like, optional
        Rows that the model gets right; gives ``right_scores`` and ``wrong_share``.
    advance : callable, optional
        Called with 1 after each unit.
    """
    p, a = np.asarray(predictions, dtype=np.float64), np.asarray(activations, dtype=np.float64)
    if p.ndim != 2 or a.ndim != 2 or len(p) != len(a):
        raise ValueError(f"Got predictions {p.shape} and activations {a.shape}, expected (n, m) and (n, u)")
    if variant not in ("optim", "norm"):
        raise ValueError(f"Got variant={variant!r}, expected 'optim' or 'norm'")
    columns = np.arange(p.shape[1]) if units is None else np.asarray(units)
    if len(columns) != p.shape[1] or columns.min() < 0 or columns.max() >= a.shape[1]:
        raise ValueError(
            f"Got {human_count(len(columns), 'unit')} for {human_count(p.shape[1], 'prediction')} and "
            f"{human_count(a.shape[1], 'activation')}"
        )
    if not (np.isfinite(p).all() and np.isfinite(a).all()):
        raise ValueError("Got NaN or infinite values, expected finite numbers")
    val_rows, test_rows = np.asarray(val), np.asarray(test)
    m = len(columns)
    scores, scale, shift, on_right, wrong = (np.full(m, np.nan) for _ in range(5))
    good = None if right is None else np.asarray(right, dtype=bool)
    if good is not None and good.shape != (len(a),):
        raise ValueError(f"Got right {good.shape}, expected one entry for each of {human_count(len(a), 'row')}")
    low, high, error = (np.full(m, np.nan) for _ in range(3))
    for i, unit in enumerate(columns):
        loss = _Unit(losses, int(unit), a[:, unit])
        if variant == "optim":
            scale[i], shift[i] = _fit(loss, p[:, i], val_rows, steps, learning_rate)
        else:
            scale[i], shift[i] = _normalise(p[:, i], a[:, unit], val_rows, test_rows)
        if np.isfinite(scale[i]):
            mean = np.full(len(test_rows), a[val_rows, unit].mean())
            worst = loss.changes(mean, test_rows)
            if worst.sum() > 0:
                found = loss.changes(scale[i] * p[test_rows, i] + shift[i], test_rows)
                scores[i] = 1.0 - found.sum() / worst.sum()
                if intervals:
                    one = ratio_interval(found[:, None], worst[:, None])
                    low[i], high[i], error[i] = one.low[0], one.high[0], one.standard_error[0]
                if good is not None:
                    of = good[test_rows]
                    wrong[i] = worst[~of].sum() / worst.sum()
                    on_right[i] = 1.0 - found[of].sum() / worst[of].sum() if worst[of].sum() > 0 else np.nan
        if advance is not None:
            advance(1)
    undefined = columns[~np.isfinite(scores)]
    notes = []
    if len(undefined):
        notes.append(
            f"no ablation score for {human_count(len(undefined), 'unit', 'that have')} no effect or a "
            "constant prediction: "
            f"{', '.join(map(str, undefined[:10].tolist()))}"
        )
    return AblationScores(
        columns,
        scores,
        scale,
        shift,
        summarise(scores, ddof=0),
        tuple(notes),
        right_scores=None if good is None else on_right,
        wrong_share=None if good is None else wrong,
        interval=Interval(low, high, error) if intervals else None,
    )


@dataclass(frozen=True)
class Controls:
    """The two ends of the scale on some data.

    Attributes
    ----------
    truth : AblationScores
        The unit's own activations as the prediction. 1 for "optim" where its start c = 1, d = 0 is the optimum; less
        for "norm", whose validation and test statistics differ.
    shuffled : AblationScores
        The same in random order: about 0, and below it where the fit on the validation rows does not carry over.
    """

    truth: AblationScores
    shuffled: AblationScores


def controls(
    activations: ArrayLike,
    losses: Losses,
    *,
    val: ArrayLike,
    test: ArrayLike,
    units: Sequence[int] | np.ndarray,
    random_state: int = 0,
    **options: Any,
) -> Controls:
    """Ablation scores of a perfect prediction and of one that knows the distribution of a unit only.

    Parameters
    ----------
    activations : (n, u) array-like
    losses, val, test, units
        As in `ablation_scores`; further options go there.
    random_state : int
        Each unit has its own order, which does not depend on the other units.
    """
    a = np.asarray(activations, dtype=np.float64)
    columns = np.asarray(units)
    truth = a[:, columns]
    mixed = truth.copy()
    for i, unit in enumerate(columns):
        rng = generator(random_state, "ablation-controls", str(int(unit)))
        for rows in (np.asarray(val), np.asarray(test)):
            mixed[rows, i] = a[rng.permutation(rows), unit]
    common: dict[str, Any] = {"intervals": False, "val": val, "test": test, "units": columns, **options}
    return Controls(ablation_scores(truth, a, losses, **common), ablation_scores(mixed, a, losses, **common))


class _Unit:
    """Losses of one unit against its true activations."""

    def __init__(self, losses: Losses, unit: int, truth: np.ndarray) -> None:
        self.losses, self.unit, self.truth = losses, unit, truth

    def original(self, rows: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return self.losses(self.unit, torch.as_tensor(self.truth[rows]), rows)

    def changes(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """|L_new - L| of each of ``rows``."""
        with torch.no_grad():
            new = self.losses(self.unit, torch.as_tensor(values), rows)
        return (new - self.original(rows)).abs().double().cpu().numpy()


def _fit(loss: _Unit, prediction: np.ndarray, rows: np.ndarray, steps: int, rate: float) -> tuple[float, float]:
    x = torch.as_tensor(prediction[rows])
    c = torch.ones((), dtype=torch.float64, requires_grad=True)
    d = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([c, d], lr=rate)
    target = loss.original(rows)
    for _ in range(steps):
        optimiser.zero_grad()
        (loss.losses(loss.unit, c * x + d, rows) - target).abs().sum().backward()
        optimiser.step()
    return float(c.detach()), float(d.detach())


def _normalise(p: np.ndarray, a: np.ndarray, val: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    rho = float(pearson(p[val][:, None], a[val][:, None])[0])
    if not np.isfinite(rho) or np.ptp(p[test]) == 0:
        return float("nan"), float("nan")
    scale = rho * a[val].std(ddof=1) / p[test].std(ddof=1)
    return float(scale), float(a[val].mean() - scale * p[test].mean())
