"""How alike two representations are as a whole, for orientation beside the concepts.

Symbols: R0 (n, d0), R1 (n, d1); K, L (n, n) kernel matrices.

References: Kornblith et al., ICML 2019 (CKA); Song et al., JMLR 2012 (debiased HSIC); Huh et al., ICML 2024 (mutual
nearest neighbours); Kriegeskorte et al., 2008 (RSA).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import scipy
from rdxcli.methods.difference.enrichment import midranks
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.significance import neighbour_disagreement
from rdxcli.numerics.seeding import generator

KNN_ROWS = 5000
RSA_ROWS = 1000


def rbf_cka(
    R0: ArrayLike, R1: ArrayLike, *, sigma2: float | None = None, debiased: bool = True, middle: str = "lower"
) -> float:
    """Centred kernel alignment with Gaussian kernels exp(-d^2 / (2 sigma2)).

    Raises `ValueError` (unusable input, fewer than four images (debiased), or ``sigma2`` not positive).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    sigma2 : float, optional
        Squared width for both; None takes the median of the non-zero squared distances of each.
    middle : {"lower", "mean"}
        Median of an even number of distances: the lower of the two middle values, or their mean.

    Notes
    -----
    O(n^2) memory.
    """
    if middle not in ("lower", "mean"):
        raise ValueError(f"Got middle={middle!r}, expected 'lower' or 'mean'")
    if sigma2 is not None and not sigma2 > 0:
        raise ValueError(f"Got sigma2={sigma2!r}, expected a positive number")
    kernels = []
    for R in check_pair(R0, R1, minimum_rows=4 if debiased else 2):
        squared = scipy.spatial.distance.pdist(R, "sqeuclidean")
        width = sigma2
        if width is None:
            positive = np.sort(squared[squared > 0])
            count = len(positive)
            low, high = positive[(count - 1) // 2], positive[count // 2]
            width = float(low if middle == "lower" else (low + high) / 2)
        kernels.append(scipy.spatial.distance.squareform(np.exp(-squared / (2.0 * width))) + np.eye(len(R)))
    K, L = (_centre_debiased(kernel) if debiased else _centre(kernel) for kernel in kernels)
    first, second = float((K * K).sum()), float((L * L).sum())
    if not (first > 0.0 and second > 0.0):
        raise ValueError("Got a representation without any structure, expected rows that differ")
    return float((K * L).sum() / np.sqrt(first * second))


def _centre(K: np.ndarray) -> np.ndarray:
    """H K H."""
    mean = K.mean(axis=0)
    return K - mean - mean[:, None] + mean.mean()


def _centre_debiased(K: np.ndarray) -> np.ndarray:
    """U-centring: zero diagonal, means over the off-diagonal entries taken out, zero diagonal again."""
    n = len(K)
    K = K.copy()
    np.fill_diagonal(K, 0.0)
    mean = K.sum(axis=0) / (n - 2)
    mean -= mean.sum() / (2 * (n - 1))
    K -= mean + mean[:, None]
    np.fill_diagonal(K, 0.0)
    return K


def mutual_neighbours(R0: ArrayLike, R1: ArrayLike, *, k: int = 10, random_state: int = 0) -> float:
    """Mean share of the k nearest neighbours that an image has in both representations, in [0, 1].

    At most 5,000 images drawn at random are used; k is at most n - 1.
    """
    R0, R1 = check_pair(R0, R1)
    rows = _rows(len(R0), KNN_ROWS, random_state, "mutual-knn")
    return 1.0 - neighbour_disagreement(R0[rows], R1[rows], min(k, len(rows) - 1))


def rsa(R0: ArrayLike, R1: ArrayLike, *, random_state: int = 0) -> float:
    """Spearman correlation of the Euclidean distances between all pairs of at most 1,000 images drawn at random.

    Raises `ValueError` (fewer than three images, or distances that do not vary).
    """
    R0, R1 = check_pair(R0, R1, minimum_rows=3)
    rows = _rows(len(R0), RSA_ROWS, random_state, "rsa")
    order = [midranks(scipy.spatial.distance.pdist(np.asarray(R[rows], dtype=np.float64))) for R in (R0, R1)]
    first, second = (values - values.mean() for values in order)
    scale = float(np.sqrt((first @ first) * (second @ second)))
    if scale == 0.0:
        raise ValueError("Got equal distances between all images, expected distances that differ")
    return float(first @ second / scale)


def _rows(n: int, most: int, random_state: int, name: str) -> np.ndarray:
    return np.sort(generator(random_state, "similarity", name).permutation(n)[: min(n, most)])
