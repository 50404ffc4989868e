"""Scores for comparisons whose answer is known: one model was taught that two classes are one.

Reference: specification of RDX, section 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.errors import UsageError

SHARE = Fraction(8, 9)  # of a grid that must show the classes
EACH = 2  # images of either class in a mixed grid

KNOWN_MERGES = {"digits-cnn-m35": ("3", "5"), "digits-cnn-m49": ("4", "9")}
"""Embedded models whose training called two digits one."""

KNOWN_TRUE = "digits-cnn"


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
class PlantedRecovery:
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


def recovery(planted: Planted, side: str, grids: Sequence[ArrayLike], labels: ArrayLike) -> PlantedRecovery:
    """Score the grids of images that sit close together in the model ``side``.

    A grid is good when at least 8 of 9 images (rounded up for other sizes) belong to the classes that ``side`` merges,
    with at least two images of two of them; or, where the other model merges classes and ``side`` keeps them apart,
    when at least 8 of 9 belong to one of those.

    Parameters
    ----------
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
    return PlantedRecovery(hits / shown if shown else float("nan"), good, len(grids))


def planted_difference(text: str | None, names: tuple[str, str], labels: np.ndarray | None) -> Planted | None:
    """What is known of the true difference: ``--planted``, or the embedded models that are compared.

    Raises `UsageError` (not of that form, no labels, or classes that the labels do not have).

    Parameters
    ----------
    text : str, optional
        Classes that a model merges, for example ``3,5`` (the first model) or ``b:3,5``; both with ``a:3,5;b:4,9``.
    names : (str, str)
        Of both models.
    labels : (n,) array, optional
    """
    if text is None:
        models = [name.partition("@")[0] for name in names]
        merged = [KNOWN_MERGES.get(model, ()) for model in models]
        both = {*models} <= {*KNOWN_MERGES, KNOWN_TRUE}
        if labels is None or not both or merged[0] == merged[1]:
            return None
        return Planted(*map(frozenset, merged))
    if labels is None:
        raise UsageError("--planted needs labels", "give them with --labels FILE, or use a data set that has them")
    sides: dict[str, frozenset[str]] = {}
    for part in text.split(";"):
        side, colon, listed = part.partition(":")
        side, listed = (side.strip(), listed) if colon else ("a", part)
        classes = frozenset(name.strip() for name in listed.split(",") if name.strip())
        if side not in ("a", "b") or len(classes) < 2 or side in sides:
            raise UsageError(f"--planted takes classes that a model merges, got `{text}`", "for example 3,5 or b:3,5")
        sides[side] = classes
    unknown = frozenset().union(*sides.values()) - _classes(labels)
    if unknown:
        raise UsageError(f"--planted: no image has the label {', '.join(f'`{name}`' for name in sorted(unknown))}")
    return Planted(sides.get("a", frozenset()), sides.get("b", frozenset()))


def _classes(labels: np.ndarray) -> frozenset[str]:
    return frozenset(map(str, labels.tolist()))


def describe_planted(planted: Planted | None) -> dict[str, Any] | None:
    """For the result document."""
    return None if planted is None else {side: sorted(planted.merged(side)) for side in ("a", "b")}
