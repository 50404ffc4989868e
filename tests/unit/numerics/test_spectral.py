"""The eigensolver against a dense one, and the clustering against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score

from rdxcli.numerics.spectral import DENSE_BELOW, cluster, leading_eigenpairs, lloyd, spectral_embedding
from rdxcli.numerics.threads import map_in_threads, single_thread


def symmetric(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(n, n)) / np.sqrt(2 * n)
    return half + half.T


def weights(n: int, groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, groups, n)
    W = np.exp(rng.normal(size=(n, n)) * 0.5) + 6.0 * (label[:, None] == label)
    W = (W + W.T) / 2
    np.fill_diagonal(W, 0.0)
    return W, label


def by_hand(W: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(W.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(len(W)) - W / root[:, None] / root)
    return values[:k], vectors[:, :k] / root[:, None]


@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 5), (60, 3), (300, 8)])
def test_leading_eigenpairs_match_a_dense_solver(n, k):
    M = symmetric(n)
    found = leading_eigenpairs(lambda block: M @ block, n, k, np.random.default_rng(0), tolerance=1e-10)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(M)[::-1][:k], atol=1e-9)
    np.testing.assert_allclose(M @ found.vectors, found.vectors * found.values, atol=1e-8)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-10)
    assert found.residual <= 1e-8


def test_degenerate_and_low_rank_operators():
    """All eigenvalues equal, or all but one zero: the answer is still right."""
    identity = leading_eigenpairs(lambda block: block, 300, 4, np.random.default_rng(0))
    np.testing.assert_allclose(identity.values, np.ones(4))
    direction = np.ones((300, 1)) / np.sqrt(300)
    one = leading_eigenpairs(lambda block: 2 * direction @ (direction.T @ block), 300, 3, np.random.default_rng(0))
    np.testing.assert_allclose(one.values, [2.0, 0.0, 0.0], atol=1e-10)


def test_impossible_numbers_of_pairs():
    with pytest.raises(ValueError, match="Got k=6, expected between 1 and 5"):
        leading_eigenpairs(lambda block: block, 5, 6, np.random.default_rng(0))


@pytest.mark.parametrize("n", [2, 3, 30, DENSE_BELOW, DENSE_BELOW + 1, 450])
@pytest.mark.parametrize("kind", ["float64", "float32", "torch"])
def test_embedding_is_that_of_the_normalised_laplacian(n, kind):
    W, _ = weights(n, 3)
    k = min(n, 4)
    values, coordinates = by_hand(W, k)
    given = torch.as_tensor(W) if kind == "torch" else W.astype(kind)
    found = spectral_embedding(given, k, np.random.default_rng(0))
    loose = 1e-5 if kind == "float32" else 1e-8
    np.testing.assert_allclose(found.eigenvalues, values, atol=loose)
    # The leading three belong to the planted groups and are well separated: same space whatever the basis.
    for mine in found.coordinates.T[: min(k, 3)]:
        basis = coordinates[:, : min(k, 3)] * np.sqrt(W.sum(axis=1))[:, None]
        scaled = mine * np.sqrt(W.sum(axis=1))
        assert np.linalg.norm(basis @ (basis.T @ scaled) - scaled) < 1e-3
        assert np.linalg.norm(scaled) == pytest.approx(1.0, abs=1e-6)


def test_labels_agree_with_scikit_learn():
    W, label = weights(320, 4, seed=5)
    embedding = spectral_embedding(W, 4, np.random.default_rng(0))
    mine = cluster(embedding.coordinates, 4, seed=0)
    theirs = SpectralClustering(4, affinity="precomputed", random_state=0).fit_predict(W)
    assert adjusted_rand_score(theirs, mine) == 1.0
    assert adjusted_rand_score(label, mine) == 1.0


def test_a_node_without_weight_is_refused():
    W, _ = weights(10, 2)
    W[3] = W[:, 3] = 0.0
    with pytest.raises(ValueError, match="expected a connected graph"):
        spectral_embedding(W, 2, np.random.default_rng(0))


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_k_means_reaches_the_optimum_of_scikit_learn(spread):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 3)) + spread * rng.normal(size=(4, 3))[rng.integers(0, 4, 400)]
    labels = cluster(X, 4, seed=0)
    inertia = sum(float(np.square(X[labels == one] - X[labels == one].mean(0)).sum()) for one in range(4))
    theirs = KMeans(4, n_init=30, random_state=0).fit(X).inertia_
    assert inertia <= 1.005 * theirs
    assert (cluster(X, 4, seed=0) == labels).all()


def test_k_means_from_given_centres_is_lloyds():
    X = np.random.default_rng(4).normal(size=(200, 2))
    labels, inertia = lloyd(X, X[None, :3])
    theirs = KMeans(3, init=X[:3], n_init=1, tol=0.0).fit(X)
    assert (labels[0] == theirs.labels_).all()
    assert inertia[0] == pytest.approx(theirs.inertia_)


def test_coincident_points_give_fewer_clusters():
    labels = cluster(np.repeat(np.eye(2), 5, axis=0), 3, seed=0)
    assert sorted(set(labels.tolist())) == [0, 1]


def test_thread_limits_are_lifted_again():
    from threadpoolctl import threadpool_info

    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = blas()
    with single_thread(), single_thread():
        assert set(blas()) == {1}
    assert blas() == before
    seen = list(map_in_threads(lambda item: (item, max(blas())), range(20)))
    assert seen == [(item, 1) for item in range(20)]
    assert blas() == before


def test_errors_in_threads_reach_the_caller_and_lift_the_limit():
    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info()]
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // item, [1, 0]))
    assert [pool["num_threads"] for pool in threadpool_info()] == before
