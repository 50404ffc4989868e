"""Which images of a labelled data set a published comparison uses (specification, section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.progress import human_count


def choose_per_class(
    labels: ArrayLike,
    num_images: int,
    *,
    paths: Sequence[str] | None = None,
    classes: Sequence[int | str] | None = None,
    seed: int = 0,
) -> tuple[list[int | str], np.ndarray]:
    """The same number of images of each class, as the original's ``ground_truth`` group draws them.

    Class after class the images are sorted by path, as strings, shuffled by one generator shared by all classes, and
    the first ``num_images`` are kept. Raises `ValueError` (a class without images, or a wrong number of paths).

    Parameters
    ----------
    labels : (n,) array-like of int or str
    num_images : int
        At most so many per class.
    paths : sequence of n str, optional
        Default ``root/<label>/<row>``, so that row 10 sorts before row 2.
    classes : sequence, optional
        Which classes, in this order; default all, ascending.
    seed : int
        Of ``numpy.random.default_rng``.

    Returns
    -------
    classes : list
        The classes in order.
    rows : (m,) int64
        Chosen rows, class after class.
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise ValueError(f"Got labels of shape {values.shape}, expected (n,)")
    if paths is None:
        paths = [f"root/{label}/{row}" for row, label in enumerate(values.tolist())]
    if len(paths) != len(values):
        raise ValueError(
            f"Got {human_count(len(paths), 'path')} and {human_count(len(values), 'label')}, expected "
            "one path per label"
        )
    if num_images < 1:
        raise ValueError(f"Got num_images={num_images}, expected at least 1")
    order = list(np.unique(values).tolist() if classes is None else classes)
    rng = np.random.default_rng(seed)
    chosen = []
    for label in order:
        members = np.flatnonzero(values == label)
        if not len(members):
            raise ValueError(f"Got class {label!r}, expected one of the classes in the labels")
        ranked = np.array(sorted(members.tolist(), key=lambda row: paths[row]), dtype=np.int64)
        rng.shuffle(ranked)
        chosen.append(ranked[:num_images])
    return order, np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
