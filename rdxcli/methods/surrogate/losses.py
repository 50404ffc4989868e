"""Distillation of a similarity matrix: the losses of the concept surrogate, in a numerically safe form.

Symbols: B rows (images) and B' columns (captions) of a batch; S, T (B, B') cosine similarities divided by the
temperatures tau_s, tau_t, computed with the student's and the teacher's embeddings; P, Q their softmaxes over a row;
KL_i = sum_j Q_ij (log Q_ij - log P_ij); t_i, s_i the row means of exp(T), exp(S); u_i, v_i running estimates of them.

The published moving-average loss has the value mean_i f_i and the gradient of mean_i f_i KL_i with f_i held constant,
f_i = w_i (t_i / u_i) (s_i / v_i), so that

    dL / dS_ij = f_i (P_ij - Q_ij) / B

for the rows, and the transposed term for the columns, halved when both are used.

This module works with that form and with log u, log v: nothing overflows at any temperature. The value of the
moving-average loss is about 1 whatever the fit; ``kl`` is the number to watch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# exp(s) needs no shift while |s| stays below this: the sums stay far inside the range of the type.
_SAFE = {torch.float32: 60.0, torch.float64: 500.0}


def scaled_similarity(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cosine similarities divided by the temperature: (B, B'). Zero rows give zeros.

    Parameters
    ----------
    queries : (B, D) tensor
    keys : (B', D) tensor
    """
    if not temperature > 0:
        raise ValueError(f"Got temperature {temperature}, expected a positive number")
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"Got queries {tuple(queries.shape)} and keys {tuple(keys.shape)}, expected two matrices with equal columns"
        )
    q, k = (functional.normalize(side, dim=1, eps=1e-12) for side in (queries, keys))
    # Dividing the queries is cheaper than dividing the whole matrix.
    return (q / temperature) @ k.T


@dataclass(frozen=True)
class LossValue:
    """A differentiable loss and what to log with it.

    Parameters
    ----------
    loss : scalar tensor
        Call ``backward`` on it.
    metrics : mapping of str to scalar tensor
        ``kl`` and ``accuracy`` (share of rows with equal argmax), without gradient; symmetric losses add ``i2t_kl`` and
        ``i2t_accuracy``.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]


class _WithGradient(torch.autograd.Function):
    """A value with a given gradient with respect to ``S``. One backward pass only: it is scaled in place."""

    @staticmethod
    def forward(ctx: Any, S: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("Got a second backward pass through a distillation loss, expected one")
        return gradient.mul_(grad_outputs[0]), None, None


@dataclass
class _Direction:
    """Softmax statistics along one dimension; vectors have one entry per row (dim 1) or column (dim 0)."""

    log_sum_s: Tensor
    log_sum_t: Tensor
    kl: Tensor
    accuracy: Tensor


def _best(S: Tensor, dim: int) -> Tensor:
    """Position of the maximum; along columns of a copy, which is faster than strided reading."""
    return S.argmax(1) if dim == 1 else S.T.contiguous().argmax(1)


class _Pair:
    """Student and teacher logits of one batch, with exponentials shared by both directions."""

    def __init__(self, S: Tensor, T: Tensor, bound: float) -> None:
        self.S, self.T = S, T
        # Cosines are bounded, so one unshifted exponential serves rows and columns unless the temperature is tiny.
        self._shared = (torch.exp(S), torch.exp(T)) if bound < _SAFE.get(S.dtype, 0.0) else None
        self._gap = T - S

    def direction(self, dim: int) -> _Direction:
        S, T = self.S, self.T
        if self._shared is not None:
            sum_s, sum_t = (exp.sum(dim) for exp in self._shared)
            log_s, log_t = sum_s.log(), sum_t.log()
            expected = (self._shared[1] * self._gap).sum(dim) / sum_t
        else:
            log_s, log_t = torch.logsumexp(S, dim), torch.logsumexp(T, dim)
            expected = ((T - log_t.unsqueeze(dim)).exp() * self._gap).sum(dim)
        agree = (_best(S, dim) == _best(T, dim)).to(S.dtype).mean()
        return _Direction(log_s, log_t, expected - log_t + log_s, agree)

    def gradient(self, dim: int, part: _Direction, weight: Tensor) -> Tensor:
        """``weight`` times (P - Q), the softmaxes taken along ``dim``."""
        w = weight.unsqueeze(dim)
        if self._shared is not None:
            exp_s, exp_t = self._shared
            return exp_s * (w * torch.exp(-part.log_sum_s).unsqueeze(dim)) - exp_t * (
                w * torch.exp(-part.log_sum_t).unsqueeze(dim)
            )
        P = (self.S - part.log_sum_s.unsqueeze(dim)).exp()
        Q = (self.T - part.log_sum_t.unsqueeze(dim)).exp()
        return w * (P - Q)

    def gradient_both(self, rows: tuple[_Direction, Tensor], columns: tuple[_Direction, Tensor]) -> Tensor:
        """The sum of both directions, in two passes over the matrices where exponentials are shared."""
        (r, f), (c, g) = rows, columns
        if self._shared is None:
            return self.gradient(1, r, f).add_(self.gradient(0, c, g))
        exp_s, exp_t = self._shared
        student = (f * torch.exp(-r.log_sum_s)).unsqueeze(1) + (g * torch.exp(-c.log_sum_s)).unsqueeze(0)
        teacher = (f * torch.exp(-r.log_sum_t)).unsqueeze(1) + (g * torch.exp(-c.log_sum_t)).unsqueeze(0)
        return student.mul_(exp_s).sub_(teacher.mul_(exp_t))


class MovingAverage:
    """Running estimates of the two partition functions of every sample, as logarithms.

    Parameters
    ----------
    data_size : int
        Number of samples N.
    gamma1, gamma2 : float in (0, 1]
        Weight of the new value for the teacher (u) and the student (v).
    first_visit : {"sample", "batch"}
        A sample that is seen for the first time takes the new value whole (``sample``). The published code decides for
        the whole batch, so that new samples in a mixed batch start at gamma times their value (``batch``).
    """

    def __init__(
        self, data_size: int, gamma1: float = 0.9, gamma2: float = 0.9, first_visit: str = "sample", device: Any = "cpu"
    ) -> None:
        for name, gamma in (("gamma1", gamma1), ("gamma2", gamma2)):
            if not 0 < gamma <= 1:
                raise ValueError(f"Got {name}={gamma}, expected a weight in (0, 1]")
        if first_visit not in {"sample", "batch"}:
            raise ValueError(f"Got first_visit {first_visit!r}, expected `sample` or `batch`")
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.gammas = (gamma1, gamma2)
        self.first_visit = first_visit
        self.log_u = torch.full((data_size,), -torch.inf, dtype=dtype, device=device)
        self.log_v = self.log_u.clone()

    @property
    def u(self) -> Tensor:
        """Estimates for the teacher, zero for unseen samples: (N,)."""
        return self.log_u.exp()

    @property
    def v(self) -> Tensor:
        """Estimates for the student, zero for unseen samples: (N,)."""
        return self.log_v.exp()

    def update(self, index: Tensor, log_t: Tensor, log_s: Tensor) -> Tensor:
        """Take in one batch; returns log(t / u) + log(s / v) with the updated estimates: (B,)."""
        ratio = torch.zeros_like(log_t)
        for state, gamma, new in ((self.log_u, self.gammas[0], log_t), (self.log_v, self.gammas[1], log_s)):
            value = new.to(state.dtype)
            old = state[index]
            mixed = value
            if gamma < 1:
                blank = torch.isneginf(old)
                weights = torch.tensor([1.0 - gamma, gamma], dtype=state.dtype).log().tolist()
                mixed = torch.logaddexp(old + weights[0], value + weights[1])
                whole = blank if self.first_visit == "sample" else blank.all()
                mixed = torch.where(whole, value, mixed)
            state[index] = mixed
            ratio = ratio + (value - mixed).to(ratio.dtype)
        return ratio

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {"log_u": self.log_u, "log_v": self.log_v}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over the tensors of `state`."""
        self.log_u.copy_(state["log_u"])
        self.log_v.copy_(state["log_v"])


class DistillationLoss:
    """Kullback-Leibler distillation of similarities; plain, moving-average, one or both directions.

    Parameters
    ----------
    symmetric : bool
        Also distil the columns (text to image) and take the mean of both directions.
    averages : (MovingAverage, MovingAverage or None), optional
        Running estimates for rows and columns; with them the moving-average loss, without the plain one.
    weights : (N,) tensor, optional
        Sample weights w, moving-average loss only.
    cross_entropy : bool
        Report the soft cross-entropy instead of the KL divergence as the loss: they differ by the teacher's entropy and
        have the same gradient. Plain loss only.
    """

    def __init__(
        self,
        temp_student: float = 0.1,
        temp_teacher: float = 0.1,
        *,
        symmetric: bool = True,
        averages: tuple[MovingAverage, MovingAverage | None] | None = None,
        weights: Tensor | None = None,
        cross_entropy: bool = False,
    ) -> None:
        if symmetric and averages is not None and averages[1] is None:
            raise ValueError("Got moving averages of the rows only, expected one per direction")
        if weights is not None and averages is None:
            raise ValueError("Got sample weights for a plain loss, expected a moving-average loss")
        if cross_entropy and (symmetric or averages is not None):
            raise ValueError("Got cross_entropy for a loss that is not plain and one-way")
        for name, value in (("temp_student", temp_student), ("temp_teacher", temp_teacher)):
            if not value > 0:
                raise ValueError(f"Got {name}={value}, expected a positive number")
        self.temp_student, self.temp_teacher = temp_student, temp_teacher
        self.symmetric, self.averages, self.weights = symmetric, averages, weights
        self.cross_entropy = cross_entropy

    def __call__(
        self, queries: Tensor, keys: Tensor, queries_teacher: Tensor, keys_teacher: Tensor, index: Tensor | None = None
    ) -> LossValue:
        """Loss of one batch.

        Parameters
        ----------
        queries, keys : (B, D), (B', D) tensors
            Student embeddings of images and captions; gradients flow into both where they are asked for.
        queries_teacher, keys_teacher : (B, E), (B', E) tensors
        index : (B,) int64 tensor
            Positions of the samples in the data set, for the moving-average loss.
        """
        with torch.no_grad():
            T = scaled_similarity(queries_teacher, keys_teacher, self.temp_teacher)
        S = scaled_similarity(queries, keys, self.temp_student)
        return self.from_logits(S, T, index)

    def from_logits(self, S: Tensor, T: Tensor, index: Tensor | None = None) -> LossValue:
        """The same from scaled similarities (B, B')."""
        if S.shape != T.shape:
            raise ValueError(f"Got logits of shapes {tuple(S.shape)} and {tuple(T.shape)}, expected equal shapes")
        if self.averages is not None and index is None:
            raise ValueError("Got no index, expected the positions of the samples for the moving-average loss")
        with torch.no_grad():
            wide = S.dtype if S.dtype in _SAFE else torch.float32
            bound = 1.01 / min(self.temp_student, self.temp_teacher)
            pair = _Pair(S.detach().to(wide), T.detach().to(wide), bound)
            rows = pair.direction(1)
            value, f = self._weigh(rows, S.shape[1], 0, index)
            metrics = {"kl": rows.kl.mean(), "accuracy": rows.accuracy}
            if self.symmetric:
                columns = pair.direction(0)
                other, g = self._weigh(columns, S.shape[0], 1, index)
                gradient = pair.gradient_both((rows, 0.5 * f), (columns, 0.5 * g))
                value = 0.5 * (value + other)
                metrics = {
                    "kl": 0.5 * (metrics["kl"] + columns.kl.mean()),
                    "accuracy": 0.5 * (rows.accuracy + columns.accuracy),
                    "i2t_kl": rows.kl.mean(),
                    "i2t_accuracy": rows.accuracy,
                }
            else:
                gradient = pair.gradient(1, rows, f)
                if self.cross_entropy:
                    value = value + entropy(T.to(wide)).mean()
        return LossValue(_WithGradient.apply(S, value, gradient.to(S.dtype)), metrics)

    def _weigh(self, part: _Direction, columns: int, which: int, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Value of one direction, and the weights f_i / B of its rows."""
        size = part.kl.numel()
        if self.averages is None:
            return part.kl.mean(), torch.full_like(part.kl, 1.0 / size)
        average = self.averages[which]
        assert average is not None
        assert index is not None
        log_columns = torch.log(torch.tensor(float(columns), dtype=part.kl.dtype, device=part.kl.device))
        f = average.update(index, part.log_sum_t - log_columns, part.log_sum_s - log_columns).exp()
        if self.weights is not None:
            f = f * self.weights.to(f)[index]
        return f.mean(), f / size

    def state(self) -> dict[str, Tensor]:
        """Running estimates for a checkpoint; empty for plain losses."""
        names = ("i2t", "t2i")
        present = [(name, one) for name, one in zip(names, self.averages or (), strict=False) if one is not None]
        return {f"{name}.{key}": value for name, one in present for key, value in one.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over the tensors of `state`."""
        for name, one in zip(("i2t", "t2i"), self.averages or (), strict=False):
            if one is not None:
                one.load({key: state[f"{name}.{key}"] for key in ("log_u", "log_v")})


LOSSES = {
    # name -> (symmetric, moving average); the published class names work too
    "kl": (False, False),
    "symmetric-kl": (True, False),
    "moving-kl": (False, True),
    "symmetric-moving-kl": (True, True),
}
PUBLISHED_NAMES = {
    "KDNaiveLoss": "kl",
    "SymmetricKDNaiveLoss": "symmetric-kl",
    "KDLoss": "moving-kl",
    "SymmetricKDLoss": "symmetric-moving-kl",
}


def make_loss(
    name: str,
    data_size: int,
    *,
    gamma1: float = 0.9,
    gamma2: float = 0.9,
    temp_student: float = 0.1,
    temp_teacher: float = 0.1,
    first_visit: str = "sample",
    weights: Tensor | None = None,
    device: Any = "cpu",
) -> DistillationLoss:
    """A loss by name: ``kl``, ``symmetric-kl``, ``moving-kl``, ``symmetric-moving-kl``, or its published class name.

    Raises `ValueError` for an unknown name.
    """
    known = PUBLISHED_NAMES.get(name, name)
    if known not in LOSSES:
        raise ValueError(f"Got loss {name!r}, expected one of {', '.join(LOSSES)}")
    symmetric, moving = LOSSES[known]
    averages: tuple[MovingAverage, MovingAverage | None] | None = None
    if moving:
        first = MovingAverage(data_size, gamma1, gamma2, first_visit, device)
        averages = (first, MovingAverage(data_size, gamma1, gamma2, first_visit, device) if symmetric else None)
    return DistillationLoss(temp_student, temp_teacher, symmetric=symmetric, averages=averages, weights=weights)


def entropy(T: Tensor) -> Tensor:
    """Entropy of each row's softmax: (B,)."""
    log_q = torch.log_softmax(T, dim=1)
    return -(log_q.exp() * log_q).sum(dim=1)


def uniform_kl(T: Tensor) -> Tensor:
    """KL of a student that says nothing: mean_i (log K - H(Q_i)) over K columns. The bar a surrogate must pass."""
    return torch.log(torch.tensor(float(T.shape[1]), dtype=T.dtype)) - entropy(T).mean()


def hard_cross_entropy(S: Tensor, T: Tensor) -> LossValue:
    """Cross-entropy to the teacher's argmax (a loss of the predecessor project)."""
    target = T.argmax(dim=1)
    loss = functional.cross_entropy(S, target)
    return LossValue(loss, {"accuracy": (S.detach().argmax(dim=1) == target).to(S.dtype).mean()})


def combined(S: Tensor, T: Tensor, share: float, *, cross_entropy: bool = True) -> LossValue:
    """``share`` times the soft loss plus (1 - share) times `hard_cross_entropy` (predecessor project).

    Parameters
    ----------
    S, T : (B, B') tensors
    share : float in [0, 1]
    cross_entropy : bool
        Soft cross-entropy; False for the KL divergence.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Got share={share}, expected a number in [0, 1]")
    # The temperatures are already in S and T; only the bound of the exponentials asks for one.
    largest = float(max(S.detach().abs().max(), T.abs().max()))
    temperature = 1.0 / max(largest, 1e-6)
    soft = DistillationLoss(temperature, temperature, symmetric=False, cross_entropy=cross_entropy).from_logits(S, T)
    hard = hard_cross_entropy(S, T)
    loss = share * soft.loss + (1.0 - share) * hard.loss
    return LossValue(loss, {**soft.metrics, "soft": soft.loss.detach(), "hard": hard.loss.detach()})
