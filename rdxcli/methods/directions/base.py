"""What every method that finds directions offers: pairs of directions, and reading features with them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rdxcli.methods.estimator import Estimator
from rdxcli.progress import human_count

from .features import as_maps, positions, to_maps
from .signals import positive_set

Array = np.ndarray

_BLOCK = 65_536


class Directions(Estimator):
    """Pairs of encoding and decoding directions and the detectors that go with them.

    A direction *encodes* (writes) a concept into the features and a filter *decodes* (reads) it. Detector i says
    "present" at a position when ``decoding_[i] . x > bias_[i]``. Methods derive from this class and set the attributes
    in ``fit``.

    Attributes
    ----------
    encoding_ : ndarray, shape (I, D), float64
        Unit signal vectors.
    decoding_ : ndarray, shape (I, D), float64
        Unit filters.
    bias_ : ndarray, shape (I,), float64
        Thresholds, in feature units.
    margin_ : ndarray, shape (I,), float64
        Distances from the threshold over which activation rises from 0.5 to 0.73, in feature units; positive.
    mean_ : ndarray, shape (D,), float64
        Mean feature of the data given to ``fit``.
    gain_ : ndarray, shape (I,), float64
        ``decoding_ . encoding_`` for direction pairs; what a step of one unit along a unit encoding direction counts as
        in `decode`.
    n_features_in_ : int
        D.
    notes_ : list of str
        Remarks that a person should read.
    """

    encoding_: Array
    decoding_: Array
    bias_: Array
    margin_: Array
    mean_: Array
    gain_: Array
    n_features_in_: int
    notes_: list[str]

    def fit(self, features: Array | Tensor, head: Any = None) -> Self:
        """Find directions in features (n, c, h, w) or (n, d)."""
        raise TypeError(f"{type(self).__name__} only holds directions that were already found")

    def _check(self, features: Array | Tensor) -> tuple[Tensor, bool]:
        X = as_maps(features)
        if X.shape[1] != self.decoding_.shape[1]:
            raise ValueError(
                f"Got features with {human_count(X.shape[1], 'channel')}, expected {self.decoding_.shape[1]}"
            )
        return X, features.ndim == 2

    def responses(self, features: Array | Tensor) -> Array:
        """Signed distances to the thresholds, ``decoding_ . x - bias_``.

        Parameters
        ----------
        features : array, shape (N, D, H, W) or (N, D)

        Returns
        -------
        ndarray, shape (N, I, H, W) or (N, I), float32
        """
        X, flat = self._check(features)
        W = torch.as_tensor(self.decoding_, dtype=torch.float32)
        centre = torch.as_tensor(self.mean_, dtype=torch.float32)
        offset = torch.as_tensor(self.decoding_ @ self.mean_ - self.bias_, dtype=torch.float32)
        out = to_maps((positions(X) - centre) @ W.T + offset, tuple(X.shape)).numpy()
        return out[:, :, 0, 0] if flat else out

    def detect(self, features: Array | Tensor) -> Array:
        """Where each concept is present: booleans of the shape of `responses`."""
        return self.responses(features) > 0

    def concept_maps(self, features: Array | Tensor) -> Array:
        """Activations ``sigmoid(response / margin)`` in [0, 1], float32, of the shape of `responses`."""
        out = self.responses(features)
        margin = self.margin_.astype(np.float32).reshape(1, -1, *[1] * (out.ndim - 2))
        return torch.sigmoid(torch.from_numpy(out / margin)).numpy()

    def decode(self, features: Array | Tensor) -> Array:
        """Signal values relative to their mean, ``decoding_ . (x - mean_) / gain_``.

        Returns
        -------
        ndarray, float32, of the shape of `responses`
            In feature units: adding ``encoding_[i]`` to a position raises value i by 1.
        """
        out = self.responses(features)
        shape = (1, -1, *[1] * (out.ndim - 2))
        offset = (self.decoding_ @ self.mean_ - self.bias_).reshape(shape)
        return ((out - offset) / self.gain_.reshape(shape)).astype(np.float32)

    def about(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What the method itself knows: an entry for each direction, and scores of all by name; plain data."""
        return [{} for _ in self.bias_], {}

    def health(self, features: Array | Tensor) -> dict[str, float | list[float]]:
        """Whether the detectors look sound on some features.

        Returns
        -------
        dict
            ``exactly_one``, ``none``, ``several``: shares of the positions with that many active detectors.
            ``share``: share of the positions each detector owns. ``orthogonality``: root mean square of ``w_i . s_j``
            over i != j.
        """
        active = np.moveaxis(self.detect(features), 1, -1).reshape(-1, len(self.bias_))
        count = active.sum(1)
        cosines = self.decoding_ @ self.encoding_.T
        off = cosines - np.diag(np.diag(cosines))
        return {
            "exactly_one": float((count == 1).mean()),
            "none": float((count == 0).mean()),
            "several": float((count > 1).mean()),
            "share": active.mean(0).tolist(),
            "orthogonality": float(np.sqrt((off**2).mean())),
        }

    @classmethod
    def of(
        cls,
        encoding: Array,
        decoding: Array,
        bias: Array,
        margin: Array | None = None,
        mean: Array | None = None,
        gain: Array | None = None,
    ) -> Directions:
        """Directions that were found before, for example read from a file.

        Parameters
        ----------
        encoding, decoding : ndarray, shape (I, D)
            Normalised here; ``bias`` and ``margin`` are divided by the length of their filter.
        bias : ndarray, shape (I,)
        margin : ndarray, shape (I,), optional
            Default 1.
        mean : ndarray, shape (D,), optional
            Default 0.
        gain : ndarray, shape (I,), optional
            For unit vectors; default ``decoding . encoding``.
        """
        self = Directions()
        encoding, decoding = np.asarray(encoding, np.float64), np.asarray(decoding, np.float64)
        bias = np.asarray(bias, np.float64)
        if encoding.ndim != 2 or encoding.shape != decoding.shape or bias.shape != (len(decoding),):
            raise ValueError(
                f"Got encoding {encoding.shape}, decoding {decoding.shape}, bias {bias.shape}, "
                "expected (I, D), (I, D), (I,)"
            )
        margin = np.ones(len(bias)) if margin is None else np.asarray(margin, np.float64)
        mean = np.zeros(encoding.shape[1]) if mean is None else np.asarray(mean, np.float64)
        if margin.shape != bias.shape or not (margin > 0).all() or mean.shape != (encoding.shape[1],):
            raise ValueError(f"Got margin {margin.shape}, mean {mean.shape}, expected positive (I,) and (D,)")
        self._store(encoding, decoding, bias, margin, mean, gain)
        return self

    def _store(
        self, encoding: Array, decoding: Array, bias: Array, margin: Array, mean: Array, gain: Array | None = None
    ) -> None:
        length, size = np.linalg.norm(decoding, axis=1), np.linalg.norm(encoding, axis=1)
        if not (
            np.isfinite(encoding).all() and np.isfinite(decoding).all() and (length > 0).all() and (size > 0).all()
        ):
            raise ValueError("Got a direction of no length or with NaN values, expected finite vectors that are not 0")
        self.encoding_ = encoding / size[:, None]
        self.decoding_ = decoding / length[:, None]
        self.bias_ = bias / length
        self.margin_ = margin / length
        self.mean_ = mean
        self.gain_ = (self.decoding_ * self.encoding_).sum(1) if gain is None else np.asarray(gain, np.float64)
        self.n_features_in_ = encoding.shape[1]
        if not hasattr(self, "notes_"):
            self.notes_ = []


def closed_form_signals(X: Tensor, decoding: Array, bias: Array, mean: Array) -> Array:
    """Closed-form signal vectors of filters on feature maps, see `signals.closed_form`.

    The same formula in float64 and in blocks of positions, so that memory stays at O(I P + I D).

    Parameters
    ----------
    X : Tensor, shape (N, D, H, W)
    decoding : ndarray, shape (I, D)
    bias : ndarray, shape (I,)
    mean : ndarray, shape (D,)

    Returns
    -------
    ndarray, shape (I, D), float64
        ``w_i . s_i = 1``.
    """
    W, centre = torch.as_tensor(decoding, dtype=torch.float64), torch.as_tensor(mean, dtype=torch.float64)
    blocks = positions(X).split(_BLOCK)
    Z = torch.cat([W @ (block.double() - centre).T for block in blocks], dim=1)
    weight = positive_set(Z - torch.as_tensor(bias - decoding @ mean, dtype=torch.float64)[:, None])
    total = weight.sum(1, keepdim=True)
    deviation = weight * (Z - (weight * Z).sum(1, keepdim=True) / total)
    covariance = torch.zeros_like(W)
    for block, part in zip(blocks, deviation.split(_BLOCK, dim=1), strict=True):
        covariance += part @ (block.double() - centre)
    return (covariance / (deviation * Z).sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)).numpy()
