"""Maps of a network laid over the centred square of an image, which is what reports show."""

from __future__ import annotations

import numpy as np

from rdxcli.lazy import torch

CELLS = 14  # largest side of a mask: finer ones would make the page large and are not seen on a thumbnail


def over_square(
    one: np.ndarray,
    box: tuple[float, float, float, float] | None = None,
    size: tuple[int, int] = (1, 1),
    *,
    peak: bool = False,
) -> np.ndarray:
    """A map laid over the centred square of its image.

    Parameters
    ----------
    one : (h, w) float
    box : (top, left, bottom, right), optional
        Part of the image that the map covers, in shares of its height and width; None means all of it.
    size : (int, int)
        Height and width of the image.
    peak : bool
        Finer maps are reduced to their largest values instead of means.

    Returns
    -------
    (g, g') float64
        NaN where the network saw nothing.
    """
    grid = torch.as_tensor(np.array(one, dtype=np.float64))[None]
    most = min(CELLS, grid.shape[1]), min(CELLS, grid.shape[2])
    if most != tuple(grid.shape[1:]):
        reduce = torch.nn.functional.adaptive_max_pool2d if peak else torch.nn.functional.adaptive_avg_pool2d
        grid = reduce(grid, most)
    small = grid[0].numpy()
    top, left, bottom, right = box or (0.0, 0.0, 1.0, 1.0)
    side = min(size)
    rows = _cells(small.shape[0], top * size[0], bottom * size[0], (size[0] - side) / 2, side)
    columns = _cells(small.shape[1], left * size[1], right * size[1], (size[1] - side) / 2, side)
    taken = small[np.clip(rows, 0, small.shape[0] - 1)][:, np.clip(columns, 0, small.shape[1] - 1)]
    outside = (rows < 0)[:, None] | (rows >= small.shape[0])[:, None] | (columns < 0) | (columns >= small.shape[1])
    return np.where(outside, np.nan, taken)


def _cells(count: int, low: float, high: float, start: float, side: float) -> np.ndarray:
    """Cell of a map of ``count`` cells from ``low`` to ``high`` at the centres of cells over ``start`` + ``side``."""
    wanted = int(np.clip(round(count * side / (high - low)), 2, 2 * CELLS))
    centres = start + (np.arange(wanted) + 0.5) / wanted * side
    return np.floor((centres - low) / (high - low) * count).astype(np.int64)
