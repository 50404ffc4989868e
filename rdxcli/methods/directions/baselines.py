"""Simple ways to find directions, with the interface of `eddp.EDDP`.

None of them is told what a concept is. Encoding and decoding directions are what each method means by them: principal
axes both ways for PCA, rows of H and of its pseudo-inverse for NMF, mixing and unmixing for ICA, centred centres and
their pseudo-inverse for k-means, single channels for the natural basis. Signs are turned so that outputs are skewed
to the positive side; detectors fire on the ``1 / I`` of the positions with the largest outputs.

Cost: one decomposition of the positions (P, D); ``most`` bounds P.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from rdxcli.numerics.seeding import generator, integer_seed
from rdxcli.parameters import Count
from rdxcli.progress import human_count

from .base import Array, Directions
from .features import FeatureSpace, as_maps, positions


class _Baseline(Directions):
    """Shared work of the baselines.

    Parameters
    ----------
    random_state : int
        Seed.
    most : int
        Positions used at most, a random choice.
    """

    def __init__(self, n_directions: Count = 16, *, random_state: int = 0, most: Count = 100_000) -> None:
        self.n_directions = n_directions
        self.random_state = random_state
        self.most = most

    def fit(self, features: Array | Tensor, head: Any = None) -> Self:
        """Find directions; ``head`` is not used.

        Raises `ValueError` (features that cannot be used, or more directions than the features have dimensions).

        Parameters
        ----------
        features : array, shape (N, D, H, W) or (N, D)
        """
        self.notes_ = []
        X = as_maps(features)
        FeatureSpace.of(X, self.n_directions, None)
        x = positions(X).double().numpy()
        mean = x.mean(0)
        name = type(self).__name__
        if len(x) > self.most:
            x = x[np.sort(generator(self.random_state, name).choice(len(x), self.most, replace=False))]
            self.notes_.append(f"used {human_count(self.most, 'random position')}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            encoding, decoding = self._pairs(x, integer_seed(self.random_state, name))
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            self.notes_.append("the decomposition stopped before it converged")
        out = (x - mean) @ decoding.T
        sign = np.where((out**3).sum(0) < 0, -1.0, 1.0)
        out = out * sign
        encoding, decoding = encoding * sign[:, None], decoding * sign[:, None]
        bias = np.quantile(out, 1 - 1 / self.n_directions, axis=0)
        self._store(encoding, decoding, bias + decoding @ mean, 0.25 * out.std(0), mean)
        return self

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        raise TypeError("a baseline defines _pairs")


class PCADirections(_Baseline):
    """Principal axes."""

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        solver = "covariance_eigh" if x.shape[1] <= len(x) else "full"
        axes = PCA(self.n_directions, svd_solver=solver).fit(x).components_
        return axes, axes


class ICADirections(_Baseline):
    """Independent components (FastICA, logcosh)."""

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        ica = FastICA(self.n_directions, whiten="unit-variance", random_state=seed, max_iter=500).fit(x)
        return ica.mixing_.T, ica.components_


class NMFDirections(_Baseline):
    """Non-negative factors; negative features are shifted to 0 channel by channel first."""

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        low = x.min(0)
        if (low < 0).any():
            self.notes_.append(
                "features have negative values; each channel was shifted so that its smallest value is 0"
            )
        H = (
            NMF(self.n_directions, init="nndsvda", random_state=seed, max_iter=400)
            .fit(x - np.minimum(low, 0))
            .components_
        )
        if not (np.linalg.norm(H, axis=1) > 0).all():
            raise ValueError(
                f"Got a factor of zeros from NMF, expected fewer than {human_count(self.n_directions, 'direction')}"
            )
        return H, np.linalg.pinv(H).T


class KMeansDirections(_Baseline):
    """Centres of k-means, relative to the mean."""

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        centres = KMeans(self.n_directions, n_init=10, random_state=seed).fit(x).cluster_centers_ - x.mean(0)
        # Centred centres are dependent when clusters are balanced; the pseudo-inverse then gives the shortest filters.
        return centres, np.linalg.pinv(centres, rcond=1e-6).T


class NaturalBasis(_Baseline):
    """The channels with the largest variance."""

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        chosen = np.sort(np.argsort(-x.var(0), kind="stable")[: self.n_directions])
        axes = np.zeros((len(chosen), x.shape[1]))
        axes[np.arange(len(chosen)), chosen] = 1.0
        return axes, axes


class RandomDirections(_Baseline):
    """Random unit vectors, the floor of every comparison."""

    def _pairs(self, x: Array, seed: int) -> tuple[Array, Array]:
        axes = generator(self.random_state, "random directions").standard_normal((self.n_directions, x.shape[1]))
        return axes, axes


BASELINES: dict[str, type[_Baseline]] = {
    "pca": PCADirections,
    "nmf": NMFDirections,
    "ica": ICADirections,
    "kmeans": KMeansDirections,
    "natural": NaturalBasis,
    "random": RandomDirections,
}
"""Baselines by command-line name."""
