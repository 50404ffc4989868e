"""How many directions: planted numbers are recommended, noise is said to have none, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.baselines import KMeansDirections, NMFDirections, PCADirections
from rdxcli.methods.directions.number import how_many
from rdxcli.methods.directions.uibe import UIBE


def clusters(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    own = rng.integers(count, size=600)
    centres = np.linalg.qr(rng.standard_normal((24, 24)))[0][:count]
    X = 25 * centres[own] + rng.standard_normal((600, 24))
    return X.astype("f4"), own


def factors(count: int, seed: int, apart: float) -> np.ndarray:
    """Non-negative parts of channels of their own that come together in any way, each with a size of its own."""
    rng = np.random.default_rng(seed)
    parts = (np.arange(24) % count == np.arange(count)[:, None]) * rng.uniform(0.5, 1.5, (count, 24))
    values = (rng.random((1000, count)) < 0.25) * rng.uniform(2, 6, (1000, count)) * apart ** -np.arange(count)
    return np.abs(values @ parts + 0.05 * rng.standard_normal((1000, 24))).astype("f4")


@pytest.mark.parametrize("count", [5, 8])
@pytest.mark.parametrize("kind", [KMeansDirections, PCADirections, NMFDirections])
def test_planted_numbers_are_recommended(kind: type[Directions], count: int) -> None:
    if kind is KMeansDirections:
        X = clusters(count, 40 + count)[0]
    else:
        X = factors(count, 50 + count, 1.3 if kind is PCADirections else 1.05)  # axes of one size are any axes
    found = how_many(kind(), X, numbers=(3, 5, 8, 12))
    assert found.recommended == count, found.rows
    assert f"{count} directions are found again" in found.reason
    explained = [row["explained"] for row in found.rows]
    assert explained == sorted(explained)


def test_labels_beside_chance() -> None:
    X, own = clusters(5, 3)
    rows = how_many(KMeansDirections(), X, numbers=(2, 5), labels=own).rows
    assert rows[1]["labels"] == 5 > rows[0]["labels"]
    assert all(row["labels_chance"] <= 1 for row in rows)


def test_orthonormal_directions() -> None:
    X, _ = clusters(5, 6)
    found = how_many(UIBE(n_starts=2, steps=150), X, numbers=(3, 5, 8))
    assert found.recommended == 5, found.rows


def test_noise_has_no_number() -> None:
    X = np.random.default_rng(1).standard_normal((400, 24)).astype("f4")
    assert "none is recommended" in how_many(KMeansDirections(), X, numbers=(4, 8)).reason


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="expected 2 or more"):
        how_many(KMeansDirections(), clusters(3, 0)[0], numbers=(4,))
    with pytest.raises(ValueError, match="expected 2 or more"):
        how_many(KMeansDirections(), np.ones((20, 4), "f4"))
