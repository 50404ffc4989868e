"""Spectral clustering of a dense affinity matrix without factorising it.

Symbols: W (n, n) symmetric non-negative weights with a zero diagonal; D diagonal matrix of its row sums; M = D^-1/2 W
D^-1/2; L = I - M the symmetric normalised Laplacian. The k smallest eigenvectors of L are the k largest of M, and the
largest of all, D^1/2 1 with eigenvalue 1, is known. The others are found by Lanczos iteration with implicit restarts
(ARPACK), where W only takes part in products with a vector: O(n^2) per step, memory O(n k) beside W.

References: von Luxburg, "A tutorial on spectral clustering" (2007); Lehoucq, Sorensen and Yang, "ARPACK users' guide"
(1998). The embedding and the k-means step follow scikit-learn's ``SpectralClustering``: eigenvectors divided by the
square root of the degree, rows not normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from rdxcli.lazy import torch
from rdxcli.numerics.neighbours import to_numpy
from rdxcli.numerics.threads import single_thread

Array = Any  # numpy array on the CPU, torch tensor on another device
Product = Callable[[np.ndarray], np.ndarray]

SMALL = 4096  # below this n one thread does a product faster than it wakes the others
DENSE_BELOW = 200  # up to this n a full eigendecomposition takes milliseconds
BATCH_ELEMENTS = 2**21  # distances that k-means holds at one time
TRIAL_STEPS = 8  # of k-means, after which only the best runs go on
FINALISTS = 8


@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenpairs of a symmetric operator.

    Attributes
    ----------
    values : (k,) float64, descending
    vectors : (n, k) float64, orthonormal columns
    residual : float
        Largest norm of ``M v - value v``.
    """

    values: np.ndarray
    vectors: np.ndarray
    residual: float


def leading_eigenpairs(
    product: Product,
    n: int,
    k: int,
    rng: np.random.Generator,
    *,
    tolerance: float = 1e-5,
    dtype: str | np.dtype = "float64",
) -> Eigenpairs:
    """The ``k`` algebraically largest eigenpairs of a symmetric operator.

    Raises `ValueError` (k is not between 1 and n).

    Parameters
    ----------
    product : callable
        ``(n, b) -> (n, b)`` multiplication by the operator, in ``dtype``.
    rng : numpy Generator
        Gives the start vector.
    tolerance : float
        Relative accuracy of the eigenvalues. Where it is not reached in 10 n steps, as much accuracy as can be had.
    dtype : {"float32", "float64"}
    """
    if not 1 <= k <= n:
        raise ValueError(f"Got k={k}, expected between 1 and {n}")
    with single_thread() if n < SMALL else nullcontext():
        if n <= DENSE_BELOW or k >= n - 1:
            whole = product(np.eye(n, dtype=dtype)).astype(np.float64)
            values, vectors = np.linalg.eigh((whole + whole.T) / 2)
        else:
            values, vectors = _lanczos(product, n, k, rng, tolerance, np.dtype(dtype))
        values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
        rest = product(vectors.astype(dtype)) - vectors * values
    return Eigenpairs(values, vectors, float(np.linalg.norm(rest, axis=0).max()))


def _lanczos(
    product: Product, n: int, k: int, rng: np.random.Generator, tolerance: float, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending values and orthonormal vectors, float64."""
    operator = LinearOperator((n, n), matvec=lambda x: product(x.reshape(n, 1))[:, 0], dtype=dtype)
    start = rng.standard_normal(n).astype(dtype)
    while True:
        try:
            values, vectors = eigsh(operator, k, which="LA", v0=start, tol=tolerance)
        except ArpackNoConvergence:
            if tolerance > 0.1:
                raise
            tolerance *= 100.0
        else:
            order = np.argsort(values)
            return values[order].astype(np.float64), np.linalg.qr(vectors[:, order].astype(np.float64))[0]


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
    scaled = _scaled_product(W, 1.0 / root)

    def deflated(block: np.ndarray) -> np.ndarray:
        """The known eigenvalue is moved from 1 to -2, below all others."""
        return np.asarray(scaled(block) - 3.0 * first @ (first.T @ block), dtype=block.dtype)

    single = W.itemsize == 4
    pairs = leading_eigenpairs(
        deflated,
        n,
        k - 1,
        rng,
        tolerance=tolerance or (2e-5 if single else 1e-10),
        dtype="float32" if single else "float64",
    )
    vectors = np.hstack([first, pairs.vectors])
    return SpectralEmbedding(vectors / root[:, None], np.concatenate([[0.0], 1.0 - pairs.values]), pairs.residual)


def _scaled_product(W: Array, scale: np.ndarray) -> Product:
    """Multiplication by ``diag(scale) W diag(scale)`` with W in its own precision."""
    column = scale[:, None]
    if not isinstance(W, np.ndarray):

        def on_device(block: np.ndarray) -> np.ndarray:
            right = torch.as_tensor(column * block, device=W.device).to(W.dtype)
            return column * (W @ right).cpu().numpy().astype(np.float64)

        return on_device

    def on_host(block: np.ndarray) -> np.ndarray:
        return column * (W @ (column * block).astype(W.dtype))

    return on_host


def _row_sums(W: Array) -> np.ndarray:
    if not isinstance(W, np.ndarray):
        return to_numpy(W.sum(1, dtype=torch.float64))
    return W.sum(axis=1, dtype=np.float64)


def cluster(coordinates: np.ndarray, k: int, seed: int, restarts: int = 30) -> np.ndarray:
    """k-means labels of the embedded nodes: (n,) int64, every label in 0 .. k - 1 used unless points coincide.

    Parameters
    ----------
    coordinates : (n, d) float64
    restarts : int
        Runs from different k-means++ starts, of which the best is kept. scikit-learn's spectral clustering takes 10; on
        weakly clustered graphs two seeds then often end in different optima, and more restarts cost next to nothing:
        they run side by side.
    """
    rng = np.random.default_rng(seed)
    points = np.asarray(coordinates, dtype=np.float64) - np.mean(coordinates, axis=0)
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    together = max(1, min(restarts, BATCH_ELEMENTS // (len(points) * k)))
    with single_thread():
        for start in range(0, restarts, together):
            labels, inertia = lloyd(points, _plus_plus(points, k, min(together, restarts - start), rng))
            i = int(np.argmin(inertia))
            if inertia[i] < least:
                best, least = labels[i], float(inertia[i])
    return np.unique(best, return_inverse=True)[1].astype(np.int64)


def _plus_plus(points: np.ndarray, k: int, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Start centres of Arthur and Vassilvitskii (2007) for several runs: (runs, k, d)."""
    n = len(points)
    centres = np.empty((runs, k, points.shape[1]))
    centres[:, 0] = points[rng.integers(0, n, runs)]
    closest = np.full((runs, n), np.inf)
    for j in range(1, k):
        np.minimum(closest, _squared(points, centres[:, j - 1 : j])[:, 0], out=closest)
        total = np.cumsum(closest, axis=1)
        wanted = rng.random(runs) * total[:, -1]
        chosen = [int(np.searchsorted(row, value, side="right")) for row, value in zip(total, wanted, strict=True)]
        centres[:, j] = points[np.minimum(chosen, n - 1)]
    return centres


def lloyd(points: np.ndarray, centres: np.ndarray, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """k-means from given centres, several runs side by side.

    Parameters
    ----------
    points : (n, d) float64
    centres : (runs, k, d) float64
    most : int
        Largest number of steps. Of many runs only the best few go on after the first steps.

    Returns
    -------
    labels : (runs, n) int64
    inertia : (runs,) float64
        Sum of squared distances to the centres.
    """
    centres = centres.copy()
    runs, k, d = centres.shape
    n = len(points)
    labels = np.full((runs, n), -1, dtype=np.int64)
    inertia = np.empty(runs)
    active = np.arange(runs)
    norms = np.square(points).sum(axis=1)
    for step in range(most):
        squared = _squared(points, centres[active], norms)
        nearest = squared[:, 0].copy()
        fresh = np.zeros(nearest.shape, dtype=np.int64)
        for one in range(1, k):  # a loop over few clusters, each pass over all points, beats an argmin over few
            nearer = squared[:, one] < nearest
            fresh[nearer] = one
            np.minimum(nearest, squared[:, one], out=nearest)
        inertia[active] = nearest.sum(axis=1)
        moved = (fresh != labels[active]).any(axis=1)
        labels[active] = fresh
        if step == TRIAL_STEPS and runs > FINALISTS:  # the others end no better, with rare exceptions
            moved &= inertia[active] <= np.partition(inertia, FINALISTS - 1)[FINALISTS - 1]
        active, fresh = active[moved], fresh[moved]
        if not len(active):
            break
        place = (fresh + k * np.arange(len(active))[:, None]).ravel()
        sizes = np.bincount(place, minlength=len(active) * k).reshape(-1, k)
        for dimension in range(d):
            values = np.broadcast_to(points[:, dimension], fresh.shape).ravel()
            sums = np.bincount(place, weights=values, minlength=len(active) * k).reshape(-1, k)
            means = sums / np.maximum(sizes, 1)
            centres[active, :, dimension] = np.where(sizes > 0, means, centres[active, :, dimension])
    return labels, inertia


def _squared(points: np.ndarray, centres: np.ndarray, norms: np.ndarray | None = None) -> np.ndarray:
    """Squared distances of the centres of each run to all points: (runs, k, n)."""
    runs, k, d = centres.shape
    norms = np.square(points).sum(axis=1) if norms is None else norms
    products = (centres.reshape(runs * k, d) @ points.T).reshape(runs, k, len(points))
    products *= -2.0
    products += norms
    products += np.square(centres).sum(axis=2)[:, :, None]
    return np.maximum(products, 0.0, out=products)
