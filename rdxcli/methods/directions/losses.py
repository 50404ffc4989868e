"""Losses of UIBE, CBE and EDDP on concept detectors.

Symbols, with shapes (leading dimensions ``...`` are independent solutions that are trained side by side):

========  ==============  ===========================================================================
``z``     (..., I, P)     scores ``(w_i . x_p - b_i) / M_i`` of I detectors at P positions
``y``     (..., I, P)     activations, ``sigmoid(z)``
``q``     (..., I, P)     shares ``y_i / sum_j y_j`` of the detectors at one position
``M``     (..., I)        separation margins, positive
``W``     (..., I, D)     decoding directions (filters), one row per detector, unit length
``S``     (..., I, D)     encoding directions (signal vectors), one row per detector
========  ==============  ===========================================================================

Logarithms are base 2 (EDDP, appendix A). Everything is differentiable and works in the dtype of its input. One
evaluation costs O(P I) time and memory.

With ``l = log y`` one has ``q = softmax(l)`` over the detectors, hence ``-sum q log q = -sum q l + log sum y``: entropy
and maximum activation share all their work, and neither needs a small constant to stay finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

_LN2 = math.log(2.0)


@dataclass(frozen=True)
class PositionTerms:
    """What several losses need of the scores, computed once.

    Attributes
    ----------
    log_y : Tensor, shape (..., I, P)
        Natural logarithm of the activations.
    entropy : Tensor, shape (..., P)
        Entropy of the shares ``q`` at each position, bits.
    surprise : Tensor, shape (..., P)
        ``-sum_i q_i log2 y_i`` at each position, bits.
    """

    log_y: Tensor
    entropy: Tensor
    surprise: Tensor

    @classmethod
    def of(cls, z: Tensor) -> PositionTerms:
        """Terms of the scores ``z`` of shape (..., I, P)."""
        log_y = logsigmoid(z)
        total = torch.logsumexp(log_y, dim=-2)
        surprise = -(torch.exp(log_y - total.unsqueeze(-2)) * log_y).sum(-2)
        return cls(log_y, (surprise + total) / _LN2, surprise / _LN2)

    def mean_power(self, gamma: float) -> Tensor:
        """``E_p[y^gamma]`` of each detector, shape (..., I)."""
        return torch.exp(gamma * self.log_y).mean(-1)


def scores(W: Tensor, b: Tensor, M: Tensor, X: Tensor) -> Tensor:
    """Detector scores ``z = (W X - b) / M``.

    Parameters
    ----------
    W : Tensor, shape (..., I, D)
        Unit filters.
    b, M : Tensor, shape (..., I)
        Thresholds and margins, in the unit of the features.
    X : Tensor, shape (D, P)
        Features, one column per position.

    Returns
    -------
    Tensor, shape (..., I, P)
    """
    flat = W.reshape(-1, W.shape[-1]) @ X
    return (flat.reshape(*W.shape[:-1], X.shape[1]) - b.unsqueeze(-1)) / M.unsqueeze(-1)


def self_weighted(values: Tensor, sharpness: float = 4.0, dim: int = -1) -> Tensor:
    """Self-weighted mean ``R(l) = sum l^(s+1) / sum l^s``: a smooth stand-in for the maximum (EDDP, section 4.2).

    ``R`` is homogeneous of degree one, so values are divided by their maximum first. That keeps tiny values from
    underflowing; the maximum can be held constant in the gradient without changing it. ``R(0, ..., 0) = 0``.

    Parameters
    ----------
    values : Tensor
        Non-negative values (negative ones count as 0).
    sharpness : float
        ``s``; larger is closer to the maximum.
    dim : int
        Dimension to reduce.
    """
    tiny = torch.finfo(values.dtype).tiny
    positive = relu(values)
    top = positive.detach().amax(dim, keepdim=True).clamp_min(tiny)
    ratio = positive / top
    weight = ratio**sharpness
    return top.squeeze(dim) * (weight * ratio).sum(dim) / (weight.sum(dim) + tiny)


def sparsity(z: Tensor) -> Tensor:
    """``L_s``: mean entropy of the shares, bits. Each position should belong to few concepts (UIBE)."""
    return PositionTerms.of(z).entropy.mean(-1)


def sparsity_bound(z: Tensor, sharpness: float = 4.0) -> Tensor:
    """``L_sb``: self-weighted mean of the entropies over positions: the worst positions get sparser (EDDP)."""
    return self_weighted(PositionTerms.of(z).entropy, sharpness)


def maximum_activation(z: Tensor) -> Tensor:
    """``L_ma = E_p[-sum_i q_i log2 y_i]``, bits: the detector that wins must say 1 (UIBE)."""
    return PositionTerms.of(z).surprise.mean(-1)


def inactive(mean_power: Tensor, tau: float = 1.0) -> Tensor:
    """``L_ic = E_i[relu(v - E_p[y^gamma]) / v]`` with ``v = tau / I``: every detector owns some positions (CBE).

    Parameters
    ----------
    mean_power : Tensor, shape (..., I)
        ``E_p[y^gamma]``, see `PositionTerms.mean_power`.
    tau : float
        Share of the positions that all detectors together must own.
    """
    share = tau / mean_power.shape[-1]
    return (relu(share - mean_power) / share).mean(-1)


def excess_per_detector(mean_power: Tensor, rho: float) -> Tensor:
    """``relu(E_p[y^gamma] - rho) / (1 - rho)`` of each detector, shape (..., I) (EDDP, section 4.2)."""
    return relu(mean_power - rho) / (1.0 - rho)


def excessively_active(mean_power: Tensor, rho: float, sharpness: float = 4.0) -> Tensor:
    """``L_eac``: self-weighted excess over the largest share ``rho`` that a detector may own (EDDP)."""
    return self_weighted(excess_per_detector(mean_power, rho), sharpness)


def maximum_margin(M: Tensor) -> Tensor:
    """``L_mm = E_i[1 / M_i]``: small when the margins are wide (UIBE)."""
    return (1.0 / M).mean(-1)


def filter_signal_orthogonality(W: Tensor, S: Tensor) -> Tensor:
    """``L_fso``: root mean square, over all I^2 pairs, of ``w_i . s_j`` between unit vectors with i != j (EDDP)."""
    cosines = torch.nn.functional.normalize(W, dim=-1) @ torch.nn.functional.normalize(S, dim=-1).transpose(-1, -2)
    off = cosines - torch.diag_embed(torch.diagonal(cosines, dim1=-2, dim2=-1))
    # The constant keeps the gradient of the root finite where the loss is zero.
    return (off.square().mean((-2, -1)) + 1e-14).sqrt()
