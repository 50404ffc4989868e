"""How good a dictionary is on a sample, and above what its latents fire.

Activations (P, I) of all positions at once do not fit into memory: they are made in blocks, twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**24
"""Activations in a block."""


@dataclass(frozen=True)
class Judgement:
    """What a sample tells of a dictionary.

    Attributes
    ----------
    threshold : ndarray, shape (I,), float64
    spread : ndarray, shape (I,), float64
        Standard deviation of the pre-activations.
    quality : dict
        ``explained_variance``; ``l0``, mean number of active latents; ``dead``, share that never is.
    """

    threshold: np.ndarray
    spread: np.ndarray
    quality: dict[str, float]


def judge(
    x: Tensor, W: Tensor, b: Tensor, decoder: Tensor, k: int | None, threshold: Tensor | None = None
) -> Judgement:
    """Judge a dictionary.

    Parameters
    ----------
    x : Tensor, shape (P, D)
        Inputs less the offset that the decoder adds.
    W, decoder : Tensor, shape (I, D)
    b : Tensor, shape (I,)
    k : int, optional
        Active latents on average, where no thresholds are given; without it latents fire above 0.
    threshold : Tensor, shape (I,), optional
    """
    parts = x.split(max(1, BLOCK // len(W)))
    total, squares = (torch.zeros(len(W), dtype=torch.float64) for _ in range(2))
    largest = []
    for part in parts:
        pre = part @ W.T + b
        total += pre.sum(0, dtype=torch.float64)
        squares += pre.square().sum(0, dtype=torch.float64)
        if threshold is None and k is not None:
            largest.append(pre.flatten().topk(min(pre.numel(), 4 * k * len(part)), sorted=False).values)
    if threshold is None:
        one = common_threshold(torch.cat(largest), k * len(x)) if k is not None else torch.tensor(0.0)
        threshold = one.expand(len(W))
    left, count, fired = 0.0, 0, torch.zeros(len(W), dtype=torch.bool)
    for part in parts:
        pre = part @ W.T + b
        active = torch.where(pre > threshold, pre, 0.0)
        left += float((part - active @ decoder).square().sum())
        count += int((active > 0).sum())
        fired |= (active > 0).any(0)
    spread = ((squares - total.square() / len(x)) / max(1, len(x) - 1)).clamp_min(0).sqrt()
    every = float((x - x.mean(0)).square().sum()) or 1.0
    return Judgement(
        threshold.double().numpy().copy(),
        spread.numpy(),
        {
            "explained_variance": 1 - left / every,
            "l0": count / len(x),
            "dead": float((~fired).float().mean()),
        },
    )


def common_threshold(values: Tensor, count: int) -> Tensor:
    """The threshold above which ``count`` of some values are, at least 0."""
    flat = values.flatten()
    rank = min(flat.numel(), max(1, count))
    return flat.kthvalue(flat.numel() - rank + 1).values.clamp_min(0) * (1 - 1e-6)
