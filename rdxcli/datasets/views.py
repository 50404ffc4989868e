"""Images of a data set again, and squares that are cut out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.datasets.base import Dataset
from rdxcli.datasets.images import ImageSource

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageView:
    """An image of a data set, or a part of it.

    Parameters
    ----------
    index : int
        In the data set.
    box : (left, top, right, bottom), optional
        In shares of the centred square; None for the whole image.
    """

    index: int
    box: Box | None = None


class _Views(ImageSource):
    def __init__(self, dataset: Dataset, views: Sequence[ImageView]) -> None:
        self.dataset, self.views = dataset, views

    def __len__(self) -> int:
        return len(self.views)

    def image(self, row: int) -> Image.Image:
        view = self.views[row]
        image = self.dataset.image(view.index)
        if view.box is None:
            return image
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        a, b, c, d = (side * share for share in view.box)
        return image.crop((round(left + a), round(top + b), round(left + c), round(top + d)))

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        assert self.dataset.rows is not None
        places = np.array([self.views[int(row)].index for row in rows], dtype=np.int64)
        return self.dataset.source.fingerprint(self.dataset.rows[places])


def views_of(dataset: Dataset, views: Sequence[ImageView]) -> Dataset:
    """A data set of views; ids are those of the images, with the box behind the id of a part."""
    ids = []
    for view in views:
        name = str(dataset.sample_ids[view.index])
        ids.append(name if view.box is None else f"{name}#{','.join(f'{share:.3f}' for share in view.box)}")
    return Dataset(name=dataset.name, spec=dataset.spec, source=_Views(dataset, views), sample_ids=ids)
