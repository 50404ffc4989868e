"""Correlation, intervals, summaries and paired tests."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rdxcli.methods.neurons.scores import (
    compare_methods,
    correlation_interval,
    pearson,
    sign_flip_p_value,
    summarise,
)
from rdxcli.numerics.multiple import benjamini_hochberg, holm


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


def heavy(n: int, u: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A rare concept and a rectified unit that fires on it, on a few images very strongly: true correlation 0.64."""
    rng = np.random.default_rng(seed)
    present = rng.random((n, u)) < 0.03
    return present * 1.0, np.maximum(present * rng.exponential(1.0, (n, u)) + 0.15 * rng.normal(size=(n, u)), 0.0)


@pytest.mark.parametrize("kind", [lambda n, u: pair(n, u, 0.5, 2), lambda n, u: heavy(n, u, 3)])
def test_the_interval_covers_the_truth_also_where_few_images_matter(kind: Callable[..., Any]) -> None:
    truth = float(pearson(*kind(400_000, 1))[0])
    p, y = kind(200, 400)
    found = correlation_interval(p, y)
    known = np.isfinite(found.low)
    assert known.all()
    assert 0.93 <= ((found.low <= truth) & (found.high >= truth)).mean() <= 0.99
    wide = correlation_interval(p, y, confidence=0.99)
    assert (wide.low <= found.low).all()
    assert (wide.high >= found.high).all()


def test_the_interval_of_a_normal_pair_is_fishers() -> None:
    p, y = pair(n=2000, u=50, r=0.6, seed=4)
    found = correlation_interval(p, y)
    z = np.arctanh(pearson(p, y))
    np.testing.assert_allclose(found.low, np.tanh(z - 1.96 / np.sqrt(1997)), atol=0.006)
    np.testing.assert_allclose(found.high, np.tanh(z + 1.96 / np.sqrt(1997)), atol=0.006)


def test_the_interval_does_not_depend_on_grouping_scale_or_offset() -> None:
    p, y = pair(u=7)
    whole = correlation_interval(p, y)
    for units in ([3], [6, 0]):
        part = correlation_interval(1e3 * p[:, units] + 5, y[:, units] - 1e4)
        np.testing.assert_allclose(part.low, whole.low[units], atol=1e-9)
        np.testing.assert_allclose(part.high, whole.high[units], atol=1e-9)


def test_the_interval_of_undefined_and_extreme_scores() -> None:
    p, y = pair(n=50, u=4)
    p[:, 0] = 1.0
    p[:, 1] = 0.0
    p[7, 1] = 1.0  # one image alone varies: nothing is known of the others
    p[:, 2] = y[:, 2]
    found = correlation_interval(p, y)
    assert np.isnan(found.low).tolist() == [True, False, False, False]
    assert found.high[1] - found.low[1] > 0.9
    assert found.low[2] > 0.999
    assert np.isnan(correlation_interval(p[:3], y[:3]).low).all()
    with pytest.raises(ValueError, match="confidence"):
        correlation_interval(p, y, confidence=95)


def test_benjamini_hochberg_as_by_hand() -> None:
    p = np.array([0.01, 0.5, 0.03, 0.02])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.04, 0.5, 0.04, 0.04])
    assert benjamini_hochberg(np.array([])).shape == (0,)
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p))


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
