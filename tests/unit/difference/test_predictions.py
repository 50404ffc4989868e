"""Flips, churn and their intervals, against counting by hand and SciPy's exact tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rdxcli.methods.difference.predictions import compare_predictions, fisher, mcnemar, newcombe, wilson
from rdxcli.numerics.multiple import holm


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


def test_heads_with_other_classes_are_not_compared_and_said():
    from rdxcli.concepts.predictions import different_heads, predictions_of_heads
    from rdxcli.records import Representation

    a, b = (Representation(50.0 * np.eye(8, width), None, name) for name, width in (("a", 8), ("b", 9)))
    assert predictions_of_heads(a, b) is None
    assert "8 and 9 outputs" in different_heads(a, b)
    assert "mean probability of 1.00 in a and 1.00 in b" in different_heads(a, b)
