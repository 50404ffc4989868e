"""Correlation, bootstrap, summaries and paired tests."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from rdxcli.methods.neurons.scores import (
    bootstrap_correlation,
    compare_methods,
    holm,
    pearson,
    sign_flip_p_value,
    summarise,
)


def pair(n: int = 300, u: int = 4, r: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, u))
    return r * y + np.sqrt(1 - r * r) * rng.normal(size=(n, u)), y


def test_pearson() -> None:
    p, y = pair()
    np.testing.assert_allclose(pearson(p, y), [np.corrcoef(p[:, k], y[:, k])[0, 1] for k in range(4)])
    np.testing.assert_allclose(pearson(1e8 + p, y - 1e6), pearson(p, y), atol=1e-6)
    p[:, 1], y[:, 2] = 0.1 + 0.2, 0.1
    assert np.isnan(pearson(p, y)).tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match="same shape"):
        pearson(p, y[:, :2])


def test_bootstrap_against_resampling_by_hand() -> None:
    p, y = pair(n=60, u=2)
    ours = bootstrap_correlation(p, y, n_resamples=4000, random_state=3)
    rng = np.random.default_rng(0)
    by_hand = []
    for _ in range(4000):
        rows = rng.integers(0, 60, 60)
        by_hand.append(pearson(p[rows], y[rows]))
    low, high = np.percentile(by_hand, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(ours.low, low, atol=0.02)
    np.testing.assert_allclose(ours.high, high, atol=0.02)
    np.testing.assert_allclose(ours.standard_error, np.std(by_hand, axis=0), rtol=0.06)


def test_bootstrap_covers_the_truth() -> None:
    p, y = pair(n=200, u=400, r=0.5, seed=2)
    interval = bootstrap_correlation(p, y, n_resamples=300)
    covered = ((interval.low <= 0.5) & (interval.high >= 0.5)).mean()
    assert 0.9 <= covered <= 0.99


def test_bootstrap_does_not_depend_on_grouping() -> None:
    p, y = pair(u=7)
    whole = bootstrap_correlation(p, y, n_resamples=100, random_state=1)
    for units in ([3], [6, 0]):
        part = bootstrap_correlation(p[:, units], y[:, units], n_resamples=100, random_state=1)
        np.testing.assert_allclose(part.low, whole.low[units], atol=1e-12)
        np.testing.assert_allclose(part.high, whole.high[units], atol=1e-12)
    other = bootstrap_correlation(p, y, n_resamples=100, random_state=2)
    assert not np.allclose(other.low, whole.low, atol=1e-6)


def test_bootstrap_of_undefined_scores() -> None:
    p, y = pair(n=50, u=3)
    p[:, 0] = 1.0
    p[:, 1] = 0.0
    p[7, 1] = 1.0  # a third of the resamples never see it
    interval = bootstrap_correlation(p, y, n_resamples=200)
    assert np.isnan(interval.low).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="n_resamples"):
        bootstrap_correlation(p, y, n_resamples=1)


def test_summary() -> None:
    one = summarise(np.array([0.1, np.nan, 0.5, 0.3]))
    assert (one.mean, one.count, one.undefined) == (pytest.approx(0.3), 3, 1)
    assert one.standard_error == pytest.approx(0.2 / np.sqrt(3))
    assert summarise(np.array([0.1, 0.5, 0.3]), ddof=0).standard_error == pytest.approx(
        np.std([0.1, 0.5, 0.3]) / np.sqrt(3)
    )
    empty = summarise(np.array([np.nan]))
    assert (empty.mean, empty.standard_error, empty.count) == (None, None, 0)


def test_sign_flips_are_exact_for_few_units() -> None:
    d = np.array([0.5, -0.1, 0.3, 0.2, 0.4])
    sums = [abs(np.dot(d, signs)) for signs in product((1, -1), repeat=5)]
    assert sign_flip_p_value(d) == np.mean([total >= abs(d.sum()) - 1e-12 for total in sums])


def test_sign_flips_agree_with_the_t_test_for_many_units() -> None:
    d = np.random.default_rng(1).normal(0.1, 1.0, 200)
    assert sign_flip_p_value(d, n_permutations=20_000) == pytest.approx(stats.ttest_1samp(d, 0.0).pvalue, abs=0.02)


def test_paired_comparison() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.3, 0.1, 100)
    scores = {"a": base + 0.05 + rng.normal(0, 0.02, 100), "b": base, "c": base + rng.normal(0, 0.02, 100)}
    scores["a"][3] = np.nan
    found = {(t.first, t.second): t for t in compare_methods(scores, n_permutations=1999)}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    best = found["a", "b"]
    assert best.units == 99
    assert best.difference == pytest.approx(np.nanmean(scores["a"] - scores["b"]))
    known = (scores["a"] - scores["b"])[np.isfinite(scores["a"])]
    interval = stats.t.interval(0.95, 98, known.mean(), stats.sem(known))
    assert (best.low, best.high) == pytest.approx(interval)
    assert best.wins + best.losses + best.ties == 99
    assert best.p_value == 1 / 2000
    assert best.p_adjusted == pytest.approx(3 / 2000)
    assert found["b", "c"].p_value > 0.05
    alone = compare_methods({"a": scores["a"], "b": scores["b"]}, n_permutations=1999)[0]
    assert alone.p_value == best.p_value
    with pytest.raises(ValueError, match="same units"):
        compare_methods({"a": base, "b": base[:3]})
    with pytest.raises(ValueError, match="at least 2"):
        compare_methods({"a": base[:1], "b": base[:1]})


def test_no_difference_is_rarely_called_one() -> None:
    rng = np.random.default_rng(4)
    p = [sign_flip_p_value(rng.normal(size=30), n_permutations=199, name=str(i)) for i in range(200)]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1


def test_holm() -> None:
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
