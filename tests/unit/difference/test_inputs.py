"""What is accepted as a pair of representations."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.inputs import check_pair, check_representation

GOOD = np.arange(12.0).reshape(6, 2)


def broken(value: float) -> np.ndarray:
    X = GOOD.copy()
    X[4, 1] = value
    return X


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GOOD[0], r"Got an array of shape \(2,\), expected \(n, d\)"),
        (GOOD[:1], "Got 1 row, expected at least 2"),
        (GOOD[:, :0], "Got no columns"),
        (broken(np.nan), r"NaN or infinite values in 1 of 6 rows \(first: row 4\)"),
        (broken(np.inf), "NaN or infinite values"),
        (np.ones((6, 2)), "Got 6 equal rows"),
        (GOOD.astype(complex), "Got values of type complex128"),
        (np.array([["a"], ["b"]]), "expected real numbers"),
    ],
)
def test_unusable_representations(given, message):
    with pytest.raises(ValueError, match=message):
        check_representation(given, "a")


def test_different_numbers_of_rows():
    with pytest.raises(ValueError, match="Got 6 rows in a and 5 in b, expected the same samples in both"):
        check_pair(GOOD, GOOD[:5], ("a", "b"))


@pytest.mark.parametrize("kind", ["float16", "int8", "uint8", "bool", ">f8"])
def test_other_number_types_become_float64(kind):
    X = np.array([[0, 1], [1, 0], [1, 1]]).astype(kind)
    found = check_representation(X)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, X.astype(float))


def test_float32_is_not_copied():
    X = GOOD.astype(np.float32)
    assert check_representation(X) is X
