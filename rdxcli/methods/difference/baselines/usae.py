"""Universal sparse autoencoder: one Top-K autoencoder per model over shared latents.

Symbols: X_m (n, d_m) representation of model m; C shared latents; h_m (n, C) pre-codes after batch normalisation; z_m
(n, C) codes, the K largest entries of relu(h_m) per image; D_m (C, d_m) dictionary with unit rows.

Reference: Thasarathan et al., "Universal Sparse Autoencoders", ICML 2025; specification of RDX, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdxcli.methods.difference.baselines.autoencoders import batches, keep_top
from rdxcli.methods.difference.baselines.base import Baseline
from rdxcli.methods.difference.graph import DIRECTIONS
from rdxcli.numerics.seeding import generator, torch_generator
from rdxcli.parameters import Count, NonNegative, Positive
from rdxcli.progress import human_count, out_of_time, track

TINY = 1e-10
MOMENTUM, EPSILON = 0.1, 1e-5  # of batch normalisation, torch's defaults
START_LR = 1e-6
PATIENCE = 100  # epochs that are compared with as many before
ANALYSIS_BATCH = 32  # of the original

Weights = dict[str, Tensor]


class USAE(Baseline):
    """Concepts that fire for one model much more than for the other, by entropy of the firing counts.

    Parameters
    ----------
    n_clusters : int, default 3
        Concepts per model.
    num_samples : int, default 9
    factor : int, default 8
        Shared latents per dimension of the first model.
    top_k : int, default 32
        Active latents per image; at most the number of latents.
    epochs : int, default 2000
    tolerance : float, default 0.01
        Training ends when the mean loss of a hundred epochs is not lower by this share than that of the hundred before;
        0, and ``compat``, make all epochs.
    batch_size : int, default 500
    lr, final_lr : float, default 5e-4 and 1e-6
        Linear warm-up over one epoch, then a cosine.
    weight_decay : float, default 1e-5
    clip : float, default 1.0
    auxiliary : float, default 0.1
        Weight of the reconstruction of the residual from inactive latents.
    threshold : float, default 0.1
        A latent fires for an image when its code is above it.
    compat : bool, default False
        As the original (trap T2): latents chosen by their place in a list sorted by energy, batch normalisation left in
        training mode, the last partial batch of 32 ignored in the analysis, and a schedule that counts the steps of
        each model apart.
    random_state : int, default 0

    Attributes
    ----------
    history_ : list of float
        Loss of every step.
    """

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        num_samples: Count = 9,
        factor: Count = 8,
        top_k: Count = 32,
        epochs: Count = 2000,
        tolerance: NonNegative = 0.01,
        batch_size: Count = 500,
        lr: Positive = 5e-4,
        final_lr: Positive = 1e-6,
        weight_decay: NonNegative = 1e-5,
        clip: NonNegative = 1.0,
        auxiliary: NonNegative = 0.1,
        threshold: float = 0.1,
        compat: bool = False,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.factor = factor
        self.top_k = top_k
        self.epochs = epochs
        self.tolerance = tolerance
        self.batch_size = batch_size
        self.lr = lr
        self.final_lr = final_lr
        self.weight_decay = weight_decay
        self.clip = clip
        self.auxiliary = auxiliary
        self.threshold = threshold
        self.compat = compat
        self.random_state = random_state

    def _fit(self, R0: np.ndarray, R1: np.ndarray) -> None:
        latents = self.factor * R0.shape[1]
        if latents < self.n_clusters:
            raise ValueError(f"Got {human_count(latents, 'latent')}, expected at least n_clusters={self.n_clusters}")
        k = min(self.top_k, latents)
        if k < self.top_k:
            self.notes_.append(f"{human_count(k, 'active latent')} instead of {self.top_k}: there are no more")
        data = [torch.as_tensor(R.astype(np.float32)) for R in (R0, R1)]
        start = [
            usae_start(X.shape[1], latents, torch_generator(self.random_state, "usae", m)) for m, X in enumerate(data)
        ]
        per_epoch = math.ceil(len(R0) / self.batch_size)
        sequence = generator(self.random_state, "usae", "models").integers(0, 2, size=per_epoch * self.epochs)
        schedule = Schedule.of(len(R0), self.batch_size, self.epochs, self.lr, self.final_lr, self.compat)
        weights, self.history_ = train_usae(
            data,
            start,
            sequence,
            k=k,
            schedule=schedule,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            clip=self.clip,
            auxiliary=self.auxiliary,
            generator=torch_generator(self.random_state, "usae", "batches"),
            patience=0 if self.compat else PATIENCE * per_epoch,
            tolerance=self.tolerance,
        )
        if len(self.history_) < len(sequence):
            why = "the time was over" if out_of_time() else "the loss fell no more"
            made = len(self.history_) // per_epoch
            self.notes_.append(f"the training ended after {made} of {human_count(self.epochs, 'epoch')}: {why}")
        full = [usae_codes(X, w, k, training=self.compat).numpy() for X, w in zip(data, weights, strict=True)]
        analysed = full
        if self.compat:
            whole = len(R0) - len(R0) % ANALYSIS_BATCH
            analysed = [analysis_codes(X, w, k).numpy()[:whole] for X, w in zip(data, weights, strict=True)]
        choice = choose_latents(
            analysed, [unit(w["dictionary"]).numpy() for w in weights], self.n_clusters, self.threshold
        )
        picked = choice.places if self.compat else choice.latents
        for model, (direction, codes) in enumerate(zip(DIRECTIONS, full, strict=True)):
            if not len(picked[model]):
                raise ValueError(f"no shared latent fires more for model {'ab'[model]} than for the other")
            labels, samples = self._from_coefficients(codes[:, picked[model]])
            self._store(direction, labels, samples)


def unit(rows: Tensor) -> Tensor:
    """Rows of unit length, differentiable."""
    return rows / (rows.norm(dim=1, keepdim=True) + 1e-8)


def usae_start(d: int, latents: int, generator: torch.Generator) -> Weights:
    """Linear layer as torch initialises it, neutral batch normalisation, Gaussian dictionary with unit rows."""
    bound = d**-0.5

    def uniform(*shape: int) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator) - 1) * bound

    return {
        "weight": uniform(latents, d),
        "bias": uniform(latents),
        "scale": torch.ones(latents),
        "shift": torch.zeros(latents),
        "running_mean": torch.zeros(latents),
        "running_var": torch.ones(latents),
        "dictionary": unit(torch.randn(latents, d, generator=generator)),
    }


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: linear warm-up from 1e-6, then a cosine to ``final``.

    Attributes
    ----------
    warmup, total : int
        Steps.
    per_model : bool
        Count the steps of each model apart; its first step is then made at the full rate (as the original).
    """

    warmup: int
    total: int
    lr: float
    final: float
    per_model: bool

    @classmethod
    def of(cls, n: int, batch: int, epochs: int, lr: float, final: float, per_model: bool) -> Schedule:
        """The published lengths (``per_model``), or those of the steps that are really made."""
        if per_model:
            return cls(int(n / batch), int(n / batch * epochs), lr, final, True)
        steps = math.ceil(n / batch)
        return cls(steps, steps * epochs, lr, final, False)

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        if self.per_model and step == 0:
            return self.lr
        if step < self.warmup:
            return START_LR + (self.lr - START_LR) * step / self.warmup
        share = min((step - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        return self.final + (self.lr - self.final) * (1.0 + math.cos(math.pi * share)) / 2.0


def pre_codes(X: Tensor, weights: Weights, *, training: bool) -> Tensor:
    """Linear layer and batch normalisation; ``training`` uses (and, with gradients, records) statistics of ``X``."""
    linear = torch.nn.functional.linear(X, weights["weight"], weights["bias"])
    track_statistics = torch.is_grad_enabled() or not training
    return torch.nn.functional.batch_norm(
        linear,
        weights["running_mean"] if track_statistics else None,
        weights["running_var"] if track_statistics else None,
        weights["scale"],
        weights["shift"],
        training,
        MOMENTUM,
        EPSILON,
    )


def usae_codes(X: Tensor, weights: Weights, k: int, *, training: bool) -> Tensor:
    """Top-K codes (n, C) of all rows at once, without gradients."""
    with torch.no_grad():
        return keep_top(torch.relu(pre_codes(X, weights, training=training)), k)


def analysis_codes(X: Tensor, weights: Weights, k: int, batch: int = ANALYSIS_BATCH) -> Tensor:
    """Codes as the original analyses them: batches with statistics of their own, zero for a last partial batch."""
    out = torch.zeros(len(X), len(weights["bias"]), dtype=X.dtype)
    for start in range(0, len(X) - batch + 1, batch):
        out[start : start + batch] = usae_codes(X[start : start + batch], weights, k, training=True)
    return out


def train_usae(
    data: list[Tensor],
    start: list[Weights],
    sequence: np.ndarray,
    *,
    k: int,
    schedule: Schedule,
    batch_size: int,
    weight_decay: float,
    clip: float,
    auxiliary: float,
    generator: torch.Generator,
    patience: int = 0,
    tolerance: float = 0.0,
) -> tuple[list[Weights], list[float]]:
    """Each step encodes a batch of one model and decodes it for both.

    The loss is the sum over both decoders of mean |x - x_hat| + auxiliary * mean |(x - x_hat) - r_hat|, where r_hat
    decodes the C/2 largest entries of relu(h) - z. Only the encoding model's AdamW makes a step.

    Parameters
    ----------
    data : two (n, d_m) tensors
    sequence : (steps,) int array
        Which model encodes at each step; the number of steps follows from its length.
    patience : int
        Steps whose mean loss is compared with that of as many before; 0 makes all steps.
    tolerance : float
        Share by which it must be lower for the training to go on.
    """
    weights = [{name: value.clone() for name, value in one.items()} for one in start]
    trained = [
        [one[name].requires_grad_() for name in ("weight", "bias", "scale", "shift", "dictionary")] for one in weights
    ]
    optimisers = [
        torch.optim.AdamW(values, lr=schedule.lr, weight_decay=weight_decay, foreach=True) for values in trained
    ]
    half = weights[0]["dictionary"].shape[0] // 2
    made = [0, 0]
    history: list[float] = []
    rows = torch.arange(len(data[0]))
    order: Iterator[Tensor] = iter(())
    with track("train the universal autoencoder", len(sequence), "steps") as advance:
        for step, model in enumerate(map(int, sequence)):
            part = next(order, None)
            if part is None:
                order = batches(rows, batch_size, generator)
                part = next(order)
            x = [values[part] for values in data]
            hidden = pre_codes(x[model], weights[model], training=True)
            active = torch.relu(hidden)
            codes = keep_top(active, k)
            spare = active - codes
            if int((spare > 0).sum(dim=1).max()) > half:  # otherwise the selection keeps every positive entry
                spare = keep_top(spare, half)
            loss = torch.zeros((), dtype=hidden.dtype)
            for values, one in zip(x, weights, strict=True):
                dictionary = unit(one["dictionary"])
                residual = values - codes @ dictionary
                loss = loss + residual.abs().mean() + auxiliary * (residual - spare @ dictionary).abs().mean()
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained[model], clip, foreach=True)
            count = made[model] if schedule.per_model else step
            for group in optimisers[model].param_groups:
                group["lr"] = schedule.rate(count)
            optimisers[model].step()
            made[model] += 1
            history.append(loss.item())
            advance(1)
            if out_of_time() or (patience and _flat(history, patience, tolerance)):
                break
    return [{name: value.detach() for name, value in one.items()} for one in weights], history


def _flat(history: list[float], patience: int, tolerance: float) -> bool:
    """Whether the last ``patience`` losses are hardly lower than those before."""
    if len(history) % patience or len(history) < 2 * patience:
        return False
    before, now = np.mean(history[-2 * patience : -patience]), np.mean(history[-patience:])
    return bool(now > (1.0 - tolerance) * before)


@dataclass(frozen=True)
class OwnLatents:
    """Which latents belong to one model more than to the other.

    Attributes
    ----------
    fires : (2, C) int64
        Images for which each latent fires, per model.
    energies : (C,)
        Sum over models of |mean code * dictionary row|.
    order : (C,) int64
        Latents by falling energy.
    entropy : (C,), probability : (C, 2)
        In that order.
    places : two int arrays
        OwnLatents places in the ordered list.
    latents : two int arrays
        The latents there.
    """

    fires: np.ndarray
    energies: np.ndarray
    order: np.ndarray
    entropy: np.ndarray
    probability: np.ndarray
    places: list[np.ndarray]
    latents: list[np.ndarray]


def choose_latents(
    codes: list[np.ndarray], dictionaries: list[np.ndarray], k: int, threshold: float = 0.1
) -> OwnLatents:
    """The k latents per model with the lowest entropy of p_m = fires_m / (fires_0 + fires_1).

    A latent goes to the model it fires more for; ties (dead latents among them) are skipped.

    Parameters
    ----------
    codes : two (n, C) arrays
    dictionaries : two (C, d_m) arrays
    threshold : float, default 0.1
    """
    fires = np.stack([(one > threshold).sum(axis=0) for one in codes])
    energies = sum(
        np.linalg.norm(one.mean(axis=0)[:, None] * rows, axis=1) for one, rows in zip(codes, dictionaries, strict=True)
    )
    order = np.argsort(-np.asarray(energies), kind="stable")
    probability = (fires / (fires.sum(axis=0) + TINY)).T[order]
    entropy = -(probability * np.log2(probability + TINY)).sum(axis=1)
    places: list[list[int]] = [[], []]
    for place in np.argsort(entropy, kind="stable"):
        first, second = probability[place]
        owner = places[0 if first > second else 1]
        if first != second and len(owner) < k:
            owner.append(int(place))
    chosen = [np.array(one, dtype=np.int64) for one in places]
    return OwnLatents(fires, np.asarray(energies), order, entropy, probability, chosen, [order[one] for one in chosen])
