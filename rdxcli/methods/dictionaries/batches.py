"""Activations as batches of positions, read from where they lie.

Features may be memory-mapped. What is in memory at a time is a *pool* of a few megabytes: runs of consecutive images
from random places, so that disks read whole pages, which are shuffled there and make several batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdxcli.numerics.seeding import generator

Array = np.ndarray

POOL = 2**24
"""Bytes of a pool (float32), about; one batch at least."""

RUN = 2**18
"""Bytes that are read in one go, at most."""


@dataclass(frozen=True)
class Batches:
    """Shuffled batches of positions of some features.

    Attributes
    ----------
    features : ndarray, shape (N, D, H, W) or (N, D)
        Real numbers, perhaps memory-mapped.
    size : int
        Positions in a batch, about: whole images are taken.
    seed : int
        Every epoch has an order of its own.
    """

    features: Array
    size: int
    seed: int
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = np.shape(self.features)
        if len(shape) not in (2, 4) or 0 in shape:
            raise ValueError(f"Got features of shape {shape}, expected (n, d) or (n, c, h, w) with no empty dimension")

    @property
    def channels(self) -> int:
        """D."""
        return int(self.features.shape[1])

    @property
    def positions(self) -> int:
        """Positions of all images."""
        return int(self.features.shape[0] * np.prod(self.features.shape[2:], dtype=int))

    @property
    def images(self) -> int:
        """Images in a batch."""
        return max(1, min(len(self.features), self.size * len(self.features) // self.positions))

    @property
    def per_epoch(self) -> int:
        """Batches until every image was seen once; a last, smaller one is left out."""
        return max(1, len(self.features) // self.run * self.run // self.images)

    @property
    def run(self) -> int:
        """Consecutive images that are read together; a batch is a whole number of runs."""
        most = max(1, min(self.images, RUN * len(self.features) // (4 * self.channels * self.positions)))
        return next(count for count in range(most, 0, -1) if self.images % count == 0)

    def batch(self, step: int) -> Tensor:
        """Positions (P, D), float32, of batch ``step``."""
        epoch, place = divmod(step, self.per_epoch)
        each = max(1, POOL * len(self.features) // (4 * self.channels * self.positions * self.images))
        pool, place = divmod(place, each)
        if self._kept.get("pool") != (epoch, pool):
            self._kept.clear()  # before the next one is read
            self._kept.update(pool=(epoch, pool), images=self._pool(epoch, pool, each * self.images // self.run))
        images, order = self._kept["images"]
        return images[order[place * self.images : (place + 1) * self.images]].flatten(0, 1)

    def _pool(self, epoch: int, pool: int, runs: int) -> tuple[Tensor, Tensor]:
        """Images (n, positions of one, D) of some runs, and the order in which they are seen."""
        rng = generator(self.seed, "batches", epoch)
        count = len(self.features) // self.run
        start = int(rng.integers(len(self.features) - count * self.run + 1))  # what is left out moves
        chosen = np.sort(rng.permutation(count)[pool * runs : (pool + 1) * runs])
        found = np.empty((len(chosen) * self.run, *self.features.shape[1:]), np.float32)
        for place, at in enumerate(start + chosen * self.run):
            found[place * self.run : (place + 1) * self.run] = self.features[at : at + self.run]
        order = generator(self.seed, "batches", epoch, pool).permutation(len(found))
        return _positions(found).reshape(len(found), -1, self.channels), torch.from_numpy(order)

    def sample(self, most: int = 65_536) -> Tensor:
        """Positions (P, D) of evenly spaced images, ``most`` at most."""
        count = max(1, min(len(self.features), most * len(self.features) // self.positions))
        return self.read(np.unique(np.linspace(0, len(self.features) - 1, count).astype(int)))

    def read(self, rows: Array) -> Tensor:
        """Positions (P, D) of some images. Raises `ValueError` (values that are not finite)."""
        return _positions(np.asarray(self.features[rows], dtype=np.float32))


def _positions(images: Array) -> Tensor:
    """Positions (P, D) of images (n, D) or (n, D, H, W) that nothing else looks at."""
    part = torch.from_numpy(np.ascontiguousarray(images))
    # a sum is finite where all are, and one pass; one that is not may have grown too large
    if not bool(part.sum().isfinite()) and not bool(torch.isfinite(part).all()):
        raise ValueError("Got features with NaN or infinite values (in float32), expected finite numbers")
    return part if part.ndim == 2 else part.flatten(2).transpose(1, 2).reshape(-1, part.shape[1])
