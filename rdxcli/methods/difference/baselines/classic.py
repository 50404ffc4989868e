"""k-means, PCA, NMF, convex NMF and semi-NMF as comparison methods.

Symbols: X (n, d) one representation; U (n, k) coefficients; V (k, d) directions; G (n, k) weights of convex NMF.

References: Lee and Seung, Nature 1999 (NMF); Ding, Li and Jordan, "Convex and semi-nonnegative matrix factorizations",
IEEE TPAMI 2010 (convex and semi-NMF); specification of RDX, section 4.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn import cluster, decomposition
from sklearn.exceptions import ConvergenceWarning

from rdxcli.methods.difference.baselines.base import Baseline, check_dimensions
from rdxcli.numerics.seeding import generator, integer_seed
from rdxcli.parameters import Count, NonNegative
from rdxcli.progress import turns

TINY = 1e-9  # keeps the multiplicative updates away from 0 / 0


class KMeans(Baseline):
    """Clusters of each model; shown are the images of the whole set that are nearest to each cluster mean.

    Parameters
    ----------
    n_clusters : int, default 3
    num_samples : int, default 9
    n_init : int or "auto"
        Restarts; the published runs use the library's default, 1 with k-means++.
    random_state : int, default 0

    Attributes
    ----------
    centers_ : dict of str to (k, d) arrays
        Per direction.
    """

    def __init__(
        self, n_clusters: Count = 3, *, num_samples: Count = 9, n_init: int | str = "auto", random_state: int = 0
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.n_init = n_init
        self.random_state = random_state

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        seed = integer_seed(self.random_state, "kmeans", model)
        labels, centers = kmeans(R, self.n_clusters, seed, self.n_init)
        return labels + 1, nearest_to(R, centers, self.num_samples)


def kmeans(R: np.ndarray, k: int, seed: int, n_init: int | str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and the mean of each cluster (k, d)."""
    labels = cluster.KMeans(k, random_state=seed, n_init=n_init).fit_predict(R)
    return labels, np.stack([R[labels == c].mean(axis=0) for c in range(labels.max() + 1)])


def nearest_to(R: np.ndarray, centers: np.ndarray, count: int) -> list[np.ndarray]:
    """The ``count`` rows of ``R`` nearest to each centre, nearest first."""
    return [np.argsort(np.square(R - center).sum(axis=1), kind="stable")[:count] for center in centers]


class PCA(Baseline):
    """Principal components of each model; shown are the images with the largest positive scores.

    Parameters
    ----------
    n_clusters : int, default 3
        Number of components.
    num_samples : int, default 9
    random_state : int, default 0
    """

    def __init__(self, n_clusters: Count = 3, *, num_samples: Count = 9, random_state: int = 0):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.random_state = random_state

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        U, _ = pca(R, self.n_clusters, integer_seed(self.random_state, "pca", model))
        return self._from_coefficients(U)


def pca(R: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, k) and components (k, d); the sign is the library's, which is deterministic."""
    check_dimensions(k, R, "PCA")
    model = decomposition.PCA(k, random_state=seed)
    return model.fit_transform(R), model.components_


class NMF(Baseline):
    """Non-negative matrix factorisation of each model; needs non-negative features (pooled after a ReLU).

    Parameters
    ----------
    n_clusters : int, default 3
    num_samples : int, default 9
    max_iter : int, default 200
    tol : float, default 1e-4
    random_state : int, default 0
    """

    def __init__(
        self,
        n_clusters: Count = 3,
        *,
        num_samples: Count = 9,
        max_iter: Count = 200,
        tol: NonNegative = 1e-4,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        seed = integer_seed(self.random_state, "nmf", model)
        U, _ = nmf(R, self.n_clusters, seed, self.max_iter, self.tol)
        return self._from_coefficients(U)


def nmf(R: np.ndarray, k: int, seed: int, max_iter: int = 200, tol: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (n, k) and parts (k, d), both non-negative: nndsvda start, coordinate descent.

    Raises `ValueError` (negative features, or more parts than dimensions).
    """
    if R.min() < 0:
        raise ValueError(
            f"Got {(R < 0).mean():.1%} negative features, expected none: NMF needs features after a ReLU; "
            "cnmf and snmf do not"
        )
    check_dimensions(k, R, "NMF")

    model = decomposition.NMF(k, random_state=seed, max_iter=max_iter, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published runs stop at 200 iterations too
        U = model.fit(R).transform(R)  # as published: coefficients solved once more for the final parts
    return U, model.components_


class ConvexNMF(Baseline):
    """Convex NMF: directions are non-negative combinations of images, X ~ U (G^T X). Takes features of any sign.

    Parameters
    ----------
    n_clusters : int, default 3
    num_samples : int, default 9
    max_iter : int, default 100
        The original asks for 100 and runs 10, because its constructor ignores the number (trap T7).
    random_state : int, default 0
    """

    def __init__(self, n_clusters: Count = 3, *, num_samples: Count = 9, max_iter: Count = 100, random_state: int = 0):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.max_iter = max_iter
        self.random_state = random_state

    def matrix_bytes(self, n: int) -> int:
        """Bytes of the n x n matrix that a fit holds."""
        return 8 * n**2

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        assignment, _ = kmeans(R, self.n_clusters, integer_seed(self.random_state, "cnmf", model))
        U, _, _, _ = convex_nmf(R, assignment, self.n_clusters, self.max_iter)
        return self._from_coefficients(U)


def convex_nmf(
    X: np.ndarray, assignment: np.ndarray, k: int, max_iter: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Multiplicative updates of convex NMF from a cluster assignment.

    Parameters
    ----------
    X : (n, d) array
    assignment : (n,) int array
        Cluster of each row; U starts at onehot + 0.2, G at (onehot + 0.01) / size of the
        row's cluster.

    Returns
    -------
    U : (n, k), V : (k, d), G : (n, k), errors : (iterations,)
        ``errors`` are Frobenius norms of X - U V after each iteration.

    Notes
    -----
    With P and N the positive and negative parts of X X^T: U *= sqrt((P G + U G^T N G) / (N G + U G^T P G)), then
    G *= sqrt((P U + N G U^T U) / (N U + P G U^T U)) with P G and N G from the start of the iteration, as the original
    does. Holds one n x n matrix and passes over it twice per iteration.
    """
    positive = X @ X.T
    np.maximum(positive, 0.0, out=positive)

    def parts(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P M and N M = P M - X (X^T M), with one pass over the n x n matrix."""
        product = positive @ M
        return product, np.maximum(product - X @ (X.T @ M), 0.0)

    onehot = np.eye(k)[assignment]
    U = onehot + 0.2
    G = (onehot + 0.01) / np.bincount(assignment, minlength=k)[assignment][:, None]
    errors: list[float] = []
    for _ in turns("convex factors", max_iter, "iterations"):
        PG, NG = parts(G)
        U = U * np.sqrt((PG + U @ (G.T @ NG)) / (NG + U @ (G.T @ PG) + TINY))
        PU, NU = parts(U)
        inner = U.T @ U
        G = G * np.sqrt((PU + NG @ inner) / (NU + PG @ inner + TINY))
        errors.append(float(np.linalg.norm(X - U @ (G.T @ X))))
        if len(errors) > 1 and abs(errors[-2] - errors[-1]) / len(X) < np.finfo(float).eps:
            break
    return U, G.T @ X, G, np.array(errors)


class SemiNMF(Baseline):
    """Semi-NMF: non-negative coefficients, directions of any sign, X ~ U V.

    Parameters
    ----------
    n_clusters : int, default 3
    num_samples : int, default 9
    max_iter : int, default 100
    random_state : int, default 0
    """

    def __init__(self, n_clusters: Count = 3, *, num_samples: Count = 9, max_iter: Count = 100, random_state: int = 0):
        self.n_clusters = n_clusters
        self.num_samples = num_samples
        self.max_iter = max_iter
        self.random_state = random_state

    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        check_dimensions(self.n_clusters, R, "semi-NMF")
        rng = generator(self.random_state, "snmf", model)
        U, _ = semi_nmf(R, rng.uniform(size=(len(R), self.n_clusters)) + 1e-4, self.max_iter)
        return self._from_coefficients(U)


def semi_nmf(X: np.ndarray, U: np.ndarray, max_iter: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Alternate an exact least-squares basis and a multiplicative update of the coefficients.

    Parameters
    ----------
    X : (n, d) array
    U : (n, k) array
        Positive start.

    Returns
    -------
    U : (n, k), V : (k, d)
    """

    def parts(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.maximum(M, 0.0), np.maximum(-M, 0.0)

    V = np.empty((U.shape[1], X.shape[1]))
    for _ in turns("semi-negative factors", max_iter, "iterations"):
        V = np.linalg.pinv(U.T @ U) @ (U.T @ X)
        cross, inner = parts(X @ V.T), parts(V @ V.T)
        U = U * np.sqrt((cross[0] + U @ inner[1]) / (cross[1] + U @ inner[0] + TINY))
    return U, V
