"""Candidates that undo mirror solutions.

``L_fso = 0`` only says that filter outputs are uncorrelated inside clusters. That also holds after reflecting the
common mode of the filters (with I = 3: ``a_i / 3 - 2 (a_j + a_k) / 3`` instead of ``a_i``), and cluster means cannot
tell the two apart. So from each solution of step (a) all symmetric within-cluster decorrelations with flipped weak
modes are built and left for the later objective to judge (SPEC section 6.4, item 4; not in the paper).

Symbols: ``W`` (I, k) filters; ``C`` (k, k) pooled covariance inside clusters, a cluster being the positions where one
detector is the most active; ``G = W C W^T = U diag(e) U^T``; candidates ``W' = U diag(sign / sqrt(e)) U^T W``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from .learning import Solutions
from .losses import scores

WEAK = 0.35
"""Eigen-directions of G below this share of the median are flipped; always at least the weakest."""


def within_cluster_covariance(X: Tensor, owner: Tensor, n_clusters: int) -> Tensor:
    """Pooled covariance (k, k) of ``X`` (k, P) inside clusters ``owner`` (P,); those of at most k points add none."""
    k, P = X.shape
    member = one_hot(owner, n_clusters).to(X)
    count = member.sum(0)
    mean = (X @ member) / count.clamp_min(1)
    centred = (X - mean[:, owner]) * (count[owner] > k)
    return centred @ centred.T / P


def candidates(
    X: Tensor, solution: Solutions, index: int, margin: float, flips: bool = True, max_flips: int = 3
) -> Solutions:
    """The solution itself and its decorrelated, mirrored versions.

    Parameters
    ----------
    X : Tensor, shape (k, P)
    solution : Solutions
        Of step (a).
    index : int
        Which of them.
    margin : float
        Margin that every candidate starts with, in learning units.
    flips : bool
        False returns only the solution itself.
    max_flips : int
        At most this many weak modes are flipped, giving ``2^max_flips`` candidates.

    Returns
    -------
    Solutions
        The first is the untransformed one; ``merit`` repeats that of the source.
    """
    W = solution.W[index]
    n_detectors = W.shape[0]
    found_W, found_b = [W], [solution.b[index].expand(n_detectors)]
    z = scores(W, solution.b[index].expand(n_detectors), solution.M[index].expand(n_detectors), X)
    owner = z.argmax(0)
    if flips:
        G = W @ within_cluster_covariance(X, owner, n_detectors) @ W.T
        e, U = torch.linalg.eigh(G)
        weak = int((e < WEAK * e.median()).sum())
        weak = min(max(weak, 1), max_flips)
        member = one_hot(owner, n_detectors).to(X)
        count = member.sum(0)
        for signs in itertools.product((1.0, -1.0), repeat=weak):
            scale = e.clamp_min(1e-8).rsqrt()
            scale[:weak] = scale[:weak] * torch.tensor(signs).to(scale)
            turned = normalize(U @ torch.diag(scale) @ U.T @ W, dim=1)
            out = turned @ X
            inside = (out * member.T).sum(1) / count.clamp_min(1)
            outside = (out.sum(1) - (out * member.T).sum(1)) / (X.shape[1] - count).clamp_min(1)
            sign = torch.where(inside >= outside, 1.0, -1.0)
            turned, out = turned * sign[:, None], out * sign[:, None]
            ordered = out.sort(dim=1).values
            rank = (X.shape[1] - count).long().clamp(0, X.shape[1] - 1)
            found_W.append(turned)
            found_b.append(ordered.gather(1, rank[:, None])[:, 0])
    n = len(found_W)
    return Solutions(
        torch.stack(found_W),
        torch.stack(found_b),
        torch.full((n, n_detectors), margin).to(X),
        solution.merit[index].expand(n),
    )
