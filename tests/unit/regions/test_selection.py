"""The choice of neurons, derived a second time on plain arrays, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.selection import choose_neurons, join_neurons, rank_neurons, unanimous
from rdxcli.numerics import hamming


def clustered(n: int = 60, m: int = 80, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = rng.random((4, m)) < rng.random(m)
    return centre[rng.integers(4, size=n)] ^ (rng.random((n, m)) < 0.1)


def plain(C: np.ndarray, S: np.ndarray, t: int | None) -> tuple[list[int], list[bool], list[int]]:
    """The algorithm in words: steps 1 to 7 of section 5 of the specification."""
    p, q = C[S].mean(axis=0), C.mean(axis=0)
    U = [j for j in range(C.shape[1]) if p[j] in (0.0, 1.0)]
    ascending = sorted(U, key=lambda j: abs(p[j] - q[j]))  # stable
    neurons = ascending[::-1][:t]
    states = [bool(p[j] > 0.5) for j in neurons]
    samples = [i for i in range(len(C)) if all(C[i, j] == s for j, s in zip(neurons, states, strict=True))]
    return neurons, states, samples


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.one_of(st.none(), st.integers(0, 40)))
def test_ranked_choice(seed: int, k: int, t: int | None) -> None:
    C = clustered(40, 50, seed).astype(np.float64)
    made = Configurations.from_bits(C)
    S = hamming.smallest(made.distances(3), k)
    rule = rank_neurons(made, S, t)
    neurons, states, samples = plain(C, S, t)
    assert rule.neurons.tolist() == neurons
    assert rule.states.tolist() == states
    assert rule.matches(made).tolist() == samples
    longer = plain(C, S, None)[0]
    if t is not None and 0 < t < len(longer):
        score = [abs(C[S].mean(axis=0)[j] - C.mean(axis=0)[j]) for j in longer]
        assert rule.tied == (score[t - 1] == score[t])
    else:
        assert not rule.tied


def test_ties_go_to_the_higher_neuron() -> None:
    C = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    rule = rank_neurons(Configurations.from_bits(C), np.array([0, 1]), 2)
    assert rule.neurons.tolist() == [3, 1]
    assert rule.states.tolist() == [False, True]
    assert rule.tied


def test_scores_keep_their_last_bit() -> None:
    """c/n for off and 1 - c/n for on: 3 of 10 disagree with both, yet 0.3 differs from 1 - 0.7."""
    C = np.zeros((10, 2), dtype=bool)
    C[7:, 0] = True  # off in the neighbours, on in 3 others
    C[:7, 1] = True  # on in the neighbours, off in 3 others
    _, states, scores = unanimous(Configurations.from_bits(C), np.array([0, 1]))
    assert states.tolist() == [False, True]
    assert scores.tolist() == [0.3, 1 - 0.7]
    assert scores[0] != scores[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 10), st.integers(1, 20))
def test_properties(seed: int, k: int, t: int) -> None:
    C = clustered(50, 70, seed)
    made = Configurations.from_bits(C)
    S = hamming.smallest(made.distances(7), k)
    rule = rank_neurons(made, S, t)
    inside = set(rule.matches(made).tolist())
    assert set(S.tolist()) | {7} <= inside, "the neighbours and the target are members"
    more = rank_neurons(made, S, t + 5)
    assert more.neurons[: len(rule)].tolist() == rule.neurons.tolist(), "more neurons extend the list"
    assert set(more.matches(made).tolist()) <= inside, "and shrink the region"
    wider = unanimous(made, hamming.smallest(made.distances(7), k + 3))[0]
    assert set(wider.tolist()) <= set(unanimous(made, S)[0].tolist()), "more neighbours agree on less"
    assert inside <= set(rule.matches(made, 1).tolist()) <= set(rule.matches(made, 2).tolist())


def test_flipping_a_column_flips_its_state_only() -> None:
    C = clustered(200, 40, 3)
    S = np.arange(6)
    before = rank_neurons(Configurations.from_bits(C), S, None)
    flipped = C.copy()
    flipped[:, before.neurons[2]] ^= True
    after = rank_neurons(Configurations.from_bits(flipped), S, None)
    assert set(after.neurons.tolist()) == set(before.neurons.tolist())
    for rule, data in ((before, C), (after, flipped)):
        assert (
            rule.matches(Configurations.from_bits(data)).tolist()
            == before.matches(Configurations.from_bits(C)).tolist()
        )
    old = dict(zip(before.neurons.tolist(), before.states.tolist(), strict=True))
    new = dict(zip(after.neurons.tolist(), after.states.tolist(), strict=True))
    assert {j for j in old if old[j] != new[j]} == {int(before.neurons[2])}


def test_no_neighbours_and_no_agreement_leave_no_rule() -> None:
    C = np.array([[0, 1], [1, 0], [0, 0]], dtype=bool)
    made = Configurations.from_bits(C)
    for S in (np.array([], dtype=int), np.array([0, 1])):
        for choose in (rank_neurons, join_neurons):
            rule = choose(made, S, 3)
            assert len(rule) == 0
            assert rule.unanimous == 0
            assert rule.matches(made).tolist() == [0, 1, 2]


def plain_joint(C: np.ndarray, S: np.ndarray, t: int | None) -> list[int]:
    p, q = C[S].mean(axis=0), C.mean(axis=0)
    U = [j for j in range(C.shape[1]) if p[j] in (0.0, 1.0)]
    alive, chosen = np.ones(len(C), dtype=bool), []
    while t is None or len(chosen) < t:
        best = max(U, key=lambda j: ((C[alive, j] != p[j]).sum(), abs(p[j] - q[j]), j), default=None)
        if best is None or not (C[alive, best] != p[best]).any():
            break
        chosen.append(best)
        alive &= C[:, best] == p[best]
    return chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 10), st.one_of(st.none(), st.integers(1, 12)))
def test_joint_choice(seed: int, k: int, t: int | None) -> None:
    C = clustered(50, 60, seed)
    made = Configurations.from_bits(C)
    S = hamming.smallest(made.distances(11), k)
    joint, ranked = join_neurons(made, S, t), rank_neurons(made, S, None)
    assert joint.neurons.tolist() == plain_joint(C.astype(float), S, t)
    if t is None and len(ranked):
        np.testing.assert_array_equal(joint.matches(made), ranked.matches(made))
        assert len(joint) <= len(ranked)


def test_joint_needs_fewer_neurons_than_ranked() -> None:
    C = clustered(300, 200, 1)
    made = Configurations.from_bits(C)
    S = hamming.smallest(made.distances(0), 8)
    joint = join_neurons(made, S, 4)
    assert len(joint.matches(made)) <= len(rank_neurons(made, S, 4).matches(made))


def test_unknown_selection() -> None:
    with pytest.raises(ValueError, match="selection='best'"):
        choose_neurons(Configurations.from_bits(np.eye(3)), np.array([0]), 1, "best")
