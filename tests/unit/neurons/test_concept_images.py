"""AUC and mean activation difference of a unit on images of its concept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from rdxcli.methods.neurons.concept_images import image_score


def test_scores_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = np.round(rng.normal(0.8, 1, 40), 1), np.round(rng.normal(0, 1, 100), 1)  # with ties
    found = image_score(x, y)
    assert found.auc == pytest.approx(roc_auc_score(np.r_[np.ones(40), np.zeros(100)], np.r_[x, y]))
    assert found.mad == pytest.approx((x.mean() - y.mean()) / y.std(ddof=1))
    assert found.images == 40
    assert found.p_value < 0.01
    assert np.isnan(image_score(x[:2], y).auc)
    assert np.isnan(image_score(x, np.zeros(10)).mad)
    with pytest.raises(ValueError, match="finite"):
        image_score(np.array([np.nan, 1, 2]), y)


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.0])
def test_intervals_cover_and_noise_is_rarely_significant(shift: float) -> None:
    truth = float(norm.cdf(shift / np.sqrt(2)))
    rng = np.random.default_rng(1)
    found = [image_score(rng.normal(shift, 1, 25), rng.normal(0, 1, 60)) for _ in range(400)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.92 <= covered <= 0.99
    if shift == 0:
        assert np.mean([one.p_value <= 0.05 for one in found]) <= 0.07


def test_perfect_separation_has_an_interval() -> None:
    found = image_score(np.arange(10, 20.0), np.arange(0, 10.0))
    assert found.auc == 1.0
    assert 0.5 < found.low < 1.0
    assert found.high == pytest.approx(1.0, abs=0.01)
