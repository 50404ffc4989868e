"""Which units respond to a query: found, ranked, and noise left alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rdxcli.methods.neurons.search import UnitSearch

N = 300


def test_units_that_respond_come_first_and_noise_does_not_pass() -> None:
    passed = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        q = rng.random(N)
        A = np.exp(rng.normal(size=(N, 40)))
        A[:, 7] += 8 * q
        A[:, 3] -= 8 * q
        A[:, 11] = 2.0
        model = UnitSearch(orders=1999).fit(q, A)
        assert model.order_[0] == 7
        assert model.order_[-1] == 11
        assert model.chance_.better[7]
        assert not model.chance_.better[3]
        assert model.scores_[3] < -0.3
        passed.append(np.delete(model.chance_.better, 7).mean())
        shown = np.isin(np.arange(N), np.argsort(-q)[:15])
        for unit in (0, 7):
            assert model.auc_[unit] == pytest.approx(roc_auc_score(shown, A[:, unit]))
        assert model.interval_.low[7] < model.scores_[7] < model.interval_.high[7]
    assert np.mean(passed) <= 0.05


def test_bad_queries() -> None:
    A = np.random.default_rng(0).random((20, 3))
    for bad in (np.ones(20), np.arange(19.0), np.full(20, np.nan)):
        with pytest.raises(ValueError, match="Got a query"):
            UnitSearch().fit(bad, A)
