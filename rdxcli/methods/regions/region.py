"""One relaxed decision region, its scores, and the document it becomes.

Symbols: R the members of a region among n samples; y the label of each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.selection import Rule
from rdxcli.methods.regions.targets import Labels
from rdxcli.numerics import hamming

BOUNDED, UNBOUNDED, EMPTY = "bounded", "unbounded", "empty"


@dataclass(frozen=True, eq=False)
class Region:
    """The samples that share a few neuron states with a target and its neighbours.

    Attributes
    ----------
    target : int
        Row of the target.
    neighbours : (k,) int64
        Rows from which the neurons were chosen, nearest first, the target among them.
    distances : (k,) int32 or float64
        Their distances from the target, in the metric of the search.
    rule : Rule
        Neurons and states.
    status : {"bounded", "unbounded", "empty"}
        ``unbounded``: there is no rule, or it excludes nobody; then ``members`` is empty, never the whole data set.
    members : (r,) int64
        The target first, the others by their configuration distance from it, ties by row.
    member_distances : (r,) int32
        Those distances in bits.
    mismatches : int
        States a member may violate.
    tied_neighbours : bool
        The last neighbour is as far as one left out, so that the canonical rule for ties decided.
    scores : dict
        See `region_scores`.
    true_counts, predicted_counts : dict of str to int
        Labels and predictions of the members, the most frequent first; empty when unknown.
    """

    target: int
    neighbours: np.ndarray
    distances: np.ndarray
    rule: Rule
    status: str
    members: np.ndarray
    member_distances: np.ndarray
    mismatches: int = 0
    tied_neighbours: bool = False
    scores: dict[str, Any] = field(default_factory=dict)
    true_counts: dict[str, int] = field(default_factory=dict)
    predicted_counts: dict[str, int] = field(default_factory=dict)

    @property
    def neurons(self) -> np.ndarray:
        """Chosen neurons, (t,) int64 in the order of choice."""
        return self.rule.neurons

    @property
    def states(self) -> np.ndarray:
        """Their shared states, (t,) bool."""
        return self.rule.states

    @property
    def bounded(self) -> bool:
        """There is a rule and it holds for some samples but not for all."""
        return self.status == BOUNDED

    def contains(self, configurations: Configurations) -> np.ndarray:
        """Which samples, for example new ones, are in the region: (n,) bool. All False when it is unbounded."""
        inside = np.zeros(configurations.n, dtype=bool)
        if self.bounded:
            inside[self.rule.matches(configurations, self.mismatches)] = True
        return inside

    def position_map(self, configurations: Configurations) -> np.ndarray:
        """How many chosen neurons sit at each place of the map: (H, W) int64, or (1, 1) without places."""
        shape = configurations.shape[1:] or (1,)
        out = np.zeros(shape, dtype=np.int64)
        places = configurations.positions(self.neurons)[:, 1:]
        np.add.at(out, tuple(places.T) if places.shape[1] else (np.zeros(len(places), dtype=np.int64),), 1)
        return np.atleast_2d(out)

    def document(self, configurations: Configurations | None = None) -> dict[str, Any]:
        """The entry of a region in ``regions`` of the result document; with ``positions`` where the map is known."""
        out: dict[str, Any] = {
            "target": self.target,
            "status": self.status,
            "neighbours": self.neighbours,
            "neighbour_distances": self.distances,
            "neurons": self.neurons,
            "states": self.states.astype(int),
            "neuron_scores": self.rule.scores,
            "mismatches": self.mismatches,
            "unanimous": self.rule.unanimous,
            "ties": {"neighbours": self.tied_neighbours, "neurons": self.rule.tied},
            "scores": self.scores,
            "labels": self.true_counts,
            "predictions": self.predicted_counts,
            "members": self.members,
            "member_distances": self.member_distances,
        }
        if configurations is not None:
            out["positions"] = configurations.positions(self.neurons)
        return out


def build_region(
    configurations: Configurations,
    target: int,
    neighbours: np.ndarray,
    distances: np.ndarray,
    rule: Rule,
    labels: Labels,
    *,
    mismatches: int = 0,
    tied_neighbours: bool = False,
) -> Region:
    """Evaluate a rule on the data it came from. O(n t) at most, and less where the first states exclude much."""
    found = rule.matches(configurations, mismatches)
    if not len(rule) or len(found) == configurations.n:
        status, members = UNBOUNDED, found[:0]
    elif not len(found):
        status, members = EMPTY, found
    else:
        status, members = BOUNDED, found
    far = hamming.distances(configurations.words[members], configurations.words[target])
    order = np.lexsort((members, far, members != target))
    members, far = members[order], far[order]
    region = Region(
        int(target), np.asarray(neighbours), np.asarray(distances), rule, status, members, far, mismatches,
        tied_neighbours,
    )  # fmt: skip
    region.scores.update(region_scores(region, configurations.n, labels))
    if labels.true is not None:
        region.true_counts.update(labels.counts(labels.true[members]))
    if labels.predicted is not None:
        region.predicted_counts.update(labels.counts(labels.predicted[members]))
    return region


def region_scores(region: Region, n: int, labels: Labels) -> dict[str, Any]:
    """How much a region covers, and how pure and selective it is.

    Returns
    -------
    dict
        ``size``: |R|; ``coverage``: |R| / n, 1.0 for an unbounded region; ``rarity``: mean score of the neurons.

        With labels (true ones where known, else predictions):
        ``label``: the most frequent label among the members;
        ``purity``: its share of the members;
        ``base_rate``: its share of all samples;
        ``recall``: the share of its samples that are members;
        ``selectivity``: (a - b) / (a + b) for a = recall and b the share of all other samples that are members, the
        class selectivity index of Morcos et al. (ICLR 2018): 1 only this label enters, 0 as many as by chance;
        ``target_label`` and ``target_purity``: the target's own label and its share of the members.

        None where a region has no members.
    """
    size = len(region.members)
    scores: dict[str, Any] = {
        "size": size,
        "coverage": 1.0 if region.status == UNBOUNDED else size / n,
        "rarity": float(region.rule.scores.mean()) if len(region.rule) else None,
    }
    y = labels.reference
    if y is None:
        return scores
    own = int(y[region.target])
    found = label_scores(region.members, y, labels)
    inside = int((y[region.members] == own).sum())
    return scores | found | {"target_label": labels.names[own], "target_purity": inside / size if size else None}


def label_scores(members: np.ndarray, y: np.ndarray, labels: Labels) -> dict[str, Any]:
    """``label``, ``purity``, ``base_rate``, ``recall`` and ``selectivity`` of some samples, see `region_scores`.

    Parameters
    ----------
    members : (r,) int64
    y : (n,) int64
        Class of every sample, an index into ``labels.names``.
    """
    n, size = len(y), len(members)
    if not size:
        return dict.fromkeys(("label", "purity", "base_rate", "recall", "selectivity"))
    inside = np.bincount(y[members], minlength=len(labels.names))
    top = int(inside.argmax())
    total = int((y == top).sum())
    recall = inside[top] / total
    others = (size - inside[top]) / (n - total) if total < n else 0.0
    return {
        "label": labels.names[top],
        "purity": float(inside[top] / size),
        "base_rate": total / n,
        "recall": float(recall),
        "selectivity": float((recall - others) / (recall + others)) if total < n else 0.0,
    }


def neighbour_purity(configurations: Configurations, region: Region, labels: Labels) -> float | None:
    """Share of the target's label among as many nearest samples (by configuration) as the region has members.

    The honest reference for ``target_purity``: a region is usually as pure as this list, not purer; what it adds is an
    explicit rule and a size that the data choose. None without labels or members. O(n m / 64).
    """
    y = labels.reference
    if y is None or not len(region.members):
        return None
    nearest = hamming.smallest(configurations.distances(region.target), len(region.members))
    return float((y[nearest] == y[region.target]).mean())


def membership(regions: Sequence[Region], configurations: Configurations) -> np.ndarray:
    """Which samples are in which region: (n, number of regions) bool."""
    out = np.zeros((configurations.n, len(regions)), dtype=bool)
    for j, region in enumerate(regions):
        out[:, j] = region.contains(configurations)
    return out
