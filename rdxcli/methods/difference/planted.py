"""Scores for comparisons whose answer is known: one model was taught that two classes are one.

Reference: specification of RDX, section 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

SHARE = Fraction(8, 9)  # of a grid that must show the classes
EACH = 2  # images of either class in a mixed grid


@dataclass(frozen=True)
class Planted:
    """Classes that each model was taught to call the same.

    Parameters
    ----------
    merged_a, merged_b : frozenset of str
        Empty when that model was taught the truth.
    """

    merged_a: frozenset[str] = frozenset()
    merged_b: frozenset[str] = frozenset()

    def merged(self, side: str) -> frozenset[str]:
        """What the model ``a`` or ``b`` merges."""
        return self.merged_a if side == "a" else self.merged_b

    @property
    def classes(self) -> frozenset[str]:
        """All classes that take part in the difference."""
        return self.merged_a | self.merged_b


@dataclass(frozen=True)
class Recovery:
    """How well the grids of one direction show the planted difference.

    Attributes
    ----------
    hit : float
        Share of shown images that belong to the classes of the difference; NaN without images.
    good, grids : int
        Good grids and all grids.
    """

    hit: float
    good: int
    grids: int


def recovery(planted: Planted, side: str, grids: Sequence[ArrayLike], labels: ArrayLike) -> Recovery:
    """Score the grids of images that sit close together in the model ``side``.

    A grid is good when at least 8 of 9 images (rounded up for other sizes) belong to the classes that ``side`` merges,
    with at least two images of two of them; or, where the other model merges classes and ``side`` keeps them apart,
    when at least 8 of 9 belong to one of those.

    Parameters
    ----------
    planted : Planted
    side : {"a", "b"}
    grids : sequence of int arrays
        Rows shown per concept.
    labels : (n,) array-like
        True classes.
    """
    classes = np.asarray(labels).astype(str)
    own, other = planted.merged(side), planted.merged("b" if side == "a" else "a")
    good, shown, hits = 0, 0, 0
    for grid in grids:
        names = classes[np.asarray(grid, dtype=np.int64)]
        counts = {name: int((names == name).sum()) for name in planted.classes}
        hits += sum(counts.values())
        shown += len(names)
        if not len(names):
            continue
        least = SHARE * len(names)
        mixed = sum(counts[name] for name in own) >= least and sum(counts[name] >= EACH for name in own) >= 2
        pure = any(counts[name] >= least for name in other)
        good += bool(mixed or pure)
    return Recovery(hits / shown if shown else float("nan"), good, len(grids))
