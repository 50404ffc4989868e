"""Concept activation vectors from images that a person gives (TCAV, Kim et al. 2018; Pattern-CAV, Pahde et al. 2022).

A concept is a set of images (stripes, say) against random images. Its *filter* is a logistic classifier of positions of
the two (the CAV); its *encoding direction* is the difference of their means (the Pattern-CAV), which is what a concept
adds to the features: a classifier's weights also cancel what is unrelated to it. The detector fires where the filter's
output is larger than anywhere in most random images.

What chance would give: *stand-ins*, differences of means as random sets of images in the place of the concept's would
have them, many times. `influence` compares with them.

Symbols: ``x`` (P, D) features by position; ``m`` (n, D) mean features of images. Cost: one classifier per concept and
fold, O(R n D) for R stand-ins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from torch import Tensor

from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Count, Positive, Share
from rdxcli.progress import human_count

from .base import Array, Directions
from .features import as_maps, positions
from .signals import cav, pattern_cav

FEWEST = 8
"""Images of a concept, and random images, below which nothing is claimed."""
FOLDS = 4
POSITIONS = 4096
"""Positions of a concept, and of the random images, that a classifier learns from at most."""


class TCAV(Directions):
    """One pair of directions for each set of concept images.

    Parameters
    ----------
    C : float
        Inverse strength of the classifiers' L2 penalty, on features of unit spread.
    random_share : float
        Share of the random images in which a detector fires somewhere.
    random_sets : int
        Random sets in the place of each concept.
    random_state : int
        Seed.

    Attributes
    ----------
    names_ : list of str
        Concepts, in the order of the directions.
    stand_ins_ : ndarray, shape (I, R, D), float32
        Encoding directions of random sets, of unit length but for a factor near 1, see `_stand_ins`.
    known_ : list of dict
        Per concept: ``n_images``; ``accuracy`` of telling its images from random ones, balanced, on images that the
        classifier has not seen, with the largest of 95 % of permuted labels as ``accuracy_chance``; ``recall``, the
        share of its images in which the detector fires, with that of random images as ``recall_chance``.
    """

    def __init__(
        self,
        *,
        C: Positive = 0.01,
        random_share: Share = 0.1,
        random_sets: Count = 499,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.random_share = random_share
        self.random_sets = random_sets
        self.random_state = random_state

    def fit(
        self,
        features: Array | Tensor,
        head: Any = None,
        *,
        concepts: Mapping[str, Array] | None = None,
        random: Array | None = None,
    ) -> Self:
        """Find the directions.

        Raises `ValueError` (features that cannot be used, or too few images).

        Parameters
        ----------
        features : array, shape (N, D, H, W) or (N, D)
            What is explained; only its mean is used here.
        head : callable, optional
            Not used.
        concepts : mapping of str to ndarray, shape (n, D, h, w) or (n, D)
            Features of the images of each concept, at least 8 images.
        random : ndarray, shape (m, D, h, w) or (m, D)
            Features of random images, at least 8.
        """
        self.notes_ = []
        X = as_maps(features)
        if not concepts or random is None:
            raise ValueError("Got no images of concepts, expected `concepts` and `random`")
        if not 0 < self.random_share < 1:
            raise ValueError(f"Got random_share={self.random_share}, expected a number between 0 and 1")
        others = _by_image("random images", random, X.shape[1])
        pairs, self.known_, stand_ins, again = [], [], [], []
        for name, given in concepts.items():
            own = _by_image(f"concept `{name}`", given, X.shape[1])
            encoding, decoding, bias, spread = self._pair(name, own, others)
            pairs.append((encoding, decoding, bias, spread))
            stand_ins.append(self._stand_ins(name, own, others))
            self.known_.append(self._known(name, own, others, decoding, bias))
            again.append(self._again(name, own, others, encoding))
        self.names_ = list(concepts)
        self.stand_ins_ = np.stack(stand_ins)
        self.again_ = np.array(again)
        S, W, b, out = (np.stack(part) for part in zip(*pairs, strict=True))
        self._store(S, W, b, 0.25 * out, positions(X).double().mean(0).numpy())
        weak = [
            name
            for name, known in zip(self.names_, self.known_, strict=True)
            if known["accuracy"] <= known["accuracy_chance"]
        ]
        if weak:
            self.notes_.append(
                f"this layer does not tell {', '.join(weak)} from random images better than chance: nothing that is "
                "said of it means anything"
            )
        return self

    def _pair(self, name: str, own: Array, others: Array) -> tuple[Array, Array, float, float]:
        """Encoding direction, filter, threshold and spread of the filter's outputs."""
        rng = generator(self.random_state, "tcav", name)
        mine, theirs = (_some(one, rng) for one in (own, others))
        x = np.concatenate([mine, theirs])
        present = np.arange(len(x)) < len(mine)
        decoding = cav(x, present[:, None], self.C)[0][0]
        encoding = pattern_cav(np.concatenate([own.mean(1), others.mean(1)]), _first(len(own), len(others)))[0]
        strongest = (others @ decoding).max(1)
        return encoding, decoding, float(np.quantile(strongest, 1 - self.random_share)), float((x @ decoding).std())

    def _stand_ins(self, name: str, own: Array, others: Array) -> Array:
        """Differences of means as random sets have them: random combinations of how images vary inside both sets.

        The concept itself is not in them, as it would be in sets drawn from all images. Their length is that of a
        t distribution over its scale, because the variation is known from few images only.
        """
        rng = generator(self.random_state, "random sets", name)
        left = np.concatenate([part.mean(1) - part.mean((0, 1)) for part in (own, others)])
        found = rng.standard_normal((self.random_sets, len(left))) @ left
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        freedom = len(left) - 2
        return (found * np.sqrt(freedom / rng.chisquare(freedom, (self.random_sets, 1)))).astype(np.float32)

    def _known(self, name: str, own: Array, others: Array, decoding: Array, bias: float) -> dict[str, Any]:
        """How well unseen images are told apart, and in how many the detector fires."""
        rng = generator(self.random_state, "folds", name)
        means = np.concatenate([own.mean(1), others.mean(1)])
        present = _first(len(own), len(others))[:, 0]
        permuted = [_accuracy(means, rng.permutation(present), rng) for _ in range(100)]
        fires = [float((part @ decoding > bias).any(1).mean()) for part in (own, others)]
        return {
            "n_images": len(own),
            "accuracy": _accuracy(means, present, rng),
            "accuracy_chance": float(np.quantile(permuted, 0.95)),
            "recall": fires[0],
            "recall_chance": fires[1],
        }

    def _again(self, name: str, own: Array, others: Array, encoding: Array) -> tuple[float, float]:
        """Cosine with the direction of either half of the images, and of random sets with it."""
        rng = generator(self.random_state, "halves", name)
        found = []
        for mine, theirs in zip(*(np.array_split(rng.permutation(len(o)), 2) for o in (own, others)), strict=True):
            means = np.concatenate([own[mine].mean(1), others[theirs].mean(1)])
            found.append(pattern_cav(means, _first(len(mine), len(theirs)))[0])
        unit = encoding / max(float(np.linalg.norm(encoding)), 1e-12)
        halves = np.stack(found) / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        random = self._stand_ins(name, own, others)
        chance = np.abs(random @ unit) / np.linalg.norm(random, axis=1)
        return float((halves @ unit).mean()), float(chance.mean())

    def about(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        entries = [{"concept": {"name": n, **known}} for n, known in zip(self.names_, self.known_, strict=True)]
        each, chance = self.again_.T
        again = {"each": each.tolist(), "mean": float(each.mean()), "chance": float(chance.mean()), "halves": []}
        return entries, {"stability": again}


def _by_image(what: str, features: Array, channels: int) -> Array:
    """Features (n, p, D), float64, of images and their positions."""
    try:
        X = as_maps(features)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if X.shape[1] != channels:
        raise ValueError(f"Got {what} with {human_count(X.shape[1], 'channel')}, expected {channels}")
    if len(X) < FEWEST:
        raise ValueError(f"Got {human_count(len(X), 'image')}: {what}, expected at least {FEWEST}")
    return X.flatten(2).transpose(1, 2).double().numpy()


def _some(x: Array, rng: np.random.Generator) -> Array:
    """Positions (P, D) of all images, a random choice where there are many."""
    flat = x.reshape(-1, x.shape[2])
    return flat if len(flat) <= POSITIONS else flat[np.sort(rng.permutation(len(flat))[:POSITIONS])]


def _first(count: int, others: int) -> Array:
    """Column of booleans: the first ``count`` rows."""
    return (np.arange(count + others) < count)[:, None]


def _accuracy(means: Array, present: Array, rng: np.random.Generator) -> float:
    """Balanced accuracy on unseen images of the nearest class mean in features of unit spread."""
    fold = np.empty(len(means), int)
    for kind in (present, ~present):
        fold[kind] = rng.permutation(int(kind.sum())) % FOLDS
    right = np.zeros(len(means), bool)
    z = means / np.maximum(means.std(0), 1e-12)
    for k in range(FOLDS):
        seen, rest = fold != k, fold == k
        a, b = z[seen & present].mean(0), z[seen & ~present].mean(0)
        right[rest] = ((z[rest] - (a + b) / 2) @ (a - b) > 0) == present[rest]
    return float((right[present].mean() + right[~present].mean()) / 2)
