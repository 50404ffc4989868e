"""A learned linear map that takes away the differences a linear map can explain.

Symbols: X (n, d) representation to map, Y (n, e) target, W (d, d) and b (d,) the map, X' = X W^T + b; CKA the debiased
linear centred kernel alignment, which needs no equal widths, so that X' keeps the width of X.

Reference: specification of RDX, section 3; Song et al., JMLR 2012 (debiased HSIC); Kornblith et al., ICML 2019 (CKA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import torch
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.numerics.seeding import generator, torch_generator
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from torch import Tensor

MINIMUM_ROWS = 4
"""Debiased CKA needs as many."""


@dataclass(frozen=True)
class LinearMap:
    """A fitted map.

    Attributes
    ----------
    weight : (d, d) float64
    bias : (d,) float64
    train_loss : (steps,) float64
        1 - CKA on the training rows before each step.
    test_loss : (steps,) float64
        1 - CKA on the held-out rows after each step; NaN where fewer than four rows are held out.
    start_loss : float
        1 - CKA of the unmapped representations on the held-out rows.
    """

    weight: np.ndarray
    bias: np.ndarray
    train_loss: np.ndarray
    test_loss: np.ndarray
    start_loss: float

    def apply(self, X: ArrayLike) -> np.ndarray:
        """X W^T + b: (n, d) float64."""
        return np.asarray(X, dtype=np.float64) @ self.weight.T + self.bias


def debiased_cka(X: Tensor, Y: Tensor) -> Tensor:
    """Debiased linear CKA, differentiable, without n x n matrices: O(n d e).

    Parameters
    ----------
    X, Y : (n, d) and (n, e) tensors, n at least 4
    """
    X, Y = X - X.mean(dim=0), Y - Y.mean(dim=0)
    return _product(X, Y) / (_product(X, X) * _product(Y, Y)).sqrt()


def _product(X: Tensor, Y: Tensor) -> Tensor:
    """<K~, L~> of the zero-diagonal, U-centred linear kernels, from X^T Y and row norms."""
    n = len(X)
    norms = X.square().sum(dim=1), Y.square().sum(dim=1)
    trace = (X.T @ Y).square().sum() - norms[0] @ norms[1]
    sums = X @ X.sum(dim=0) - norms[0], Y @ Y.sum(dim=0) - norms[1]
    return trace + sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2)) - 2.0 * (sums[0] @ sums[1]) / (n - 2)


def fit_map(
    X: ArrayLike,
    Y: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike,
    train: ArrayLike,
    *,
    steps: int = 100,
    lr: float = 1e-3,
) -> LinearMap:
    """Adam on 1 - debiased linear CKA(X W^T + b, Y) over the training rows, full batch, from a given start.

    The weights after the last step are returned: the original means to keep the best ones by held-out loss, but that
    choice never takes effect (trap T8), and with 100 steps the last are the best in all measured cases.
    """
    source, target = (torch.as_tensor(np.array(values, dtype=np.float64)) for values in (X, Y))
    W, b = (torch.tensor(np.asarray(values, dtype=np.float64), requires_grad=True) for values in (weight, bias))
    rows = torch.as_tensor(np.asarray(train, dtype=np.int64))
    held = torch.ones(len(source), dtype=torch.bool)
    held[rows] = False
    testable = int(held.sum()) >= MINIMUM_ROWS
    optimiser = torch.optim.Adam([W, b], lr=lr)

    def loss(where: Tensor) -> Tensor:
        return 1.0 - debiased_cka(source[where] @ W.T + b, target[where])

    start = float("nan")
    if testable:
        start = 1.0 - debiased_cka(source[held], target[held]).item()
    train_loss, test_loss = [], []
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss(rows)
        value.backward()
        optimiser.step()
        train_loss.append(value.item())
        with torch.no_grad():
            test_loss.append(loss(held).item() if testable else float("nan"))
    return LinearMap(W.detach().numpy(), b.detach().numpy(), np.array(train_loss), np.array(test_loss), start)


@dataclass(frozen=True)
class Alignment:
    """Both maps and both mapped representations.

    Attributes
    ----------
    maps : tuple of two LinearMap
        R0 towards R1, and R1 towards R0.
    mapped0, mapped1 : (n, d0) and (n, d1) float64
        All rows, training rows included.
    """

    maps: tuple[LinearMap, LinearMap]
    mapped0: np.ndarray
    mapped1: np.ndarray

    def describe(self) -> dict[str, float]:
        """Held-out 1 - CKA before and after: ``a_to_b_before``, ``a_to_b_after``, ``b_to_a_before`` ..."""
        out: dict[str, float] = {}
        for name, found in zip(("a_to_b", "b_to_a"), self.maps, strict=True):
            out |= {f"{name}_before": found.start_loss, f"{name}_after": float(found.test_loss[-1])}
        return out


def align(
    R0: ArrayLike,
    R1: ArrayLike,
    *,
    steps: int = 100,
    lr: float = 1e-3,
    train_fraction: float = 0.7,
    random_state: int = 0,
) -> Alignment:
    """Learn a map of each representation towards the other.

    Raises `ValueError` (unusable input, or fewer than four training images).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    steps : int, default 100
    lr : float, default 1e-3
    train_fraction : float, default 0.7
        Share of the images the maps are learned on; the rest gives the held-out loss.
    random_state : int, default 0
        Each map has its own random stream.

    Notes
    -----
    O(steps n d0 d1). The start is uniform in +-1 / sqrt(d), as in torch's linear layer.
    """
    R0, R1 = check_pair(R0, R1, minimum_rows=MINIMUM_ROWS + 2)
    if not 0.0 < train_fraction < 1.0:
        raise ValueError(f"Got train_fraction={train_fraction!r}, expected a number between 0 and 1")
    if steps < 1 or not lr > 0.0:
        raise ValueError(f"Got steps={steps!r} and lr={lr!r}, expected positive numbers")
    n = len(R0)
    size = int(train_fraction * n)
    if size < MINIMUM_ROWS:
        raise ValueError(f"Got {human_count(size, 'training image')} of {n}, expected at least {MINIMUM_ROWS}")
    maps = []
    for m, (X, Y) in enumerate(((R0, R1), (R1, R0))):
        train = np.sort(generator(random_state, "alignment", "rows", m).permutation(n)[:size])
        d = X.shape[1]
        stream = torch_generator(random_state, "alignment", m)
        bound = d**-0.5
        W, b = ((2 * torch.rand(*shape, generator=stream, dtype=torch.float64) - 1) * bound for shape in ((d, d), (d,)))
        maps.append(fit_map(X, Y, W.numpy(), b.numpy(), train, steps=steps, lr=lr))
    return Alignment((maps[0], maps[1]), maps[0].apply(R0), maps[1].apply(R1))
