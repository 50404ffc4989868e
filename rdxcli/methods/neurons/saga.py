"""The published sparse solver, minibatch proximal SAGA, as a reference.

`rdxcli.numerics.elastic_net.time_matched` gives the same weights to within the noise of SAGA's shuffling, thousands of
times faster, and is what explanations use by default. This module exists to show that, and for its pieces: losses,
the epoch monitor, the early stop.

Symbols: X (n, c), Y (n, u), W (u, c), b (u,), R (n, u) table of stored residuals, gW, gb running averages of gradients.

Reference: Wong, Santurkar and Madry, "Leveraging Sparse Linear Layers for Debuggable Deep Networks", ICML 2021
(GLM-SAGA), with the changes of Oikarinen and Weng (2024): squared errors are summed over targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rdxcli.numerics.elastic_net import soft_threshold
from rdxcli.numerics.seeding import generator


def effective_lambda(lam: float, alpha: float) -> float:
    """The user's lambda divided by max(0.001, alpha), so that it is the weight of the l1 penalty."""
    return lam / max(0.001, alpha)


def penalty(W: np.ndarray, lam: float, alpha: float) -> float:
    """lam alpha |W|_1 + lam (1 - alpha)/2 |W|^2."""
    return float(lam * alpha * np.abs(W).sum() + 0.5 * lam * (1.0 - alpha) * (W**2).sum())


def gaussian_loss(
    X: np.ndarray,
    Y: np.ndarray,
    W: np.ndarray,
    b: np.ndarray,
    lam: float,
    alpha: float,
    sample_weight: np.ndarray | None = None,
) -> float:
    """Half mean squared error, summed over targets, plus the penalty. Weighted samples are still averaged over n."""
    square = (X @ W.T + b - Y) ** 2
    if sample_weight is not None:
        square = square * sample_weight[:, None]
    return float(0.5 * square.mean(axis=0).sum()) + penalty(W, lam, alpha)


def multinomial_loss(X: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray, lam: float, alpha: float) -> float:
    """Mean cross entropy of a linear classifier plus the penalty."""
    return float(cross_entropy(X @ W.T + b, y).mean()) + penalty(W, lam, alpha)


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[y] per sample: (n,)."""
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return np.asarray(total - logits[np.arange(len(y)), y])


@dataclass(frozen=True)
class Saga:
    """Result of `saga`.

    Attributes
    ----------
    W : (u, c) float64
    b : (u,) float64
    epochs : int
        Epochs run before the early stop.
    """

    W: np.ndarray
    b: np.ndarray
    epochs: int


def saga_epochs(
    X: np.ndarray,
    Y: np.ndarray,
    orders: Iterable[np.ndarray],
    *,
    lam: float,
    alpha: float,
    batch_size: int = 512,
    learning_rate: float = 5e-4,
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """State after each epoch: weights (u, c), bias (u,), monitored objective.

    Parameters
    ----------
    X : (n, c) float64
    Y : (n, u) float64
    orders : iterable of (n,) int
        Sample order of each epoch, cut into batches, the last one short.
    lam, alpha : float
        Effective lambda (see `effective_lambda`) and share of the l1 penalty.

    Notes
    -----
    For residuals r of a batch of q samples and their stored values R: d = r - R, dW = d^T X / q, db = mean d, then
    W <- soft(W - eta (dW + gW), eta lam alpha) / (1 + eta lam (1 - alpha)), b <- b - eta (db + gb), and only then
    R <- r, gW += dW q / n, gb += db q / n.
    """
    n, u = len(X), Y.shape[1]
    W, b = np.zeros((u, X.shape[1])), np.zeros(u)
    table, mean_W, mean_b = np.zeros((n, u)), np.zeros_like(W), np.zeros(u)
    eta = learning_rate
    for order in orders:
        error = 0.0
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            x, q = X[rows], len(rows)
            r = x @ W.T + b - Y[rows]
            error += 0.5 * float((r**2).sum())
            d = r - table[rows]
            dW, db = d.T @ x / q, d.mean(axis=0)
            W = soft_threshold(W - eta * (dW + mean_W), eta * lam * alpha, eta * lam * (1.0 - alpha))
            b = b - eta * (db + mean_b)
            table[rows] = r
            mean_W += dW * (q / n)
            mean_b += db * (q / n)
        yield W, b, error / n + penalty(W, lam, alpha)


def saga(
    X: np.ndarray,
    Y: np.ndarray,
    *,
    lam: float = 0.05,
    alpha: float = 0.99,
    batch_size: int = 512,
    learning_rate: float = 5e-4,
    epochs: int = 500,
    tolerance: float = 1e-5,
    lookbehind: int = 5,
    random_state: int = 0,
) -> Saga:
    """Minibatch SAGA with the published budget and early stop.

    Parameters
    ----------
    X : (n, c) float64
        Standardised on the training rows.
    Y : (n, u) float64
        All targets share one stop, as published: results depend slightly on who shares the batch.
    lam : float
        The user's lambda, divided by max(0.001, alpha) inside.
    tolerance : float
        Improvement per target that resets the counter; it stops after ``lookbehind`` epochs without.
    random_state : int
        Seed of the shuffling.
    """
    strength = effective_lambda(lam, alpha)
    rng = generator(random_state, "saga", "order")
    orders = (rng.permutation(len(X)) for _ in range(epochs))
    best, waited, done = np.inf, 0, 0
    state = (np.zeros((Y.shape[1], X.shape[1])), np.zeros(Y.shape[1]))
    steps = saga_epochs(X, Y, orders, lam=strength, alpha=alpha, batch_size=batch_size, learning_rate=learning_rate)
    for W, b, objective in steps:
        state = (W, b)
        done += 1
        if objective + tolerance * Y.shape[1] < best:
            best, waited = objective, 0
        else:
            waited += 1
            if waited == lookbehind:
                break
    return Saga(*state, done)
