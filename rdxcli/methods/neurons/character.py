"""What kind of a unit is it? Clarity, number of separable groups of images, and near duplicates among the units.

Symbols: E (n, d) what the images show (embeddings of a vision-language model, concept scores, or any other view of them
than the layer itself), centred and of length 1; A (n, u) activations; B the k images that activate a unit most.

    clarity     mean cosine of two images of B; 0 on average for random images
    groups      how many clusters of B lie further apart than chance: 1 for a unit with one meaning
    redundancy  for each unit the other one whose activations follow its own best, and whose images show the same

Chance is k random images: the same figures of `n_random` random sets, shared by all units.

References: Dreyer et al., "Mechanistic understanding and validation of large AI models with SemanticLens", 2025 (arXiv
2501.05398), for clarity, polysemanticity and redundancy. The number of groups is tested by us, not thresholded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.neurons.clip_dissect import top_images
from rdxcli.numerics.moments import check_rows, check_source, read_columns
from rdxcli.numerics.multiple import benjamini_hochberg
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Count, Share
from rdxcli.progress import human_count

MOST_GROUPS = 4


class UnitCharacter(Estimator):
    """Clarity, groups and near duplicates of units.

    Parameters
    ----------
    top_k : int
        Images of B (30); at most a fifth of the images.
    n_random : int
        Random sets of images that stand for chance (500).
    level : float
        Corrected p value up to which a unit counts as clear, or as having one more group (0.05).
    near : float
        Correlation of activations from which two units are near duplicates (0.9).

    Attributes
    ----------
    units_ : (m,) int64
    clarity_ : (m,) float64
        NaN for units that do not vary.
    clarity_chance_ : float
        What 95 % of random sets stay below.
    p_values_, adjusted_ : (m,) float64
        Of the clarity, and after Benjamini and Hochberg's correction over the units.
    groups_ : (m,) int64
        1 to 4; 0 for units that do not vary or whose images have nothing in common.
    split_ : (m,) float64
        How much more the images of one group have in common than those of different groups (two groups).
    members_ : list of int arrays
        Rows of B of each unit, strongest first, and ``group_`` their group.
    twin_ : (m,) int64
        Unit with the most similar activations, -1 where there is none.
    twin_correlation_, twin_images_ : (m,) float64
        Correlation of their activations, and cosine of the mean views of their images.
    """

    def __init__(
        self,
        *,
        top_k: Count = 30,
        n_random: Count = 500,
        level: Share = 0.05,
        near: Share = 0.9,
        random_state: int = 0,
    ) -> None:
        self.top_k, self.n_random, self.level, self.near = top_k, n_random, level, near
        self.random_state = random_state

    def fit(self, views: Any, activations: Any, *, units: Sequence[int] | np.ndarray | None = None) -> UnitCharacter:
        """Look at units.

        Raises `ValueError` (shapes that do not fit, NaN, or fewer than 20 images).

        Parameters
        ----------
        views : row source (n, d)
            What the images show. Not the activations themselves: strong images of a unit are alike in them anyway.
        activations : row source (n, u)
        """
        V, A = check_source(views, "views"), check_source(activations, "activations")
        n = A.shape[0]
        if V.shape[0] != n:
            raise ValueError(
                f"Got {human_count(V.shape[0], 'row')} of views and {human_count(n, 'row')} of "
                "activations, expected the same images"
            )
        if n < 20:
            raise ValueError(f"Got {human_count(n, 'image')}, expected at least 20")
        self.units_ = check_rows(np.arange(A.shape[1]) if units is None else units, A.shape[1], "units")
        rows = np.arange(n)
        E = read_columns(V, rows, np.arange(V.shape[1]), "views")
        E = E - E.mean(axis=0)
        length = np.linalg.norm(E, axis=1, keepdims=True)
        E = E / np.where(length > 0, length, 1.0)
        values = read_columns(A, rows, self.units_, "activations")
        live = np.ptp(values, axis=0) > 0
        k = max(4, min(self.top_k, n // 5))
        rng = generator(self.random_state, "character", n)
        null = np.array([_alike(E[rng.choice(n, k, replace=False)]) for _ in range(self.n_random)])
        self.clarity_chance_ = float(np.quantile(null, 0.95))
        m = len(self.units_)
        self.clarity_, self.p_values_, self.split_ = (np.full(m, np.nan) for _ in range(3))
        self.groups_ = np.zeros(m, dtype=np.int64)
        top = top_images(values, k)
        self.members_ = [top[:, i] if live[i] else np.empty(0, dtype=np.int64) for i in range(m)]
        self.group_ = [np.zeros(len(rows), dtype=np.int64) for rows in self.members_]
        for i in np.flatnonzero(live):
            self.clarity_[i] = _alike(E[top[:, i]])
            self.p_values_[i] = (1 + (null >= self.clarity_[i] - 1e-12).sum()) / (1 + len(null))
        known = np.flatnonzero(live)
        self.adjusted_ = self.p_values_.copy()
        self.adjusted_[known] = benjamini_hochberg(self.p_values_[known])
        for i in known:
            self._count(int(i), E[top[:, i]], rng)
        self._twins(values, E, top, live)
        return self

    def _count(self, i: int, X: np.ndarray, rng: np.random.Generator) -> None:
        """Groups of the images of one unit: one more as long as a split is larger than in one cloud of that spread."""
        split, labels = _split(X, 2)
        self.split_[i] = split
        if split > _split_of_one_cloud(X, 2, rng):
            found = labels
            count = 2
            while count < MOST_GROUPS:
                more, finer = _split(X, count + 1)
                if more <= max(split, _split_of_one_cloud(X, count + 1, rng)):
                    break
                split, found, count = more, finer, count + 1
            self.groups_[i], self.group_[i] = count, found
        elif self.adjusted_[i] <= self.level:
            self.groups_[i] = 1

    def _twins(self, values: np.ndarray, E: np.ndarray, top: np.ndarray, live: np.ndarray) -> None:
        m = len(self.units_)
        self.twin_ = np.full(m, -1, dtype=np.int64)
        self.twin_correlation_, self.twin_images_ = np.full(m, np.nan), np.full(m, np.nan)
        known = np.flatnonzero(live)
        if len(known) < 2:
            return
        z = values[:, known] - values[:, known].mean(axis=0)
        z /= np.linalg.norm(z, axis=0)
        mean = np.stack([E[top[:, i]].mean(axis=0) for i in known])
        size = np.linalg.norm(mean, axis=1, keepdims=True)
        mean = mean / np.where(size > 0, size, 1.0)
        for place, i in enumerate(known):
            r = z.T @ z[:, place]
            r[place] = -np.inf
            best = int(np.argmax(r))
            self.twin_[i] = self.units_[known[best]]
            self.twin_correlation_[i] = r[best]
            self.twin_images_[i] = mean[place] @ mean[best]

    @property
    def redundant_(self) -> np.ndarray:
        """(m,) bool: units with a near duplicate."""
        return np.asarray(np.nan_to_num(self.twin_correlation_, nan=-1.0) >= self.near)


def _alike(X: np.ndarray) -> float:
    """Mean cosine of two different rows of length 1."""
    k = len(X)
    total = X.sum(axis=0)
    return float((total @ total - (X * X).sum()) / (k * (k - 1)))


def _split(X: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """Mean cosine inside the groups of k-means minus between them; 0 where a group is a single image."""
    labels = _nearest_of(X, count)
    sizes = np.bincount(labels, minlength=count)
    if sizes.min() < 3:
        return 0.0, labels
    cosines = X @ X.T
    same = labels[:, None] == labels[None, :]
    other = ~np.eye(len(X), dtype=bool)
    return float(cosines[same & other].mean() - cosines[~same].mean()), labels


def _nearest_of(X: np.ndarray, count: int, rounds: int = 12) -> np.ndarray:
    """k-means from rows far apart: the one furthest out along the first axis, then each furthest from those before."""
    centred = X - X.mean(axis=0)
    first = centred.T @ (centred @ centred[0]) if len(X) else centred[0]
    chosen = [int(np.argmax(centred @ first))]
    while len(chosen) < count:
        away = ((X[:, None, :] - X[chosen][None, :, :]) ** 2).sum(axis=2).min(axis=1)
        chosen.append(int(np.argmax(away)))
    centres = X[chosen]
    labels = np.full(len(X), -1)
    for _ in range(rounds):
        new = (X @ centres.T - 0.5 * (centres * centres).sum(axis=1)).argmax(axis=1)
        if (new == labels).all():
            break
        labels = new
        for group in range(count):
            if (labels == group).any():
                centres[group] = X[labels == group].mean(axis=0)
    return labels


def _split_of_one_cloud(X: np.ndarray, count: int, rng: np.random.Generator, draws: int = 19) -> float:
    """The largest split among clouds without groups: normal, with the mean and the covariance of ``X``."""
    mean = X.mean(axis=0)
    _, spread, axes = np.linalg.svd(X - mean, full_matrices=False)
    found = 0.0
    for _ in range(draws):
        cloud = mean + (rng.normal(size=(len(X), len(spread))) * spread / np.sqrt(len(X) - 1)) @ axes
        cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
        found = max(found, _split(cloud, count)[0])
    return found
