"""Versions and runs of one model, for null distributions: resampled read-outs, or rounding noise.

Symbols: X (n, d) a representation, centred; Q (d, d) a random rotation; w (d,) random weights of mean 1; e noise.

A version of X with D units is ``X Q diag(sqrt(w)) + e``. Its squared distances are ``sum_f w_f (q_f . (x_i - x_j))^2``:
a weighted vote of d random linear read-outs of the same representation. With w_f ~ Gamma(D / d) / (D / d), mean 1 and
variance d / D, the vote varies as much as if D read-outs had been drawn with replacement from the d there are (the
Bayesian form of the bootstrap, Rubin 1981, which keeps every read-out and so does not collapse when d is 2 or 3; with a
single one only the noise is left). D is `SHARE` times the width that a version stands for.

The rotation makes the versions independent of the basis in which the model happens to store its features, as distances
are. Without it a single dominant unit, common in transformers, would be absent from 37 % of all bootstrap samples.
"""

from __future__ import annotations

import numpy as np

from rdxcli.lazy import scipy

SHARE = 0.5
"""Read-outs of a version per read-out of the model it stands for.

The source of a version is itself a sample of read-outs: its squared distances are spread by V + V', where V (relative
variance) is that of what it reads and V' = 2 / D' comes from the sample. To disorder neighbours as much as a fresh
sample does, a version has to vary by V' (V + V') / V, so to be of D = D' V / (V + V') read-outs: D' where V is large,
half of D' where images differ alike in all of D' directions. Half is kept for all: with as many read-outs as the model
has, two fresh samples of 64 were called different in 14 to 96 % of pairs; see docs/methods/significance.md.
"""

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
            mixed = scipy.fft.dct(mixed * rng.choice([-1.0, 1.0], size=self.d), axis=1, norm="ortho")
        return mixed

    def draw(self, units: int, rng: np.random.Generator) -> np.ndarray:
        """A version with ``units`` read-outs: (n, d) float64. The rows are those of X."""
        values = self._values if self.d > ROTATE_EACH_TIME else self._rotated(rng)
        weights = rng.standard_gamma(SHARE * units / self.d, size=self.d)
        weights /= max(float(weights.mean()), np.finfo(float).tiny)
        return values * np.sqrt(weights) + self._sigma * rng.standard_normal((self.n, self.d))


class Copies:
    """Draws two runs of one model, which differ by rounding: the same features with a little noise in each run.

    Parameters
    ----------
    X : (n, d) array
    noise : float
        Standard deviation of the noise, relative to the spread of each feature.
    """

    def __init__(self, X: np.ndarray, noise: float) -> None:
        values = np.asarray(X, dtype=np.float64)
        values = values / np.abs(values).max()
        self._values = values - values.mean(axis=0)
        self._sigma = noise * self._values.std(axis=0)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One run: (n, d) float64."""
        return self._values + self._sigma * rng.standard_normal(self._values.shape)


def same_features(R0: np.ndarray, R1: np.ndarray) -> bool:
    """Whether dimension j means the same in both, as in two runs or two edits of one network.

    True when the widths agree and more than half of the dimensions that vary correlate by more than 0.5 with their
    counterpart. Networks that were trained apart, and rotated copies, have no such order.
    """
    if R0.shape[1] != R1.shape[1]:
        return False
    first, second = (R.astype(np.float64) - R.mean(axis=0, dtype=np.float64) for R in (R0, R1))
    scale = np.sqrt(np.square(first).sum(axis=0) * np.square(second).sum(axis=0))
    vary = scale > 0.0
    if not vary.any():
        return False
    return bool(np.median((first * second).sum(axis=0)[vary] / scale[vary]) > 0.5)
