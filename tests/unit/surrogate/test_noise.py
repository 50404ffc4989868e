"""Noise of the encodings: the interval against SciPy's, the draw against the interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from rdxcli.methods.surrogate.noise import draw, perturb, reduced, wilson_interval


def test_interval_is_scipys() -> None:
    for k, m in ((0, 5), (1, 2), (3, 10), (7, 7)):
        for confidence in (0.1, 0.5, 0.95):
            expected = binomtest(k, m).proportion_ci(confidence, method="wilson")
            low, high = wilson_interval(k, m, confidence)
            assert low == pytest.approx(expected.low, abs=1e-12)
            assert high == pytest.approx(expected.high, abs=1e-12)
    assert wilson_interval(3, 4, 0.0) == (0.75, 0.75)


def test_a_draw_is_an_end_of_the_interval() -> None:
    k, m = np.array([1, 3, 5, 6]), np.array([2, 6, 10, 6])
    for q in (0.05, 0.4, 0.8):
        low, high = wilson_interval(k, m, q)
        np.testing.assert_allclose(perturb(k, m, 0.5 - q / 2), low, rtol=1e-12)
        np.testing.assert_allclose(perturb(k, m, 0.5 + q / 2), high, rtol=1e-12)
    np.testing.assert_allclose(perturb(k, m, 0.5), k / m, rtol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_batched_draw_is_the_same(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    m = rng.integers(1, 12, 500)
    k = rng.integers(1, m + 1)
    got = draw(torch.tensor(k, dtype=dtype), torch.tensor(m, dtype=dtype), 0.8, torch.Generator().manual_seed(3))
    u = torch.rand(500, generator=torch.Generator().manual_seed(3)).numpy().astype(np.float64)
    np.testing.assert_allclose(got, perturb(k, m, 0.5 + 0.8 * (u - 0.5)), rtol=2e-5 if dtype == torch.float32 else 1e-9)
    assert got.dtype == dtype
    assert float(got.max()) <= 1.0
    assert float(got.min()) > 0.0


def test_more_captions_mean_less_noise() -> None:
    stream = torch.Generator().manual_seed(0)
    widths = [
        float(draw(torch.full((4000,), m / 2), torch.full((4000,), float(m)), 0.8, stream).std()) for m in (2, 10)
    ]
    assert widths[1] < 0.7 * widths[0]
    # Reduced fractions forget that: 5 of 10 becomes 1 of 2.
    assert [int(x) for x in reduced(5, 10)] == [1, 2]
    assert [int(x) for x in reduced(3, 7)] == [3, 7]


def test_wrong_counts_are_refused() -> None:
    for k, m in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="counts"):
            wilson_interval(k, m, 0.5)
        with pytest.raises(ValueError, match="counts"):
            perturb(k, m, 0.5)
    with pytest.raises(ValueError, match="confidence"):
        wilson_interval(1, 2, 1.0)
