"""More channels than positions: the small side is decomposed, and gives the same."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.baselines import BASELINES
from rdxcli.methods.directions.features import FeatureSpace, _by_channels, _by_positions, as_maps, positions
from rdxcli.methods.directions.health import health, variance
from rdxcli.methods.directions.uibe import UIBE


def test_both_sides_give_the_same_space() -> None:
    x = positions(
        as_maps(np.random.default_rng(0).standard_normal((40, 70)).astype("f4") @ np.diag(np.linspace(3, 1, 70)))
    )
    mean = x.double().mean(0)
    wide, narrow = _by_positions(x, mean), _by_channels(x, mean)
    torch.testing.assert_close(wide[0][:39], narrow[0][:39])
    torch.testing.assert_close(wide[1], narrow[1])
    cosines = (wide[2](20) @ narrow[2](20).T).diagonal().abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


@pytest.mark.parametrize("method", ["pca", "nmf", "ica", "kmeans", "natural", "random", "uibe"])
def test_every_method_on_wide_features(method: str) -> None:
    """(200, 6000): a covariance would take 288 MB."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.standard_normal((200, 8)) @ rng.standard_normal((8, 6000))).astype("f4")
    estimator: Directions
    estimator = UIBE(4, n_starts=1, steps=10) if method == "uibe" else BASELINES[method](4)
    tracemalloc.start()
    try:
        found = estimator.fit(x)
        health(found, x)
        variance(found, x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.encoding_.shape == (4, 6000)
    assert peak < 150e6


def test_features_in_few_dimensions_have_no_noise_to_leave_out() -> None:
    """Five signals of unequal size in sixteen channels: the last three are no tail of noise, unless noise is added."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((600, 5)) * [8, 5, 1, 1, 1]) @ rng.standard_normal((5, 16))
    assert FeatureSpace.of(as_maps(x.astype("f4")), 3).size == 5
    noisy = rng.standard_normal((600, 16)) * np.r_[[8, 5], np.ones(14)]
    assert FeatureSpace.of(as_maps(noisy.astype("f4")), 2).size == 2


def test_the_rank_is_that_of_the_positions() -> None:
    x = as_maps(np.random.default_rng(0).standard_normal((30, 500)).astype("f4"))
    space = FeatureSpace.of(x, 4, None)
    assert space.rank == 29
    torch.testing.assert_close(space.Q @ space.Q.T, torch.eye(29, dtype=torch.float64), atol=1e-6, rtol=0)
