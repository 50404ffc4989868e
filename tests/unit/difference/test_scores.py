"""Grid scores and CKA against plain loops and full kernel matrices."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.scores import DISTANCES, EvaluationDistances, linear_cka, score_grids
from rdxcli.methods.difference.subsample import choose_per_class

RNG = np.random.default_rng(0)
R0, R1 = RNG.normal(size=(50, 6)), RNG.normal(size=(50, 3))
GRIDS_01 = [RNG.permutation(50)[:9], np.array([4, 7, -1, -1]), np.array([3])]
GRIDS_10 = [RNG.permutation(50)[:5]]


def distance(R: np.ndarray, kind: str) -> np.ndarray:
    E = np.sqrt(((R[:, None] - R[None]) ** 2).sum(-1))
    if kind == "silb":
        return np.argsort(np.argsort(E, axis=1), axis=1) + 1
    if kind == "mned":
        return E / E.max()
    scale = np.sort(E, axis=1)[:, 7]
    return E**2 / np.outer(scale, scale)


@pytest.mark.parametrize("kind", DISTANCES)
def test_scores_count_pairs(kind):
    D0, D1 = distance(R0, kind), distance(R1, kind)
    scores = score_grids(R0, R1, GRIDS_01, GRIDS_10, kind)
    for found, grids, own, other in ((scores.first, GRIDS_01, D0, D1), (scores.second, GRIDS_10, D1, D0)):
        pairs = [(i, j) for grid in grids for i in grid for j in grid if i != j and i >= 0 and j >= 0]
        near, far = np.array([own[p] for p in pairs]), np.array([other[p] for p in pairs])
        assert found.pairs == len(pairs)
        assert found.bsr == np.mean(near < far)
        assert found.ties == np.mean(near == far)
        assert found.difference == pytest.approx(np.mean(far - near))
    assert scores.mean_bsr == (scores.first.bsr + scores.second.bsr) / 2
    assert scores.mean_distance_0 == pytest.approx(D0.mean())
    assert scores.mean_distance_1 == pytest.approx(D1.mean())
    assert scores.to_dict()["first"]["pairs"] == scores.first.pairs


def test_ties_are_failures():
    same = score_grids(R0, R0, GRIDS_01, GRIDS_10)
    assert (same.first.bsr, same.first.ties, same.first.difference) == (0.0, 1.0, 0.0)


def test_swapping_the_models_swaps_the_directions():
    one, two = score_grids(R0, R1, GRIDS_01, GRIDS_10), score_grids(R1, R0, GRIDS_10, GRIDS_01)
    assert (one.first, one.second) == (two.second, two.first)


def test_prepared_distances_give_the_same_scores():
    prepared = EvaluationDistances(R0, R1, "mned")
    assert score_grids(R0, R1, GRIDS_01, GRIDS_10, prepared) == score_grids(R0, R1, GRIDS_01, GRIDS_10, "mned")


def test_no_pairs_is_no_score():
    empty = score_grids(R0, R1, [], [[5]])
    assert empty.first.pairs == empty.second.pairs == 0
    assert np.isnan(empty.first.bsr)


def test_impossible_input():
    with pytest.raises(ValueError, match="Got image 50 in a grid, expected rows below n=50"):
        score_grids(R0, R1, [[50]], [])
    with pytest.raises(ValueError, match="Got distance='l1'"):
        score_grids(R0, R1, [], [], "l1")


def centred(K: np.ndarray) -> np.ndarray:
    """The specification's debiasing of a Gram matrix."""
    n = len(K)
    K = K - np.diag(np.diag(K))
    means = K.sum(0) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    K = K - means[:, None] - means[None]
    return K - np.diag(np.diag(K))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_debiased_cka_is_that_of_full_kernels(offset):
    K, L = centred(R0 @ R0.T), centred(R1 @ R1.T)
    expected = (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())
    assert linear_cka(R0 + offset, 7 * R1) == pytest.approx(expected, rel=1e-8)


def test_biased_cka_is_that_of_full_kernels():
    H = np.eye(50) - 1 / 50
    K, L = H @ R0 @ R0.T @ H, H @ R1 @ R1.T @ H
    expected = (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())
    assert linear_cka(R0, R1, debiased=False) == pytest.approx(expected, rel=1e-10)


def test_cka_of_a_rotated_copy_is_one_and_of_noise_is_near_zero():
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert linear_cka(R0, 3 * R0 @ rotation + 5) == pytest.approx(1.0)
    many = RNG.normal(size=(2, 3000, 5))
    assert abs(linear_cka(*many)) < 0.01


def test_cka_needs_four_images():
    with pytest.raises(ValueError, match="Got 3 rows, expected at least 4"):
        linear_cka(R0[:3], R1[:3])


def test_images_per_class():
    labels = np.array([1, 0] * 15)
    order, rows = choose_per_class(labels, 4, seed=3)
    assert order == [0, 1]
    assert labels[rows].tolist() == [0] * 4 + [1] * 4
    rng = np.random.default_rng(3)
    for label, part in ((0, rows[:4]), (1, rows[4:])):
        paths = sorted(f"root/{label}/{i}" for i in np.flatnonzero(labels == label))
        paths = np.array(paths)
        rng.shuffle(paths)
        assert [f"root/{label}/{i}" for i in part] == paths[:4].tolist()
    assert choose_per_class(labels, 99, classes=[1])[1].size == 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [2]}, "Got class 2"),
        ({"paths": ["a"]}, "Got 1 path and 30 labels"),
        ({"num_images": 0}, "Got num_images=0"),
    ],
)
def test_impossible_subsamples(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_per_class(np.arange(30) % 2, **{"num_images": 3, **arguments})
