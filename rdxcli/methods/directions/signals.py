"""Signal vectors (encoding directions) that belong to filters (decoding directions), and what they read.

Symbols: ``x_p`` (D,) features at position p; ``w_i`` (D,) filters, rows of ``W`` (I, D); ``z_i = w_i . x``;
``s_i`` (D,) signal vectors, rows of ``S`` (I, D). Leading dimensions ``...`` are independent solutions.

The closed form (EDDP, section 4.3 and appendix B) is the covariance pattern of Haufe et al. and Kindermans et al.,
taken only over the positions that the detector marks positive: ``s_i = cov[x, z_i] / var[z_i]``. Concepts exclude
each other, so over all positions their signal values are anti-correlated; inside the positive set they are
independent by assumption. Consequence: ``w_i . s_i = 1``. Cost: O(P I D) time, O(P I) memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rdxcli.lazy import sklearn

MIN_POSITIVES = 8
"""A detector with fewer positive positions than this has no usable covariance."""


def _pattern(X: Tensor, Z: Tensor, weight: Tensor) -> Tensor:
    """``cov[x, z] / var[z]`` under non-negative position weights (..., I, P); X is (D, P), Z is (..., I, P)."""
    total = weight.sum(-1, keepdim=True).clamp_min(torch.finfo(X.dtype).tiny)
    deviation = Z - (weight * Z).sum(-1, keepdim=True) / total
    weighted = weight * deviation
    variance = (weighted * deviation).sum(-1, keepdim=True)
    covariance = (weighted.reshape(-1, X.shape[1]) @ X.T).reshape(*Z.shape[:-1], X.shape[0])
    # `weighted` sums to zero over the positions, so x needs no centring; callers centre it anyway for precision.
    return covariance / variance.clamp_min(torch.finfo(X.dtype).tiny)


def positive_set(margin: Tensor) -> Tensor:
    """Weights (0 or 1, same shape and dtype) of the positions from which each detector's signal vector is computed.

    Those with a positive score; for a detector with fewer than `MIN_POSITIVES` of them the top-scoring ones instead.
    """
    with torch.no_grad():
        chosen = (margin > 0).to(margin.dtype)
        few = chosen.sum(-1) < MIN_POSITIVES
        if bool(few.any()):
            count = min(4 * MIN_POSITIVES, margin.shape[-1])
            floor = margin.topk(count, dim=-1).values[..., -1:]
            chosen = torch.where(few.unsqueeze(-1), (margin >= floor).to(margin.dtype), chosen)
    return chosen


def closed_form(X: Tensor, Z: Tensor, margin: Tensor) -> Tensor:
    """Signal vectors from the positions that each detector marks positive.

    Parameters
    ----------
    X : Tensor, shape (D, P)
        Features, best centred.
    Z : Tensor, shape (..., I, P)
        Filter outputs ``w_i . x_p`` (any offset).
    margin : Tensor, shape (..., I, P)
        Detector scores; positive where the detector says "present". Not differentiated.

    Returns
    -------
    Tensor, shape (..., I, D)
        ``s_i`` with ``w_i . s_i = 1``. A detector with fewer than `MIN_POSITIVES` positives uses as many
        top-scoring positions instead.
    """
    return _pattern(X, Z, positive_set(margin))


def pattern(X: Tensor, Z: Tensor) -> Tensor:
    """The same formula over all positions (Haufe et al.): biased when concepts exclude each other."""
    return _pattern(X, Z, torch.ones_like(Z))


def pattern_cav(X: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Pattern-CAV: mean of labelled positives minus mean of labelled negatives (Pahde et al.).

    Parameters
    ----------
    X : ndarray, shape (P, D)
        Features.
    present : ndarray of bool, shape (P, I)
        Concept labels.

    Returns
    -------
    ndarray, shape (I, D), float64
    """
    present = np.asarray(present, dtype=bool)
    counts = present.sum(0)
    if (counts == 0).any() or (counts == len(present)).any():
        empty = np.flatnonzero((counts == 0) | (counts == len(present)))
        raise ValueError(
            f"Got concepts {empty.tolist()} present nowhere or everywhere, expected both kinds of positions"
        )
    X = np.asarray(X, dtype=np.float64)
    positive = present.T.astype(np.float64) @ X
    return positive / counts[:, None] - (X.sum(0) - positive) / (len(X) - counts)[:, None]


def cav(X: np.ndarray, present: np.ndarray, C: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """CAV: supervised logistic classifiers, one per concept (Kim et al.). Decoding directions learned from labels.

    Parameters
    ----------
    X : ndarray, shape (P, D)
        Features.
    present : ndarray of bool, shape (P, I)
        Concept labels.
    C : float
        Inverse strength of the L2 penalty, on features of unit spread.

    Returns
    -------
    weights : ndarray, shape (I, D), float64
        In the unit of the features, not normalised.
    thresholds : ndarray, shape (I,), float64
        ``w . x > threshold`` means present.
    """
    X = np.asarray(X, dtype=np.float64)
    mean = X.mean(0)
    unit = np.sqrt(((X - mean) ** 2).sum(1).mean() / X.shape[1])
    weights, thresholds = [], []
    for column in np.asarray(present, dtype=bool).T:
        if column.all() or not column.any():
            raise ValueError("Got a concept present nowhere or everywhere, expected both kinds of positions")
        model = sklearn.linear_model.LogisticRegression(C=C, max_iter=2000).fit((X - mean) / unit, column)
        weights.append(model.coef_[0] / unit)
        thresholds.append(weights[-1] @ mean - model.intercept_[0])
    return np.stack(weights), np.asarray(thresholds)


def signal_values(X: np.ndarray, decoding: np.ndarray, encoding: np.ndarray) -> np.ndarray:
    """Signal values relative to their mean: ``(w_i . x - w_i . mean) / (w_i . s_i)`` (EDDP, appendix C).

    Parameters
    ----------
    X : ndarray, shape (..., D)
        Features.
    decoding, encoding : ndarray, shape (I, D)
        Direction pairs; lengths do not matter for ``w``, the values are in units of ``|s|``.

    Returns
    -------
    ndarray, shape (..., I), float64
    """
    X = np.asarray(X, dtype=np.float64)
    mean = X.reshape(-1, X.shape[-1]).mean(0)
    gain = (decoding * encoding).sum(1)
    if (np.abs(gain) < 1e-12).any():
        raise ValueError("Got a filter orthogonal to its own signal vector, expected w . s != 0")
    return (X - mean) @ decoding.T / gain
