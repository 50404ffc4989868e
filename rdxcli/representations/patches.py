"""What a model makes of the places of some images: a vector for each patch of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.datasets.selection import SelectionOptions
from rdxcli.engines.activations import ActivationTask
from rdxcli.errors import InputError, UsageError
from rdxcli.models import load, resolve
from rdxcli.models.preprocessing import Preprocessing, seen_part

GRID = 8
"""Patches along a side, at most; finer maps are averaged."""


@dataclass(frozen=True)
class Patches:
    """Patches of some images.

    Attributes
    ----------
    values : (m, h, w, c) float32 array
    boxes : list of (top, left, bottom, right)
        The part of each image's centred square that the grid covers, in shares of its side.
    """

    values: np.ndarray
    boxes: list[tuple[float, float, float, float]]


class PatchReader:
    """Reads the places of a layer.

    Raises `UsageError` (the layer has no places).

    Parameters
    ----------
    text : str
        A model.
    layer : str, optional
        Default: the model's own.
    selection : SelectionOptions
        Where the images are.
    """

    def __init__(self, text: str, layer: str | None, selection: SelectionOptions, device: str, dtype: str) -> None:
        spec = resolve(text)
        self.model = load(spec, device=device, dtype=dtype)
        self.layer = self.model.layer(layer)
        self.dataset = SelectionOptions(dataset=selection.dataset, root=selection.root).open(spec.default_dataset)
        # a vector, or a map of one place, as after a pooling
        flat = {known.path: known.kind == "features" or known.shape[1:] == (1, 1) for known in self.model.layers()}
        if flat.get(self.layer):
            places = [path for path, single in flat.items() if not single]
            raise UsageError(
                f"--patches: the layer {self.layer} of {self.model.name} has no places",
                f"choose an earlier one, such as {places[-1]}" if places else None,
            )

    def read(self, ids: Sequence[str]) -> Patches:
        """The patches of the images ``ids``. Raises `InputError` (an image is not there)."""
        rows = self.dataset.locate(list(ids))
        if len(rows) and rows.min() < 0:
            raise InputError(f"--patches: no image {ids[int(np.argmin(rows))]} in {self.dataset.name}")
        with ActivationTask(self.model, self.dataset, [self.layer], "none") as task:
            found = [
                task.fetch(task.run(task.collate([task.prepare(int(row)) for row in rows[start : start + 8]])))
                for start in range(0, len(rows), 8)
            ]
        maps = np.concatenate([one[self.layer] for one in found]).astype(np.float32)
        return Patches(_coarse(maps.transpose(0, 2, 3, 1)), [self._box(int(row)) for row in rows])

    def _box(self, row: int) -> tuple[float, float, float, float]:
        how: Any = self.model.transform
        if not isinstance(how, Preprocessing):
            return 0.0, 0.0, 1.0, 1.0
        image = self.dataset.image(row)
        side = min(image.height, image.width)
        top, left, bottom, right = seen_part(how, image.height, image.width)
        high, wide = image.height / side, image.width / side
        down, across = (high - 1) / 2, (wide - 1) / 2
        return top * high - down, left * wide - across, bottom * high - down, right * wide - across


def _coarse(maps: np.ndarray) -> np.ndarray:
    """Maps (m, h, w, c) averaged to at most `GRID` places along a side."""
    for axis in (1, 2):
        size = maps.shape[axis]
        if size > GRID:
            starts = np.linspace(0, size, GRID + 1).astype(int)
            counts = np.diff(starts).astype(maps.dtype)
            shape = [1] * maps.ndim
            shape[axis] = GRID
            maps = np.add.reduceat(maps, starts[:-1], axis=axis) / counts.reshape(shape)
    return maps
