"""Features of parts of images that a model sees alone: crops, scaled up to its input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch.nn.functional import interpolate

from rdxcli.datasets.base import Dataset
from rdxcli.models.loaded import LoadedModel
from rdxcli.progress import track

STEP = 0.8
"""Distance of neighbouring crops in sides of a crop."""


def crop_features(
    model: LoadedModel, layer: str, dataset: Dataset, rows: Sequence[int], share: float, batch: int = 64
) -> np.ndarray:
    """Mean features of the crops of some images.

    Parameters
    ----------
    rows : sequence of int
        Images of ``dataset``.
    share : float
        Side of a crop as a share of the input's.
    batch : int
        Crops in one pass.

    Returns
    -------
    ndarray, shape (crops, d), float32
        All crops of the first image, then those of the second.
    """
    found = []
    with (
        model.tap([layer], "none") as tap,
        track("crops", len(rows), "images") as advance,
        torch.no_grad(),
    ):
        for row in rows:
            image = model.transform(dataset.image(int(row)))
            size = tuple(image.shape[1:])
            sides = [max(1, round(share * one)) for one in size]
            tops, lefts = (_starts(one, side) for one, side in zip(size, sides, strict=True))
            parts = torch.stack([image[:, t : t + sides[0], x : x + sides[1]] for t, x in product(tops, lefts)])
            whole = interpolate(parts.float(), size=size, mode="bilinear", align_corners=False)
            for part in whole.split(batch):
                maps = tap(part)[model.layer(layer)].float()
                found.append((maps if maps.ndim == 2 else maps.flatten(2).mean(2)).cpu().numpy())
            advance(1)
    return np.concatenate(found)


def _starts(size: int, side: int) -> list[int]:
    """Where crops begin along one axis: evenly, from one end to the other."""
    count = 1 + int(np.ceil((size - side) / max(1.0, STEP * side)))
    return sorted({round(start) for start in np.linspace(0, size - side, count)})
