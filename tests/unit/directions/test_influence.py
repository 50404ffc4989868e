"""Influence of directions and its significance: planted and random directions, seeds, bad input."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.influence import Influence, influence, null_directions
from rdxcli.methods.directions.synthetic import SyntheticCase, generate, named


@pytest.fixture(scope="module")
def case() -> SyntheticCase:
    return generate(named("paper_table", images_per_class=200))


def planted(case: SyntheticCase, encoding: np.ndarray) -> Directions:
    """Directions (D, I) with the true filters of the case, which fire where their concept owns the position."""
    W = case.W / np.linalg.norm(case.W, axis=0)
    mean = case.X.mean((0, 2, 3))
    x = case.X.transpose(0, 2, 3, 1).reshape(-1, case.X.shape[1])
    bias = np.quantile(x @ W, 1 - 1 / W.shape[1], axis=0)
    return Directions.of((encoding / np.linalg.norm(encoding, axis=0)).T, W.T, bias, np.full(W.shape[1], 0.1), mean)


def same(a: Influence, b: Influence) -> None:
    for field in fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_allclose(left, right, atol=1e-6, err_msg=field.name)


def test_true_signals_have_larger_effects_than_most_random_ones(case: SyntheticCase) -> None:
    found = influence(planted(case, case.S), case.head, case.X, case.y)
    # Bonferroni over 9 pairs asks for 0.0056, which no pair of this small case reaches: see docs/methods/directions.md
    assert found.p_effect.max() < 0.15
    assert found.p_effect.min(1).max() < 0.05


@pytest.mark.parametrize("name", ["normal_distractor", "hard_shared_distractor"])
def test_true_signals_are_significant_and_random_ones_are_not(name: str) -> None:
    """SPEC section 15, where 16 channels leave room for it; docs/methods/directions.md has the other cases."""
    case = generate(named(name))
    assert influence(planted(case, case.S), case.head, case.X, case.y).significant.all()
    random = np.random.default_rng(0).standard_normal(case.S.shape)
    assert not influence(planted(case, random), case.head, case.X, case.y).significant.any()


def test_random_signals_have_no_significant_effect(case: SyntheticCase) -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        found = influence(
            planted(case, rng.standard_normal(case.S.shape)), case.head, case.X, case.y, random_state=seed
        )
        assert not found.significant.any(), found.p_effect


def test_the_batch_size_changes_nothing(case: SyntheticCase) -> None:
    directions = planted(case, case.S)
    same(
        influence(directions, case.head, case.X, case.y, batch=7),
        influence(directions, case.head, case.X, case.y, batch=256),
    )


def test_permuted_labels_are_seeded_per_direction(case: SyntheticCase) -> None:
    x = case.X.transpose(0, 2, 3, 1).reshape(-1, case.X.shape[1])
    active = (case.owner == 0).reshape(-1)
    once = null_directions(x, active, 4, seed=0, name=1)
    np.testing.assert_array_equal(once, null_directions(x, active, 4, seed=0, name=1))
    assert np.abs(once - null_directions(x, active, 4, seed=0, name=2)).max() > 0.01
    assert np.abs(once - null_directions(x, active, 4, seed=1, name=1)).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(once, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [{"statistic": "rcav"}, {"n_permutations": 0}, {"level": 1.0}, {"alpha": 0.0}, {"images": "some"}],
)
def test_bad_options(case: SyntheticCase, bad: dict) -> None:
    with pytest.raises(ValueError, match=r"Got .*expected"):
        influence(planted(case, case.S), case.head, case.X, case.y, **bad)


@pytest.mark.parametrize("y", [np.zeros(3, int), np.full(600, 99), np.zeros(600)])
def test_bad_classes(case: SyntheticCase, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Got classes"):
        influence(planted(case, case.S), case.head, case.X, y)


def test_a_detector_that_hardly_fires_has_no_null(case: SyntheticCase) -> None:
    with pytest.raises(ValueError, match="expected 8 or more"):
        null_directions(np.zeros((20, 4)), np.arange(20) < 3, 2, 0, 0)
