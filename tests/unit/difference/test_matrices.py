"""Matrices of layers: every cell is what its measure says alone, and chance is what rows in random order give."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from rdxcli.methods.difference.matrices import MEASURES, of_equal_depth, similarity_matrices, tree
from rdxcli.methods.difference.scores import linear_cka
from rdxcli.methods.difference.significance import difference_test, neighbour_disagreement
from rdxcli.methods.difference.similarity import rsa


def _layers(seed: int, n: int = 90) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 6))
    return [
        base @ rng.normal(size=(6, d)) + noise * rng.normal(size=(n, d)) + 50.0
        for d, noise in ((5, 1), (12, 2), (3, 4))
    ]


def test_cells_are_what_each_measure_says_alone() -> None:
    first, second = _layers(0), _layers(1)[:2]
    second[1] = 3.0 * first[1] - 7.0
    found = similarity_matrices(first, second, random_state=3)
    for i, X in enumerate(first):
        for j, Y in enumerate(second):
            assert found.values["cka"][i, j] == pytest.approx(linear_cka(X, Y), abs=2e-5)
            assert found.values["rsa"][i, j] == pytest.approx(rsa(X, Y), abs=1e-5)
            assert found.values["score"][i, j] == pytest.approx(neighbour_disagreement(X, Y, 10))
            assert found.values["mutual_knn"][i, j] == pytest.approx(1 - found.values["score"][i, j])
    assert [found.values[name][1, 1] for name in MEASURES] == pytest.approx([1, 1, 1, 0], abs=1e-5)
    test = difference_test(first[0], second[0], replicates=39, random_state=3)
    assert test.score.value == pytest.approx(found.values["score"][0, 0])


def test_a_list_with_itself_is_symmetric_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = _layers(2)
    whole = similarity_matrices(layers)
    monkeypatch.setattr("rdxcli.methods.difference.matrices.BLOCK_BYTES", 4 * 90 * 3 * 7)
    parts = similarity_matrices(layers)
    two = similarity_matrices(layers, layers)
    for name in MEASURES:
        np.testing.assert_allclose(whole.values[name], whole.values[name].T, atol=1e-6)
        np.testing.assert_allclose(whole.values[name], parts.values[name], atol=1e-6)
        np.testing.assert_allclose(whole.values[name], two.values[name], atol=1e-6)
    np.testing.assert_array_equal(whole.take(2).values["cka"], whole.values["cka"][:2, :2])


def test_the_moments_of_cka_by_chance_are_exact() -> None:
    """Over all 720 orders of six rows, not over a sample of them."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(6, 2)), rng.normal(size=(6, 3))
    every = np.array([linear_cka(X, Y[list(order)]) for order in permutations(range(6))])
    assert every.mean() == pytest.approx(0.0, abs=1e-12)
    assert every.var() == pytest.approx(2 / (6 * 3))
    found = similarity_matrices([X], [Y])
    assert found.chance["cka"].mean == 0.0
    assert np.mean(every > found.chance["cka"].high) <= 0.05


def test_unrelated_layers_are_seldom_above_chance() -> None:
    above = {name: 0 for name in ("cka", "mutual_knn", "rsa")}
    for seed in range(30):
        rng = np.random.default_rng(100 + seed)
        X = [rng.normal(size=(60, 4)) @ np.diag([5, 1, 1, 1]), rng.normal(size=(60, 20))]
        Y = [rng.normal(size=(60, 3)), np.exp(rng.normal(size=(60, 6)))]
        found = similarity_matrices(X, Y, random_state=seed)
        for name in above:
            above[name] += int((found.values[name] > found.chance[name].high).sum())
    assert all(count <= 13 for count in above.values()), above  # 120 cells: 13 is the 99.5 % quantile of 5 % of them


def test_layers_that_say_nothing_are_left_blank() -> None:
    layers = [*_layers(0), np.full((90, 4), 2.0)]
    found = similarity_matrices(layers)
    assert found.constant == ([3], [])
    for name in MEASURES:
        assert np.isnan(found.values[name][3]).all()
        assert np.isfinite(found.values[name][:3, :3]).all()
    assert np.isfinite(found.limit(0, 1))
    assert found.limit(0, 1) == max(found.read_outs_first[:2, 1])


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([], None, "no layer"),
        ([np.ones((9, 2))], [], "no layer"),
        ([np.eye(9), np.eye(8)], None, "8 rows"),
        ([np.eye(4)], None, "4 rows"),
        ([np.eye(9), np.full((9, 2), np.nan)], None, "NaN"),
    ],
)
def test_unusable_input(first: list[np.ndarray], second: list[np.ndarray] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        similarity_matrices(first, second)


def test_layers_of_equal_depth() -> None:
    assert list(of_equal_depth(["a", "b", "c"], ["c", "x", "a"])) == [(0, 0), (1, 1), (2, 2)]
    assert list(of_equal_depth(["a", "b"], ["b", "a"])) == [(0, 1), (1, 0)]
    assert list(of_equal_depth(["b0", "b1"], ["b0", "b1", "b2"]))[-1] == (1, 2)
    assert dict.fromkeys(of_equal_depth(list("ab"), list("wxyz"))) == dict.fromkeys([(0, 0), (0, 1), (1, 2), (1, 3)])
    assert list(of_equal_depth(["a"], ["z"])) == [(0, 0)]


def test_a_tree_joins_what_is_alike() -> None:
    distances = np.array([[0, 9, 1, 9], [9, 0, 9, 2], [1, 9, 0, 9], [9, 2, 9, 0]], dtype=float)
    found = tree(distances)
    assert {frozenset(found.order[:2]), frozenset(found.order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert [height for _, _, height in found.merges] == [1, 2, 9]
    assert set(found.merges[-1][:2]) == {4, 5}
