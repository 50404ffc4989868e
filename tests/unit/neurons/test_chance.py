"""What chance reaches: shuffled units, their explanations, and p values; blocks that are kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from rdxcli.methods.neurons import network_dissection
from rdxcli.methods.neurons.chance import Shuffled, against_best, against_shuffled
from rdxcli.methods.neurons.choices import Found
from rdxcli.methods.neurons.clip_dissect import ClipDissect
from rdxcli.methods.neurons.linear import LinearExplanation
from rdxcli.methods.neurons.network_dissection import NetworkDissection
from rdxcli.methods.neurons.preparation import random_split
from rdxcli.methods.neurons.scores import pearson

N = 500
SPLIT = random_split(N, 3)
PARTS = {"train": SPLIT.train, "val": SPLIT.val}


def layer(found: int, noise: int, seed: int, weight: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """``found`` units that follow one of 60 concepts, then ``noise`` units that follow nothing; rectified, skewed."""
    rng = np.random.default_rng(seed)
    P = (rng.random((N, 60)) < rng.uniform(0.05, 0.3, 60)).astype(float)
    A = np.exp(0.8 * rng.normal(size=(N, found + noise)))
    A[:, :found] += weight * 6 * P[:, 20 : 20 + found]
    return P, A


def test_shuffled_columns_keep_each_part_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    A = rng.random((40, 5))
    train, val = np.arange(0, 20), np.arange(20, 30)
    both = Shuffled.of(A, np.array([1, 3]), (train, val), 5, 7)
    assert both.shape == (40, 10)
    np.testing.assert_array_equal(both[10:15][:, :5], A[10:15])
    drawn = []
    for column in range(5):
        extra = both[np.arange(40)][:, 5 + column]
        own = next(unit for unit in (1, 3) if np.allclose(np.sort(extra), np.sort(A[:, unit])))
        drawn.append(own)
        for rows in (train, val, np.arange(30, 40)):
            np.testing.assert_array_equal(np.sort(extra[rows]), np.sort(A[rows, own]))
            assert (extra[rows] != A[rows, own]).any()
    assert sorted(drawn)[:2] == [1, 1]
    assert sorted(drawn)[-2:] == [3, 3]
    np.testing.assert_array_equal(both[3:9], Shuffled.of(A, np.array([1, 3]), (train, val), 5, 7)[3:9])
    assert (both[:] != Shuffled.of(A, np.array([1, 3]), (train, val), 5, 8)[:]).any()
    assert Shuffled.of(sparse.csr_array(A), np.array([0]), (train, val), 0, 0)[2:4].shape == (2, 5)


def test_p_values_by_hand() -> None:
    rng = np.random.default_rng(1)
    truth, q = rng.normal(size=(60, 3)), rng.normal(size=(60, 4))
    q[:, 3] = 2.0  # explains nothing
    scores = np.array([0.0, 0.9, np.nan])
    found = against_shuffled(scores, truth, q, orders=30)
    assert found.p_values[0] > 0.4
    assert found.p_values[1] == 1 / (1 + 4 * 30)
    assert np.isnan(found.p_values[2])
    assert found.better.tolist() == [False, True, False]
    assert 0.1 < found.high[0] < 0.4
    best = against_best(np.array([3.0, np.nan, 1.0]), np.arange(5.0))
    np.testing.assert_allclose(best.p_values, [3 / 6, np.nan, 5 / 6])


def test_fewer_units_are_corrected_as_if_no_other_was_asked_for() -> None:
    best = np.array([0.9, np.nan, 0.2, 0.1, 0.15])
    every = against_best(best, np.linspace(0.0, 0.5, 99))
    one = every.select([0, 1])
    np.testing.assert_array_equal(one.p_values, every.p_values[:2])
    assert one.adjusted[0] == one.p_values[0] < every.adjusted[0]
    assert one.better.tolist() == [True, False]


def test_noise_is_not_better_than_chance_and_what_is_there_is_found() -> None:
    passed, found = [], []
    for seed in range(4):
        P, A = layer(6, 24, seed)
        model = LinearExplanation().fit(P, A, **PARTS)
        chance = model.chance(P, A, SPLIT.test)
        found.append(chance.better[:6].mean())
        passed.append(chance.better[6:].mean())
        assert len(model.shuffled_) == 100
        assert 0.05 < model.shuffled_correlation_.mean() < 0.5  # the best of many is far from 0
        assert (chance.high[np.isfinite(chance.p_values)] > 0).all()
        scores = pearson(model.predict(P, SPLIT.test), A[SPLIT.test])
        assert np.nanmax(chance.p_values[scores > 0.6]) < 0.001
    assert np.mean(passed) <= 0.05
    assert np.mean(found) >= 0.9, found


def test_an_all_noise_layer_passes_nothing_in_most_draws() -> None:
    any_passed = 0
    for seed in range(8):
        P, A = layer(0, 20, 100 + seed)
        model = LinearExplanation(n_shuffled=40).fit(P, A, **PARTS)
        any_passed += bool(model.chance(P, A, SPLIT.test).better.any())
    assert any_passed <= 2


def test_shuffled_units_change_no_explanation_and_can_be_left_out() -> None:
    P, A = layer(5, 5, 0)
    with_them, without = LinearExplanation().fit(P, A, **PARTS), LinearExplanation(n_shuffled=0).fit(P, A, **PARTS)
    for a, b in zip(with_them.explanations_, without.explanations_, strict=True):
        assert a.concepts == b.concepts
        np.testing.assert_allclose(a.weights, b.weights, atol=1e-12)
    assert with_them.notes_ == without.notes_
    with pytest.raises(ValueError, match="n_shuffled=0"):
        without.chance(P, A, SPLIT.test)
    with pytest.raises(ValueError, match="n_shuffled=-1"):
        LinearExplanation(n_shuffled=-1).fit(P, A, **PARTS)


def test_finished_blocks_are_kept_and_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdxcli.methods.neurons.linear.BLOCK", 4)
    P, A = layer(5, 5, 0)
    A[:, 7] = 1.0
    done: list[int] = []
    stored: dict[str, Found] = {}
    whole = LinearExplanation(n_shuffled=6).fit(P, A, **PARTS, stored=stored, advance=done.append)
    assert done == [4, 4, 2]
    assert list(stored) == ["units-0-3", "units-4-7", "units-8-9", "units-10-15"]
    del stored["units-4-7"]
    computed: list[str] = []

    class Watched(dict):
        def __setitem__(self, name: str, value: Found) -> None:
            computed.append(name)
            super().__setitem__(name, value)

    again = LinearExplanation(n_shuffled=6).fit(P, A, **PARTS, stored=Watched(stored))
    assert computed == ["units-4-7"]
    assert again.explanations_ == whole.explanations_
    assert again.status_[7] == "constant"
    np.testing.assert_array_equal(again.ranking_, whole.ranking_)
    np.testing.assert_array_equal(again.shuffled_correlation_, whole.shuffled_correlation_)


def test_a_concept_that_hardly_varies_is_no_candidate_and_that_is_said() -> None:
    P, A = layer(3, 0, 1)
    rng = np.random.default_rng(5)
    P[:, 0] = 0.993 + 0.0004 * rng.random(N)
    P[:, 1] = 0.0
    P[SPLIT.train[:4], 1] = P[SPLIT.val[:2], 1] = 1.0  # rare is not the same as flat
    A[:, 0] = 2000 * (P[:, 0] - 0.993) + 0.01 * rng.normal(size=N)
    names = ["and", "rare", *(f"c{i}" for i in range(58))]
    model = LinearExplanation().fit(P, A, **PARTS, concept_names=names)
    assert "and" not in model.explanations_[0].concepts
    assert all(abs(weight) < 50 for row in model.explanations_ for weight in row.weights)
    assert "no candidates: 1 concept that hardly varies (by less than 2% of the mean): `and`" in model.notes_
    published = LinearExplanation(refit="adam").fit(P, A, **PARTS, concept_names=names)
    assert not any("hardly var" in note for note in published.notes_)


@pytest.mark.parametrize("similarity", ["soft-wpmi", "wpmi", "rank-reorder", "cos-cubed"])
def test_descriptions_of_noise_are_not_better_than_chance(similarity: str) -> None:
    passed, found = [], []
    for seed in range(3):
        P, A = layer(6, 40, seed, weight=1.0)
        rng = np.random.default_rng(seed)
        cosines = 0.15 + 0.1 * P + 0.01 * rng.normal(size=P.shape)
        model = ClipDissect(similarity=similarity, top_k=20).fit(cosines, A)
        assert model.chance_ is not None
        passed.append(model.chance_.better[6:].mean())
        found.append(model.chance_.better[:6].mean())
        plain = ClipDissect(similarity=similarity, top_k=20, n_shuffled=0).fit(cosines, A)
        np.testing.assert_array_equal(plain.similarity_, model.similarity_)
        assert plain.chance_ is None
    assert np.mean(passed) <= 0.05
    if similarity != "rank-reorder":  # it looks at the order among the strongest images, which all show the concept
        assert np.mean(found) >= 0.6


def masks_and_maps(seed: int, planted: int, placed: int, noise: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Label maps (sky above, two squares at random places) and maps of units: planted, at the top, and of noise."""
    rng = np.random.default_rng(seed)
    labels = np.full((n, 28, 28), 3)
    labels[:, :8] = 0
    for one in labels:
        for k in (1, 2):
            if rng.random() < 0.6:
                y, x = rng.integers(0, 21, 2)
                one[y : y + 7, x : x + 7] = k
    maps = rng.normal(size=(n, planted + placed + noise, 7, 7))
    small = np.stack([labels == k for k in range(4)], axis=1).reshape(n, 4, 7, 4, 7, 4).mean(axis=(3, 5))
    for j in range(planted):
        maps[:, j] += 2.5 * small[:, 1 + j % 2]
    maps[:, planted : planted + placed] += 2.5 * (np.arange(7) < 2)[:, None]
    return labels, maps


def test_overlaps_that_other_masks_would_give_as_well_are_no_better_than_chance() -> None:
    named = {"concept_names": ["sky", "a", "b", "ground"]}
    labels, maps = masks_and_maps(0, 4, 4, 40)
    model = NetworkDissection(quantile=0.01, orders=999).fit(maps, labels, **named)
    chance = model.chance_
    assert chance is not None
    assert chance.better[:4].all()
    assert (chance.p_values[4:] <= 0.05).mean() <= 0.15
    assert chance.better[4:].mean() <= 0.05
    assert all(model.explanations_[unit].concepts[0] == "sky" for unit in range(4, 8))  # for where it lies alone
    again = NetworkDissection(quantile=0.01, orders=999).fit(maps[:, :6], labels, **named).chance_
    assert again is not None
    assert (again.p_values == chance.p_values[:6]).all()  # units do not influence each other
    assert NetworkDissection(orders=0).fit(maps, labels, **named).chance_ is None
    assert NetworkDissection().fit(maps[:5], labels[:5], **named).chance_ is None


def test_chance_of_overlaps_on_some_of_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, maps = masks_and_maps(1, 2, 0, 3)
    monkeypatch.setattr(network_dissection, "MOST_IMAGES", 20)
    model = NetworkDissection(quantile=0.01, orders=99).fit(maps, labels, concept_names=["sky", "a", "b", "ground"])
    assert model.chance_ is not None
    assert model.chance_.p_values[0] <= 0.05
    assert "chance is measured on 20 of 40 images" in model.notes_
