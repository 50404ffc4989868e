"""Groups of images followed along a series of representations: the layers of a network, or checkpoints of a training.

Symbols: X_0 ... X_s (n, d_t) representations of the same n images at the places t of a series; G a group of g images
that a comparison of two neighbouring places found.

``togetherness``
    Share of the k nearest neighbours of G's images that belong to G, at every place. Chance: (g - 1) / (n - 1), for a
    group drawn at random. Where this curve rises the group is drawn together, where it falls it comes apart.
overlap
    How many images two groups share. Chance: hypergeometric, two groups of these sizes drawn at random; p-values are
    corrected for the number of pairs of groups that were looked at (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.lazy import scipy
from rdxcli.numerics.neighbours import Points, nearest

SAME = 0.5
"""Groups of neighbouring steps with at least this Jaccard overlap are one concept."""

RELATED = 0.25
"""Least share of the smaller group in an overlap that is worth a word."""

ALPHA = 0.05


@dataclass(frozen=True)
class Group:
    """Images that one of two neighbouring places holds together and the other keeps apart.

    Attributes
    ----------
    step : int
        Between the places ``step`` and ``step + 1``.
    side : {"a", "b"}
        ``b``: drawn together at the later place. ``a``: held together at the earlier one, and taken apart.
    index : int
        Its number in that comparison.
    members : (n,) bool array
    strength : float
        Groups of more strength come first.
    """

    step: int
    side: str
    index: int
    members: np.ndarray
    strength: float


@dataclass(frozen=True)
class Meeting:
    """Another group of the series that shares images with a concept.

    Attributes
    ----------
    step, side, index : int, str, int
        Of that group.
    shared : int
        Images in both.
    inside : float
        Share of that group's images that belong to the concept.
    expected : float
        The same for a group drawn at random.
    p_value : float
        Corrected.
    """

    step: int
    side: str
    index: int
    shared: int
    inside: float
    expected: float
    p_value: float


@dataclass(frozen=True)
class Followed:
    """A concept along the series.

    Attributes
    ----------
    origin : Group
        The strongest of the groups that it was seen as.
    curve : (s + 1,) float64 array
        Togetherness at every place.
    chance : float
        Of a random group of this size.
    appears, comes_apart : int or None
        The step at which the curve rises, or falls, most; None where it does so by less than a tenth of the whole.
    meetings : list of Meeting
        In the order of the series.
    """

    origin: Group
    curve: np.ndarray
    chance: float
    appears: int | None
    comes_apart: int | None
    meetings: list[Meeting] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain fields."""
        origin = {"step": self.origin.step, "side": self.origin.side, "index": self.origin.index}
        return {
            **origin,
            "size": int(self.origin.members.sum()),
            "strength": self.origin.strength,
            "togetherness": self.curve.tolist(),
            "chance": self.chance,
            "appears": self.appears,
            "comes_apart": self.comes_apart,
            "meetings": [vars(one) for one in self.meetings],
        }


LEAST_CHANGE = 0.1


def follow(
    places: Sequence[np.ndarray], groups: Sequence[Group], *, neighbours: int = 10, device: str = "cpu"
) -> list[Followed]:
    """The different concepts among the groups of a series, and what becomes of each.

    Parameters
    ----------
    places : sequence of (n, d) arrays
    neighbours : int
        At most a quarter of the images.

    Returns
    -------
    list of Followed
        The strongest first. A group with a Jaccard overlap of at least 0.5 with a stronger one is no concept of its
        own.

    Notes
    -----
    Time O(s n^2 d) for the neighbours and O(groups^2 n). The group was chosen because neighbours at its own step agree
    on it: look at the curve elsewhere for evidence that does not come from the choice.
    """
    n = len(places[0])
    k = max(1, min(neighbours, (n - 1) // 4))
    lists = [nearest(Points(np.asarray(X), device=device), k + 1)[:, 1:] for X in places]
    chosen: list[Group] = []
    for group in sorted(groups, key=lambda one: (-one.strength, one.step, one.side, one.index)):
        if all(_jaccard(group.members, other.members) < SAME for other in chosen):
            chosen.append(group)
    tests = max(1, len(chosen) * (len(groups) - 1))
    found = []
    for group in chosen:
        size = int(group.members.sum())
        curve = np.array([group.members[near[group.members]].mean() for near in lists])
        change = np.diff(curve)
        found.append(
            Followed(
                group,
                curve,
                (size - 1) / (n - 1),
                int(change.argmax()) if change.max() >= LEAST_CHANGE else None,
                int(change.argmin()) if change.min() <= -LEAST_CHANGE else None,
                [meeting for other in _later(groups, group) if (meeting := _meeting(group, other, n, tests))],
            )
        )
    return found


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))


def _later(groups: Sequence[Group], group: Group) -> list[Group]:
    """The other groups in the order of the series."""
    others = [one for one in groups if one is not group]
    return sorted(others, key=lambda one: (one.step, one.side, one.index))


def _meeting(concept: Group, other: Group, n: int, tests: int) -> Meeting | None:
    """The overlap of two groups, where it is large and no chance."""
    size, own = int(concept.members.sum()), int(other.members.sum())
    shared = int((concept.members & other.members).sum())
    p_value = min(1.0, tests * float(scipy.stats.hypergeom.sf(shared - 1, n, size, own)))
    if p_value > ALPHA or shared < RELATED * min(size, own):
        return None
    return Meeting(other.step, other.side, other.index, shared, shared / own, size / n, p_value)
