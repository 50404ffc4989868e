"""Flips, churn and their intervals, against counting by hand and SciPy's exact tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import made_up_comparison
from scipy import stats

from rdxcli.concepts.heads import head_of, heads_document
from rdxcli.concepts.predictions import predictions_of_heads, read_predictions, spelled_alike
from rdxcli.datasets.words import same_words
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.difference.predictions import compare_predictions, fisher, mcnemar, newcombe, wilson
from rdxcli.numerics.multiple import holm
from rdxcli.progress import human_p
from rdxcli.records import DifferenceConcept, Representation
from rdxcli.report.gates import parse_gates
from rdxcli.report.kinds import summarize
from rdxcli.report.markdown import markdown
from rdxcli.report.page import Images, page
from rdxcli.report.summary import Column, written


def test_counts_by_hand():
    truth = np.array(list("xxxxyyyy"))
    a = np.array(list("xxxyyyyx"))
    b = np.array(list("xxyxyyxz"))
    found = compare_predictions(a, b, truth, {"g": truth == "y"})
    assert found["churn"]["count"] == 4
    assert found["negative_flips"]["count"] == 2
    assert found["positive_flips"]["count"] == 1
    assert found["accuracy_a"]["value"] == 6 / 8
    assert found["accuracy_b"]["value"] == 5 / 8
    assert found["classes"]["y"]["negative_flips"]["count"] == 1
    assert found["groups"]["g"]["n"] == 4
    assert found["groups"]["g"]["tests"]["negative_flips"]["difference"] == 0.0
    bare = compare_predictions(a, b, None, {"g": truth == "y"})
    assert bare["tested"] == ["churn"]
    assert set(bare["classes"]) == {"x", "y"}
    assert "negative_flips" not in bare


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (5, 500)])
def test_the_interval_of_a_share(count, total):
    theirs = stats.binomtest(count, total).proportion_ci(method="wilson")
    assert wilson(count, total) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_exact_tests(seed):
    rng = np.random.default_rng(seed)
    n = 60
    mark, inside = rng.random(n) < 0.3, rng.random(n) < 0.4
    table = [[np.sum(mark & inside), np.sum(~mark & inside)], [np.sum(mark & ~inside), np.sum(~mark & ~inside)]]
    ours = fisher(int((mark & inside).sum()), int(inside.sum()), int(mark.sum()), n)
    assert ours == pytest.approx(stats.fisher_exact(table).pvalue)
    negative, positive = rng.integers(0, 12, 2)
    expected = stats.binomtest(negative, negative + positive).pvalue if negative + positive else 1.0
    assert mcnemar(int(negative), int(positive)) == pytest.approx(expected)


def test_corrected_p_values():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([])).tolist() == []


def test_the_level_of_the_groups_and_the_coverage_of_the_intervals():
    """300 draws without any effect: some group is called different in at most 5 %, intervals hold 0 in about 95 %."""
    alarms = held = intervals = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 4, 200)
        a = np.where(rng.random(200) < 0.8, truth, rng.integers(0, 4, 200))
        b = np.where(rng.random(200) < 0.8, truth, rng.integers(0, 4, 200))
        label = rng.integers(0, 4, 200)
        groups = {str(k): label == k for k in range(4)}
        found = compare_predictions(a, b, truth, groups)["groups"]
        tests = [test for one in found.values() for test in one["tests"].values()]
        alarms += any(one["p_corrected"] <= 0.05 for one in tests)
        held += sum(one["low"] <= 0 <= one["high"] for one in tests)
        intervals += len(tests)
    assert alarms <= 0.05 * 300
    assert 0.93 <= held / intervals <= 0.98
    assert newcombe(9, 10, 1, 10)[0] > 0


def test_planted_flips_are_found_where_they_are():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 300)
    b = truth.copy()
    group = np.arange(300) < 60
    b[:30] = (b[:30] + 1) % 5
    found = compare_predictions(truth, b, truth, {"hit": group, "other": np.arange(300) >= 200})
    assert found["groups"]["hit"]["tests"]["negative_flips"]["p_corrected"] < 1e-6
    assert found["flips_p"] < 1e-6
    assert found["groups"]["hit"]["negative_flips"]["count"] == 30


def test_confidence_shifts_no_more_often_by_chance_than_promised():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 120)
    group = np.arange(120) < 30
    alarms, found = [], {}
    for _ in range(200):
        sure = rng.beta(8, 2, size=(2, 120))
        found = compare_predictions(truth, truth, truth, {"g": group}, tuple(sure))
        alarms += [found["confidence_shift"]["p_value"] <= 0.05, found["groups"]["g"]["confidence_shift"]["low"] > 0]
    assert np.mean(alarms[::2]) <= 0.1  # 99.9 % of binomials
    assert np.mean(alarms[1::2]) <= 0.06
    sure[1, :30] -= 0.2
    found = compare_predictions(truth, truth, truth, {"g": group}, tuple(sure))
    assert found["groups"]["g"]["confidence_shift"]["high"] < 0
    assert found["groups"]["g"]["confidence_shift"]["p_value"] < 1e-4


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Got predictions of shapes"):
        compare_predictions([1, 2], [1])
    with pytest.raises(ValueError, match="Got labels of shape"):
        compare_predictions([1, 2], [1, 2], [1])


def _head(right: np.ndarray, width: int, name: str, **more) -> Representation:
    """Logits that are sure of ``right``."""
    return Representation(50.0 * np.eye(width)[right], None, name, **more)


def test_names_of_classes_are_matched_where_they_are_the_same_words():
    known = ["Haemorhous mexicanus (House Finch)", "Grus (crane)", "crane, machine", "Sea_Lion", "tabby", "tabby cat"]
    wanted = ["n01532829\thouse finch, linnet", "crane", "sea-lion", "tabby cat", "TABBY", "dog"]
    assert same_words(wanted, known).tolist() == [0, -1, 3, 5, 4, -1]
    assert same_words(["a", "b", "a"], ["b", "a"]).tolist() == [1, 0, 1]
    assert same_words(["house finch", "House Finch"], ["house finch"]).tolist() == [-1, -1]
    assert same_words([], ["x"]).tolist() == []


def test_heads_with_other_classes_are_judged_on_the_labels_they_can_name(tmp_path):
    """Eight classes against five of other names: two are the same words, one label is of neither."""
    (tmp_path / "a.txt").write_text("red fox\nwolf\ncat\ndog\nx\ny\nz\nu\n")
    (tmp_path / "b.txt").write_text("Lynx lynx (Lynx)\nVulpes vulpes (Red Fox)\nCanis lupus (Wolf)\nq\nr\n")
    labels = np.array(["red_fox"] * 6 + ["wolf"] * 4 + ["cat"] * 5 + ["tree"] * 3)
    first = np.repeat([0, 1, 2, 4], [6, 4, 5, 3])
    second = np.repeat([1, 2, 0, 3], [6, 4, 5, 3])
    second[:3] = 0  # three of six foxes are lynxes for b
    a, b = _head(first, 8, "a", labels=labels), _head(second, 5, "b", labels=labels)
    assert predictions_of_heads(a, b) is None
    heads = head_of(a, tmp_path / "a.txt"), head_of(b, tmp_path / "b.txt")
    concept = DifferenceConcept("a", 1, 6, 9.0, [0], ["0"])
    arrays = {"labels_a": np.repeat([1, 0], [6, 12])}
    found = heads_document(heads, labels, [concept], arrays)
    assert found["classes"]["matched"] == [["red fox", "Vulpes vulpes (Red Fox)"], ["wolf", "Canis lupus (Wolf)"]]
    assert (found["classes"]["not_matched_a"], found["classes"]["not_matched_b"]) == (6, 3)
    assert (found["a"]["named"], found["a"]["accuracy"]["count"]) == (15, 15)
    assert (found["b"]["named"], found["b"]["accuracy"]["count"]) == (10, 7)
    assert found["b"]["one_class"] == 0.6
    assert found["a"]["not_named"] == ["tree"]
    assert found["b"]["not_named"] == ["cat", "tree"]
    assert (found["both"]["n"], found["both"]["negative_flips"]["count"]) == (10, 3)
    assert found["groups"]["a1"]["accuracy_b"]["value"] == 0.5
    assert found["a"]["entropy"] == pytest.approx(0.0, abs=1e-6)
    assert found["b"]["entropy_most"] == pytest.approx(np.log(5))
    even = head_of(Representation(np.zeros((18, 5)), None, "even"), None)
    assert even.entropy == pytest.approx(np.log(5))
    unnamed = heads_document((heads[0], even), None, [], {})
    assert unnamed["classes"] is None
    assert unnamed["both"] is None
    assert unnamed["b"]["accuracy"] is None
    with pytest.raises(InputError, match="has 5 lines, the model has 8 outputs"):
        head_of(a, tmp_path / "b.txt")


def test_what_is_said_of_two_heads_are_their_numbers(tmp_path):
    """Terminal, page and Markdown are one summary; classes without names are said, with the option that gives them."""
    labels = np.array(["cat", "dog"] * 30)
    a, b = _head(np.arange(60) % 2, 2, "a", labels=labels), _head(np.arange(60) % 3, 3, "b", labels=labels)
    (tmp_path / "b.txt").write_text("Felis catus (cat)\ndog\nlynx\n")
    record = made_up_comparison(dataset=None)
    heads = head_of(a, None), head_of(b, tmp_path / "b.txt")
    document = replace(record, heads=heads_document(heads, labels, record.concepts, record.arrays)).to_document("x")
    summary = summarize(document)
    said = " ".join(summary.lines())
    assert "2 classes of both are the same words, 0 of a and 1 of b are not (such as lynx)" in said
    assert "a (a) gives its class a probability of 1.00, entropy 0.00 of at most 0.69; it is right on 100.0%" in said
    assert "it is right on 33.3%" in said
    assert "(one class for all: 50.0%)" in said
    assert "40 right in a alone and 0 in b alone" in said
    for text in (markdown(summary), page(summary, Images({}))):
        assert "Predictions of different classes" in text
        assert "By group" in text
        assert "a alone right" in text
        assert "right to wrong" not in text
        assert "Felis catus" in text
    unnamed = heads_document((heads[0], head_of(b, None)), labels, record.concepts, record.arrays)
    lines = summarize(replace(record, heads=unnamed).to_document("x")).lines()
    assert any("the names of the classes of b are not known (--classes-b FILE)" in line for line in lines)


def test_given_predictions_that_cannot_be_compared_are_refused(tmp_path):
    """Other spellings were "100 % from right to wrong", and scores that are no numbers were classes."""
    side = Representation(np.eye(6), None, "a")
    for name, values in {
        "cats": ["cat", "dog"] * 3, "latin": ["Felis", "Canis"] * 3, "numbers": [0, 1] * 3, "floats": [0.0, 1.0] * 3,
        "column": [[0], [1]] * 3, "logits": [[2.0, 1.0], [1.0, 2.0]] * 3,
        "broken": [[2.0, 1.0], [np.nan, 2.0]] * 3, "endless": [[2.0, 1.0], [np.inf, 2.0]] * 3,
    }.items():  # fmt: skip
        np.save(tmp_path / f"{name}.npy", np.array(values))

    def read(a, b):
        return read_predictions((str(tmp_path / f"{a}.npy"), str(tmp_path / f"{b}.npy")), side, side)

    for name, missing in (("nothing", '""'), ("unknown", "nan")):
        (tmp_path / f"{name}.csv").write_text("prediction\n" + f"cat\n{missing}\ndog\n" * 2)
        with pytest.raises(InputError, match=f"{name}.csv has no class for 2 rows of a, such as row 1"):
            read_predictions((str(tmp_path / "cats.npy"), str(tmp_path / f"{name}.csv")), side, side)
    labels = np.array(["cat", "dog"] * 3)
    for name in ("broken", "endless"):
        with pytest.raises(
            InputError, match=f"--predictions-b: {name}.npy has a score that is no finite number in row 1"
        ):
            read("logits", name)
    for name in ("floats", "column", "logits"):
        assert read("numbers", name).b.tolist() == ["0", "1"] * 3
    for known in (None, labels):
        with pytest.raises(InputError, match=r"no class that --predictions-a names .* for example `cat` and `Canis`"):
            spelled_alike(read("cats", "latin"), known)
    assert spelled_alike(read("cats", "cats"), labels).named
    apart = replace(read("cats", "cats"), a=np.full(6, "cat"), b=np.full(6, "dog"))  # two networks that collapsed
    assert spelled_alike(apart, labels) is apart
    unknown = spelled_alike(read("numbers", "logits"), labels)
    assert not unknown.named
    assert unknown.note == "no predicted class is a label (`0`, labels `cat`): which are right is not known"


def test_a_gate_on_right_predictions_asks_before_the_work_whether_they_are_known():
    negative, flips = parse_gates(["negative-flips>1%", "flips>1%"], None)
    flips.needs_predictions(given=True, judged=False)
    with pytest.raises(UsageError, match="needs to know which predictions are right"):
        negative.needs_predictions(given=True, judged=False)
    for gate in (negative, flips):
        with pytest.raises(UsageError, match="needs the predictions of both models"):
            gate.needs_predictions(given=False, judged=False)


def test_no_chance_is_written_as_nothing():
    """McNemar's test of 1,200 flips one way is below the smallest number."""
    p = mcnemar(1200, 0)
    assert p == 0.0
    assert human_p(p) == "< 1e-300"
    assert human_p(0.0123, 3) == "= 0.0123"
    assert written(p, Column("p")) == "< 1e-300"
    assert written(0.0, Column("score")) == "0"
    labels = np.full(1200, "x")
    document = made_up_comparison(dataset=None).to_document("x") | {
        "predictions": {"source": "given", "note": None, **compare_predictions(labels, np.full(1200, "y"), labels)}
    }
    assert "from wrong to right (p < 1e-300)" in " ".join(summarize(document).lines())
