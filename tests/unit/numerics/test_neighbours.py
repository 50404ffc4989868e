"""Ranks and neighbours against a second derivation in plain NumPy, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.numerics.neighbours import (
    Points,
    largest_distance,
    nearest,
    nth_distance,
    rank_dtype,
    ranks,
    resolve_device,
    row_blocks,
)

WAYS = [
    pytest.param({"exact": False, "device": "cpu"}, id="product"),
    pytest.param({"exact": True, "device": "cpu"}, id="differences"),
    pytest.param({"exact": False, "device": "torch"}, id="torch-product"),
    pytest.param({"exact": True, "device": "torch"}, id="torch-differences"),
]


def plain(values) -> np.ndarray:
    return np.asarray(values)


def by_hand(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and ranks from the definition: sort (distance, not self, index)."""
    n = len(X)
    E = np.array([[np.sqrt(((X[i] - X[j]) ** 2).sum()) for j in range(n)] for i in range(n)])
    D = np.empty((n, n), dtype=int)
    for i in range(n):
        for position, j in enumerate(sorted(range(n), key=lambda j, i=i: (E[i, j], j != i, j))):
            D[i, j] = position
    return E, D


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 1), (40, 3), (33, 50)])
def test_distances_and_ranks_follow_their_definition(way, n, d):
    X = np.random.default_rng(n + d).normal(size=(n, d))
    E, D = by_hand(X)
    points = Points(X, **way)
    np.testing.assert_allclose(plain(points.distances(slice(None))), E, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(plain(ranks(points, slice(None))), D)
    rows = np.array([n - 1, 0])
    np.testing.assert_array_equal(plain(ranks(points, rows)), D[rows])
    columns = np.array([0, n - 1, n // 2])
    np.testing.assert_allclose(plain(points.distances(rows, columns)), E[rows][:, columns], rtol=1e-9, atol=1e-9)
    assert largest_distance(points) == pytest.approx(E.max())


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_integer_points_with_ties_and_duplicates(way, data):
    """On a lattice distances are exact, so every way must break ties alike: self first, then by index."""
    n, d = data.draw(st.integers(2, 25)), data.draw(st.integers(1, 3))
    X = np.array(data.draw(st.lists(st.lists(st.integers(-3, 3), min_size=d, max_size=d), min_size=n, max_size=n)))
    if (X[0] == X).all():
        X[0] += 1
    np.testing.assert_array_equal(plain(ranks(Points(X, **way), slice(None))), by_hand(X.astype(float))[1])


@pytest.mark.parametrize("exact", [False, True])
def test_duplicates_are_at_distance_zero_and_self_comes_first(exact):
    base = np.random.default_rng(0).normal(size=(6, 200)) * 1e3 + 1e5
    X = base[np.array([0, 1, 0, 2, 3, 0, 4, 5])]
    points = Points(X, exact=exact)
    assert points.distances(np.array([0]))[0, [0, 2, 5]].tolist() == [0.0, 0.0, 0.0]
    found = ranks(points, slice(None))
    assert np.diag(found).tolist() == [0] * 8
    assert found[5, [0, 2]].tolist() == [1, 2]
    assert found[2, [0, 5]].tolist() == [1, 2]


@pytest.mark.parametrize("way", WAYS)
def test_a_large_common_offset_does_not_matter(way):
    """Trap T4: in float32 without centring nearly all ranks would be wrong here."""
    X = np.random.default_rng(1).normal(size=(80, 64)) * 0.02
    expected = plain(ranks(Points(X, exact=True), slice(None)))
    np.testing.assert_array_equal(plain(ranks(Points(X + 40.0, **way), slice(None))), expected)


@pytest.mark.parametrize("scale", [1e-160, 1e-12, 1.0, 1e12, 1e160])
def test_ranks_do_not_depend_on_the_scale(scale):
    X = np.random.default_rng(2).normal(size=(30, 5))
    expected = ranks(Points(X), slice(None))
    for exact in (False, True):
        np.testing.assert_array_equal(ranks(Points(X * scale, exact=exact), slice(None)), expected)
    np.testing.assert_allclose(
        Points(X * scale).distances(slice(None)) / scale, Points(X).distances(slice(None)), rtol=1e-9, atol=1e-12
    )


def test_ranks_do_not_depend_on_rotation_and_follow_a_permutation():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(50, 8))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    expected = ranks(Points(X), slice(None))
    np.testing.assert_array_equal(ranks(Points(X @ rotation + 3.0), slice(None)), expected)
    order = rng.permutation(50)
    np.testing.assert_array_equal(ranks(Points(X[order]), slice(None)), expected[order][:, order])


@pytest.mark.parametrize("exact", [False, True])
def test_blocks_give_the_same_rows(exact):
    X = np.random.default_rng(4).normal(size=(101, 17)).astype(np.float32)
    points = Points(X, exact=exact)
    whole = ranks(points, slice(None))
    for step in (1, 7, 64):
        parts = [ranks(points, rows) for rows in row_blocks(101, 101, step)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("k", [1, 4, 12])
def test_nearest(way, k):
    X = np.random.default_rng(5).integers(0, 4, size=(20, 2)).astype(float)
    order = np.argsort(by_hand(X)[1], axis=1)
    points = Points(X, **way)
    np.testing.assert_array_equal(nearest(points, k), order[:, :k])
    np.testing.assert_array_equal(nearest(points, k, np.array([3, 1])), order[[3, 1], :k])
    members = np.array([2, 3, 5, 7, 8, 11, 13, 14, 15, 16, 17, 19])
    inside = np.argsort(by_hand(X[members])[1], axis=1)
    np.testing.assert_array_equal(nearest(points, k, members=members), inside[:, :k])


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("n", [511, 512, 700])
def test_nearest_of_many_points_are_the_first_ranks(n, decimals):
    """Above some hundreds of columns only a few are sorted; many ties, and equal rows, must not be lost by that."""
    X = np.random.default_rng(n).standard_normal((n, 2)).round(decimals)
    points, rows = Points(X), np.array([0, 5, n - 1])
    first = np.argsort(ranks(points, rows), axis=1)
    for k in (1, 11, 60, n):
        np.testing.assert_array_equal(nearest(points, k, rows), first[:, :k])


def test_nearest_refuses_more_neighbours_than_points():
    with pytest.raises(ValueError, match="Got k=4, expected between 1 and"):
        nearest(Points(np.eye(3)), 4)


@pytest.mark.parametrize("way", WAYS)
def test_distance_to_the_nth_neighbour(way):
    X = np.random.default_rng(6).normal(size=(25, 3))
    E = by_hand(X)[0]
    np.testing.assert_allclose(nth_distance(Points(X, **way), 7), np.sort(E, axis=1)[:, 7], rtol=1e-9)
    duplicated = np.vstack([np.zeros((10, 2)), [[3.0, 4.0]]])
    np.testing.assert_allclose(nth_distance(Points(duplicated, **way), 7), [5.0] * 11)
    with pytest.raises(ValueError, match="Got n=5 rows, expected at least 8"):
        nth_distance(Points(X[:5], **way), 7)


def test_small_types_and_devices():
    assert rank_dtype(32_768) is np.int16
    assert rank_dtype(32_769) is np.int32
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("mps") == "cpu"
    with pytest.raises(ValueError, match="Got device 'tpu'"):
        resolve_device("tpu")


def test_constant_points_are_recognised():
    assert Points(np.full((4, 3), 1e9)).constant
    assert not Points(np.eye(3)).constant
