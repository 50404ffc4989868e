"""What the two directions of RDX compare: the representations, mapped or not, and the guidance labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.graph import Direction


@dataclass(frozen=True)
class Sides:
    """What one graph compares, for all n images.

    Attributes
    ----------
    first, second : (n, d) arrays
        Representations of model 0 and model 1.
    first_labels, second_labels : (n,) int arrays or None
        Guidance.
    """

    first: np.ndarray
    second: np.ndarray
    first_labels: np.ndarray | None = None
    second_labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: np.ndarray) -> Sides:
        """Some of the images."""
        return Sides(
            self.first[rows],
            self.second[rows],
            None if self.first_labels is None else self.first_labels[rows],
            None if self.second_labels is None else self.second_labels[rows],
        )

    def values(self, model: int) -> np.ndarray:
        """The representation of model 0 or 1."""
        return (self.first, self.second)[model]

    def labels(self, model: int) -> np.ndarray | None:
        """The guidance of model 0 or 1."""
        return (self.first_labels, self.second_labels)[model]


def pair_sides(
    R0: np.ndarray,
    R1: np.ndarray,
    labels0: ArrayLike | None,
    labels1: ArrayLike | None,
    mapped0: ArrayLike | None,
    mapped1: ArrayLike | None,
    mapped_labels0: ArrayLike | None,
    mapped_labels1: ArrayLike | None,
) -> dict[Direction, Sides]:
    """What is compared in each direction; the same object for both without a map.

    Raises `ValueError` (a mapped representation of another shape). `R0`, `R1`, `labels0`, `labels1`, `mapped0`,
    `mapped1`, `mapped_labels0`, `mapped_labels1`: see `rdxcli.methods.difference.rdx.RDX.fit`.
    """
    first, second = _codes(labels0), _codes(labels1)
    if mapped0 is None or mapped1 is None:
        shared = Sides(R0, R1, first, second)
        return {"01": shared, "10": shared}
    for name, mapped in (("mapped0", mapped0), ("mapped1", mapped1)):
        if np.ndim(mapped) != 2 or len(np.asarray(mapped)) != len(R0):
            raise ValueError(f"Got {name} of shape {np.shape(mapped)}, expected ({len(R0)}, d)")
    first_mapped = first if mapped_labels0 is None else _codes(mapped_labels0)
    second_mapped = second if mapped_labels1 is None else _codes(mapped_labels1)
    return {
        "01": Sides(R0, np.asarray(mapped1), first, second_mapped),
        "10": Sides(np.asarray(mapped0), R1, first_mapped, second),
    }


def _codes(labels: ArrayLike | None) -> np.ndarray | None:
    """Labels as whole numbers."""
    return None if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]


def taken(pairs: Mapping[Direction, Sides], rows: np.ndarray) -> dict[Direction, Sides]:
    """Some rows of what is compared; sides that are shared stay shared."""
    first = pairs["01"].take(rows)
    return {"01": first, "10": first if pairs["10"] is pairs["01"] else pairs["10"].take(rows)}
