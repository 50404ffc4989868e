"""Baselines: known structure is found, bad input is refused, seeds and order do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods import registry
from rdxcli.methods.difference.alignment import align
from rdxcli.methods.difference.baselines.nlmcd import NLMCD, cluster_difference, pick
from rdxcli.methods.difference.baselines.usae import Schedule, choose_latents
from rdxcli.methods.difference.planted import Planted, recovery
from rdxcli.methods.difference.probe import classification_probe
from rdxcli.methods.difference.scores import linear_cka
from rdxcli.methods.difference.similarity import mutual_neighbours, rbf_cka, rsa

FAST = {
    "sae": {"epochs": 5},
    "topk-sae": {"epochs": 5, "latents": 8},
    "usae": {"epochs": 5, "top_k": 4},
    "crosscoder": {"steps": 20, "k": 2},
    "nlmcd": {"components": None, "min_cluster_size": 8, "min_samples": 3, "neighbours": 5, "stride": 1},
}


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four blobs of 30 images; the first model merges the last two."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 30)
    centres = 8.0 * np.eye(4, 6) + 4.0
    a = centres[np.where(group == 3, 2, group)] + rng.normal(size=(120, 6)) * 0.5
    b = centres[group] + rng.normal(size=(120, 6)) * 0.5
    return a, b, group


@pytest.mark.parametrize("name", [name for name in registry.names("compare") if not name.startswith("rdx")])
def test_every_baseline_runs_alone_and_repeats_itself(name: str, pair: tuple[np.ndarray, ...]) -> None:
    a, b, _ = pair
    kind = registry.get("compare", name).load()
    first, again = (kind(3, num_samples=5, random_state=1, **FAST.get(name, {})).fit(a, b) for _ in range(2))
    for direction in ("01", "10"):
        one, two = first.directions_[direction], again.directions_[direction]
        assert 1 <= len(one.concepts) <= 3
        assert [concept.label for concept in one.concepts] == sorted(concept.label for concept in one.concepts)
        assert np.isnan(one.affinities).all()
        assert all(0 < len(concept.samples) <= 5 for concept in one.concepts)
        assert np.bincount(one.labels, minlength=len(one.sizes)).tolist() == one.sizes.tolist()
        np.testing.assert_array_equal(one.labels, two.labels)
        for mine, theirs in zip(one.samples, two.samples, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_kmeans_finds_the_blobs(pair: tuple[np.ndarray, ...]) -> None:
    a, _, group = pair
    model = registry.get("compare", "kmeans").load()(3, n_init=10).fit(a, a)
    merged = np.where(group == 3, 2, group)
    for concept in model.directions_["01"].concepts:
        assert len(set(merged[concept.samples].tolist())) == 1


def test_refusals(pair: tuple[np.ndarray, ...]) -> None:
    a, b, _ = pair
    get = registry.get
    with pytest.raises(ValueError, match="negative features"):
        get("compare", "nmf").load()().fit(a - 10, b)
    with pytest.raises(ValueError, match="finds at most 1"):
        get("compare", "pca").load()(3).fit(a[:, :1], b)
    with pytest.raises(ValueError, match="n_clusters=9"):
        get("compare", "kmeans").load()(9).fit(a[:5], b[:5])
    with pytest.raises(ValueError, match="at least 100 for NLMCD"):
        NLMCD(components=None).fit(a[:50], b[:50])
    noise = np.random.default_rng(0).normal(size=(120, 6))
    with pytest.raises(ValueError, match="no cluster in model a"):
        NLMCD(components=None, min_cluster_size=55, min_samples=2, neighbours=5).fit(noise, b)


def test_cluster_difference_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    S0, S1 = rng.uniform(size=(23, 3)), rng.uniform(size=(23, 2))
    i, j = np.triu_indices(23, 1)
    for a in range(3):
        for b in range(2):
            gaps = np.abs(S0[i, a] - S0[j, a]), np.abs(S1[i, b] - S1[j, b])
            assert cluster_difference(S0, S1)[a, b] == pytest.approx(np.abs(gaps[0] - gaps[1]).mean() / 2)


def test_pick_takes_the_most_different_unless_told_otherwise() -> None:
    smallest = np.array([0.3, 0.1, 0.2])
    assert pick(smallest, 2).tolist() == [0, 2]
    assert pick(smallest, 2, most_shared=True).tolist() == [1, 2]


def test_latents_belong_to_the_model_they_fire_for() -> None:
    codes = [np.zeros((10, 4)), np.zeros((10, 4))]
    codes[0][:, 0] = 5.0  # only model 0
    codes[1][:, 2] = 1.0  # only model 1
    codes[0][:5, 3] = codes[1][:5, 3] = 9.0  # both alike; latent 1 is dead
    choice = choose_latents(codes, [np.eye(4), np.eye(4)], 2)
    assert [chosen.tolist() for chosen in choice.latents] == [[0], [2]]
    assert choice.order[0] == 3
    assert [choice.order[places].tolist() for places in choice.places] == [[0], [2]]


def test_schedule_covers_the_steps_that_are_made() -> None:
    schedule = Schedule.of(100, 500, 10, 1.0, 0.01, False)
    assert (schedule.warmup, schedule.total) == (1, 10)
    assert schedule.rate(10) == pytest.approx(0.01)
    assert max(map(schedule.rate, range(10))) <= 1.0


def test_alignment_recovers_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)) * np.array([10, 5, 1, 1, 1, 1])
    Y = X / np.array([10, 5, 1, 1, 1, 1])
    found = align(X, Y, steps=300, lr=1e-2)
    assert linear_cka(found.mapped0, Y) > linear_cka(X, Y) + 0.2
    numbers = found.describe()
    assert numbers["a_to_b_after"] < numbers["a_to_b_before"]


def test_similarities(pair: tuple[np.ndarray, ...]) -> None:
    a, b, _ = pair
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    assert mutual_neighbours(a, a @ rotation) == pytest.approx(1.0)
    assert rsa(a, a @ rotation) == pytest.approx(1.0)
    assert rbf_cka(a, a @ rotation) == pytest.approx(1.0)
    assert 0.0 < mutual_neighbours(a, b) < 0.9
    assert rsa(a, b) < 0.99


def test_probe_is_blind_to_what_a_model_merges(pair: tuple[np.ndarray, ...]) -> None:
    a, b, group = pair
    probe = classification_probe(a, b, group)
    accuracy = probe.accuracy.mean(axis=1)
    assert accuracy[1] > 0.95
    assert accuracy[0] < 0.9
    with pytest.raises(ValueError, match="at least two"):
        classification_probe(a, b, np.zeros(120))


def test_good_grids() -> None:
    labels = np.array(["3"] * 10 + ["5"] * 10 + ["7"] * 10)
    planted = Planted(frozenset({"3", "5"}))
    mixed, pure, lost = [0, 1, 2, 3, 10, 11, 12, 13, 20], list(range(9)), list(range(20, 29))
    found = recovery(planted, "a", [mixed, pure, lost], labels)
    assert (found.good, found.grids) == (1, 3)
    assert found.hit == pytest.approx(17 / 27)
    assert recovery(planted, "b", [mixed, pure, lost], labels).good == 1
