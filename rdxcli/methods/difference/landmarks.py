"""Approximate RDX for many images: an exact graph of m landmarks, to which every other image is joined.

Symbols: n images, of which m landmarks S are drawn without replacement; D, A and diff as in
`rdxcli.methods.difference.graph`, over the landmarks; u (m, k) coordinates of the landmarks, the leading eigenvectors
of D^-1 W with eigenvalues lambda.

For another image i the ranks of the landmarks as seen from i, and the rank of i as seen from each landmark, give rows
A[i, S] and A[S, i] of the same graph, and

    u_i = (1 / lambda) sum_j W[i, j] u_j / sum_j W[i, j],    W[i, j] = (A[i, j] + A[j, i]) / 2

is its coordinate: the Nystrom extension of the eigenvectors (Williams and Seeger, NIPS 2000; Fowlkes et al., PAMI
2004), which gives back the landmarks' own coordinates. All images are then clustered together. Cost O(n m (d0 + d1 +
log m)) time, O(m^2 + n (d0 + d1 + k)) memory.

Ranks among m landmarks are ranks among all images divided by about n / m, and the locally biased difference is a ratio
of ranks, so gamma keeps its meaning (see ``reference_n`` of `rdxcli.methods.difference.rdx.RDX`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rdxcli.lazy import torch
from rdxcli.methods.difference.graph import GUIDANCE_FACTOR, DifferenceGraph, Direction, torch_type
from rdxcli.methods.difference.sides import Sides
from rdxcli.numerics.ascending import AscendingRows
from rdxcli.numerics.neighbours import Array, Points, ranks_from, row_blocks, to_numpy
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import track

Ranks = tuple[Array, Array]
"""Of one model: ranks of the landmarks as seen from other images, and of those images as seen from the landmarks."""

TOGETHER = 4096
"""Images that are ranked together: two times 2 bytes, and while they are ranked 4 or 8, for each landmark of each."""


class Extension:
    """Rows and columns of the affinity between landmarks and other images.

    Parameters
    ----------
    graph : DifferenceGraph
        Of the landmarks, with its affinity computed.
    landmarks : (m,) int array
        Their rows, ascending.
    """

    def __init__(self, graph: DifferenceGraph, sides: Sides, landmarks: np.ndarray) -> None:
        self.graph, self.sides, self.landmarks = graph, sides, landmarks
        self._sorted: list[AscendingRows | torch.Tensor] = []
        if graph.similarity == "neighborhood":
            self._sorted = [_sorted_distances(points) for points in graph.points]

    def block(self, rows: np.ndarray, ranks: list[Ranks] | None = None) -> tuple[Array, Array]:
        """A_10[rows, S] and A_10[S, rows]^T, both (len(rows), m), from the ranks of the rows where these are known."""
        forward, backward = self._differences(rows, self._ranks(rows) if ranks is None else ranks)
        return self._affinity(forward), self._affinity(backward)

    def _affinity(self, difference: Array) -> Array:
        difference *= -self.graph.beta / _largest(self.graph)
        return np.exp(difference, out=difference) if isinstance(difference, np.ndarray) else difference.exp_()

    def _differences(self, rows: np.ndarray, ranks: list[Ranks]) -> tuple[Array, Array]:
        if not ranks:  # these distances are symmetric
            difference = self.graph.contrast(*scaled_distances(self.graph, self.sides, rows, self.landmarks))
            difference = self._float(difference)
            return difference, _copy(difference)
        (p, p_back), (q, q_back) = (
            [self._guided(self._float(block), model, rows) for block in ranks[model]] for model in (0, 1)
        )
        if self.graph.symmetrize == "ranks":
            p, q = (p + p_back) * 0.5, (q + q_back) * 0.5
            difference = self.graph.contrast(p, q)
            return difference, _copy(difference)
        return self.graph.contrast(p, q), self.graph.contrast(p_back, q_back)

    def _ranks(self, rows: np.ndarray) -> list[Ranks]:
        """Of both models the ranks of the landmarks as seen from ``rows``, and of ``rows`` from the landmarks.

        Nothing for similarities that are not ranks.
        """
        return [self._ranks_of(model, rows) for model in range(len(self._sorted))]

    def _ranks_of(self, model: int, rows: np.ndarray) -> Ranks:
        points, ascending = self.graph.points[model], self._sorted[model]
        forward: list[Any] = []
        columns: list[Any] = []
        for part in row_blocks(len(rows), self.graph.n):
            squared = points.squared_from(self.sides.values(model)[rows[part]])
            forward.append(ranks_from(points, squared))
            columns.append(squared.T.astype(_distance_type(points)) if isinstance(squared, np.ndarray) else squared.T)
        if isinstance(ascending, AscendingRows):
            backward = ascending.smaller(np.concatenate(columns, axis=1))
            return np.concatenate(forward), np.maximum(backward, 1, out=backward).T

        queries = torch.cat(columns, dim=1).contiguous().to(ascending.dtype)
        return torch.cat(forward), torch.searchsorted(ascending, queries).clamp_(min=1).T

    def _guided(self, block: Array, model: int, rows: np.ndarray) -> Array:
        """Ranks between images whose labels differ are far, where a model is guided by labels."""
        labels = self.sides.labels(model)
        if labels is not None:
            split = labels[rows][:, None] != labels[self.landmarks]
            far = split if isinstance(block, np.ndarray) else torch.as_tensor(split, device=block.device)
            block[far] = GUIDANCE_FACTOR * (self.graph.n - 1)
        return block

    def _float(self, block: Array) -> Array:
        if not isinstance(block, np.ndarray):
            return block.to(torch_type(self.graph.dtype)).contiguous()
        return np.ascontiguousarray(block, dtype=self.graph.dtype)

    def coordinates(
        self, rows: np.ndarray, embedded: Mapping[Direction, tuple[np.ndarray, np.ndarray]]
    ) -> dict[Direction, np.ndarray]:
        """Coordinates of other images in the embeddings of the landmarks.

        Parameters
        ----------
        rows : (r,) int array
        embedded : mapping of direction to (coordinates (m, k), eigenvalues (k,) of the Laplacian)

        Returns
        -------
        dict of direction to (r, k) float64
        """
        out: dict[Direction, np.ndarray] = {
            direction: np.empty((len(rows), values.shape[1])) for direction, (values, _) in embedded.items()
        }

        def fill(part: slice) -> None:
            ranks = self._ranks(rows[part])
            for some in row_blocks(part.stop - part.start, max(1, self.graph.n // 2)):
                there = slice(part.start + some.start, part.start + some.stop)
                join(there, [(forward[some], backward[some]) for forward, backward in ranks])

        def join(part: slice, ranks: list[Ranks]) -> None:
            forward, backward = self.block(rows[part], ranks)
            for direction, (values, eigenvalues) in embedded.items():
                weights = forward + backward if direction == "10" else 1.0 / forward + 1.0 / backward
                right = np.hstack([values, np.ones((len(values), 1))])
                if not isinstance(weights, np.ndarray):
                    right_there = torch.as_tensor(right, device=weights.device).to(weights.dtype)
                    sums = (weights @ right_there).cpu().numpy().astype(np.float64)
                else:
                    sums = (weights @ right.astype(weights.dtype)).astype(np.float64)
                # an eigenvalue of W near zero carries no cluster; dividing by it would only spread noise
                out[direction][part] = sums[:, :-1] / sums[:, -1:] / np.maximum(1.0 - eigenvalues, 0.01)

        # The sorted distances of the landmarks are read once a part: a few thousand images at a time cost a quarter of
        # a few hundred. Parts run side by side, each on one thread; threads that share one part wait for each other on
        # a busy machine.
        parts = list(row_blocks(len(rows), 1, block_rows=TOGETHER))
        with track("join the other images to the landmarks", len(rows), "images") as advance:
            for part, _ in zip(parts, map_in_threads(fill, parts), strict=True):
                advance(part.stop - part.start)
        return out


def _distance_type(points: Points) -> type[np.float32] | type[np.float64]:
    """In which distances are compared: in float32 those that agree in it tie."""
    return np.float64 if points.exact else np.float32


def _sorted_distances(points: Points) -> AscendingRows | torch.Tensor:
    """Distances of every landmark to all landmarks, ascending, itself first: (m, m)."""
    kind = _distance_type(points)
    blocks = (points.squared(part) for part in row_blocks(points.n, points.n))
    if points.device == "cpu":  # NumPy sorts several times faster
        return AscendingRows(np.concatenate([np.sort(block.astype(kind), axis=1) for block in blocks]))

    return torch.cat([block.to(torch_type(kind)).sort(1).values for block in blocks])


def _largest(graph: DifferenceGraph) -> float:
    """What differences are divided by."""
    return graph.largest or 1.0 if graph.normalize else 1.0


def difference_among(graph: DifferenceGraph, sides: Sides, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """diff_10[rows, columns] with ranks among all n images, which are counted: (len(rows), len(columns)).

    Parameters
    ----------
    graph : DifferenceGraph
        Of the landmarks, for the settings; its similarity is ``neighborhood``.

    Notes
    -----
    O(r n (d + log c)) time, no n x n memory.
    """
    n = len(sides)
    if graph.similarity != "neighborhood":
        return np.asarray(graph.contrast(*scaled_distances(graph, sides, rows, columns))) / _largest(graph)
    distances = []
    for model in (0, 1):
        seen = _counted_ranks(graph.points[model], sides.values(model), rows, columns)
        if graph.symmetrize == "ranks":
            seen = (seen + _counted_ranks(graph.points[model], sides.values(model), columns, rows).T) / 2
        labels = sides.labels(model)
        if labels is not None:
            seen[labels[rows][:, None] != labels[columns]] = GUIDANCE_FACTOR * (n - 1)
        distances.append(seen)
    return np.asarray(graph.contrast(distances[0], distances[1], graph.whole_unit)) / _largest(graph)


def scaled_distances(
    graph: DifferenceGraph, sides: Sides, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """D_0 and D_1 of the similarities that are not ranks, (len(rows), len(columns)) float64.

    Length scales are distances to the ``sigma``-th landmark, as for the landmarks themselves.
    """
    plain, scaled = [], []
    for model, scale in enumerate(graph.scales):
        values, points = sides.values(model), graph.points[model]
        block = _distances_between(values[rows], values[columns], points.exact)
        plain.append(block)
        if graph.similarity == "max_normalized":
            scaled.append(block / scale)
            continue
        first = plain[0] if graph.transposed_scaling else block
        ends = [_local_scales(points, values[part], graph.sigma) for part in (rows, columns)]
        scaled.append(first * block / ends[0][:, None] / ends[1])
    return scaled[0], scaled[1]


def _distances_between(left: np.ndarray, right: np.ndarray, exact: bool) -> np.ndarray:
    points = Points(right, exact=exact)
    return np.asarray(np.sqrt(points.squared_from(left)) * points.scale)


def _local_scales(points: Points, values: np.ndarray, sigma: int) -> np.ndarray:
    """Distance of other points to their ``sigma``-th landmark, themselves not counted."""
    out = np.empty(len(values))
    for part in row_blocks(len(values), points.n):
        distances = np.sqrt(to_numpy(points.squared_from(values[part]))) * points.scale
        itself = (distances.min(axis=1) == 0.0).astype(int)  # a landmark, or its twin
        ascending = np.partition(distances, (sigma - 1, sigma), axis=1)
        found = ascending[np.arange(len(distances)), sigma - 1 + itself]
        out[part] = np.where(found > 0, found, np.where(distances > 0, distances, np.inf).min(axis=1))
    return out


def _counted_ranks(points: Points, values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Ranks of ``columns`` among all images as seen from ``rows``: how many are strictly nearer, itself included."""
    some = Points(values[rows], exact=points.exact)
    limits = some.squared_from(values[columns]).T.astype(np.float32)
    limits[rows[:, None] == columns] = 0.0
    order = np.argsort(limits, axis=1, kind="stable")
    ascending = torch.as_tensor(np.take_along_axis(limits, order, axis=1))
    counts = np.zeros((len(rows), len(columns) + 1), dtype=np.int64)
    for part in row_blocks(len(values), max(2 * len(rows), values.shape[1])):
        block = np.ascontiguousarray(some.squared_from(values[part]).T, dtype=np.float32)
        places = torch.searchsorted(ascending, torch.from_numpy(block), right=True).numpy()
        for i in range(len(rows)):
            counts[i] += np.bincount(places[i], minlength=len(columns) + 1)
    nearer = np.cumsum(counts, axis=1)[:, : len(columns)]  # strictly nearer than the column in each place
    out = np.empty(nearer.shape)
    np.put_along_axis(out, order, nearer.astype(np.float64), axis=1)
    np.maximum(out, 1.0, out=out)  # twins
    out[rows[:, None] == columns] = 0.0
    return out


def tighten(
    graph: DifferenceGraph,
    sides: Sides,
    own: int,
    direction: Direction,
    anchors: np.ndarray,
    members: np.ndarray,
    count: int,
) -> np.ndarray:
    """Of the neighbourhoods of some images among all members of a concept, the one with the largest total affinity.

    Parameters
    ----------
    graph, sides
        As in `difference_among`.
    own : {0, 1}
        Model whose neighbours are taken.
    direction : {"01", "10"}
    anchors, members : int arrays
        Rows of all n images.
    count : int
        Images in a neighbourhood, the anchor first.
    """
    some = Points(sides.values(own)[anchors], exact=graph.points[own].exact)
    squared = np.concatenate(
        [
            some.squared_from(sides.values(own)[members[part]]).T
            for part in row_blocks(len(members), max(len(anchors), some.d))
        ],
        axis=1,
    )
    squared[anchors[:, None] == members] = -1.0
    nearest = members[np.argsort(squared, axis=1, kind="stable")[:, :count]]
    best, most = nearest[0], -np.inf
    for neighbours in nearest:
        difference = difference_among(graph, sides, neighbours, neighbours)
        total = float(np.exp((-graph.beta if direction == "10" else graph.beta) * difference).sum())
        if total > most:
            best, most = neighbours, total
    return best


def _copy(block: Array) -> Array:
    return block.copy() if isinstance(block, np.ndarray) else block.clone()
