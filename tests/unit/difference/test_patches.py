"""Places of images: what a planted patch is like, what random ones are by chance, and where the grid lies."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.patches import likeness
from rdxcli.representations.patches import GRID, _coarse


def _images(count: int, seed: int) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(size=(count, 4, 4, 24)))


def test_a_planted_patch_is_alike_in_all_images_and_nothing_else_is() -> None:
    group = _images(5, 0)
    thing = 5.0 * np.random.default_rng(9).normal(size=24)
    where = np.arange(5) % 4, np.arange(5) % 3
    group[np.arange(5), where[0], where[1]] += thing
    values = likeness(group, _images(20, 1)).values
    planted = np.arange(5) * 16 + where[0] * 4 + where[1]
    others = np.setdiff1d(np.arange(80), planted)
    assert values[np.ix_(planted, planted)].min() > 128
    assert np.median(values[np.ix_(planted, others)]) == 0
    assert (np.diag(values) == 255).all()
    assert (values == values.T).all()


def test_images_without_anything_in_common_are_at_chance() -> None:
    above = [likeness(_images(6, seed), _images(24, 100 + seed)).above for seed in range(10)]
    assert np.mean(above) == pytest.approx(0.05, abs=0.01)
    scaled = likeness(3.0 * _images(6, 0), 3.0 * _images(24, 100))
    assert scaled.above == pytest.approx(above[0], abs=1e-9)


def test_grids_must_fit_and_fine_ones_are_averaged() -> None:
    with pytest.raises(ValueError, match="same grid"):
        likeness(_images(2, 0), _images(2, 0)[:, :2])
    with pytest.raises(ValueError, match="same grid"):
        likeness(_images(2, 0)[:0], _images(2, 0))
    fine = np.arange(2 * 20 * 3 * 2, dtype=float).reshape(2, 20, 3, 2)
    coarse = _coarse(fine)
    assert coarse.shape == (2, GRID, 3, 2)
    np.testing.assert_allclose(coarse[:, 0], fine[:, :2].mean(axis=1))
    assert _coarse(fine[:, :5]) is not None
    np.testing.assert_array_equal(_coarse(fine[:, :5]), fine[:, :5])
