"""Many regions merged into few concepts.

Symbols: R_i the members of region i; J(i, j) = |R_i and R_j| / |R_i or R_j| the Jaccard overlap.

Regions of neighbouring targets are nearly the same. A concept is a star: one region, the leader, with all regions that
overlap it by at least a given share. Its rule is the leader's, so that it can be read and applied to new samples, and
two leaders always overlap by less than that share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.region import Region
from rdxcli.numerics import hamming

SPARSE_COST = 10.0  # time of one multiplication of the sparse product in units of one XOR of two words


@dataclass(frozen=True, eq=False)
class MergedRegion:
    """Overlapping regions and the one that stands for them.

    Attributes
    ----------
    index : int
        Position in the catalogue; the concept with the most regions is number 0.
    region : Region
        The leader.
    targets : (r,) int64
        Targets of the merged regions, the leader's first.
    overlap : float
        Mean Jaccard overlap of the merged regions with the leader, itself included.
    core : (c,) int64
        Samples that are members of at least half of the merged regions, ascending.
    """

    index: int
    region: Region
    targets: np.ndarray
    overlap: float
    core: np.ndarray

    def document(self, configurations: Configurations | None = None) -> dict[str, Any]:
        """The leader's document with what was merged."""
        return self.region.document(configurations) | {
            "concept": self.index,
            "merged_targets": self.targets,
            "overlap": self.overlap,
            "core": self.core,
        }


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two sets of rows; two empty sets have 0.0, for they share nothing."""
    shared = len(np.intersect1d(first, second))
    union = len(np.union1d(first, second))
    return shared / union if union else 0.0


def merge_regions(
    regions: Sequence[Region],
    n: int,
    *,
    overlap: float = 0.5,
    within: np.ndarray | None = None,
    min_support: int = 1,
) -> list[MergedRegion]:
    """Merge regions that overlap into a catalogue.

    The region that overlaps most others leads the first concept and takes them; the next leader is the one with most
    overlaps among those left, and so on. Ties: the larger region, then the lower target. Unbounded and empty regions
    take no part. Raises `ValueError` (overlap out of range, min_support below 1).

    Parameters
    ----------
    n : int
        Samples in the data.
    overlap : float, default 0.5
        Smallest Jaccard overlap with the leader, in (0, 1].
    within : (c,) int, optional
        Count overlaps among these samples only, for example those of one class.
    min_support : int, default 1
        Leave out concepts of fewer regions.

    Returns
    -------
    list of MergedRegion
        By falling number of merged regions, then in the order of leading.

    Notes
    -----
    For u different regions of mean size r: O(u^2 r^2 / n) with sparse products or O(u^2 n / 64) with packed bits,
    whichever is less, memory O(u n / 8) bits at most.
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"Got overlap={overlap}, expected a share in (0, 1]")
    if min_support < 1:
        raise ValueError(f"Got min_support={min_support}, expected at least 1")
    sets = _Sets([region for region in regions if region.bounded], n, within)
    if not len(sets):
        return []
    degree = sets.degrees(overlap)
    order = np.lexsort((sets.first_target, -sets.sizes, -degree))
    free = np.ones(len(sets), dtype=bool)
    concepts: list[MergedRegion] = []
    for leader in order:
        if not free[leader]:
            continue
        shares = sets.overlaps(np.array([leader]))[0]
        taken = np.flatnonzero(free & (shares >= overlap))
        free[taken] = False
        if sets.weight[taken].sum() < min_support:
            continue
        concepts.append(sets.concept(leader, taken, shares))
    concepts.sort(key=lambda concept: -len(concept.targets))
    return [
        MergedRegion(i, concept.region, concept.targets, concept.overlap, concept.core)
        for i, concept in enumerate(concepts)
    ]


class _Sets:
    """The different sets of members among regions, and their overlaps."""

    def __init__(self, regions: list[Region], n: int, within: np.ndarray | None) -> None:
        self.n = n
        inside = np.ones(n, dtype=bool)
        if within is not None:
            inside[:] = False
            inside[np.asarray(within)] = True
        groups: dict[bytes, list[Region]] = {}
        for region in sorted(regions, key=lambda one: one.target):
            rows = np.sort(region.members)
            rows = rows[inside[rows]]
            if len(rows):
                groups.setdefault(rows.tobytes(), []).append(region)
        self.groups = list(groups.values())
        self.rows = [np.frombuffer(key, dtype=np.int64) for key in groups]
        self.sizes = np.array([len(rows) for rows in self.rows], dtype=np.int64)
        self.weight = np.array([len(group) for group in self.groups], dtype=np.int64)
        self.first_target = np.array([group[0].target for group in self.groups], dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(self.sizes)])
        columns = np.concatenate([*self.rows, np.empty(0, dtype=np.int64)])
        self.matrix = csr_array((np.ones(len(columns), dtype=np.int32), columns, ends), shape=(len(self.rows), n))
        often = np.bincount(columns, minlength=n).astype(float)
        self.sparse = SPARSE_COST * float((often**2).sum()) < len(self.rows) ** 2 * n / hamming.WORD
        self.words = None if self.sparse else self._packed()
        self.transposed = self.matrix.T.tocsr() if self.sparse else None

    def __len__(self) -> int:
        return len(self.rows)

    def _packed(self) -> np.ndarray:
        words = hamming.empty(len(self.rows), self.n)
        for rows in _blocks(len(self.rows), self.n):
            hamming.pack(self.matrix[rows].toarray(), words[rows])
        return words

    def overlaps(self, rows: np.ndarray) -> np.ndarray:
        """J of some sets with all: (b, u) float64.

        From packed bits by the Hamming distance h of two sets: the intersection is (|a| + |b| - h) / 2.
        """
        total = self.sizes[rows][:, None] + self.sizes
        if self.words is None:
            shared = np.asarray((self.matrix[rows] @ self.transposed).toarray(), dtype=np.int64)
        else:
            apart = np.stack([hamming.distances(self.words, self.words[row]) for row in rows])
            shared = (total - apart) // 2
        return shared / (total - shared)

    def degrees(self, overlap: float) -> np.ndarray:
        """Regions that overlap each set enough, itself included: (u,) int64."""
        out = np.empty(len(self), dtype=np.int64)
        for rows in _blocks(len(self), len(self)):
            out[rows] = (self.overlaps(np.arange(len(self))[rows]) >= overlap) @ self.weight
        return out

    def concept(self, leader: int, taken: np.ndarray, shares: np.ndarray) -> MergedRegion:
        region = self.groups[leader][0]
        merged = [one.target for group in taken for one in self.groups[group]]
        targets = [region.target, *sorted(target for target in merged if target != region.target)]
        weight = self.weight[taken]
        votes = np.asarray(self.matrix[taken].T @ weight)
        return MergedRegion(
            0,
            region,
            np.array(targets, dtype=np.int64),
            float(shares[taken] @ weight / weight.sum()),
            np.flatnonzero(2 * votes >= weight.sum()),
        )


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, 2**20 // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
