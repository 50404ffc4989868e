"""Clarity, groups of images and near duplicates, on units whose character is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from rdxcli.methods.neurons.character import UnitCharacter

N = 400


def views(seed: int = 0, kinds: int = 8, d: int = 20, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Images of eight kinds, and the kind of each."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, N)
    return rng.normal(size=(kinds, d))[kind] + noise * rng.normal(size=(N, d)), kind


def test_one_meaning_two_meanings_and_none() -> None:
    E, kind = views()
    rng = np.random.default_rng(1)
    A = 0.3 * rng.random((N, 6))
    A[:, 0] += kind == 2
    A[:, 1] += (kind == 3) | (kind == 5)
    A[:, 2] += (kind == 0) | (kind == 1) | (kind == 7)
    A[:, 4] = 1.0
    A[:, 5] = A[:, 0] + 0.02 * rng.random(N)
    model = UnitCharacter().fit(E, A)
    assert model.groups_.tolist() == [1, 2, 3, 0, 0, 1]
    assert (model.clarity_[[0, 1, 2, 5]] > model.clarity_chance_).all()
    assert model.clarity_[0] > model.clarity_[1] > model.clarity_[2]
    assert model.adjusted_[3] > 0.05
    assert np.isnan(model.clarity_[4])
    of_two = kind[model.members_[1]]
    groups = [set(of_two[model.group_[1] == g]) for g in (0, 1)]
    assert sorted(map(sorted, groups)) == [[3], [5]]
    assert model.twin_[0] == 5
    assert model.twin_[5] == 0
    assert model.twin_images_[0] > 0.95
    assert model.redundant_.tolist() == [True, False, False, False, False, True]


def test_units_of_noise_are_neither_clear_nor_split() -> None:
    clear, split, of_one = [], [], []
    for seed in range(4):
        E, _ = views(seed, kinds=40, noise=1.0)  # many kinds: no structure that 30 random images would show
        A = np.random.default_rng(100 + seed).random((N, 15))
        A[:, 0] += 2 * (E[:, 0] > 0.8)  # one broad meaning
        model = UnitCharacter(n_random=200).fit(E, A)
        clear.append((model.adjusted_[1:] <= 0.05).mean())
        split.append((model.groups_[1:] > 1).mean())
        of_one.append(model.groups_[0])
    assert np.mean(clear) <= 0.05
    assert np.mean(split) <= 0.1


def test_conventions_and_bad_input() -> None:
    E, kind = views()
    A = (kind == 2).astype(float)[:, None]
    model = clone(UnitCharacter(top_k=10))
    with pytest.raises(NotFittedError):
        _ = model.redundant_
    assert model.fit(E, A).twin_.tolist() == [-1]
    assert len(model.members_[0]) == 10
    again = UnitCharacter(top_k=10).fit(E, A)
    np.testing.assert_array_equal(again.clarity_, model.clarity_)
    for bad in (lambda: UnitCharacter().fit(E[:-1], A), lambda: UnitCharacter().fit(E[:9], A[:9])):
        with pytest.raises(ValueError, match="Got"):
            bad()
