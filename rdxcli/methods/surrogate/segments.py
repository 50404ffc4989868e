"""Image segments as concepts, from the predecessor of the concept surrogate.

Masks are thinned, crops are clustered, and an image is described by the clusters its crops fall into. The matrix it
makes can be explained and trained on like caption encodings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.lazy import sklearn


def thin_masks(masks: Any, *, min_area: float = 0.005, max_iou: float = 0.8) -> list[int]:
    """Masks worth keeping, in the given order.

    Parameters
    ----------
    masks : array (m, h, w) of bool
    min_area : float
        Least share of the picture a mask covers.
    max_iou : float
        A mask goes when its overlap (intersection over union) with a kept one is larger.
    """
    flat = np.asarray(masks, dtype=bool)
    if flat.ndim != 3:
        raise ValueError(f"Got masks of shape {flat.shape}, expected (m, h, w)")
    pixels = flat.shape[1] * flat.shape[2]
    flat = flat.reshape(len(flat), -1)
    area = flat.sum(axis=1)
    kept: list[int] = []
    for i in range(len(flat)):
        if area[i] < min_area * pixels:
            continue
        both = (flat[kept] & flat[i]).sum(axis=1)
        union = area[kept] + area[i] - both
        if not np.any(both > max_iou * union):
            kept.append(i)
    return kept


@dataclass(frozen=True)
class Tree:
    """An agglomerative tree over n items.

    Parameters
    ----------
    children : ndarray (n - 1, 2) int64
        Nodes joined by each merge; item i is node i, merge k makes node n + k.
    distances : ndarray (n - 1,) float64
        Rising.
    """

    children: np.ndarray
    distances: np.ndarray

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.children) + 1

    def cut(self, p: int) -> list[int]:
        """The p nodes that are left when the last p - 1 merges are undone, left to right.

        Parameters
        ----------
        p : int, 1 to n
        """
        if not 1 <= p <= self.n:
            raise ValueError(f"Got p={p}, expected 1 to {self.n}")
        first_undone = 2 * self.n - p
        nodes, stack = [], [2 * self.n - 2]
        while stack:
            node = stack.pop()
            if node >= first_undone:
                stack.extend(int(child) for child in self.children[node - self.n][::-1])
            else:
                nodes.append(node)
        return nodes

    def members(self, node: int) -> list[int]:
        """Items below a node, left to right."""
        found, stack = [], [int(node)]
        while stack:
            at = stack.pop()
            if at < self.n:
                found.append(at)
            else:
                stack.extend(int(child) for child in self.children[at - self.n][::-1])
        return found

    def labels(self, p: int) -> np.ndarray:
        """Node of the cut at p that holds each item: (n,) int64."""
        out = np.empty(self.n, dtype=np.int64)
        for node in self.cut(p):
            out[self.members(node)] = node
        return out


def cluster(features: Any) -> Tree:
    """Ward clustering (Euclidean) of crop features (n, d)."""
    X = np.asarray(features, dtype=np.float64)
    if X.ndim != 2 or len(X) < 2 or not np.all(np.isfinite(X)):
        raise ValueError(f"Got features of shape {X.shape} or not finite, expected a finite (n, d) with n > 1")
    fitted = sklearn.cluster.AgglomerativeClustering(n_clusters=None, distance_threshold=0, linkage="ward").fit(X)
    return Tree(fitted.children_.astype(np.int64), fitted.distances_)


def membership(
    labels: Any, image_of_item: Sequence[int] | np.ndarray, *, num_images: int | None = None, min_images: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Which image has a crop in which cluster.

    Parameters
    ----------
    labels : array (n,) of int
        Cluster of each crop.
    image_of_item : array (n,) of int
        Image of each crop.
    num_images : int, optional
        One more than the largest image number without it.
    min_images : int
        Leave out clusters on fewer images.

    Returns
    -------
    encoding : ndarray (num_images, c) float64 of 0 and 1
    columns : ndarray (c,) int64
        Clusters, ascending.
    """
    cluster_of, image = np.asarray(labels, dtype=np.int64), np.asarray(image_of_item, dtype=np.int64)
    if cluster_of.shape != image.shape or cluster_of.ndim != 1 or not len(image) or image.min() < 0:
        raise ValueError(f"Got {cluster_of.shape} labels and {image.shape} image numbers, expected one each per crop")
    columns, where = np.unique(cluster_of, return_inverse=True)
    encoding = np.zeros((num_images or int(image.max()) + 1, len(columns)))
    encoding[image, where] = 1.0
    enough = encoding.sum(axis=0) >= min_images
    return encoding[:, enough], columns[enough]
