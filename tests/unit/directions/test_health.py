"""Health, stability and variance of directions: sound fits stand out, broken ones are said."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.baselines import KMeansDirections, PCADirections, RandomDirections
from rdxcli.methods.directions.health import health, matched_cosines, stability, variance


@pytest.fixture(scope="module")
def clusters() -> np.ndarray:
    """Five clusters in 24 dimensions, (1000, 24)."""
    rng = np.random.default_rng(0)
    return (8 * rng.standard_normal((5, 24))[rng.integers(5, size=1000)] + rng.standard_normal((1000, 24))).astype("f4")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1000, 24)).astype("f4")


def test_clusters_are_found_again_and_noise_is_not(clusters: np.ndarray, noise: np.ndarray) -> None:
    sound = stability(KMeansDirections(5).fit(clusters), clusters)
    assert sound["mean"] > 0.95 > sound["chance"]
    fitted = KMeansDirections(5).fit(noise)
    broken = stability(fitted, noise)
    assert broken["mean"] < 0.8
    notes = health(fitted, noise).notes({"mean": 0.3, "chance": 0.28})
    assert any("do not read much" in note for note in notes)
    assert not health(fitted, noise).notes(sound)


def test_states_of_detectors(clusters: np.ndarray) -> None:
    found = KMeansDirections(4).fit(clusters)
    bias = found.bias_ + np.array([1e3, -1e3, 0, 0])
    encoding = found.encoding_.copy()
    encoding[3] = encoding[2]
    broken = Directions.of(encoding, found.decoding_, bias, mean=found.mean_)
    state = health(broken, clusters)
    assert state.states == ["idle", "crowded", "sound", "copy"]
    assert state.summary() == {"sound": 1, "idle": 1, "crowded": 1, "copy": 1}
    assert any("directions 0: idle" in note for note in state.notes())


def test_explained_variance_lies_between_random_and_best(clusters: np.ndarray) -> None:
    pca, random = (variance(kind(4).fit(clusters), clusters) for kind in (PCADirections, RandomDirections))
    assert pca["explained"] == pytest.approx(pca["best"])
    assert pca["random"] == pytest.approx(4 / 24)
    assert random["explained"] < 0.6 * random["best"]


def test_matching_is_one_to_one() -> None:
    one = np.eye(4)[:3]
    np.testing.assert_allclose(matched_cosines(one, -one[[2, 0, 1]]), 1)
    np.testing.assert_allclose(matched_cosines(one, np.stack([one[0]] * 3)).sum(), 1)


def test_halves_that_cannot_be_fitted_say_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((9, 6)).astype("f4")
    assert stability(KMeansDirections(4).fit(x), x) == {}
