"""Every strategy for choosing images, written a second time as the specification says it."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.graph import DIRECTIONS, DifferenceGraph
from rdxcli.methods.difference.grids import STRATEGIES, choose_images

N = 60


def setting(direction: str, device: str = "cpu"):
    rng = np.random.default_rng(3)
    R0, R1 = rng.normal(size=(N, 5)), rng.normal(size=(N, 4))
    labels = rng.integers(0, 3, N)
    labels[:2] = 3  # a cluster of two
    labels[2] = 4  # and one of one
    graph = DifferenceGraph(R0, R1, dtype="float64", device=device)
    affinity = graph.affinity()
    A = np.asarray(affinity.matrix)
    own = graph.points[1 if direction == "10" else 0]
    R = R1 if direction == "10" else R0
    E = np.sqrt(((R[:, None] - R[None]) ** 2).sum(-1))
    return affinity, own, labels, A if direction == "10" else 1 / A, E, R


def expected(strategy: str, A: np.ndarray, E: np.ndarray, R: np.ndarray, members: np.ndarray, size: int) -> np.ndarray:
    k = min(len(members), size)
    inside = A[np.ix_(members, members)]
    anchor = members[np.argmax(inside.mean(1))]
    mean = R[members].mean(0)
    if strategy == "maximize_total_neighborhood_affinity":
        sets = [members[np.argsort(E[i, members], kind="stable")[:k]] for i in members]
        return max(sets, key=lambda one: A[np.ix_(one, one)].sum())
    if strategy == "max_affinity":
        return members[np.argsort(-inside.mean(1), kind="stable")[:k]]
    if strategy in ("max_affinity_neighborhood", "max_affinity_spectral_neighborhood"):
        return members[np.argsort(E[anchor, members], kind="stable")[:k]]
    if strategy == "max_affinity_euclidean_neighborhood":
        return np.argsort(E[anchor], kind="stable")[:size]
    if strategy == "centroid":
        return np.argsort(((R - mean) ** 2).sum(1), kind="stable")[:size]
    if strategy == "spectral_cluster_centroid":
        return members[np.argsort(((R[members] - mean) ** 2).sum(1), kind="stable")[:k]]
    assert strategy == "spectral_centrality"
    W = (inside + inside.T) / 2
    np.fill_diagonal(W, 0)
    vector = np.linalg.eigh(np.diag(W.sum(1)) - W)[1][:, -1]
    vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
    return members[np.argsort(-vector, kind="stable")[:k]]


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "random"])
def test_strategies(strategy, direction, device):
    affinity, own, labels, A, E, R = setting(direction, device)
    chosen = choose_images(strategy, affinity, direction, labels, own, 7, np.random.default_rng(0))
    assert len(chosen) == 5
    for label, found in enumerate(chosen):
        wanted = expected(strategy, A, E, R, np.flatnonzero(labels == label), 7)
        if strategy == "maximize_total_neighborhood_affinity":  # members that share a set tie, only its order differs
            assert set(found.tolist()) == set(wanted.tolist())
        else:
            assert found.tolist() == wanted.tolist()


def test_random_choice_takes_members_and_depends_on_the_generator_only():
    affinity, own, labels, *_ = setting("01")
    draws = [choose_images("random", affinity, "01", labels, own, 7, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for label, found in enumerate(draws[0]):
        assert len(set(found.tolist())) == min(7, (labels == label).sum())
        assert (labels[found] == label).all()
    assert all((a == b).all() for a, b in zip(draws[0], draws[1], strict=True))
    assert any((a != b).any() for a, b in zip(draws[0], draws[2], strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_label_without_members_has_no_images(strategy):
    affinity, own, labels, *_ = setting("01")
    chosen = choose_images(strategy, affinity, "01", labels + 1, own, 4, np.random.default_rng(0))
    assert chosen[0].tolist() == []
    assert all(len(one) for one in chosen[1:])


def test_unknown_strategy():
    affinity, own, labels, *_ = setting("01")
    with pytest.raises(ValueError, match="Got selection='best', expected one of"):
        choose_images("best", affinity, "01", labels, own, 4, np.random.default_rng(0))


def test_many_samples_are_gathered_in_parts(monkeypatch):
    affinity, own, labels, *_ = setting("10")
    whole = choose_images(STRATEGIES[0], affinity, "10", labels, own, 9, np.random.default_rng(0))
    monkeypatch.setattr("rdxcli.methods.difference.grids.GATHER_ELEMENTS", 100)
    parts = choose_images(STRATEGIES[0], affinity, "10", labels, own, 9, np.random.default_rng(0))
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))
