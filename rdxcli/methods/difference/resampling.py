"""Versions of one model, for a null distribution: resampled read-outs plus a little noise.

Symbols: X (n, d) a representation, centred; Q (d, d) a random rotation; w (d,) random weights of mean 1; e noise.

A version of X with D units is ``X Q diag(sqrt(w)) + e``. Its squared distances are ``sum_f w_f (q_f . (x_i - x_j))^2``:
a weighted vote of d random linear read-outs of the same representation. With w_f ~ Gamma(D / d) / (D / d), mean 1 and
variance d / D, the vote varies as much as if D read-outs had been drawn with replacement from the d there are (the
Bayesian form of the bootstrap, Rubin 1981, which keeps every read-out and so does not collapse when d is 2 or 3; with a
single one only the noise is left).

The rotation makes the versions independent of the basis in which the model happens to store its features, as distances
are. Without it a single dominant unit, common in transformers, would be absent from 37 % of all bootstrap samples.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct

ROTATE_EACH_TIME = 128  # up to this width a rotation costs less than the distances
EXACT_ROTATION = 512  # above, random signs and cosine transforms stand in for a uniform rotation


class Versions:
    """Draws versions of one representation.

    Parameters
    ----------
    X : (n, d) array
    noise : float
        Standard deviation of the noise, relative to the root mean square of the centred entries of X.
    rng : numpy Generator
        For the rotation of wide representations, which is drawn once.
    """

    def __init__(self, X: np.ndarray, noise: float, rng: np.random.Generator) -> None:
        values = np.asarray(X, dtype=np.float64)
        values = values / np.abs(values).max()
        self._values = values - values.mean(axis=0)
        self._sigma = noise * float(np.sqrt(np.square(self._values).mean()))
        self.n, self.d = self._values.shape
        if self.d > ROTATE_EACH_TIME:
            self._values = self._rotated(rng)

    def _rotated(self, rng: np.random.Generator) -> np.ndarray:
        if self.d == 1:
            return self._values
        if self.d <= EXACT_ROTATION:
            orthogonal, triangle = np.linalg.qr(rng.standard_normal((self.d, self.d)))
            return self._values @ (orthogonal * np.sign(np.diag(triangle)))
        mixed = self._values
        for _ in range(2):
            mixed = dct(mixed * rng.choice([-1.0, 1.0], size=self.d), axis=1, norm="ortho")
        return mixed

    def draw(self, units: int, rng: np.random.Generator) -> np.ndarray:
        """A version with ``units`` read-outs: (n, d) float64. The rows are those of X."""
        values = self._values if self.d > ROTATE_EACH_TIME else self._rotated(rng)
        weights = rng.standard_gamma(units / self.d, size=self.d)
        weights /= max(float(weights.mean()), np.finfo(float).tiny)
        return values * np.sqrt(weights) + self._sigma * rng.standard_normal((self.n, self.d))
