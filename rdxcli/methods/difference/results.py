"""What a comparison method returns for each of the two directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdxcli.methods.difference.graph import Direction


@dataclass(frozen=True)
class DifferenceGroup:
    """One group of images that one model holds together and the other keeps apart.

    Attributes
    ----------
    label : int
        Its number in ``DirectionResult.labels``.
    size : int
        Number of members.
    affinity : float
        Mean affinity over all ordered pairs of members; 1 means no difference, at most exp(beta).
    samples : (at most num_samples,) int64
        Rows that stand for it, best first.
    parts : int
        Clusters that were joined into it, see `rdxcli.methods.difference.grouping.join_twins`.
    """

    label: int
    size: int
    affinity: float
    samples: np.ndarray
    parts: int = 1


@dataclass(frozen=True)
class DirectionResult:
    """What one direction found.

    Attributes
    ----------
    direction : {"01", "10"}
    labels : (n,) int64
        0: no concept (the null cluster and clusters under ``affinity_threshold``). Concepts count from 1, for spectral
        clustering by ascending mean affinity, for the centrality methods in the order of picking.
    affinities : (1 + concepts,) float64
        Mean affinity inside each label; NaN for label 0 when no row has it.
    sizes : (1 + concepts,) int64
    samples : list of int64 arrays
        Chosen rows per label, label 0 first.
    eigenvalues : (m,) float64
        Smallest eigenvalues of the normalised Laplacian, ascending; empty for the centrality methods.
    parts : (1 + concepts,) int64, optional
        Clusters that were joined into each label; 1 for all where it is not given.
    """

    direction: Direction
    labels: np.ndarray
    affinities: np.ndarray
    sizes: np.ndarray
    samples: list[np.ndarray]
    eigenvalues: np.ndarray
    parts: np.ndarray | None = None

    @property
    def closer_in(self) -> str:
        """``a`` (the first model given) or ``b``: where the concepts' images sit close together."""
        return "a" if self.direction == "01" else "b"

    @property
    def concepts(self) -> list[DifferenceGroup]:
        """Without label 0, the largest mean affinity first; in the order of labels where methods have no affinity."""
        parts = np.ones(len(self.sizes), dtype=np.int64) if self.parts is None else self.parts
        every = [
            DifferenceGroup(
                label, int(self.sizes[label]), float(self.affinities[label]), self.samples[label], int(parts[label])
            )
            for label in range(1, len(self.sizes))
        ]
        return sorted(every, key=lambda concept: (-np.nan_to_num(concept.affinity), concept.label))
