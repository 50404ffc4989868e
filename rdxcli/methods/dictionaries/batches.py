"""Activations as batches of positions, read from where they lie.

Features may be memory-mapped; only the images of one batch are in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdxcli.numerics.seeding import generator

Array = np.ndarray


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
        return max(1, len(self.features) // self.images)

    def batch(self, step: int) -> Tensor:
        """Positions (P, D), float32, of batch ``step``."""
        epoch, place = divmod(step, self.per_epoch)
        order = self._order(epoch)
        return self.read(np.sort(order[place * self.images : (place + 1) * self.images]))

    def _order(self, epoch: int) -> Array:
        """The order of the images in one epoch, kept until the next: drawing it takes as long as many steps."""
        if self._kept.get("epoch") != epoch:
            self._kept.update(epoch=epoch, order=generator(self.seed, "batches", epoch).permutation(len(self.features)))
        return self._kept["order"]

    def sample(self, most: int = 65_536) -> Tensor:
        """Positions (P, D) of evenly spaced images, ``most`` at most."""
        count = max(1, min(len(self.features), most * len(self.features) // self.positions))
        return self.read(np.unique(np.linspace(0, len(self.features) - 1, count).astype(int)))

    def read(self, rows: Array) -> Tensor:
        """Positions (P, D) of some images.

        Raises
        ------
        ValueError
            Values that are not finite.
        """
        part = torch.from_numpy(np.array(self.features[rows], dtype=np.float32))
        if not bool(torch.isfinite(part).all()):
            raise ValueError("Got features with NaN or infinite values (in float32), expected finite numbers")
        return part if part.ndim == 2 else part.flatten(2).transpose(1, 2).reshape(-1, part.shape[1])
