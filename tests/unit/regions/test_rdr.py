"""The estimator: targets, statuses, scores, membership, notes, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rdxcli.methods.regions import rdr as module
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.distances import distance_matrix, nearest_features
from rdxcli.methods.regions.rdr import RDR
from rdxcli.methods.regions.region import Region, neighbour_purity
from rdxcli.methods.regions.targets import Labels, choose_targets
from rdxcli.numerics import hamming
from rdxcli.records import plain


def grouped(n: int = 160, m: int = 90, groups: int = 4, noise: float = 0.4, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(groups, m))
    group = np.arange(n) % groups
    return (centre[group] + noise * rng.normal(size=(n, m))).astype(np.float32), group


Z, GROUP = grouped()


def same(a: Region, b: Region) -> None:
    for name in ("neighbours", "distances", "neurons", "states", "members", "member_distances"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.scores == b.scores


def test_a_region_holds_its_group() -> None:
    fitted = RDR().fit(Z, targets=[5, 30], labels=GROUP)
    for region, target in zip(fitted.regions_, (5, 30), strict=True):
        assert region.target == target
        assert region.bounded
        assert region.members[0] == target
        assert (np.diff(region.member_distances) >= 0).all()
        assert set(region.neighbours.tolist()) <= set(region.members.tolist())
        assert len(region.neurons) == 10
        assert (GROUP[region.members] == GROUP[target]).all()
        assert region.true_counts == {str(GROUP[target]): len(region.members)}


def test_scores_by_hand() -> None:
    fitted = RDR(4, 3, mismatches=1).fit(Z, targets=[9], labels=GROUP, predictions=(GROUP + (GROUP == 2)) % 4)
    region = fitted.regions_[0]
    bits = Z[:, region.neurons] > 0
    members = np.flatnonzero((bits != region.states).sum(axis=1) <= 1)
    np.testing.assert_array_equal(np.sort(region.members), members)
    inside = np.bincount(GROUP[members], minlength=4)
    top = inside.argmax()
    recall, others = inside[top] / 40, (len(members) - inside[top]) / 120
    expected = {
        "size": len(members),
        "coverage": len(members) / 160,
        "rarity": (bits != region.states).mean(axis=0).mean(),
        "label": str(top),
        "purity": inside[top] / len(members),
        "base_rate": 0.25,
        "recall": recall,
        "selectivity": (recall - others) / (recall + others),
        "target_label": "1",
        "target_purity": inside[1] / len(members),
    }
    assert region.scores == pytest.approx(expected)
    assert sum(region.predicted_counts.values()) == len(members)
    assert "2" not in region.predicted_counts


def test_neighbour_purity_is_that_of_the_nearest_list() -> None:
    fitted = RDR().fit(Z, targets=[5], labels=GROUP)
    region = fitted.regions_[0]
    nearest = np.argsort(((Z > 0) != (Z[5] > 0)).sum(axis=1), kind="stable")[: len(region.members)]
    expected = (GROUP[nearest] == GROUP[5]).mean()
    assert neighbour_purity(fitted.configurations_, region, fitted.labels_) == expected


@pytest.mark.parametrize("selection", ["ranked", "joint"])
def test_targets_do_not_influence_each_other(selection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = RDR(selection=selection).fit(Z, targets="all", labels=GROUP)
    monkeypatch.setattr(module, "CHUNK", 7)
    monkeypatch.setattr(hamming, "FEW", 3)
    for target in (0, 41, 159):
        same(RDR(selection=selection).fit(Z, targets=target, labels=GROUP).regions_[0], every.regions_[target])
    chunks = RDR(selection=selection).fit(Z, targets=np.arange(160)[::-1], labels=GROUP)
    for region in chunks.regions_:
        same(region, every.regions_[region.target])


def test_products_and_xor_agree_through_the_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    xor = RDR().fit(Z, targets="all")
    monkeypatch.setattr(hamming, "_HAS_COUNT", False)  # the product is taken then
    for a, b in zip(RDR().fit(Z, targets="all").regions_, xor.regions_, strict=True):
        same(a, b)


def test_permuting_the_neurons_permutes_the_selection() -> None:
    order = np.random.default_rng(1).permutation(Z.shape[1])
    before, after = (RDR(n_neurons=None).fit(z, targets=8).regions_[0] for z in (Z, Z[:, order]))
    assert set(order[after.neurons].tolist()) == set(before.neurons.tolist())
    np.testing.assert_array_equal(after.members, before.members)


def test_maps_and_flat_arrays_agree() -> None:
    maps = RDR().fit(Z.reshape(160, 10, 3, 3), targets=3)
    same(maps.regions_[0], RDR().fit(Z, targets=3).regions_[0])
    region = maps.regions_[0]
    positions = maps.documents()[0]["positions"]
    np.testing.assert_array_equal(np.ravel_multi_index(positions.T, (10, 3, 3)), region.neurons)
    where = region.position_map(maps.configurations_)
    assert where.shape == (3, 3)
    assert where.sum() == 10
    assert where[tuple(positions[0][1:])] >= 1


def test_membership_of_new_samples() -> None:
    fitted = RDR(threshold="median").fit(Z, targets=[0, 1, 2])
    for column, region in zip(fitted.membership(Z).T, fitted.regions_, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(column), np.sort(region.members))
    new = grouped(50)[0]
    inside = fitted.membership(new)
    for j, region in enumerate(fitted.regions_):
        bits = new[:, region.neurons] > np.median(Z, axis=0)[region.neurons]
        np.testing.assert_array_equal(inside[:, j], (bits == region.states).all(axis=1))
    assert not fitted.membership(np.full((2, 90), -1e9)).any()
    with pytest.raises(ValueError, match="expected"):
        fitted.membership(new[:, :30])
    with pytest.raises(ValueError, match="Got 5 neurons, expected 90"):
        fitted.membership(Configurations.from_bits(np.eye(5)))


def test_neighbours_that_agree_on_nothing_make_no_region() -> None:
    """The original returns the whole data set without a word."""
    C = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
    fitted = RDR(4, 2).fit(Configurations.from_bits(C), targets=0, labels=[0, 0, 1, 1])
    region = fitted.regions_[0]
    assert region.status == "unbounded"
    assert len(region.members) == len(region.neurons) == 0
    assert region.scores["coverage"] == 1.0
    assert region.scores["size"] == 0
    assert region.scores["purity"] is None
    assert not fitted.membership(Configurations.from_bits(C)).any()
    assert fitted.concepts_ == []
    assert any("no neuron on which all 4 neighbours agree" in note for note in fitted.notes_)
    assert neighbour_purity(fitted.configurations_, region, fitted.labels_) is None


def test_a_rule_that_holds_for_all_makes_no_region() -> None:
    C = np.c_[np.eye(6)[:, :2], np.ones((6, 1))]  # neighbours of row 5: rows 2 to 5; the last column is always on
    fitted = RDR(6, 5).fit(Configurations.from_bits(C), targets=5)
    assert fitted.regions_[0].neurons.tolist() == [2]
    assert fitted.regions_[0].status == "unbounded"
    assert any("the rule holds for every sample" in note for note in fitted.notes_)


def test_fewer_neurons_and_ties_are_remarked() -> None:
    C = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    fitted = RDR(2, 5).fit(Configurations.from_bits(C), targets=0)
    assert fitted.regions_[0].neurons.tolist() == [2, 1, 0]
    assert fitted.regions_[0].tied_neighbours, "rows 1 and 2 are equally near"
    notes = " ".join(fitted.notes_)
    assert "fewer than 5 neurons" in notes
    assert "tie at neighbour 2" in notes
    assert not RDR(1, 5).fit(Configurations.from_bits(C), targets=0).regions_[0].tied_neighbours
    assert RDR(1, 1).fit(Configurations.from_bits(C), targets=3).regions_[0].tied_neighbours, "a copy"
    assert RDR(2, 1).fit(Configurations.from_bits(C), targets=0).regions_[0].rule.tied is False
    assert RDR(2, 2).fit(Configurations.from_bits(C), targets=0).regions_[0].rule.tied is True


def test_quantile_thresholds_make_all_states_equally_rare() -> None:
    assert any("selection='joint'" in note for note in RDR(threshold="median").fit(Z, targets=0).notes_)
    for options in ({}, {"threshold": "median", "selection": "joint"}):
        assert not any("equally rare" in note for note in RDR(**options).fit(Z, targets=0).notes_)


def test_copies_of_the_target() -> None:
    z = np.r_[np.repeat(Z[:1], 20, axis=0), Z[4:]]
    region = RDR().fit(z, targets=15).regions_[0]
    assert region.neighbours.tolist() == list(range(8)), "the copies with the lowest rows"
    assert region.members[0] == 15
    assert set(range(20)) <= set(region.members.tolist())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_other_metrics(metric: str) -> None:
    fitted = RDR(metric=metric).fit(Z, targets=[3, 77])
    X = Z.astype(np.float64)
    if metric == "cosine":
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
        D = 1 - X @ X.T
    else:
        D = np.linalg.norm(X[:, None] - X, axis=2)
    for region in fitted.regions_:
        expected = np.argsort(D[region.target], kind="stable")[:8]
        assert region.neighbours.tolist() == expected.tolist()
        np.testing.assert_allclose(region.distances, D[region.target, expected], atol=1e-12)
    again = RDR(metric=metric).fit(fitted.configurations_, targets=[3, 77], features=Z)
    same(again.regions_[0], fitted.regions_[0])
    with pytest.raises(ValueError, match="expected features as well"):
        RDR(metric=metric).fit(fitted.configurations_)
    with pytest.raises(ValueError, match="Got features of 3 samples, expected 160"):
        RDR(metric=metric).fit(fitted.configurations_, features=Z[:3])


def test_a_row_of_zeros_is_still_its_own_neighbour() -> None:
    X = np.array([[1.0, 0], [0, 0], [0, 1], [1, 1]])
    index, distance = nearest_features(X, [1], 2, metric="cosine")
    assert index.tolist() == [[1, 0]]
    assert distance.tolist() == [[1.0, 1.0]]


def test_distance_matrix_refuses() -> None:
    with pytest.raises(ValueError, match="metric='manhattan'"):
        distance_matrix(Z, metric="manhattan")
    with pytest.raises(ValueError, match="expected Configurations"):
        distance_matrix(Z)
    with pytest.raises(ValueError, match="expected features"):
        distance_matrix(Configurations.from_activations(Z), metric="cosine")
    with pytest.raises(ValueError, match="NaN or infinite"):
        distance_matrix(np.array([[np.inf]]), metric="cosine")
    with pytest.raises(ValueError, match="Got k=9"):
        nearest_features(Z[:4], [0], 9)


def test_distance_matrix_is_the_same_for_few_and_many_rows() -> None:
    made = Configurations.from_activations(Z)
    np.testing.assert_array_equal(distance_matrix(made)[:5], distance_matrix(made, np.arange(5)))


# targets

ANIMALS = ["cat", "cat", "dog", "dog", "eel", "eel"]


def test_words_for_targets() -> None:
    labels = Labels.from_arrays(6, ANIMALS, ["cat", "dog", "dog", "dog", "cat", "cat"])

    def rows(word: object) -> list[int]:
        return choose_targets(word, labels, 6).tolist()

    assert rows("all") == list(range(6))
    assert rows("class:dog") == [2, 3]
    assert rows("predicted:cat") == [0, 4, 5]
    assert rows("misclassified") == [1, 4, 5]
    assert rows("misclassified:eel") == [4, 5]
    assert rows(3) == [3]
    assert rows([4, 1, 4]) == [4, 1]
    assert rows(np.array([True, False, False, True, False, False])) == [0, 3]
    assert rows(None) == choose_targets(None, labels, 6, 0).tolist()
    assert len({choose_targets(None, labels, 6, seed)[0] for seed in range(20)}) > 1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("class:dg", "Got class 'dg', expected a label that occurs, such as dog"),
        ("class:", "expected rows, 'all'"),
        ("everything", "targets='everything'"),
        ("all:3", "targets='all:3'"),
        ("misclassified:cat", "no sample is one"),
        (7, "Got target 7, expected a row from 0 to 5"),
        ([-1], "Got target -1"),
        ([], "expected row numbers"),
        ([0.5], "expected row numbers"),
    ],
)
def test_targets_refused(targets: object, message: str) -> None:
    labels = Labels.from_arrays(6, ANIMALS, ["cat", "cat", "dog", "dog", "cat", "cat"])
    with pytest.raises(ValueError, match=message):
        choose_targets(targets, labels, 6)


def test_words_that_need_labels() -> None:
    with pytest.raises(ValueError, match="without labels"):
        RDR().fit(Z, targets="class:1")
    with pytest.raises(ValueError, match="without predictions"):
        RDR().fit(Z, targets="misclassified", labels=GROUP)


def test_labels_match_by_name() -> None:
    labels = Labels.from_arrays(3, [3, 10, 2], np.array([3.0, 10.0, 3.0]))
    assert labels.names == ("2", "3", "10")
    assert labels.true.tolist() == [1, 2, 0]
    assert labels.predicted.tolist() == [1, 2, 1]
    assert labels.counts(labels.predicted) == {"3": 2, "10": 1}
    assert Labels.from_arrays(3, None, [1, 1, 0]).reference.tolist() == [1, 1, 0]
    for wrong in ([1, 2], [0.5, 1, 2], [np.nan, 1, 2], np.ones(3, dtype=complex)):
        with pytest.raises(ValueError, match="Got labels"):
            Labels.from_arrays(3, wrong)


# refusals and documents


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "Got n_neighbors=0, expected an integer of at least 1"),
        ({"n_neighbors": 161}, "Got n_neighbors=161 with 160 samples"),
        ({"n_neighbors": 2.5}, "n_neighbors=2.5"),
        ({"n_neurons": 0}, "n_neurons=0"),
        ({"mismatches": -1}, "mismatches=-1"),
        ({"mismatches": 10}, "Got mismatches=10 with n_neurons=10"),
        ({"selection": "best"}, "selection='best'"),
        ({"metric": "hamming"}, "metric='hamming'"),
        ({"merge_overlap": 0}, "merge_overlap=0"),
        ({"min_support": 0}, "min_support=0"),
        ({"threshold": 1e9}, "expected states that differ"),
    ],
)
def test_options_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RDR(**options).fit(Z)


def test_one_sample_refused() -> None:
    with pytest.raises(ValueError, match="Got 1 sample with one and the same"):
        RDR(1).fit(Z[:1])


def test_documents_are_json() -> None:
    fitted = RDR().fit(Z.reshape(160, 10, 3, 3), targets=[3, 7, 11], labels=GROUP)
    regions = json.loads(json.dumps(plain(fitted.documents())))
    assert [region["target"] for region in regions] == [3, 7, 11]
    for key in ("target", "neighbours", "neurons", "states", "scores", "members"):
        assert key in regions[0]
    assert set(regions[0]["states"]) <= {0, 1}
    merged = json.loads(json.dumps(plain(fitted.documents(merged=True))))
    assert sorted(row for entry in merged for row in entry["merged_targets"]) == [3, 7, 11]
    assert "positions" in merged[0]


def test_parameters_follow_the_conventions() -> None:
    assert RDR(n_neurons=3).get_params()["n_neurons"] == 3
    one, two = RDR(random_state=4).fit(Z), RDR(random_state=4).fit(Z)
    same(one.regions_[0], two.regions_[0])
