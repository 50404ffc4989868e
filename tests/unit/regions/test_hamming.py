"""Packed bits against the same thing on plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.numerics import hamming


def bits(n: int, m: int, seed: int = 0, p: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random((n, m)) < p


def naive_nearest(B: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distance = (B[rows][:, None, :] != B).sum(axis=2)
    index = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(distance, index, axis=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 200), st.integers(0, 5))
def test_pack_and_back(n: int, m: int, seed: int) -> None:
    B = bits(n, m, seed)
    words = hamming.pack(B)
    assert words.shape == (n, -(-m // 64))
    assert words.dtype == np.uint64
    np.testing.assert_array_equal(hamming.unpack(words, m), B)
    np.testing.assert_array_equal(hamming.pack(B.astype(int) * 3), words)
    np.testing.assert_array_equal(hamming.pack(np.asfortranarray(B)), words)
    np.testing.assert_array_equal(hamming.column_counts(words, m), B.sum(axis=0))
    index = np.arange(m)[::-3]
    np.testing.assert_array_equal(hamming.take_columns(words, index), B[:, index])


def test_bit_order_is_fixed() -> None:
    """Stored words mean the same on every machine."""
    B = np.zeros((1, 70), dtype=bool)
    B[0, [0, 3, 63, 64, 69]] = True
    assert hamming.pack(B).tolist() == [[1 | 8 | 1 << 63, 1 | 1 << 5]]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (300, 64), (40, 5000), (3000, 130)])
def test_distances(n: int, m: int) -> None:
    B = bits(n, m)
    words = hamming.pack(B)
    expected = (B[n // 2] != B).sum(axis=1)
    np.testing.assert_array_equal(hamming.distances(words, words[n // 2]), expected)
    np.testing.assert_array_equal(hamming.distances(np.ascontiguousarray(words), words[n // 2]), expected)


@pytest.mark.parametrize("m", [1, 64, 4096, 4097, 9000])
def test_pairs_are_exact_across_chunks_of_bits(m: int) -> None:
    A, B = bits(5, m, 1), bits(7, m, 2)
    expected = (A[:, None, :] != B).sum(axis=2)
    np.testing.assert_array_equal(hamming.pairs(hamming.pack(A), hamming.pack(B), m), expected)


@pytest.mark.parametrize("strategy", ["xor", "product", "auto"])
@pytest.mark.parametrize("k", [1, 5, 90])
def test_nearest_with_many_ties(strategy: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bits, so that nearly every distance ties; small blocks, so that ties cross their borders."""
    monkeypatch.setattr(hamming, "QUERIES", 13)
    monkeypatch.setattr(hamming, "COLUMNS", 7)
    B = bits(90, 6)
    rows = np.arange(90)[::-1]
    index, distance = hamming.nearest(hamming.pack(B), 6, rows, k, strategy=strategy)
    expected = naive_nearest(B, rows, k)
    np.testing.assert_array_equal(index, expected[0])
    np.testing.assert_array_equal(distance, expected[1])


def test_both_strategies_without_the_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 1.26 has no bitwise_count."""
    B = bits(60, 300)
    words = hamming.pack(B)
    expected = hamming.nearest(words, 300, np.arange(60), 9)
    monkeypatch.setattr(hamming, "_HAS_COUNT", False)
    assert hamming.popcount(np.array([[0, 2**64 - 1], [1, 2**63]], dtype=np.uint64)).tolist() == [[0, 64], [1, 1]]
    for strategy in ("xor", "product"):
        found = hamming.nearest(words, 300, np.arange(60), 9, strategy=strategy)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_smallest_is_a_stable_sort() -> None:
    values = np.array([3, 1, 2, 1, 3, 1, 0])
    for k in range(1, 8):
        np.testing.assert_array_equal(hamming.smallest(values, k), np.argsort(values, kind="stable")[:k])


def test_agreement() -> None:
    B = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 1]], dtype=bool)
    on, off = hamming.agreement(hamming.pack(B), 4)
    assert on.tolist() == [True, False, False, False]
    assert off.tolist() == [False, True, False, False]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 12), st.integers(0, 3))
def test_rules(seed: int, t: int, tolerance: int) -> None:
    rng = np.random.default_rng(seed)
    B = bits(80, 150, seed)
    index, states = rng.permutation(150)[:t], rng.random(t) < 0.5
    words = hamming.pack(B)
    mismatches = (B[:, index] != states).sum(axis=1)
    np.testing.assert_array_equal(hamming.rule_mismatches(words, index, states), mismatches)
    np.testing.assert_array_equal(
        hamming.rule_matches(words, index, states, tolerance), np.flatnonzero(mismatches <= tolerance)
    )


@pytest.mark.parametrize("k", [0, 11])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=f"Got k={k}, expected between 1 and"):
        hamming.nearest(hamming.pack(bits(10, 5)), 5, np.arange(2), k)


def test_unknown_strategy() -> None:
    with pytest.raises(ValueError, match="strategy='fast'"):
        hamming.nearest(hamming.pack(bits(10, 5)), 5, np.arange(2), 3, strategy="fast")
