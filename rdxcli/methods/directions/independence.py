"""Filters that make signal values independent inside clusters.

EDDP assumes that inside the positive set of a detector the signal values of the concepts are independent (section
4.3); its orthogonality loss asks for the second-order part of that, no correlation, which mirror solutions also
satisfy. This module asks for all of it: features, centred inside each cluster, follow ``x = S a + D b`` with
independent ``a`` and ``b``, the model of independent component analysis, so the filters are its unmixing rows. They
are the components that move with the clusters; the others belong to distractors. An addition of ours; it needs signal
values that are not Gaussian inside clusters, or that vary more in their own cluster than elsewhere (`varying_filters`).

Symbols: ``X`` (k, P) features; ``owner`` (P,) cluster of each position, one cluster per detector; ``K`` (k, k)
whitening inside clusters; ``R`` (k, k) rotation; ``F = R K`` (k, k) unmixing rows. Fixed-point iteration with the
tanh contrast and symmetric decorrelation (Hyvarinen 1999). Cost: O(P k^2) per iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import one_hot

_ENOUGH = 8


@dataclass(frozen=True)
class ClusterFilters:
    """Filters found by `independent_filters` and `varying_filters`.

    Attributes
    ----------
    W : Tensor, shape (I, k)
        Unit rows; row i belongs to cluster i and is larger inside it.
    b : Tensor, shape (I,)
        Half way between the means inside and outside the cluster.
    owner : Tensor, shape (P,)
        Clusters that these filters give.
    certainty : Tensor, shape (I,)
        How far from undetermined each filter is, in standard errors; at least 5 are asked for.
    """

    W: Tensor
    b: Tensor
    owner: Tensor
    certainty: Tensor


@dataclass(frozen=True)
class _Clusters:
    """Features (k, P) centred inside their clusters, with the means (k, I) inside and outside of each."""

    x: Tensor
    centred: Tensor
    inside: Tensor
    outside: Tensor
    count: Tensor
    owner: Tensor
    e: Tensor
    U: Tensor

    @classmethod
    def of(cls, X: Tensor, owner: Tensor, n_clusters: int) -> _Clusters | None:
        """None when a cluster holds fewer than 8 positions or the features inside clusters do not span the space."""
        x, P = X.double(), X.shape[1]
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
        return cls(x, centred, inside, outside, count, owner, e, U)

    @property
    def whitening(self) -> Tensor:
        """K (k, k)."""
        return (self.U / self.e.sqrt()) @ self.U.T

    def filters(self, F: Tensor, certainty: Callable[[Tensor], Tensor]) -> ClusterFilters:
        """The rows of ``F`` that move with the clusters, each with its own; ``certainty`` of these rows' places."""
        separation = F @ (self.inside - self.outside)
        rows, clusters = linear_sum_assignment(-separation.abs().cpu().numpy())
        chosen = torch.as_tensor(rows[np.argsort(clusters)], device=F.device)
        towards = separation[chosen, torch.arange(len(chosen), device=F.device)].sign()
        own = F[chosen] * torch.where(towards == 0, 1.0, towards).unsqueeze(1)
        middle = (own * (self.inside + self.outside).T).sum(1) / 2
        length = own.norm(dim=1)
        return ClusterFilters(
            (own / length.unsqueeze(1)).float(),
            (middle / length).float(),
            (own @ self.x - middle.unsqueeze(1)).argmax(0),
            certainty(chosen),
        )


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
    given = _Clusters.of(X, owner, n_clusters)
    if given is None:
        return None
    k, P = X.shape
    R = torch.randn(k, k, generator=generator, dtype=torch.float64).to(X.device)
    if start is not None:
        # In whitened coordinates a filter w is w C^(1/2).
        rows = start.double() @ (given.U * given.e.sqrt()) @ given.U.T
        R = torch.cat([10 * rows / rows.norm(dim=1, keepdim=True), R[n_clusters:]])
    K = given.whitening
    F = _unmix(K @ given.centred, _orthonormal(R), iterations, tolerance) @ K

    def excess(chosen: Tensor) -> Tensor:
        return ((F[chosen] @ given.centred).pow(4).mean(1) - 3).abs() / (24 / P) ** 0.5

    return given.filters(F, excess)


def varying_filters(X: Tensor, owner: Tensor, n_clusters: int) -> ClusterFilters | None:
    """One filter per cluster, uncorrelated with all others inside every single cluster.

    Where signal values vary more inside their own cluster than elsewhere, their covariances differ from cluster to
    cluster, and the one set of filters that diagonalises all of them is the true one: joint diagonalisation by
    rotations in whitened coordinates (Cardoso and Souloumiac 1996), here of real symmetric matrices. It needs no law
    of the signal values. Certainty: by how much the variances of two filters differ in their course over the
    clusters, the least of all pairs.

    Parameters and result as in `independent_filters`.
    """
    given = _Clusters.of(X, owner, n_clusters)
    if given is None:
        return None
    Y = given.whitening @ given.centred
    parts = [Y[:, owner == i] for i in range(n_clusters)]
    C = torch.stack([part @ part.T / part.shape[1] for part in parts])
    turn = torch.from_numpy(_joint_rotation((C * given.count.sqrt()[:, None, None]).cpu().numpy())).to(X.device)

    def spread(chosen: Tensor) -> Tensor:
        variances = torch.stack([(turn @ part).square().mean(1) for part in parts]).clamp_min(1e-12).log()  # (I, k)
        differences = variances[:, chosen, None] - variances[:, None, :]
        mean = (differences * given.count[:, None, None]).sum(0) / given.count.sum()
        errors = ((differences - mean).square() * given.count[:, None, None] / 4).sum(0).sqrt()
        errors[torch.arange(len(chosen), device=X.device), chosen] = torch.inf
        return errors.amin(1)

    return given.filters(turn @ given.whitening, spread)


def dependence(outputs: Tensor, owner: Tensor) -> float:
    """Mean squared correlation of the outputs (I, P) of different filters inside single clusters, 0 to 1.

    Tells solutions apart whose detectors are all right: their filters may still read each other's signals.
    """
    count, found = len(outputs), []
    for i in range(count):
        part = outputs[:, owner == i].double()
        if part.shape[1] >= _ENOUGH:
            part = part - part.mean(1, keepdim=True)
            part = part / part.norm(dim=1, keepdim=True).clamp_min(1e-12)
            found.append(float(((part @ part.T).square().sum() - count) / (count * (count - 1))))
    return max(float(np.mean(found)), 0.0) if found and count > 1 else 0.0


def _joint_rotation(C: np.ndarray, sweeps: int = 30, tolerance: float = 1e-6) -> np.ndarray:
    """The rotation V (k, k) that makes all ``V C_m V^T`` of symmetric matrices (m, k, k) as diagonal as can be."""
    C, k = C.copy(), C.shape[1]
    V = np.eye(k)
    for _ in range(sweeps):
        largest = 0.0
        for p in range(k - 1):
            for q in range(p + 1, k):
                h = np.stack([C[:, p, p] - C[:, q, q], 2 * C[:, p, q]])
                on, off = (h[0] ** 2).sum() - (h[1] ** 2).sum(), 2 * (h[0] * h[1]).sum()
                angle = 0.5 * np.arctan2(off, on + np.hypot(on, off))
                if abs(angle) < tolerance:
                    continue
                largest = max(largest, abs(angle))
                turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
                C[:, :, [p, q]] = C[:, :, [p, q]] @ turn.T
                C[:, [p, q], :] = turn @ C[:, [p, q], :]
                V[[p, q]] = turn @ V[[p, q]]
        if largest < 10 * tolerance:
            break
    return V


def settle(owner: Tensor, find: Callable[[Tensor, Tensor | None], ClusterFilters | None]) -> ClusterFilters | None:
    """Alternate filters and clusters until fewer than 1 position in 1,000 changes its cluster.

    ``find`` gives filters for clusters and the filters before.
    """
    found: ClusterFilters | None = None
    for _ in range(4):
        last = owner if found is None else found.owner
        new = find(last, None if found is None else found.W)
        if new is None:
            return found
        found = new
        if float((found.owner != last).double().mean()) < 1e-3:
            break
    return found
