"""Figures about single units: which images matter, which concepts fill which range of activation.

Reference: Oikarinen and Weng (2024), section 2, figure 3 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.neurons.saga import cross_entropy
from rdxcli.progress import human_count, track

CUTOFFS = (0.0003, 0.002, 0.005, 0.02, 0.1, 0.5)


@dataclass(frozen=True)
class Classified:
    """What a classifier makes of samples.

    Attributes
    ----------
    predicted : (n,) int64
    correct : (n,) float64
        0 or 1.
    loss : (n,) float64
        Cross entropy.
    """

    predicted: np.ndarray
    correct: np.ndarray
    loss: np.ndarray


def classify(logits: ArrayLike, labels: ArrayLike, *, temperature: float = 1.1) -> Classified:
    """Predictions, correctness and cross entropy of logits divided by a temperature.

    Parameters
    ----------
    logits : (n, k) array-like
    labels : (n,) int array-like
    """
    z, y = np.asarray(logits, dtype=np.float64) / temperature, np.asarray(labels)
    if z.ndim != 2 or y.shape != (len(z),):
        raise ValueError(f"Got logits {z.shape} and labels {y.shape}, expected (n, k) and (n,)")
    predicted = z.argmax(axis=1)
    return Classified(predicted, (predicted == y).astype(np.float64), cross_entropy(z, y))


def impact(correct: ArrayLike, new_correct: ArrayLike, loss: ArrayLike, new_loss: ArrayLike) -> np.ndarray:
    """Effect on each image of zeroing a unit: ((acc - acc') / sum acc + (loss' - loss) / sum loss) / 2.

    Raises `ValueError` (no image is classified correctly, or every loss is zero: the shares are not defined).

    Parameters
    ----------
    correct, new_correct : (n,) of 0 and 1
        With and without the unit.
    loss, new_loss : (n,)

    Returns
    -------
    (n,) float64
    """
    acc, new_acc, l0, l1 = (np.asarray(v, dtype=np.float64) for v in (correct, new_correct, loss, new_loss))
    if acc.sum() <= 0 or l0.sum() <= 0:
        raise ValueError("Got a model with no correct image or no loss at all, so an effect has no scale")
    return np.asarray(0.5 * ((acc - new_acc) / acc.sum() + (l1 - l0) / l0.sum()))


def importance_share(impacts: ArrayLike, activations: ArrayLike, cutoffs: Sequence[float] = CUTOFFS) -> np.ndarray:
    """Share of the total |impact| that the most activating images carry.

    Parameters
    ----------
    impacts, activations : (n,) array-like
    cutoffs : sequence of float in [0, 1)
        Fractions of the images.

    Returns
    -------
    (len(cutoffs),) float64
        The images up to and including number floor(cutoff n) (from 0) of the descending order, as published: one more
        than cutoff n. Ties by index. 0 when no image has an impact.
    """
    size = np.abs(np.asarray(impacts, dtype=np.float64))
    order = np.argsort(-np.asarray(activations, dtype=np.float64), kind="stable")
    n = len(order)
    ends = np.array([int(cutoff * n) for cutoff in cutoffs])
    if len(size) != n or (ends >= n).any() or (ends < 0).any():
        raise ValueError(
            f"Got {human_count(len(size), 'impact')}, {human_count(n, 'activation')}, cutoffs "
            f"{tuple(cutoffs)}, expected cutoffs in [0, 1)"
        )
    running = np.cumsum(size[order])
    return running[ends] / running[-1] if running[-1] > 0 else np.zeros(len(ends))


@dataclass(frozen=True)
class AreaChart:
    """Which concepts are present in each band of activation.

    Attributes
    ----------
    edges : (bands + 1,) float64
        From 0 to the largest activation.
    share : (concepts, bands) float64
        Percentage of the images of a band that carry a concept; NaN for an empty band.
    other : (bands,) float64
        Percentage without any of them.
    counts : (bands,) int64
        Images per band. Images with activation exactly 0 are in none.
    """

    edges: np.ndarray
    share: np.ndarray
    other: np.ndarray
    counts: np.ndarray

    @property
    def x(self) -> np.ndarray:
        """(bands + 2,) abscissae of a stacked plot: 0, band centres, the maximum."""
        return np.concatenate([[self.edges[0]], (self.edges[:-1] + self.edges[1:]) / 2, [self.edges[-1]]])

    def padded(self, values: np.ndarray) -> np.ndarray:
        """``values`` with its edge values repeated at both ends, to go with `x`."""
        return np.concatenate([values[..., :1], values, values[..., -1:]], axis=-1)


def area_chart(presence: ArrayLike, activations: ArrayLike, *, bands: int = 8) -> AreaChart:
    """Percentage of images per activation band that carry each concept; band i is (edge_i, edge_i+1].

    Raises `ValueError` (shapes that do not fit, or a unit that is never positive).

    Parameters
    ----------
    presence : (n, concepts) array-like of 0 and 1
    activations : (n,) array-like
    """
    X, a = np.asarray(presence, dtype=np.float64), np.asarray(activations, dtype=np.float64)
    if X.ndim != 2 or a.shape != (len(X),):
        raise ValueError(f"Got presence {X.shape} and activations {a.shape}, expected (n, concepts) and (n,)")
    if not a.max() > 0:
        raise ValueError("Got a unit that is never positive, so it has no bands from 0 to its maximum")
    edges = np.linspace(0.0, a.max(), bands + 1)
    band = np.searchsorted(edges, a, side="left") - 1  # edges[i] < a <= edges[i + 1]
    inside = (band >= 0) & (band < bands)
    member = np.zeros((bands, len(a)))
    member[band[inside], np.flatnonzero(inside)] = 1.0
    counts = member.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = 100.0 * (member @ X).T / counts
        other = 100.0 * (member @ (X == 0).all(axis=1)) / counts
    return AreaChart(edges, share, other, counts.astype(np.int64))


def importance(
    logits: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
    labels: np.ndarray,
    activations: Any,
    units: Sequence[int],
    rows: np.ndarray,
) -> dict[int, list[float]]:
    """Share of the effect of zeroing each unit that its most activating images carry, at `CUTOFFS`.

    Parameters
    ----------
    logits : callable
        ``logits(unit, values, rows)``, (m, classes), when the unit has these values.
    labels : (n,) int
    activations : (n, u) array-like
    rows : (m,) int

    Returns
    -------
    dict of unit to list of float
        Empty for units where the share is not defined.
    """
    found: dict[int, list[float]] = {}
    with track("activation importance", len(units), "units") as advance:
        for unit in units:
            own = np.asarray(activations[rows, unit], dtype=np.float64)
            with_unit = classify(logits(unit, own, rows), labels[rows], temperature=1.0)
            without = classify(logits(unit, np.zeros(len(rows)), rows), labels[rows], temperature=1.0)
            try:
                effects = impact(with_unit.correct, without.correct, with_unit.loss, without.loss)
            except ValueError:
                found[unit] = []
            else:
                found[unit] = [float(share) for share in importance_share(effects, own)]
            advance(1)
    return found
