"""Noise on concept encodings: a share of k in m captions is only an estimate, so training draws from its uncertainty.

Symbols: k successes of m trials, p = k / m, q confidence, z = Phi^-1(1/2 + q/2). The ends of the Wilson score interval
(Wilson 1927, without continuity correction) are

    (2k + z^2 -/+ z sqrt(4 k (1 - p) + z^2)) / (2 (m + z^2)),

with the lower end 0 for k = 0 and the upper end 1 for k = m. Training takes the confidence uniform on [0, mass) and one
of the two ends with equal probability, which is one draw with a signed z = Phi^-1(u), u uniform on
(1/2 - mass/2, 1/2 + mass/2).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import ndtri

from rdxcli.numerics.shares import check_counts, signed_end
from rdxcli.numerics.shares import wilson_interval as wilson_interval  # the training's noise is made of its ends


def perturb(k: ArrayLike, m: ArrayLike, u: ArrayLike) -> np.ndarray:
    """The draw that belongs to ``u``: the Wilson end at the signed quantile Phi^-1(u).

    Parameters
    ----------
    u : array_like of float in (0, 1)
        Uniform on (1/2 - mass/2, 1/2 + mass/2) for noise of that mass; 1/2 gives k / m.

    Returns
    -------
    ndarray of float64
    """
    k, m, u = (np.asarray(x, dtype=np.float64) for x in (k, m, u))
    check_counts(*np.broadcast_arrays(k, m))
    z = ndtri(u)
    return np.where((k == m) & (z > 0), 1.0, signed_end(k, m, z))


def reduced(k: ArrayLike, m: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of the reduced fraction k / m.

    The published code stores shares as reduced fractions and so forgets that 5 of 10 is better known than 1 of 2. Only
    for reproducing its noise.
    """
    k, m = np.asarray(k, dtype=np.int64), np.asarray(m, dtype=np.int64)
    divisor = np.gcd(k, m)
    return k // divisor, m // divisor


def draw(k: torch.Tensor, m: torch.Tensor, mass: float, generator: torch.Generator) -> torch.Tensor:
    """Noisy shares of one batch: the vectorised form used in training.

    Parameters
    ----------
    k, m : (nnz,) tensors of the same floating-point type
    mass : float in [0, 1)
    generator : torch.Generator on the CPU
        So that the same numbers are drawn on every device.

    Returns
    -------
    (nnz,) tensor of the same type and device
    """
    u = torch.rand(k.shape, generator=generator, dtype=torch.float32).to(device=k.device, dtype=k.dtype)
    # ndtri(1/2 + t) = sqrt(2) erfinv(2 t)
    z = torch.erfinv((u - 0.5) * (2.0 * mass)) * (2.0**0.5)
    square = z * z
    value = (2.0 * k + square + z * torch.sqrt(4.0 * k * (m - k) / m + square)) / (2.0 * (m + square))
    # Exactly 1 at the upper end when every caption mentions the concept; the formula leaves rounding.
    return torch.where((k == m) & (z > 0), torch.ones_like(value), value)
