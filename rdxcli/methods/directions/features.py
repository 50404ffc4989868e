"""Feature maps as a set of positions, in coordinates that suit learning.

Symbols: ``X`` (N, D, H, W) feature maps; ``P = N H W`` positions; ``mean`` (D,) mean feature; ``Q`` (k, D) orthonormal
principal directions of the data; ``u`` one global scale, the root of the mean variance over the span of the data.

Learning happens on ``Q (x - mean) / u``: centred, of unit spread, and without the directions in which the data do not
vary (a filter may put any weight there without being punished; SPEC section 6.1). A unit filter there is a unit filter
in feature space, thresholds and margins scale with ``u``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdxcli.progress import human_count

_SPAN = 1e-6
_BLOCK = 262_144
_CHANNELS = 4096


def as_maps(features: np.ndarray | Tensor) -> Tensor:
    """Feature maps (N, D, H, W), float32 on the CPU, from maps or vectors (N, D).

    Raises `ValueError` (wrong number of dimensions, no rows, or values that are not finite).
    """
    X = torch.as_tensor(features.detach() if isinstance(features, Tensor) else np.asarray(features))
    if X.ndim == 2:
        X = X[:, :, None, None]
    if X.ndim != 4 or 0 in X.shape:
        raise ValueError(
            f"Got features of shape {tuple(X.shape)}, expected (n, d) or (n, c, h, w) with no empty dimension"
        )
    if X.is_complex() or X.dtype == torch.bool:
        raise ValueError(f"Got features of type {X.dtype}, expected real numbers")
    X = X.to("cpu", torch.float32)
    if not bool(torch.isfinite(X).all()):
        raise ValueError("Got features with NaN or infinite values (in float32), expected finite numbers")
    return X


def positions(X: Tensor) -> Tensor:
    """Positions (P, D) of maps (N, D, H, W), image by image, row by row."""
    return X.flatten(2).transpose(1, 2).reshape(-1, X.shape[1])


def to_maps(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values (P, I) at the positions of maps of ``shape`` (N, D, H, W), as maps (N, I, H, W)."""
    N, _, H, W = shape
    return values.reshape(N, H, W, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class FeatureSpace:
    """Coordinates in which directions are learned.

    Attributes
    ----------
    mean : Tensor, shape (D,), float64
    Q : Tensor, shape (k, D), float64
        Orthonormal principal directions, largest variance first.
    variances : Tensor, shape (k,), float64
        Variance along each, in feature units squared.
    unit : float
        Global scale ``u``.
    deviations : Tensor, shape (D,), float64
        Standard deviation of each channel.
    rank : int
        Directions that carry variance at all; ``k < rank`` when noise directions were left out.
    """

    mean: Tensor
    Q: Tensor
    variances: Tensor
    unit: float
    deviations: Tensor
    rank: int

    @classmethod
    def of(cls, X: Tensor, n_directions: int, subspace: str | int | None = "auto") -> FeatureSpace:
        """Measure the space of feature maps ``X``.

        Raises `ValueError` (constant data, fewer positions or dimensions than directions, or an impossible
        ``subspace``).

        Parameters
        ----------
        X : Tensor, shape (N, D, H, W)
        n_directions : int
            Directions that must fit into the space.
        subspace : "auto", int or None
            Number of principal directions to keep. None keeps all that carry variance; "auto" drops a flat tail of
            noise directions if there is one (`signal_dimensions`), and none where the features lie in fewer dimensions
            than they have channels.
        """
        x = positions(X)
        P, D = x.shape
        if n_directions < 2:
            raise ValueError(f"Got n_directions={n_directions}, expected at least 2")
        if 2 * n_directions > P:
            raise ValueError(
                f"Got {P} positions, expected at least {2 * n_directions} for {human_count(n_directions, 'direction')}"
            )
        mean = torch.zeros(D, dtype=torch.float64)
        for block in x.split(_BLOCK):
            mean += block.double().sum(0)
        mean /= P
        values, spread, vectors = (_by_channels if D <= P else _by_positions)(x, mean)
        # Rounding of float32 input leaves variance of about (eps * size)^2 in every channel.
        rounding = (torch.finfo(torch.float32).eps * float(x.abs().max())) ** 2
        rank = int((values > max(_SPAN * float(values[0]), 4 * rounding)).sum())
        if rank == 0:
            raise ValueError("Got constant features, expected features that vary")
        if n_directions > rank:
            raise ValueError(
                f"Got n_directions={n_directions}, expected at most {rank}, "
                f"because the features vary along {rank} of {D} dimensions"
            )
        match subspace:
            case None:
                keep = rank
            case "auto":
                # isotropic noise would fill every channel that varies at all
                full = rank >= min(P - 1, int((spread > rounding).sum()))
                keep = max(n_directions, signal_dimensions(values[:rank].numpy(), P)) if full else rank
            case int() if n_directions <= subspace <= rank:
                keep = subspace
            case _:
                raise ValueError(f"Got subspace={subspace!r}, expected 'auto', None or {n_directions} to {rank}")
        unit = float(values[:rank].mean().sqrt())
        return cls(mean, vectors(keep), values[:keep], unit, spread.clamp_min(0).sqrt(), rank)

    @property
    def size(self) -> int:
        """Number of coordinates, k."""
        return self.Q.shape[0]

    def reduce(self, X: Tensor) -> Tensor:
        """Learning coordinates (k, P), float32, of feature maps (N, D, H, W)."""
        x = positions(X)
        return torch.cat(
            [(self.Q @ (block.double() - self.mean).T / self.unit).float() for block in x.split(_BLOCK)], dim=1
        )

    def standardisation(self, mode: str) -> Tensor:
        """Matrix ``T`` (k, k), float32: ``T x`` has the named standardisation.

        ``global``: one scale. ``whiten``: unit variance in every direction. ``channel``: unit variance of every
        channel of the features (rotated into the span of the data, which changes no angle); tiny channel deviations
        are floored at 1 % of the largest.
        """
        match mode:
            case "global":
                T = torch.eye(self.size, dtype=torch.float64)
            case "whiten":
                T = torch.diag(self.unit / self.variances.sqrt())
            case "channel":
                floored = self.deviations.clamp_min(0.01 * float(self.deviations.max()))
                T = torch.linalg.qr(self.unit * self.Q.T / floored[:, None]).R
            case _:
                raise ValueError(f"Got standardisation {mode!r}, expected 'global', 'whiten' or 'channel'")
        return T.float()


Axes = Callable[[int], Tensor]
"""The first so many principal directions, (k, D)."""


def _by_channels(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Axes]:
    """Variances, descending, variance of each channel, and axes, from the D x D covariance of positions (P, D)."""
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in x.split(_BLOCK):
        centred = block.double() - mean
        covariance += centred.T @ centred
    covariance /= len(x) - 1
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0), covariance.diagonal(), lambda keep: vectors.flip(1)[:, :keep].T.contiguous()


def _by_positions(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Axes]:
    """The same from the P x P side, for fewer positions than channels: O(P^2 D) instead of O(P D^2 + D^3)."""
    P, D = x.shape
    parts = [slice(start, min(start + _CHANNELS, D)) for start in range(0, D, _CHANNELS)]
    gram, spread = torch.zeros(P, P, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    for part in parts:
        centred = x[:, part].double() - mean[part]
        gram += centred @ centred.T
        spread[part] = centred.square().sum(0)
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)

    def axes(keep: int) -> Tensor:
        length = values[:keep].clamp_min(1e-300).sqrt()[:, None]
        return torch.cat([vectors[:, :keep].T @ (x[:, part].double() - mean[part]) / length for part in parts], dim=1)

    return values / (P - 1), spread / (P - 1), axes


def signal_dimensions(variances: np.ndarray, n_positions: int) -> int:
    """How many leading principal directions stand above a flat tail of noise.

    Isotropic noise gives the last eigenvalues of a covariance nearly equal values: with k directions and P
    independent positions they spread by at most ``((1 + r) / (1 - r))^2``, ``r = sqrt(k / P)`` (Marchenko and
    Pastur). The tail is the longest run of last eigenvalues within 1.5 times that spread; it counts as noise when it
    holds at least three values and a fifth of all, and when the value before it is at least 1.6 times its first.
    Otherwise every direction is kept. Eigenvalues of real layers fall smoothly, so they keep all.

    Parameters
    ----------
    variances : ndarray, shape (k,)
        Eigenvalues of the covariance, descending, all positive.
    """
    k = len(variances)
    r = min(0.9, np.sqrt(k / n_positions))
    spread = 1.5 * ((1 + r) / (1 - r)) ** 2
    first = int(np.argmax(variances <= spread * variances[-1]))
    tail = k - first
    if first > 0 and tail >= max(3, k // 5) and variances[first - 1] >= 1.6 * variances[first]:
        return first
    return k
