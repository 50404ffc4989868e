"""The main axes of a cloud of points."""

from __future__ import annotations

import numpy as np

EXACT = 512
"""Up to this width the main axes come from the whole covariance."""


def principal_axes(values: np.ndarray) -> np.ndarray:
    """The two main axes of the rows: (n, 2) float32; a second axis of zeros when there is only one dimension."""
    centred = np.asarray(values, dtype=np.float64) - np.mean(values, axis=0, dtype=np.float64)
    count = min(2, *centred.shape)
    largest, vectors = np.linalg.eigh(centred.T @ centred) if centred.shape[1] <= EXACT else _sketched(centred)
    axes = centred @ vectors[:, np.argsort(largest)[::-1][:count]]
    return np.pad(axes, ((0, 0), (0, 2 - count))).astype(np.float32)


def _sketched(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The leading eigenpairs of the covariance of many dimensions, by subspace iteration."""
    block = np.random.default_rng(0).standard_normal((centred.shape[1], 10))
    for _ in range(8):
        block = np.linalg.qr(centred.T @ (centred @ block))[0]
    image = centred @ block
    values, rotation = np.linalg.eigh(image.T @ image)
    return values, block @ rotation
