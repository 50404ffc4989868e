"""Sparse autoencoders as comparison methods: one per model with as many latents as concepts, and Top-K.

Symbols: X (n, d) one representation; f (n, m) codes of m latents; W_enc (d, m), b_enc (m,), W_dec (m, d), b_dec (d,).

References: Bricken et al., "Towards monosemanticity", 2023 (SAE); Gao et al., "Scaling and evaluating sparse
autoencoders", 2024 (Top-K); specification of RDX, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rdxcli.methods.difference.baselines.base import Baseline
from rdxcli.numerics.seeding import torch_generator
from rdxcli.parameters import Count, NonNegative, Positive
from rdxcli.progress import human_count, turns


@dataclass
class TrainedAutoencoder:
    """Outcome of a training.

    Attributes
    ----------
    history : list of float
        Loss (Top-K) or mean squared error (SAE) of each epoch.
    """

    weights: dict[str, Tensor]
    history: list[float] = field(default_factory=list)


class SAE(Baseline):
    """ReLU autoencoder with one latent per concept and an L1 penalty.

    Parameters
    ----------
    n_clusters : int, default 3
        Latents, all of which are shown.
    num_samples : int, default 9
    epochs : int, default 500
    batch_size : int, default 2000
    lr : float, default 1e-3
    warmup : int, default 10
        Steps over which the learning rate rises, after a first step at the full rate.
    sparsity : float, default 4e-4
    raw_codes : bool, default False
        Encode the unstandardised data with the autoencoder of the standardised ones, as the original does (trap T10).
    random_state : int, default 0
    """

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        num_samples: Count = 9,
        epochs: Count = 500,
        batch_size: Count = 2000,
        lr: Positive = 1e-3,
        warmup: int = 10,
        sparsity: NonNegative = 4e-4,
        raw_codes: bool = False,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.warmup = warmup
        self.sparsity = sparsity
        self.raw_codes = raw_codes
        self.random_state = random_state

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        generator = torch_generator(self.random_state, "sae", model)
        X, used = standardised(R)
        if not used.all():
            self.notes_.append(
                f"model {'ab'[model]}: {human_count(int((~used).sum()), 'constant dimension', 'were')} left out"
            )
        start = sae_start(X.shape[1], self.n_clusters, generator)
        trained = train_sae(
            X,
            start,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            warmup=self.warmup,
            sparsity=self.sparsity,
            generator=generator,
        )
        codes = sae_codes(torch.as_tensor(R[:, used]) if self.raw_codes else X, trained.weights).numpy()
        _note_dead(self.notes_, codes, model)
        return self._from_coefficients(codes)


def standardised(R: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Features with mean 0 and (unbiased) standard deviation 1, and which dimensions are not constant."""
    X = torch.as_tensor(R, dtype=torch.float64)
    deviation = X.std(dim=0)
    used = deviation > 0
    return (X[:, used] - X[:, used].mean(dim=0)) / deviation[used], used.numpy()


def sae_start(d: int, m: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Kaiming-uniform weights, zero biases (the mean of standardised data)."""

    def kaiming(rows: int, columns: int) -> Tensor:
        bound = (6.0 / columns) ** 0.5  # fan-in of a (rows, columns) weight, as torch counts it
        return (2 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 1) * bound

    zeros = {"b_enc": torch.zeros(m, dtype=torch.float64), "b_dec": torch.zeros(d, dtype=torch.float64)}
    return {"W_enc": kaiming(d, m), "W_dec": kaiming(m, d), **zeros}


def sae_codes(X: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """f = relu((x - b_dec) W_enc + b_enc)."""
    return torch.relu((X - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])


def train_sae(
    X: Tensor,
    start: dict[str, Tensor],
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    warmup: int,
    sparsity: float,
    generator: torch.Generator,
) -> TrainedAutoencoder:
    """Adam on mean squared error + sparsity * mean over images of sum f.

    Before each forward pass the rows of W_dec are set to unit norm; from its gradient the part along each row is taken
    out, so that a step does not change their length to first order.
    """
    weights = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=lr)
    out = TrainedAutoencoder(weights)
    steps = 0
    for _ in turns("train the autoencoder", epochs, "epochs"):
        total = 0.0
        for batch in batches(X, batch_size, generator):
            with torch.no_grad():
                weights["W_dec"] /= weights["W_dec"].norm(dim=1, keepdim=True)
            codes = sae_codes(batch, weights)
            error = (codes @ weights["W_dec"] + weights["b_dec"] - batch).square().mean()
            optimiser.zero_grad()
            (error + sparsity * codes.sum(dim=1).mean()).backward()
            with torch.no_grad():
                gradient, rows = weights["W_dec"].grad, weights["W_dec"]
                assert gradient is not None
                gradient -= (gradient * rows).sum(dim=1, keepdim=True) * rows
            optimiser.step()
            steps += 1
            for group in optimiser.param_groups:
                group["lr"] = lr * min(steps / warmup, 1.0) if warmup else lr
            total += error.item() * len(batch)
        out.history.append(total / len(X))
    out.weights = {name: value.detach() for name, value in weights.items()}
    return out


def batches(X: Tensor, size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Rows of X in shuffled batches (in order without a generator); one batch is the data as they are."""
    if len(X) <= size:
        yield X
        return
    order = torch.arange(len(X)) if generator is None else torch.randperm(len(X), generator=generator)
    for start in range(0, len(X), size):
        yield X[order[start : start + size]]


class TopKSAE(Baseline):
    """Top-K sparse autoencoder; shown are the latents with the largest mean code.

    Parameters
    ----------
    n_clusters : int, default 3
        Concepts that are shown, and active latents per image.
    num_samples : int, default 9
    latents : int, default 50
    epochs : int, default 200
    batch_size : int, default 1024
        In the order of the data.
    lr : float, default 5e-4
    clip : float, default 1.0
        Largest norm of the gradient.
    random_state : int, default 0
    """

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        num_samples: Count = 9,
        latents: Count = 50,
        epochs: Count = 200,
        batch_size: Count = 1024,
        lr: Positive = 5e-4,
        clip: NonNegative = 1.0,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.latents = latents
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.clip = clip
        self.random_state = random_state

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        if self.latents < self.n_clusters:
            raise ValueError(f"Got latents={self.latents}, expected at least n_clusters={self.n_clusters}")
        X = torch.as_tensor(R)
        start = topk_start(X.shape[1], self.latents, torch_generator(self.random_state, "topk-sae", model))
        trained = train_topk(
            X, start, k=self.n_clusters, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, clip=self.clip
        )
        codes = topk_codes(X, trained.weights, self.n_clusters).numpy()
        top = largest_mean(codes, self.n_clusters)
        _note_dead(self.notes_, codes[:, top], model)
        return self._from_coefficients(codes[:, top])


def largest_mean(codes: np.ndarray, count: int) -> np.ndarray:
    """Latents with the largest mean code, largest first."""
    return np.argsort(-codes.mean(axis=0), kind="stable")[:count]


def topk_start(d: int, m: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Xavier-uniform encoder, zero bias, Gaussian dictionary with unit rows."""
    bound = (6.0 / (d + m)) ** 0.5
    weight = (2 * torch.rand(m, d, generator=generator, dtype=torch.float64) - 1) * bound
    rows = torch.randn(m, d, generator=generator, dtype=torch.float64)
    return {
        "weight": weight,
        "bias": torch.zeros(m, dtype=torch.float64),
        "dictionary": rows / rows.norm(dim=1, keepdim=True),
    }


def keep_top(values: Tensor, k: int) -> Tensor:
    """The k largest entries of each row, the rest 0."""
    top = values.topk(k, dim=1)
    return torch.zeros_like(values).scatter(1, top.indices, top.values)


def topk_codes(X: Tensor, weights: dict[str, Tensor], k: int) -> Tensor:
    """Codes (n, m) with at most k entries per row."""
    return keep_top(torch.relu(X @ weights["weight"].T + weights["bias"]), k)


def train_topk(
    X: Tensor, start: dict[str, Tensor], *, k: int, epochs: int, batch_size: int, lr: float, clip: float
) -> TrainedAutoencoder:
    """Adam on the mean squared error.

    The dictionary's rows are set to unit length before every step, outside the gradient: projected gradient descent on
    spheres, as in the original's library.
    """
    weights = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=lr)
    out = TrainedAutoencoder(weights)
    for _ in turns("train the autoencoder", epochs, "epochs"):
        losses = []
        for batch in batches(X, batch_size, None):
            with torch.no_grad():
                weights["dictionary"] /= weights["dictionary"].norm(dim=1, keepdim=True)
            loss = (topk_codes(batch, weights, k) @ weights["dictionary"] - batch).square().mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), clip)
            optimiser.step()
            losses.append(loss.item())
        out.history.append(sum(losses) / len(losses))
    out.weights = {name: value.detach() for name, value in weights.items()}
    return out


def _note_dead(notes: list[str], codes: np.ndarray, model: int) -> None:
    off = int((codes.max(axis=0) <= 0).sum())
    if off:
        notes.append(f"model {'ab'[model]}: {off} of {human_count(codes.shape[1], 'concept')} are off for every image")
