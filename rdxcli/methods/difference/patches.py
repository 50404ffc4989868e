"""Which places of a group's images a model finds alike.

Symbols: P (p, c) patches of the images of a group, R (r, c) patches of other images, drawn at random; both are centred
by the mean of R, because activations behind a rectifier all point into one corner. Similarity is the cosine. Chance is
what a patch of the group and one of other images have: `likeness` is 0 up to its 95 % quantile and 1 for equal patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Likeness:
    """How alike the patches of a group are.

    Attributes
    ----------
    values : (p, p) uint8 array
        0: no more alike than 95 % of pairs with a patch of other images; 255: equal.
    chance : float
        That quantile of the cosine.
    above : float
        Share of the pairs of patches of different images above it; 0.05 for images that have nothing in common.
    """

    values: np.ndarray
    chance: float
    above: float


def likeness(group: np.ndarray, others: np.ndarray) -> Likeness:
    """Likeness of all patches of a group of images.

    Raises `ValueError` (no image on one side, or different grids).

    Parameters
    ----------
    group, others : (m, h, w, c) and (m', h, w, c) arrays
        Patches of the group's images, and of images drawn at random.
    """
    if not len(group) or not len(others) or group.shape[1:] != others.shape[1:]:
        raise ValueError(f"Got patches of shapes {group.shape} and {others.shape}, expected images on the same grid")
    images, places = len(group), group.shape[1] * group.shape[2]
    reference = others.reshape(-1, others.shape[-1]).astype(np.float64)
    mean = reference.mean(axis=0)
    P, R = (_unit(values.reshape(-1, group.shape[-1]) - mean) for values in (group, reference))
    chance = float(np.quantile(P @ R.T, 0.95))
    cosines = P @ P.T
    apart = np.repeat(np.arange(images), places)
    between = cosines[apart[:, None] != apart[None]]
    share = np.clip((cosines - chance) / max(1e-9, 1.0 - chance), 0.0, 1.0)
    above = float((between > chance).mean()) if len(between) else 0.0
    return Likeness(np.rint(255 * share).astype(np.uint8), chance, above)


def _unit(values: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0.0, lengths, 1.0))
