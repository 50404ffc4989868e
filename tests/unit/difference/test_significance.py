"""The verdict on noise, on planted differences and against a reference; stability and p-values of concepts."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest

from rdxcli.methods.difference.graph import DifferenceGraph
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.resampling import Versions
from rdxcli.methods.difference.significance import (
    DifferenceTest,
    concept_stability,
    difference_test,
    exceedance,
    group_strength,
    neighbour_disagreement,
)
from rdxcli.methods.difference.verdict import MEASURES, Belonging, ConceptNull, Finding, Question, Statistic

REPLICATES = 39  # the fewest that reach 0.05 with two statistics


def clusters(n: int = 150, d: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six groups of equal size with their centres, and scatter."""
    rng = np.random.default_rng(seed)
    return rng.permutation(n) % 6, 3 * rng.normal(size=(6, d)), rng.normal(size=(n, d))


def merged_pair(seed: int = 0, n: int = 150, d: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """The first model does not separate groups 2 and 3; all else, the scatter too, is the same."""
    group, centre, scatter = clusters(n, d, seed)
    return centre[np.where(group == 3, 2, group)] + scatter, centre[group] + scatter


def disguised(X: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """A rotated, scaled, shifted and slightly noisy copy."""
    rng = np.random.default_rng(seed)
    copy = X
    for _ in range(6):  # reflections make a rotation
        axis = rng.normal(size=X.shape[1])
        axis /= np.linalg.norm(axis)
        copy = copy - 2 * np.outer(copy @ axis, axis)
    return 7 * (copy + noise * copy.std() * rng.normal(size=X.shape)) + 5


def test_neighbour_disagreement_counts_common_neighbours():
    rng = np.random.default_rng(0)
    R0, R1 = rng.normal(size=(2, 30, 3))
    sets = [[set(np.argsort(((R - x) ** 2).sum(1), kind="stable")[1:6].tolist()) for x in R] for R in (R0, R1)]
    expected = 1 - np.mean([len(a & b) / 5 for a, b in zip(*sets, strict=True)])
    assert neighbour_disagreement(R0, R1, 5) == pytest.approx(expected)
    some = np.array([4, 9])
    expected = 1 - np.mean([len(sets[0][i] & sets[1][i]) / 5 for i in some])
    assert neighbour_disagreement(R0, R1, 5, some) == pytest.approx(expected)
    assert neighbour_disagreement(R0, 3 * R0 - 1, 5) == 0.0


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_group_strength_is_an_eigenvalue_and_bounds_every_group(device):
    rng = np.random.default_rng(1)
    R0, R1 = rng.normal(size=(2, 250, 4))
    graph = DifferenceGraph(R0, R1, device=device)
    value, _ = group_strength(graph.affinity(), np.random.default_rng(0))
    tops = []
    for direction in ("01", "10"):
        A = np.exp(-5 * np.asarray(graph.difference(slice(None), direction)).astype(float))
        W = (A + A.T) / 2 - 1
        np.fill_diagonal(W, 0)
        tops.append(np.linalg.eigvalsh(W)[-1] / 250)
        group = rng.choice(250, 40, replace=False)
        assert value >= (A[np.ix_(group, group)].mean() - 1) * 40 / 250
    assert value == pytest.approx(max(tops), rel=1e-3)


def test_strength_is_zero_without_difference():
    X = np.random.default_rng(0).normal(size=(50, 3))
    assert group_strength(DifferenceGraph(X, X).affinity(), np.random.default_rng(0))[0] == pytest.approx(0, abs=1e-6)


def test_exceedance_counts_the_observed_value():
    null = np.array([0.1, 0.2, 0.3])
    assert exceedance(0.5, null) == 0.25
    assert exceedance(0.3, null) == 0.5
    assert exceedance(0.0, null) == 1.0


@pytest.mark.parametrize("d", [1, 2, 40, 200])
def test_versions_keep_the_mean_squared_distance_and_vary_with_the_units(d):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, d))
    source = Versions(X, 0.0, rng)
    truth = np.square(source._values[:, None] - source._values[None]).sum(-1)[np.triu_indices(30, 1)]
    spread = {}
    for units in (d, 16 * d):
        draws = []
        for _ in range(200):
            Y = source.draw(units, rng)
            ratio = np.square(Y[:, None] - Y[None]).sum(-1)[np.triu_indices(30, 1)] / truth
            draws.append(ratio / ratio.mean())
        spread[units] = float(np.var(draws))
        np.testing.assert_allclose(np.mean(draws), 1.0, atol=1e-9)
    if d == 1:
        assert spread[1] == pytest.approx(0.0, abs=1e-20)
    else:
        assert spread[16 * d] < spread[d] / 4


def test_very_wide_versions_are_rotated_without_a_square_matrix(monkeypatch):
    monkeypatch.setattr("rdxcli.methods.difference.resampling.EXACT_ROTATION", 150)
    X = np.random.default_rng(0).normal(size=(20, 160))
    source = Versions(X, 0.0, np.random.default_rng(0))
    centred = X / np.abs(X).max()
    centred -= centred.mean(0)
    np.testing.assert_allclose(source._values @ source._values.T, centred @ centred.T, atol=1e-10)
    assert not np.allclose(source._values, centred)


def test_a_model_does_not_differ_from_itself():
    X = merged_pair()[1]
    test = difference_test(X, X, replicates=REPLICATES)
    assert test.score.value == 0.0
    assert test.strength.value == pytest.approx(0.0, abs=1e-6)
    assert test.p_value == 1.0
    assert test.verdict == "no difference found"


def test_false_alarms_on_disguised_copies_and_power_on_planted_differences():
    """8 seeds each: at most one false alarm, every planted merge found; `levels_compare.py` takes hundreds."""
    alarms = found = 0
    for seed in range(8):
        merged, apart = merged_pair(seed, n=120)
        copy = disguised(apart, [0.01, 0.02, 0.05, 0.1][seed % 4], seed)
        alarms += difference_test(apart, copy, replicates=REPLICATES, random_state=seed, paired=False).different
        found += difference_test(merged, apart, replicates=REPLICATES, random_state=seed).different
    assert alarms <= 1
    assert found == 8


@pytest.mark.parametrize("n", [20, 90])
@pytest.mark.parametrize("d", [1, 2, 64, 2048])
def test_disguised_copies_of_any_width(n, d):
    X = np.random.default_rng(n + d).normal(size=(n, d))
    test = difference_test(X, disguised(X, 0.02), replicates=REPLICATES)
    assert test.verdict == "no difference found"
    assert np.isfinite(test.score.null).all()
    assert np.isfinite(test.strength.null).all()


@pytest.mark.parametrize("widths", [(3, 200), (200, 3)])
def test_models_of_different_width(widths):
    rng = np.random.default_rng(0)
    group, centre, _ = clusters(d=3)
    base = centre[group] + rng.normal(size=(150, 3))
    wide = base @ np.linalg.qr(rng.normal(size=(200, 200)))[0][:3]
    pair = (base, wide) if widths[0] == 3 else (wide, base)
    assert difference_test(*pair, replicates=REPLICATES).verdict == "no difference found"
    unrelated = rng.normal(size=(150, 200))
    pair = (base, unrelated) if widths[0] == 3 else (unrelated, base)
    assert difference_test(*pair, replicates=REPLICATES).verdict == "undecided"  # nothing in common, as if permuted


def test_result_as_a_document():
    rdx = RDX(2, beta=3.0)
    pair = merged_pair()
    test = difference_test(*pair, estimator=rdx.fit(*pair), replicates=REPLICATES, reference=pair[::-1])
    document = json.loads(json.dumps(test.to_dict()))
    assert document["score"] == document["disagreement"]["value"]
    assert document["null_mean"] == document["disagreement"]["null_mean"]
    assert document["null_p"] == test.p_value <= 0.05
    assert document["verdict"] == "difference found"
    assert document["replicates"] == REPLICATES
    assert set(document["reference"]) >= {"score", "strength", "p_value", "exceeded", "verdict"}
    assert rdx.notes_ == []


def test_reference_pair():
    merged, apart = merged_pair()
    rng = np.random.default_rng(0)
    other = disguised(apart, 0.3) + 0.0 * rng.normal(size=apart.shape)
    against_small = difference_test(merged, apart, reference=(apart, other), replicates=REPLICATES)
    assert against_small.reference is not None
    assert against_small.reference.exceeded
    against_itself = difference_test(merged, apart, reference=(merged, apart), replicates=REPLICATES)
    assert against_itself.reference is not None
    assert against_itself.reference.score == against_itself.score.value
    assert against_itself.reference.strength == against_itself.strength.value
    assert not against_itself.reference.exceeded
    assert against_itself.reference.to_dict()["verdict"] == "not more different than the reference pair"
    assert against_itself.different


def test_large_sets_are_subsampled_and_say_so(monkeypatch):
    monkeypatch.setattr("rdxcli.methods.difference.significance.MAX_SCORE_ROWS", 100)
    monkeypatch.setattr("rdxcli.methods.difference.significance.MAX_GRAPH_ROWS", 60)
    test = difference_test(*merged_pair(), replicates=REPLICATES)
    assert (test.rows, test.graph_rows) == (100, 60)
    assert test.notes == ["the difference test uses 100 of the 150 images"]
    assert test.different


def test_repeats_exactly_whatever_the_number_of_threads(monkeypatch):
    pair = merged_pair(n=60)
    documents = []
    for threads in ("1", "2", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        documents.append(difference_test(*pair, replicates=REPLICATES, random_state=3))
    for other in documents[1:]:
        np.testing.assert_allclose(other.strength.null, documents[0].strength.null, rtol=1e-6)
        np.testing.assert_array_equal(other.score.null, documents[0].score.null)
    assert not np.array_equal(
        difference_test(*pair, replicates=REPLICATES, random_state=4).score.null, documents[0].score.null
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "Got alpha=0.0"),
        ({"replicates": 38}, "Got replicates=38, expected at least 39 to reach alpha=0.05"),
        ({"noise": -1.0}, "Got noise=-1.0"),
        ({"reference": (np.eye(9), np.eye(9))}, "Got 9 rows in the reference pair, expected 150"),
        ({"reference": (np.ones((150, 2)), np.eye(150))}, r"reference\[0\]: Got 150 equal rows"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        difference_test(*merged_pair(), **options)


@pytest.mark.parametrize("kind", ["constant", "nan", "few"])
def test_degenerate_input(kind):
    X = np.random.default_rng(0).normal(size=(30, 4))
    Y = {"constant": np.ones((30, 4)), "nan": np.full((30, 4), np.nan), "few": X[:4]}[kind]
    with pytest.raises(ValueError, match=r"R\d: Got"):
        difference_test(X[: len(Y)], Y)


def test_duplicated_images():
    rows = np.random.default_rng(0).integers(0, 25, 120)
    X = np.random.default_rng(1).normal(size=(25, 6))[rows]
    assert difference_test(X, disguised(X, 0.02), replicates=REPLICATES).verdict == "no difference found"


def test_planted_concepts_are_stable_and_significant_and_others_are_not():
    pair = merged_pair(seed=1, n=240)  # a draw where one cluster holds the whole merged block
    rdx = RDX(1).fit(*pair)
    test = difference_test(*pair, estimator=rdx, replicates=REPLICATES)
    trust = concept_stability(rdx, *pair, test=test, bootstraps=10)
    assert set(trust) == {"01", "10"}
    planted, other = trust["01"][1], trust["10"][1]
    assert planted["p_value"] == 1 / (REPLICATES + 1)
    assert planted["stability"] > 0.9
    assert other["p_value"] > planted["p_value"]
    noise = np.random.default_rng(0).normal(size=(120, 16))
    copy = disguised(noise, 0.05)
    rdx = RDX(2).fit(noise, copy)
    test = difference_test(noise, copy, estimator=rdx, replicates=REPLICATES)
    trust = concept_stability(rdx, noise, copy, test=test, bootstraps=5)
    for concepts in trust.values():
        for one in concepts.values():
            assert one["p_value"] > 0.5
            assert 0.0 <= one["stability"] <= 1.0


def test_null_pairs_without_clustering_change_no_p_value(monkeypatch):
    """Where the strongest group that there could be is weaker than every concept, the concepts need not be drawn."""
    pair = merged_pair(n=80)
    rdx = RDX(2).fit(*pair)
    tests = [difference_test(*pair, estimator=rdx, replicates=REPLICATES)]
    monkeypatch.setattr("rdxcli.methods.difference.significance.SLACK", np.inf)
    tests.append(difference_test(*pair, estimator=rdx, replicates=REPLICATES))
    few, every = (test.concepts for test in tests)
    assert np.isnan(few.values).any()
    assert not np.isnan(every.values).any()
    assert [few.p_value(one) for one in few.observed] == [every.p_value(one) for one in every.observed]


def test_no_step_takes_more_turns_than_it_says(monkeypatch):
    """Or the time left would be negative."""
    steps = {}

    @contextmanager
    def tracker(description, total, unit):
        steps[description] = [total, 0]

        def advance(count):
            steps[description][1] += count

        yield advance

    monkeypatch.setattr("rdxcli.progress._tracker", tracker)
    pair = merged_pair(n=80)
    difference_test(*pair, estimator=RDX(2).fit(*pair), replicates=REPLICATES)
    assert steps["versions of one model"][1] > 1
    assert all(done <= total for total, done in steps.values())


def test_p_values_of_concepts_stop_where_they_are_clear():
    null = ConceptNull(np.array([1.0, 4.0]))
    null.add([2.0, 0.0, 3.0])
    assert null.limit == 1.0
    null.add([2.0, 0.5, 1.0, 1.5])
    assert (null.limit, null.clear) == (4.0, False)  # five of seven reach the first
    null.add([np.nan] * 3)
    assert null.p_value(1.0) == 5 / 7
    assert null.p_value(4.0) == 1 / 11
    null.add([5.0] * 5)
    assert null.clear


def test_stability_follows_labels_and_mapped_representations():
    pair = merged_pair(n=80)
    labels = np.arange(80) % 2
    options = {"labels0": labels, "labels1": labels, "mapped0": pair[0], "mapped1": pair[1], "mapped_labels0": None}
    rdx = RDX(2).fit(*pair, **options)
    trust = concept_stability(rdx, *pair, bootstraps=3, fit_options=options, max_rows=40)
    for concepts in trust.values():
        assert sorted(concepts) == [1, 2]
        assert all(one["p_value"] is None and one["stability"] > 0 for one in concepts.values())
    bare = concept_stability(rdx, *pair, bootstraps=0)["01"][1]
    assert bare["stability"] is bare["p_value"] is bare["interval"] is None


def test_the_interval_of_a_concepts_strength_covers_other_draws_of_the_images():
    """A planted group: the strength among fresh images lies in the interval of the first draw in nearly all of 8."""
    covered = 0
    for seed in range(8):
        group, centre, _ = clusters(n=600, seed=seed)
        rng = np.random.default_rng(seed + 100)
        X = centre[np.where(group == 3, 2, group)] + rng.normal(size=(600, 16))
        Y = centre[group] + rng.normal(size=(600, 16))
        half = np.arange(600) < 300
        rdx = RDX(1).fit(X[half], Y[half])
        trust = concept_stability(rdx, X[half], Y[half])["01"][1]
        other = DifferenceGraph(X[~half], Y[~half]).affinity()
        members = np.isin(group[~half], (2, 3)) * 1
        fresh = (other.within("01", members)[members == 1] - 1).sum() / 300
        ours = np.isin(group[half], (2, 3)) == (rdx.directions_["01"].labels == 1)
        if ours.mean() > 0.98:
            low, high = trust["interval"]
            spread = high - low  # two draws differ by sqrt(2) times the error of one
            covered += abs(fresh - trust["strength"]) <= spread / 2 * 2**0.5 + 0.05 * fresh
        else:
            covered += 1  # another group was found, which fresh images cannot check
    assert covered >= 7


def test_identical_models_have_no_concepts_to_trust():
    X = merged_pair()[0]
    rdx = RDX(2).fit(X, X)
    test = difference_test(X, X, estimator=rdx, replicates=REPLICATES)
    assert isinstance(test, DifferenceTest)
    assert concept_stability(rdx, X, X, test=test, bootstraps=2) == {"01": {}, "10": {}}


def network(n: int = 240, d: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features after a ReLU, as a network's last layer has them, and classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 8, n)
    hidden = 2.0 * rng.normal(size=(8, 24))[label] + rng.normal(size=(n, 24))
    return np.maximum(hidden @ rng.normal(size=(24, d)) / np.sqrt(24), 0.0), label


def shuffled(X: np.ndarray, label: np.ndarray, dimensions: int, seed: int = 0) -> np.ndarray:
    """Two classes exchange their images in some dimensions."""
    rng = np.random.default_rng(seed)
    rows, columns = np.flatnonzero(label < 2), rng.permutation(X.shape[1])[:dimensions]
    out = X.copy()
    out[np.ix_(rows, columns)] = X[np.ix_(rng.permutation(rows), columns)]
    return out


EDITS = {
    "5 bits": lambda X, label: np.round(X / X.max() * 15) / 15,
    "pruned": lambda X, label: X * (np.random.default_rng(0).random(X.shape[1]) > 0.1),
    "noise of 10 %": lambda X, label: X + 0.1 * X.std(0) * np.random.default_rng(0).normal(size=X.shape),
    "2 of 64": lambda X, label: shuffled(X, label, 2),
    "4 of 64": lambda X, label: shuffled(X, label, 4),
    "16 of 64": lambda X, label: shuffled(X, label, 16),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_of_the_same_weights_are_changes_though_no_more_than_two_readouts(edit):
    X, label = network()
    test = difference_test(X, EDITS[edit](X, label))
    assert test.deciding.question == Question.CHANGED
    assert test.verdict == "difference found"
    readouts = test.answers[1]
    assert readouts.question == Question.READOUTS
    assert not readouts.yes


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "noise"])
def test_runs_of_the_same_weights_are_no_change(kind):
    X, _ = network(seed=1)
    rng = np.random.default_rng(0)
    copies = {
        "float16": X.astype(np.float16),
        "bfloat16": X * (1 + 2.0**-8 * rng.uniform(-1, 1, X.shape)),
        "float32": X.astype(np.float32),
        "noise": X + 0.015 * X.std(0) * rng.normal(size=X.shape),
    }
    test = difference_test(X, copies[kind].astype(np.float64))
    assert test.deciding.question == Question.CHANGED
    assert test.verdict == "no difference found"
    assert test.detectable is not None
    assert test.detectable.changes[0][1] <= 0.2
    assert "would have been found" in test.sentences()[-1]


def test_rows_in_another_order_are_said_first_and_decide_nothing():
    X, _ = network(seed=2)
    test = difference_test(X, X[np.random.default_rng(0).permutation(len(X))])
    assert test.verdict == "undecided"
    assert not test.different
    assert test.sentences()[0].startswith("These rows do not seem to be the same images")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda X: X / np.linalg.norm(X, axis=1, keepdims=True), "scale of rows"),
        (lambda X: X * np.geomspace(0.2, 5.0, X.shape[1]), "scale of dimensions"),
        (lambda X: X @ (np.eye(64) + 0.1 * np.random.default_rng(1).normal(size=(64, 64))), "linear map"),
        (lambda X: X + 0.3 * X.std(0) * np.random.default_rng(1).normal(size=X.shape), "more than a linear map"),
    ],
)
def test_the_kind_of_change_is_named(change, name):
    X = np.random.default_rng(0).normal(size=(400, 64)) * np.geomspace(1, 3, 64) + 1
    test = difference_test(X, change(X))
    assert test.kind is not None
    assert test.kind.name == name
    assert (test.kind.sentence() in test.sentences()) == (name != "more than a linear map")


def test_pairing_needs_the_same_dimensions():
    with pytest.raises(ValueError, match="Got paired=True with 3 and 4 dimensions"):
        difference_test(np.eye(9)[:, :3], np.eye(9)[:, :4], paired=True)


@pytest.mark.parametrize("seed", range(200))
def test_verdict_sentence_document_and_p_agree(seed):
    """Whatever the numbers, everything that is read off a test says the same."""
    rng = np.random.default_rng(seed)

    def statistic() -> Statistic:
        null = rng.normal(size=rng.integers(20, 100))
        return Statistic(float(rng.normal() * rng.choice([0.5, 3.0])), null)

    questions = [Question.CHANGED, Question.READOUTS][rng.integers(0, 2) :]
    doubt = Belonging(0.01, 0.01, float(rng.random())) if rng.random() < 0.3 else None
    answers = tuple(Finding(question, statistic(), statistic(), 0.05) for question in questions)
    test = DifferenceTest(answers, (0.0, 1.0), None, None, 10, 100, 100, doubt)
    document = json.loads(json.dumps(test.to_dict()))
    said = [line for line in document["sentences"] if line.startswith(tuple(MEASURES.values()))]
    found = any(": more (p" in line for line in said)
    assert len(said) == 2
    assert document["question"] == questions[0]
    assert found == bool(document["found_by"]) == (document["null_p"] <= 0.05)
    assert (document["verdict"] == "undecided") == test.doubtful
    assert test.doubtful or (document["verdict"] == "difference found") == found
    assert test.doubtful == document["sentences"][0].startswith("These rows do not seem")
    assert said[0].startswith(MEASURES["strength" if document["found_by"] == ["strength"] else "score"])
    for name, key in (("score", "disagreement"), ("strength", "strength")):
        assert (name in document["found_by"]) == (2 * document[key]["p_value"] <= 0.05)


def test_null_pairs_are_drawn_only_as_far_as_the_answer_needs_them(monkeypatch):
    X, label = network(seed=3)
    same, changed = difference_test(X, X), difference_test(X, shuffled(X, label, 16))
    assert len(same.score.null) == 20
    assert len(changed.score.null) == 199  # of few images a draw is cheap, and p can fall to .01
    assert changed.p_value == 0.01
    assert len(changed.strength.null) in (50, 60, 199)  # where both are clear the graphs are left out
    monkeypatch.setattr("rdxcli.methods.difference.significance.CHEAP_ROWS", 0)
    assert len(difference_test(X, shuffled(X, label, 16)).score.null) == 50
    borderline = difference_test(X, X + 0.021 * X.std(0) * np.random.default_rng(1).normal(size=X.shape))
    assert len(borderline.score.null) >= 20
