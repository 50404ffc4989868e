"""The rule of a region on samples it was not found in.

Symbols: R' the members among n' new samples; the target stays one of the samples the rule was found in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.region import BOUNDED, EMPTY, UNBOUNDED, label_scores
from rdxcli.methods.regions.selection import Rule
from rdxcli.methods.regions.targets import Labels
from rdxcli.numerics import hamming


@dataclass(frozen=True, eq=False)
class AppliedRule:
    """Members of a region among new samples.

    Attributes
    ----------
    members : (r,) int64
        Rows of the new samples, by configuration distance from the target, ties by row.
    distances : (r,) int32
        Those distances in bits.
    status : {"bounded", "unbounded", "empty"}
        ``unbounded``: the rule holds for every new sample, or there is none. ``empty``: for none of them.
    scores : dict
        As `rdxcli.methods.regions.region.region_scores`, among the new samples, without those about the target.
    counts : dict of str to int
        Labels of the members, the most frequent first; empty when unknown.
    """

    members: np.ndarray
    distances: np.ndarray
    status: str
    scores: dict[str, Any]
    counts: dict[str, int]


def apply_rule(
    rule: Rule,
    target: np.ndarray,
    configurations: Configurations,
    labels: Labels,
    *,
    mismatches: int = 0,
    bounded: bool = True,
) -> AppliedRule:
    """Which samples have the states of a rule.

    Raises `ValueError` (a neuron that the configurations do not have).

    Parameters
    ----------
    target : (w,) uint64
        Packed configuration of the target.
    configurations : Configurations
        Of the new samples, made by `Configurations.encode` of those the rule was found in.
    labels : Labels
        Of the new samples.
    mismatches : int
        States a member may violate.
    bounded : bool
        False for a region that was unbounded when it was found: it has no members anywhere.

    Notes
    -----
    O(n' t) at most.
    """
    if len(rule) and int(rule.neurons.max()) >= configurations.m:
        raise ValueError(f"Got neuron {int(rule.neurons.max())}, expected one below {configurations.m}")
    found = rule.matches(configurations, mismatches) if bounded and len(rule) else np.arange(configurations.n)
    status = BOUNDED
    if not bounded or len(found) == configurations.n:
        # as in the data a rule was found in: holding for everybody says nothing, and is never a region of everybody
        status, found = UNBOUNDED, found[:0]
    elif not len(found):
        status = EMPTY
    far = hamming.distances(configurations.words[found], target)
    order = np.lexsort((found, far))
    members = found[order]
    scores: dict[str, Any] = {
        "size": len(members),
        "coverage": 1.0 if status == UNBOUNDED else len(members) / configurations.n,
    }
    y = labels.reference
    counts: dict[str, int] = {}
    if y is not None:
        scores |= label_scores(members, y, labels)
        counts = labels.counts(y[members])
    return AppliedRule(members, far[order], status, scores, counts)
