"""Which neurons make a region: those on which a target's neighbours agree and the rest of the data does not.

Symbols: C (n, m) configurations; S the k neighbours; p (m,) mean of C over S, q (m,) mean over all n samples; U the
unanimous neurons, p in {0, 1}; t neurons are chosen. The score |p - q| of a neuron in U is the share of all samples
that disagree with the state the neighbours agree on.

Reference: Chang, Kwon and Choi, AAAI 2024 (arXiv 2312.17285); ``RDR.selection`` of the published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.numerics import hamming

SELECTIONS = ("ranked", "joint")


@dataclass(frozen=True, eq=False)
class Rule:
    """A conjunction of neuron states.

    Attributes
    ----------
    neurons : (t,) int64
        In the order of choice.
    states : (t,) bool
        The state that the neighbours share.
    scores : (t,) float64
        Share of all samples with the other state.
    unanimous : int
        |U|, how many neurons could have been chosen.
    tied : bool
        The last neuron has the score of one left out, so that the canonical rule for ties decided.
    """

    neurons: np.ndarray
    states: np.ndarray
    scores: np.ndarray
    unanimous: int = 0
    tied: bool = False

    def __len__(self) -> int:
        return len(self.neurons)

    def matches(self, configurations: Configurations, mismatches: int = 0) -> np.ndarray:
        """Samples that violate at most ``mismatches`` of the states: ascending int64. A rule of no neurons: all."""
        return hamming.rule_matches(configurations.words, self.neurons, self.states, mismatches)


def unanimous(configurations: Configurations, neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neurons on which the neighbours agree.

    Returns
    -------
    neurons : (u,) int64, ascending
    states : (u,) bool
    scores : (u,) float64
        |p - q| in this very form: 1 - c/n for state 1 and c/n for state 0, whose last bits differ.

    Notes
    -----
    O(k m / 64 + m). No neighbours: nothing is unanimous.
    """
    neighbours = np.asarray(neighbours, dtype=np.int64)
    if not len(neighbours):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=bool), np.empty(0)
    on, off = hamming.agreement(configurations.words[neighbours], configurations.m)
    neurons = np.flatnonzero(on | off)
    states = on[neurons]
    q = configurations.counts[neurons] / configurations.n
    return neurons, states, np.abs(states - q)


def rank_neurons(configurations: Configurations, neighbours: np.ndarray, t: int | None = None) -> Rule:
    """The published choice: unanimous neurons one by one, the rarest shared state first.

    Parameters
    ----------
    neighbours : (k,) int
    t : int, optional
        How many at most; default all of U.

    Returns
    -------
    Rule
        By falling score; equal scores with the higher neuron first, as a stable ascending sort read backwards.

    Notes
    -----
    O(k m / 64 + m + t log t): the top t are separated before they are sorted.
    """
    neurons, states, scores = unanimous(configurations, neighbours)
    u = len(neurons)
    if t is None or t >= u:
        order = np.argsort(scores, kind="stable")[::-1]
        return Rule(neurons[order], states[order], scores[order], u)
    if t == 0:
        nothing = slice(0, 0)
        return Rule(neurons[nothing], states[nothing], scores[nothing], u)
    least = np.partition(scores, u - t)[u - t]
    candidates = np.flatnonzero(scores >= least)
    order = candidates[np.argsort(scores[candidates], kind="stable")[::-1][:t]]
    return Rule(neurons[order], states[order], scores[order], u, tied=len(candidates) > t)


def join_neurons(configurations: Configurations, neighbours: np.ndarray, t: int | None = None) -> Rule:
    """Greedy joint choice: each step takes the unanimous neuron that removes most of the samples still in the region.

    Neurons that repeat what earlier ones exclude are never taken, so fewer neurons make smaller regions. Ends after t
    neurons or when no neuron removes anything. Ties: the higher score, then the higher neuron.

    Notes
    -----
    Ours, not in the paper. O(m / 8) bytes per remaining sample and step; the remaining samples shrink quickly.
    """
    neurons, states, scores = unanimous(configurations, neighbours)
    limit = len(neurons) if t is None else t
    preference = np.lexsort((neurons, scores))[::-1]  # ties go to the first of this order
    neurons, states, scores = neurons[preference], states[preference], scores[preference]
    remaining = np.arange(configurations.n)
    chosen: list[int] = []
    tied = False
    while len(chosen) < limit and len(neurons):
        if len(remaining) == configurations.n:
            ones = configurations.counts
        else:
            ones = hamming.column_counts(configurations.words[remaining], configurations.m)
        ones = ones[neurons]
        removed = np.where(states, len(remaining) - ones, ones)
        best = int(removed.argmax())
        if removed[best] == 0:
            break
        tied = int((removed == removed[best]).sum()) > 1
        chosen.append(best)
        kept = hamming.rule_matches(configurations.words[remaining], neurons[best : best + 1], states[best : best + 1])
        remaining = remaining[kept]
    order = np.array(chosen, dtype=np.int64)
    return Rule(neurons[order], states[order], scores[order], len(neurons), tied=tied and len(chosen) == limit)


def choose_neurons(
    configurations: Configurations, neighbours: np.ndarray, t: int | None = 10, selection: str = "ranked"
) -> Rule:
    """`rank_neurons` or `join_neurons` by name."""
    if selection not in SELECTIONS:
        raise ValueError(f"Got selection={selection!r}, expected one of {', '.join(map(repr, SELECTIONS))}")
    return (rank_neurons if selection == "ranked" else join_neurons)(configurations, neighbours, t)
