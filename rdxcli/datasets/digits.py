"""The embedded default: scikit-learn's handwritten digits (real scans, UCI), and their mirrored doubles.

The doubles follow the MNIST flip experiments of the RDX paper: every image and its mirror image under a label of its
own, ``3`` and ``3-flipped``, so that a model that ignores the flip can be told from one that sees it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rdxcli.datasets.base import Dataset, natural_ids
from rdxcli.datasets.images import ArrayImages
from rdxcli.lazy import sklearn

FLIPPED = "-flipped"


@lru_cache(maxsize=1)
def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 8, 8) uint8 in 0..255 and labels (1797,) int.

    The file holds ink in 0..16; it is scaled by 255/16 and rounded.
    """
    table = _table()
    images = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    images.setflags(write=False)
    return images, table[:, -1].astype(np.int64)


def _table() -> np.ndarray:
    """64 pixels and the label of each image: (1797, 65) float64, from scikit-learn's own file.

    The library is loaded, which takes over a second, only where the file is not where it has always been.
    """
    spec = find_spec("sklearn")
    place = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else Path()
    if place.is_file():
        return np.loadtxt(place, delimiter=",")
    raw = sklearn.datasets.load_digits()
    return np.column_stack([raw.data, raw.target])


def digits(root: Path | None = None) -> Dataset:
    """1,797 images, labels ``0`` to ``9``, ids ``0000`` to ``1796``."""
    images, labels = digit_arrays()
    return Dataset(
        name="digits",
        spec="digits",
        source=ArrayImages(images, "digits"),
        sample_ids=natural_ids(len(images)),
        labels=[str(label) for label in labels],
        class_names=[str(digit) for digit in range(10)],
    )


def digits_hflip(root: Path | None = None) -> Dataset:
    """Digits and their left-right mirror images: 3,594 images, 20 labels."""
    return _doubled("hflip", axis=2)


def digits_vflip(root: Path | None = None) -> Dataset:
    """Digits and their top-bottom mirror images: 3,594 images, 20 labels."""
    return _doubled("vflip", axis=1)


def _doubled(flip: str, axis: int) -> Dataset:
    images, labels = digit_arrays()
    names = [str(label) for label in labels]
    ids = natural_ids(len(images))
    classes = [str(digit) for digit in range(10)]
    return Dataset(
        name=f"digits-{flip}",
        spec=f"digits-{flip}",
        source=ArrayImages(np.concatenate([images, np.flip(images, axis)]), f"digits-{flip}"),
        sample_ids=[*ids, *(f"{sample}-{flip}" for sample in ids)],
        labels=[*names, *(name + FLIPPED for name in names)],
        class_names=[*classes, *(name + FLIPPED for name in classes)],
    )
