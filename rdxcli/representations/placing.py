"""Where a concept map lies on the picture that a report shows, which is the centred square of the image.

A model sees a part of the image (256 pixels resized, 224 cut out, say), so that its maps cover that part only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import RdxError
from rdxcli.models import load
from rdxcli.models.preprocessing import Preprocessing, seen_part
from rdxcli.progress import log
from rdxcli.records import Representation
from rdxcli.report.squares import over_square
from rdxcli.representations.options import LayerOptions


def placer(options: LayerOptions, source: Representation) -> Callable[[int, np.ndarray], list[list[float]]]:
    """A function from a row and its map (h, w) to the map over the centred square of that row's image.

    At most 14 x 14 cells, rounded for a document; 0 where the model saw nothing. Where the images or the model's
    preprocessing are not known, the map is taken to cover the square.
    """
    boxes = _Boxes(options, source)

    def place(row: int, one: np.ndarray) -> list[list[float]]:
        box, size = boxes(row)
        return np.nan_to_num(over_square(one, box, size)).round(3).tolist()

    return place


class _Boxes:
    """The part of each image that the model sees, and the size of the image; each is looked up once."""

    def __init__(self, options: LayerOptions, source: Representation) -> None:
        self.known: dict[int, tuple[Any, tuple[int, int]]] = {}
        self.dataset: Any = None
        name = options.model or source.source.get("model")
        if name is None or source.dataset is None or source.sample_ids is None or source.values.ndim != 4:
            return

        try:
            transform = load(str(name), device="cpu").transform
            dataset = open_dataset(source.dataset)
        except RdxError as error:
            log.info("maps are laid over whole images: %s", error.message)
            return
        if isinstance(transform, Preprocessing):
            self.transform = transform
            self.dataset, self.ids = dataset, source.ids()

    def __call__(self, row: int) -> tuple[tuple[float, float, float, float] | None, tuple[int, int]]:
        if self.dataset is None:
            return None, (1, 1)
        if row not in self.known:
            try:
                image = self.dataset.image(int(self.dataset.locate([self.ids[row]])[0]))
                size = (image.height, image.width)
                self.known[row] = seen_part(self.transform, *size), size
            except (KeyError, IndexError, OSError, ValueError, RdxError):
                self.known[row] = None, (1, 1)  # the report says which images are missing
        return self.known[row]
