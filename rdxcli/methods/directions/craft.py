"""Concepts of one class by non-negative factors (ICE, Zhang et al. 2021; CRAFT, Fel et al. 2023).

Features of the images of a class are written as sums of few non-negative parts, ``A ~ U W`` with ``A`` (P, D), ``U``
(P, I) and ``W`` (I, D). ``A`` holds the positions of the maps (ICE), or the mean features of crops that were seen
alone (CRAFT). Every part is a direction; where it is in an image, non-negative least squares say.

Importance is the total Sobol index of a concept on the logit of the class: concepts are turned down together by random
factors from 0 to 1, ``f(m) = logit((U m) W)``, and the index is the share of the variance that would be left if all
factors but that of the concept were known (estimator of Jansen; designs from a scrambled Sobol sequence). Fidelity says
how much of the prediction survives when features are replaced by ``U W``.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch
from scipy.stats import qmc
from sklearn.decomposition import NMF, PCA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from rdxcli.numerics.seeding import generator, integer_seed
from rdxcli.parameters import Count, Share
from rdxcli.progress import human_count, turns

from .alignment import Head, pooled_linear
from .base import Array, Directions
from .features import as_maps, positions, to_maps
from .health import matched_cosines

MOST = 20_000
"""Positions that factors are found from, a random choice."""


class CRAFT(Directions):
    """Non-negative concepts of a class.

    Parameters
    ----------
    n_directions : int
        Concepts, I.
    crop : float, optional
        Side of the crops as a share of the image's; None takes the positions of the maps instead (ICE).
    designs : int
        Random settings of the concepts behind each Sobol index; a power of two does best.
    images : int
        Images of the class, evenly spaced, from which importance and fidelity are measured.
    random_state : int
        Seed.

    Attributes
    ----------
    output_ : int or None
        The output of the network that most images of the class are given; None without a head.
    importance_, importance_error_ : ndarray, shape (I,)
        Total Sobol index, mean over images, falling, and its standard error; they add up to 1 where concepts add up.
    fidelity_ : dict
        ``explained``: share of the variance of the features that the concepts hold. ``same``: share of images with the
        same prediction from the concepts alone, beside ``same_chance`` from mean features and ``same_best`` from as
        many principal components. ``logit``: correlation of the logit of the class.
    """

    def __init__(
        self,
        n_directions: Count = 10,
        *,
        crop: Share | None = 0.4,
        designs: Count = 64,
        images: Count = 32,
        random_state: int = 0,
    ) -> None:
        self.n_directions = n_directions
        self.crop = crop
        self.designs = designs
        self.images = images
        self.random_state = random_state

    def fit(
        self,
        features: Array | Tensor,
        head: Any = None,
        *,
        rows: Array | None = None,
        crops: Array | None = None,
    ) -> Self:
        """Find the concepts.

        Raises `ValueError` (features that cannot be used).

        Parameters
        ----------
        features : array, shape (N, D, H, W) or (N, D)
        head : callable, optional
            Feature maps (n, D, H, W) to logits; without it there are neither importance nor fidelity.
        rows : ndarray of int, optional
            Images of the class; default are all.
        crops : ndarray, shape (P, D), optional
            Features of crops of these images.
        """
        self.notes_ = []
        X = as_maps(features)
        own = X[torch.as_tensor(np.arange(len(X)) if rows is None else np.asarray(rows))]
        A = positions(own).double().numpy() if crops is None else np.asarray(crops, np.float64)
        if A.ndim != 2 or A.shape[1] != X.shape[1]:
            raise ValueError(f"Got crops of shape {A.shape}, expected (n, {X.shape[1]})")
        if len(A) > MOST:
            A = A[np.sort(generator(self.random_state, "craft").choice(len(A), MOST, replace=False))]
        if self.n_directions > min(A.shape):
            raise ValueError(
                f"Got {human_count(self.n_directions, 'direction')} for "
                f"{human_count(A.shape[0], 'position')} of {human_count(A.shape[1], 'channel')}, expected "
                "fewer directions or more images"
            )
        self.low_ = np.minimum(np.minimum(A.min(0), X.amin((0, 2, 3)).numpy()), 0)
        if (self.low_ < 0).any():
            self.notes_.append("features are negative somewhere: each channel is counted from its smallest value")
        W = self._factors(A - self.low_, "all")
        halves = np.array_split(generator(self.random_state, "halves").permutation(len(A)), 2)
        again = [self._factors(A[np.sort(half)] - self.low_, place) for place, half in enumerate(halves)]
        chosen = generator(self.random_state, "chance").choice(len(A), self.n_directions, replace=False)
        unit = _unit(W)
        self.again_ = np.mean([matched_cosines(unit, _unit(one)) for one in again], axis=0)
        self.again_chance_ = float(matched_cosines(unit, _unit(A[chosen] - self.low_)).mean())
        filters = np.linalg.pinv(W).T
        flat = positions(X).double().numpy()
        mean, out = flat.mean(0), flat @ filters.T
        bias = np.quantile(out, 1 - 1 / self.n_directions, axis=0)
        self.output_: int | None = None
        self.importance_ = self.importance_error_ = np.full(self.n_directions, np.nan)
        self.fidelity_: dict[str, float] = {}
        if head is not None:
            chosen = np.unique(np.linspace(0, len(own) - 1, min(len(own), self.images)).astype(int))
            self._measure(own[torch.from_numpy(chosen)], W, pooled_linear(head, X))
            order = np.argsort(-self.importance_, kind="stable")  # what matters comes first
            W, filters, bias, out = W[order], filters[order], bias[order], out[:, order]
            self.again_ = self.again_[order]
            self.importance_, self.importance_error_ = self.importance_[order], self.importance_error_[order]
        self._store(W, filters, bias, np.maximum(0.25 * out.std(0), 1e-12), mean)
        return self

    def _factors(self, A: Array, name: str | int) -> Array:
        """Rows of W (I, D)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = NMF(
                self.n_directions,
                init="nndsvda",
                random_state=integer_seed(self.random_state, "craft", str(name)),
                max_iter=300,
            ).fit(A)
        W = found.components_
        if not (np.linalg.norm(W, axis=1) > 0).all():
            raise ValueError(
                f"Got a factor of zeros, expected fewer than {human_count(self.n_directions, 'direction')}"
            )
        return W

    def _measure(self, X: Tensor, W: Array, head: Head) -> None:
        """Importance and fidelity on some images of the class (n, D, H, W)."""
        shape = tuple(X.shape)
        flat = positions(X).double().numpy()
        with torch.no_grad():
            logits = head(X).double().cpu().numpy()
            said = logits.argmax(1)
            self.output_ = k = int(np.bincount(said).argmax())
            U = _coefficients(flat - self.low_, W)
            parts = torch.from_numpy(U).float().reshape(len(X), -1, len(W))

            def back(rebuilt: Array) -> Tensor:
                return to_maps(torch.from_numpy(rebuilt).float(), shape)

            def predicted(rebuilt: Array) -> Array:
                return head(back(rebuilt)).double().cpu().numpy()

            rebuilt = U @ W + self.low_
            mine = predicted(rebuilt)
            mean = np.broadcast_to(flat.mean(0), flat.shape)
            pca = PCA(min(len(W), *flat.shape)).fit(flat)
            best = predicted(pca.inverse_transform(pca.transform(flat)))
            self.fidelity_ = {
                "explained": float(1 - ((flat - rebuilt) ** 2).sum() / max(((flat - mean) ** 2).sum(), 1e-12)),
                "same": float((mine.argmax(1) == said).mean()),
                "same_chance": float((predicted(np.array(mean)).argmax(1) == said).mean()),
                "same_best": float((best.argmax(1) == said).mean()),
                "logit": _correlation(mine[:, k], logits[:, k]),
            }
            if self.fidelity_["same"] < 0.5:
                self.notes_.append(
                    "from these concepts alone the network predicts otherwise than from the images: do not read much "
                    "into them (more directions, another size of crops, or --method ice without crops)"
                )
            elif self.fidelity_["same"] < self.fidelity_["same_chance"]:
                self.notes_.append(
                    f"mean features keep more predictions ({self.fidelity_['same_chance']:.0%}) than these concepts do "
                    f"({self.fidelity_['same']:.0%}): importance says which concept carries the logit of the "
                    "class, not how the network tells it from others"
                )
            base, low = torch.from_numpy(W).float(), torch.from_numpy(np.asarray(self.low_)).float()
            index = []
            for image in turns("importance of the concepts", len(parts), "images"):
                one = parts[image]
                designs = self._designs(image)  # of its own, so that their errors show in the spread over images
                turned = (designs[:, None, :] * one) @ base + low  # (designs, positions, D)
                f = head(to_maps(turned.reshape(-1, turned.shape[2]), (len(designs), *shape[1:])))[:, k]
                index.append(_total(f.double().cpu().numpy(), self.designs, len(W)))
        found = np.array(index)
        self.importance_ = found.mean(0)
        self.importance_error_ = found.std(0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.zeros(len(W))

    def _designs(self, image: int = 0) -> Tensor:
        """Factors of the concepts ((I + 2) n, I): two random sets of n, and the first with one column of the second."""
        count = self.n_directions
        seed = integer_seed(self.random_state, "sobol", str(image))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a number of designs that is no power of two
            drawn = qmc.Sobol(2 * count, seed=seed).random(self.designs)
        a, b = drawn[:, :count], drawn[:, count:]
        swapped = [np.where(np.arange(count) == i, b, a) for i in range(count)]
        return torch.from_numpy(np.concatenate([a, b, *swapped])).float()

    def about(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        again = {"each": self.again_.tolist(), "mean": float(self.again_.mean()), "chance": self.again_chance_}
        scores: dict[str, Any] = {"stability": {**again, "halves": []}}
        if self.output_ is None:
            return [{} for _ in self.bias_], scores
        entries = [
            {
                "importance": {
                    "total": round(float(value), 4),
                    "error": round(float(error), 4),
                    "equal": 1 / self.n_directions,
                }
            }
            for value, error in zip(self.importance_, self.importance_error_, strict=True)
        ]
        return entries, {**scores, "fidelity": {**self.fidelity_, "output": self.output_}}


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _coefficients(A: Array, W: Array, steps: int = 200) -> Array:
    """Non-negative least squares ``min |A - U W|`` (P, I) by accelerated projected gradients."""
    gram, target = W @ W.T, A @ W.T
    rate = 1 / max(float(np.linalg.eigvalsh(gram)[-1]), 1e-12)
    U = ahead = np.maximum(target, 0) * rate
    t = 1.0
    for _ in range(steps):
        new = np.maximum(ahead - rate * (ahead @ gram - target), 0)
        t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead, U, t = new + (t - 1) / t_new * (new - U), new, t_new
    return U


def _total(f: Array, n: int, count: int) -> Array:
    """Total indices (I,) of values of the designs of `CRAFT._designs`."""
    a, b, rest = f[:n], f[n : 2 * n], f[2 * n :].reshape(count, n)
    variance = np.concatenate([a, b]).var()
    return ((a - rest) ** 2).mean(1) / 2 / max(float(variance), 1e-12)


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
