"""Filters that make signal values independent inside clusters.

EDDP assumes that inside the positive set of a detector the signal values of the concepts are independent (section
4.3); its orthogonality loss asks for the second-order part of that, no correlation, which mirror solutions also
satisfy. This module asks for all of it: features, centred inside each cluster, follow ``x = S a + D b`` with
independent ``a`` and ``b``, the model of independent component analysis, so the filters are its unmixing rows. They
are the components that move with the clusters; the others belong to distractors. An addition of ours; it needs signal
values that are not Gaussian inside clusters.

Symbols: ``X`` (k, P) features; ``owner`` (P,) cluster of each position, one cluster per detector; ``K`` (k, k)
whitening inside clusters; ``R`` (k, k) rotation; ``F = R K`` (k, k) unmixing rows. Fixed-point iteration with the
tanh contrast and symmetric decorrelation (Hyvarinen 1999). Cost: O(P k^2) per iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import one_hot

_ENOUGH = 8


@dataclass(frozen=True)
class ClusterFilters:
    """Filters found by `independent_filters`.

    Attributes
    ----------
    W : Tensor, shape (I, k)
        Unit rows; row i belongs to cluster i and is larger inside it.
    b : Tensor, shape (I,)
        Half way between the means inside and outside the cluster.
    owner : Tensor, shape (P,)
        Clusters that these filters give.
    excess : Tensor, shape (I,)
        Excess kurtosis of the outputs inside clusters, in standard errors: far from 0 means not Gaussian.
    """

    W: Tensor
    b: Tensor
    owner: Tensor
    excess: Tensor


def _orthonormal(A: Tensor) -> Tensor:
    """Nearest orthogonal matrix (symmetric decorrelation)."""
    U, _, Vh = torch.linalg.svd(A)
    return U @ Vh


def _unmix(Y: Tensor, R: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Rotate whitened ``Y`` (k, P) from the start ``R`` (k, k) to independent components."""
    P = Y.shape[1]
    for _ in range(iterations):
        g = torch.tanh(R @ Y)
        new = _orthonormal(g @ Y.T / P - (1 - g.square()).mean(1, keepdim=True) * R)
        moved = float((1 - (new * R).sum(1).abs()).max())
        R = new
        if moved < tolerance:
            break
    return R


def independent_filters(
    X: Tensor,
    owner: Tensor,
    n_clusters: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    iterations: int = 200,
    tolerance: float = 1e-6,
) -> ClusterFilters | None:
    """One filter per cluster, independent of the others inside clusters.

    Parameters
    ----------
    X : Tensor, shape (k, P), float32
    owner : Tensor of int, shape (P,)
    n_clusters : int
        I, at most k.
    generator : torch.Generator
        Draws the first rotation.
    start : Tensor, shape (I, k), optional
        Filters to start from, so that the nearest solution is found.
    iterations, tolerance : int, float
        When the rotation has settled.

    Returns
    -------
    ClusterFilters or None
        None when a cluster holds fewer than 8 positions or the features inside clusters do not span the space.
    """
    k, P = X.shape
    x = X.double()
    member = one_hot(owner, n_clusters).double()
    count = member.sum(0)
    if bool((count < _ENOUGH).any()) or bool((count > P - _ENOUGH).any()):
        return None
    inside = (x @ member) / count
    outside = (x.sum(1, keepdim=True) - x @ member) / (P - count)
    centred = x - inside[:, owner]
    e, U = torch.linalg.eigh(centred @ centred.T / P)
    if float(e[0]) <= 1e-10 * float(e[-1]):
        return None
    R = torch.randn(k, k, generator=generator, dtype=torch.float64).to(x.device)
    if start is not None:
        # In whitened coordinates a filter w is w C^(1/2).
        rows = start.double() @ (U * e.sqrt()) @ U.T
        R = torch.cat([10 * rows / rows.norm(dim=1, keepdim=True), R[n_clusters:]])
    K = (U / e.sqrt()) @ U.T
    F = _unmix(K @ centred, _orthonormal(R), iterations, tolerance) @ K
    separation = F @ (inside - outside)
    rows_, clusters = linear_sum_assignment(-separation.abs().cpu().numpy())
    chosen = torch.as_tensor(rows_[np.argsort(clusters)], device=x.device)
    towards = separation[chosen, torch.arange(n_clusters, device=x.device)].sign()
    F = F[chosen] * torch.where(towards == 0, 1.0, towards).unsqueeze(1)
    middle = (F * (inside + outside).T).sum(1) / 2
    fourth = (F @ centred).pow(4).mean(1) - 3
    length = F.norm(dim=1)
    return ClusterFilters(
        (F / length.unsqueeze(1)).float(),
        (middle / length).float(),
        (F @ x - middle.unsqueeze(1)).argmax(0),
        fourth / (24 / P) ** 0.5,
    )


def settle(
    X: Tensor, owner: Tensor, n_clusters: int, generator: torch.Generator, rounds: int = 4
) -> ClusterFilters | None:
    """Alternate filters and clusters until fewer than 1 position in 1,000 changes its cluster."""
    found: ClusterFilters | None = None
    for _ in range(rounds):
        last = owner if found is None else found.owner
        new = independent_filters(X, last, n_clusters, generator, None if found is None else found.W)
        if new is None:
            return found
        found = new
        if float((found.owner != last).double().mean()) < 1e-3:
            break
    return found
