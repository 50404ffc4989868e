"""The difference graph against its formulas written out in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.methods.difference.graph import DIRECTIONS, DifferenceGraph

ALL = slice(None)


def pair(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)), rng.normal(size=(n, 4))


def distances(R: np.ndarray, similarity: str, other: np.ndarray | None = None) -> np.ndarray:
    E = np.sqrt(((R[:, None] - R[None]) ** 2).sum(-1))
    if similarity == "neighborhood":
        return np.argsort(np.argsort(E, axis=1), axis=1).astype(float)
    if similarity == "max_normalized":
        return E / E.max()
    scale = np.sort(E, axis=1)[:, 7]
    partner = E if other is None else np.sqrt(((other[:, None] - other[None]) ** 2).sum(-1)).T
    return E * partner / scale[:, None] / scale[None]


def plain(values) -> np.ndarray:
    return np.asarray(values)


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("difference", ["locally_biased", "standard"])
@pytest.mark.parametrize("similarity", ["neighborhood", "max_normalized", "local_scaling"])
def test_difference_and_affinity_follow_their_formulas(similarity, difference, normalize, device):
    R0, R1 = pair()
    p, q = distances(R0, similarity), distances(R1, similarity)
    diff = q - p if difference == "standard" else np.tanh(0.2 * (q - p) / (1 + np.minimum(p, q)))
    if normalize:
        diff = diff / np.abs(diff).max()
    options = {"similarity": similarity, "difference": difference, "normalize": normalize, "gamma": 0.2, "beta": 3}
    for dtype, loose in (("float64", 1e-9), ("float32", 2e-4)):
        graph = DifferenceGraph(R0, R1, dtype=dtype, device=device, **options)
        np.testing.assert_allclose(plain(graph.difference(ALL)), diff, rtol=loose, atol=loose)
        np.testing.assert_allclose(plain(graph.difference(ALL, "01")), -diff, rtol=loose, atol=loose)
        if difference == "standard" and similarity == "neighborhood" and not normalize and dtype == "float32":
            with pytest.raises(ValueError, match="overflows; expected normalize=True"):
                graph.affinity()
            continue
        affinity = graph.affinity()
        assert str(affinity.matrix.dtype).endswith(dtype)
        np.testing.assert_allclose(plain(affinity.rows("10", ALL)), np.exp(-3 * diff), rtol=50 * loose)
        np.testing.assert_allclose(plain(affinity.rows("01", ALL)), np.exp(3 * diff), rtol=50 * loose)


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_local_scaling_uses_each_model_s_own_distances_unless_asked_otherwise(device):
    R0, R1 = pair()
    for slip, other in ((False, None), (True, R0)):
        graph = DifferenceGraph(R0, R1, similarity="local_scaling", transposed_scaling=slip, device=device)
        np.testing.assert_allclose(plain(graph.distances(1, ALL)), distances(R1, "local_scaling", other), rtol=1e-9)
        np.testing.assert_allclose(plain(graph.distances(0, ALL)), distances(R0, "local_scaling"), rtol=1e-9)


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("symmetrize", ["affinity", "ranks"])
def test_guidance_pushes_pairs_with_different_labels_apart(symmetrize, device):
    R0, R1 = pair()
    rng = np.random.default_rng(1)
    labels = [rng.integers(0, 3, 40), rng.choice(["x", "y"], 40)]
    graph = DifferenceGraph(
        R0, R1, labels0=labels[0], labels1=labels[1], gamma=0.1, symmetrize=symmetrize, dtype="float64", device=device
    )
    D = []
    for R, one in zip((R0, R1), labels, strict=True):
        rank = distances(R, "neighborhood")
        rank[one[:, None] != one[None]] = 5 * 39
        D.append((rank + rank.T) / 2 if symmetrize == "ranks" else rank)
    expected = np.tanh(0.1 * (D[1] - D[0]) / (1 + np.minimum(*D)))
    np.testing.assert_allclose(plain(graph.difference(ALL)), expected, atol=1e-12)
    split_by_both = (labels[0][:, None] != labels[0]) & (labels[1][:, None] != labels[1])
    assert (plain(graph.difference(ALL))[split_by_both] == 0).all()


def test_symmetrised_ranks_give_a_symmetric_affinity():
    matrix = DifferenceGraph(*pair(), symmetrize="ranks").affinity().matrix
    np.testing.assert_array_equal(matrix, matrix.T)


def test_above_the_reference_size_ranks_are_counted_in_larger_units():
    R0, R1 = pair()
    p, q = distances(R0, "neighborhood") / 4, distances(R1, "neighborhood") / 4
    graph = DifferenceGraph(R0, R1, gamma=0.1, reference_n=10, dtype="float64")
    np.testing.assert_allclose(graph.difference(ALL), np.tanh(0.1 * (q - p) / (1 + np.minimum(p, q))), atol=1e-12)
    for published in (40, 5000, None):
        same = DifferenceGraph(R0, R1, gamma=0.1, reference_n=published, dtype="float64").difference(ALL)
        np.testing.assert_array_equal(same, DifferenceGraph(R0, R1, dtype="float64").difference(ALL))


def test_slope_of_the_original_code():
    assert DifferenceGraph(*pair(), gamma=None).gamma == 80 / 40
    assert DifferenceGraph(*pair(), gamma=None, gamma_scale=20).gamma == 0.5


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("symmetrize", ["affinity", "ranks"])
@pytest.mark.parametrize("normalize", [False, True])
def test_block_size_changes_nothing(device, symmetrize, normalize):
    options = {"symmetrize": symmetrize, "normalize": normalize, "device": device}
    R0, R1 = pair(n=67)
    expected = plain(DifferenceGraph(R0, R1, **options).affinity().matrix)
    for rows in (1, 10, 66):
        found = DifferenceGraph(R0, R1, block_rows=rows, **options).affinity().matrix
        np.testing.assert_array_equal(plain(found), expected)


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_views_of_the_affinity(direction, device, monkeypatch):
    monkeypatch.setattr("rdxcli.methods.difference.graph.TILE", 16)  # several tiles, the last one smaller
    affinity = DifferenceGraph(*pair(), dtype="float64", device=device).affinity()
    A = plain(affinity.matrix)
    A = A if direction == "10" else 1 / A
    W = (A + A.T) / 2
    np.fill_diagonal(W, 0.0)
    np.testing.assert_allclose(plain(affinity.symmetric(direction)), W)
    lower = np.tril(A) + np.tril(A, -1).T
    np.testing.assert_allclose(plain(affinity.symmetric(direction, lower=True)), lower)
    buffer = torch.empty(40, 40, dtype=torch.float64) if device == "torch" else np.empty((40, 40))
    assert affinity.symmetric(direction, buffer) is buffer
    rows, columns = np.array([[3], [5]]), np.array([[1, 2, 39]])
    np.testing.assert_allclose(affinity.take(direction, rows, columns), A[rows, columns])
    labels = np.arange(40) % 3
    same = labels[:, None] == labels
    np.testing.assert_allclose(affinity.within(direction, labels), (A * same).sum(1) / same.sum(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "cosine"}, "Got similarity='cosine', expected one of"),
        ({"difference": "ratio"}, "Got difference='ratio'"),
        ({"symmetrize": "both"}, "Got symmetrize='both'"),
        ({"dtype": "float16"}, "Got dtype='float16'"),
        ({"beta": 0}, "Got beta=0, expected a positive number"),
        ({"gamma": float("nan")}, "Got gamma=nan"),
        ({"gamma": None, "gamma_scale": -1}, "Got gamma_scale=-1"),
        ({"reference_n": 0}, "Got reference_n=0"),
        ({"labels0": np.zeros(40)}, "labels for one model only"),
        ({"labels0": np.zeros(39), "labels1": np.zeros(40)}, r"labels of shape \(39,\)"),
        ({"labels0": np.zeros(40), "labels1": np.zeros(40), "similarity": "max_normalized"}, "guidance acts on ranks"),
        ({"similarity": "local_scaling", "sigma": 40}, "expected at least 41"),
        ({"similarity": "local_scaling", "symmetrize": "ranks"}, "symmetrize='ranks'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DifferenceGraph(*pair(), **options)
