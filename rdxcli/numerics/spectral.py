"""Spectral clustering of a dense affinity matrix without factorising it.

Symbols: W (n, n) symmetric non-negative weights with a zero diagonal; D diagonal matrix of its row sums; M = D^-1/2 W
D^-1/2; L = I - M the symmetric normalised Laplacian. The k smallest eigenvectors of L are the k largest of M, and the
largest of all, D^1/2 1 with eigenvalue 1, is known. The others are found by Rayleigh-Ritz in a block Krylov space,
where W only takes part in products with a few vectors: O(n^2 b) per step, memory O(n m) beside W for a basis of m
vectors.

References: von Luxburg, "A tutorial on spectral clustering" (2007); Saad, "Numerical methods for large eigenvalue
problems" (2011), chapter 6. The embedding and the k-means step follow scikit-learn's ``SpectralClustering``:
eigenvectors divided by the square root of the degree, rows not normalised.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from rdxcli.numerics.threads import single_thread

Array = Any  # numpy array on the CPU, torch tensor on another device
Product = Callable[[np.ndarray], np.ndarray]

SMALL = 4096  # below this n one thread does a product faster than it wakes the others
DENSE_BELOW = 200  # up to this n a full eigendecomposition takes milliseconds


@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenpairs of a symmetric operator.

    Attributes
    ----------
    values : (k,) float64, descending
    vectors : (n, k) float64, orthonormal columns
    residual : float
        Largest norm of ``M v - value v``.
    products : int
        How many times the operator was applied to a block.
    """

    values: np.ndarray
    vectors: np.ndarray
    residual: float
    products: int


def leading_eigenpairs(
    product: Product,
    n: int,
    k: int,
    rng: np.random.Generator,
    *,
    known: np.ndarray | None = None,
    tolerance: float = 1e-5,
    guard: int = 4,
    max_basis: int = 96,
    max_products: int = 150,
) -> Eigenpairs:
    """The ``k`` algebraically largest eigenpairs of a symmetric operator, by thick-restarted block Krylov iteration.

    Parameters
    ----------
    product : callable
        ``(n, b) -> (n, b)`` multiplication by the operator.
    n, k : int
    rng : numpy Generator
        Gives the start block.
    known : (n, j) float64, optional
        Orthonormal eigenvectors to leave out.
    tolerance : float
        Stop when every wanted residual norm is below it. The operator should have norm about 1.
    guard : int
        Extra vectors in the block, which speed up the last wanted ones.
    max_basis : int
        Restart from the leading Ritz vectors when the basis would exceed this.
    max_products : int
        Give up (and return the best found, with its residual) after so many block products.

    Returns
    -------
    Eigenpairs
    """
    space = n if known is None else n - known.shape[1]
    if not 1 <= k <= space:
        raise ValueError(f"Got k={k}, expected between 1 and {space}")
    block = min(k + guard, space)
    max_basis = min(max(max_basis, 4 * block), space)
    products = 0
    basis = np.empty((n, 0))
    image = np.empty((n, 0))
    fresh = rng.standard_normal((n, block))
    with single_thread() if n < SMALL else nullcontext():
        while True:
            products += 1
            with single_thread():
                fresh = _orthonormal_against(fresh, basis, known)
            if fresh.shape[1]:
                basis = np.hstack([basis, fresh])
                image = np.hstack([image, product(fresh)])
            with single_thread():
                small = basis.T @ image
                values, rotation = np.linalg.eigh((small + small.T) / 2)
                values, rotation = values[::-1], rotation[:, ::-1]
                keep = min(block, len(values))
                ritz = basis @ rotation[:, :keep]
                rest = image @ rotation[:, :keep] - ritz * values[:keep]
                if known is not None:
                    rest -= known @ (known.T @ rest)
                norms = np.linalg.norm(rest, axis=0)
                enough = basis.shape[1] >= k
                done = norms[:k].max() <= tolerance or not fresh.shape[1] or basis.shape[1] >= space
                if enough and (done or products >= max_products):
                    break
                if basis.shape[1] + block > max_basis:
                    kept = min(2 * block, max_basis - block) if max_basis > block else block
                    basis, image = basis @ rotation[:, :kept], image @ rotation[:, :kept]
                fresh = rest / np.maximum(norms, np.finfo(float).tiny)
                if not enough:
                    fresh = np.hstack([fresh, rng.standard_normal((n, block))])
    return Eigenpairs(values[:k].copy(), ritz[:, :k], float(norms[:k].max()), products)


def _orthonormal_against(block: np.ndarray, basis: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Orthonormal basis of ``block`` minus its part in ``basis`` and ``known``; directions that vanish are dropped."""
    for _ in range(2):  # twice is enough (Kahan and Parlett)
        if known is not None:
            block = block - known @ (known.T @ block)
        if basis.shape[1]:
            block = block - basis @ (basis.T @ block)
        block, triangle = np.linalg.qr(block)
        size = np.abs(np.diag(triangle))
        block = block[:, size > 1e-10 * max(1.0, float(size.max(initial=0.0)))]
    return block


@dataclass(frozen=True)
class SpectralEmbedding:
    """Coordinates in which k-means separates the clusters.

    Attributes
    ----------
    coordinates : (n, k) float64
        The k smallest eigenvectors of L, the constant one first, each divided by the square root of the degree.
    eigenvalues : (k,) float64, ascending
        Of L; the first is 0.
    residual : float
        Largest residual norm of the eigenvectors.
    """

    coordinates: np.ndarray
    eigenvalues: np.ndarray
    residual: float


def spectral_embedding(
    W: Array, k: int, rng: np.random.Generator, *, tolerance: float | None = None
) -> SpectralEmbedding:
    """Embed the nodes of a dense weighted graph by the ``k`` smallest eigenvectors of its normalised Laplacian.

    Parameters
    ----------
    W : (n, n) float32 or float64 array or tensor
        Symmetric, non-negative, zero diagonal, positive row sums.
    k : int
        At most n.
    rng : numpy Generator
        Start vectors. The result depends on it only within the tolerance and the choice of basis inside an eigenspace.
    tolerance : float, optional
        Residual norm to reach: default 2e-5 for float32 (its products carry errors of about 1e-6), 1e-10 for float64.
    """
    n = len(W)
    if not 1 <= k <= n:
        raise ValueError(f"Got k={k}, expected between 1 and the number of nodes, {n}")
    degree = _row_sums(W)
    if not degree.min() > 0.0:
        raise ValueError("Got a node without any weight, expected a connected graph")
    root = np.sqrt(degree)
    first = (root / np.linalg.norm(root))[:, None]
    if k == 1:
        return SpectralEmbedding(first / root[:, None], np.zeros(1), 0.0)
    if n <= DENSE_BELOW:
        dense = _numpy(W).astype(np.float64) / (root[:, None] * root)
        dense -= 3.0 * (first @ first.T)  # moves the known eigenvalue from 1 to -2, below all others
        values, vectors = np.linalg.eigh(dense)
        pairs = Eigenpairs(values[::-1][: k - 1], vectors[:, ::-1][:, : k - 1], 0.0, 0)
    else:
        single = W.itemsize == 4
        pairs = leading_eigenpairs(
            _scaled_product(W, 1.0 / root),
            n,
            k - 1,
            rng,
            known=first,
            tolerance=tolerance or (2e-5 if single else 1e-10),
        )
    vectors = np.hstack([first, pairs.vectors])
    return SpectralEmbedding(vectors / root[:, None], np.concatenate([[0.0], 1.0 - pairs.values]), pairs.residual)


def _scaled_product(W: Array, scale: np.ndarray) -> Product:
    """Multiplication by ``diag(scale) W diag(scale)`` with W in its own precision."""
    column = scale[:, None]
    if isinstance(W, torch.Tensor):

        def on_device(block: np.ndarray) -> np.ndarray:
            right = torch.as_tensor(column * block, device=W.device).to(W.dtype)
            return column * (W @ right).cpu().numpy().astype(np.float64)

        return on_device

    def on_host(block: np.ndarray) -> np.ndarray:
        return column * (W @ (column * block).astype(W.dtype))

    return on_host


def _row_sums(W: Array) -> np.ndarray:
    if isinstance(W, torch.Tensor):
        return W.sum(1, dtype=torch.float64).cpu().numpy()
    return W.sum(axis=1, dtype=np.float64)


def _numpy(values: Array) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def cluster(coordinates: np.ndarray, k: int, seed: int, restarts: int = 30) -> np.ndarray:
    """k-means labels of the embedded nodes: (n,) int64, every label in 0 .. k - 1 used unless points coincide.

    Parameters
    ----------
    coordinates : (n, k) float64
    k : int
    seed : int
    restarts : int
        Runs from different k-means++ starts, of which the best is kept. scikit-learn's spectral clustering takes 10; on
        weakly clustered graphs two seeds then often end in different optima, and more restarts cost next to nothing.
    """
    with warnings.catch_warnings(), single_thread():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # fewer distinct points than clusters: reported by the caller
        labels = KMeans(k, n_init=restarts, random_state=seed).fit(coordinates).labels_
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
