"""The difference graph of RDX: per-model distances, their locally biased difference, the affinity.

Symbols (n images, two models 0 and 1):

========  ==========  ===========================================================================================
E_m       (n, n)      Euclidean distances in model m
D_m       (n, n)      distances that are compared: neighbour ranks, E / max(E), or locally scaled E
diff_10   (n, n)      in (-1, 1): negative where model 1 puts the pair closer together than model 0; diff_01 = -diff_10
A_10      (n, n)      affinity exp(-beta diff_10); A_01 = exp(-beta diff_01) = 1 / A_10 element-wise
========  ==========  ===========================================================================================

Direction ``10`` is "what model 1 groups that model 0 does not", ``01`` the reverse. Only A_10 is stored: everything
before it is a function of single rows and streams through in blocks, and A_01 is its reciprocal.

Reference: Kondapaneni, Mac Aodha and Perona, "Representational Difference Explanations", NeurIPS 2025 (arXiv
2505.23917).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import torch
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.numerics.neighbours import (
    Array,
    Points,
    Rows,
    largest_distance,
    nth_distance,
    rank_dtype,
    ranks,
    resolve_device,
    row_blocks,
    to_numpy,
    torch_device,
)

Similarity = Literal["neighborhood", "max_normalized", "local_scaling"]
Difference = Literal["locally_biased", "standard"]
Direction = Literal["01", "10"]

SIMILARITIES = ("neighborhood", "max_normalized", "local_scaling")
DIFFERENCES = ("locally_biased", "standard")
SYMMETRIES = ("affinity", "ranks")
DTYPES = ("float32", "float64")
DIRECTIONS: tuple[Direction, Direction] = ("01", "10")

GUIDANCE_FACTOR = 5  # pairs split by their labels get rank 5 (n - 1)
TILE = 1024


class DifferenceGraph:
    """Rows of distances, differences and affinities of two models, computed on demand.

    Raises `ValueError` (unusable input, unknown option, guidance with another similarity than ``neighborhood``).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    similarity : {"neighborhood", "max_normalized", "local_scaling"}
        Distances that are compared. ``neighborhood``: rank of j among the neighbours of i. ``max_normalized``: E /
        max(E).
        ``local_scaling``: E[i, j]^2 / (s_i s_j), s_i the distance of i to its ``sigma``-th neighbour.
    difference : {"locally_biased", "standard"}
        With p = D_0[i, j], q = D_1[i, j]: tanh(gamma (q - p) / (1 + min(p, q))), or q - p.
    gamma : float or None
        Slope of the locally biased difference; None means ``gamma_scale / n``.
    beta : float
        Sharpness of the affinity.
    normalize : bool
        Divide the difference by its largest absolute entry.
    labels0, labels1 : (n,) arrays, optional
        Guidance: within a model, pairs with different labels get rank 5 (n - 1). Only with ``neighborhood``.
    sigma : int
        Neighbour that sets the length scale of ``local_scaling``.
    transposed_scaling : bool
        Reproduce the original's slip: model 1 multiplies E_1[i, j] by E_0[j, i] (specification, trap T3).
    symmetrize : {"affinity", "ranks"}
        ``ranks`` replaces D by (D + D^T) / 2 in each model before the difference (a later upstream variant);
        ``affinity`` leaves D as it is and the clustering symmetrises A.
    reference_n : int or None
        Above this n, ranks are measured in units of n / reference_n, see `RDX`.
    images : int, optional
        The rows are drawn from so many images: ``gamma`` and the unit of ranks are those of all of them.
    dtype : {"float32", "float64"}
        Of stored matrices and of the arithmetic on ranks. ``float64`` also takes distances by direct differences.
    block_rows : int, optional
        Rows per block; results do not depend on it.
    """

    def __init__(
        self,
        R0: ArrayLike,
        R1: ArrayLike,
        *,
        similarity: str = "neighborhood",
        difference: str = "locally_biased",
        gamma: float | None = 0.1,
        gamma_scale: float = 80.0,
        beta: float = 5.0,
        normalize: bool = False,
        labels0: ArrayLike | None = None,
        labels1: ArrayLike | None = None,
        sigma: int = 7,
        transposed_scaling: bool = False,
        symmetrize: str = "affinity",
        reference_n: int | None = 5000,
        images: int | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        block_rows: int | None = None,
    ) -> None:
        _choice("similarity", similarity, SIMILARITIES)
        _choice("difference", difference, DIFFERENCES)
        _choice("symmetrize", symmetrize, SYMMETRIES)
        _choice("dtype", dtype, DTYPES)
        _positive("beta", beta)
        R0, R1 = check_pair(R0, R1)
        self.n = n = len(R0)
        total = n if images is None else images
        if gamma is None:
            _positive("gamma_scale", gamma_scale)
            gamma = gamma_scale / total
        _positive("gamma", gamma)
        if reference_n is not None:
            _positive("reference_n", reference_n)
        if symmetrize == "ranks" and similarity != "neighborhood":
            raise ValueError(
                f"Got symmetrize='ranks' with similarity={similarity!r}, expected similarity='neighborhood'"
            )
        self.similarity, self.difference_kind, self.normalize = similarity, difference, normalize
        self.gamma, self.beta = float(gamma), float(beta)
        self.sigma, self.transposed_scaling, self.symmetrize = sigma, transposed_scaling, symmetrize
        self.whole_unit = 1.0
        if reference_n is not None and similarity == "neighborhood":
            self.whole_unit = max(1.0, total / reference_n)
        self.unit = self.whole_unit * n / total if similarity == "neighborhood" else 1.0
        self.dtype = np.dtype(dtype)
        self.device = resolve_device(device)
        self.block_rows = block_rows
        exact = dtype == "float64"
        self.points = tuple(Points(R, exact=exact, device=self.device) for R in (R0, R1))
        self._labels = self._guidance(labels0, labels1)
        self.scales: list[Any] = [self._scale(m) for m in (0, 1)]
        self._symmetric: list[Any] | None = None
        self.largest: float | None = None

    def _guidance(self, *labels: ArrayLike | None) -> tuple[np.ndarray, ...] | None:
        if all(one is None for one in labels):
            return None
        if any(one is None for one in labels):
            raise ValueError("Got labels for one model only, expected labels for both models or none")
        if self.similarity != "neighborhood":
            raise ValueError(
                f"Got labels with similarity={self.similarity!r}, expected 'neighborhood': guidance acts on ranks only"
            )
        codes = []
        for one in labels:
            values = np.asarray(one)
            if values.shape != (self.n,):
                raise ValueError(f"Got labels of shape {values.shape}, expected ({self.n},)")
            codes.append(np.unique(values, return_inverse=True)[1])
        return tuple(codes)

    def _scale(self, model: int) -> Any:
        """What a distance of this similarity is divided by: nothing, the maximum, or the local scales."""
        points = self.points[model]
        if self.similarity == "max_normalized":
            return largest_distance(points)
        if self.similarity == "local_scaling":
            scales = nth_distance(points, self.sigma)
            if self.device == "cpu":
                return scales

            return torch.as_tensor(scales, device=torch_device(self.device))
        return None

    def blocks(self) -> Any:
        """Slices of rows in which everything here is computed."""
        return row_blocks(self.n, self.n, self.block_rows)

    def distances(self, model: int, rows: Rows) -> Array:
        """D_m for some rows: (len(rows), n), integer ranks (halves if symmetrised) or float64 distances."""
        if self.symmetrize == "ranks":
            return self._symmetric_ranks(model)[rows]
        return self._row_distances(model, rows)

    def _row_distances(self, model: int, rows: Rows) -> Array:
        points = self.points[model]
        if self.similarity == "neighborhood":
            block = ranks(points, rows)
            if self._labels is not None:
                labels = self._labels[model]
                split = labels[rows][:, None] != labels
                if not isinstance(block, np.ndarray):
                    block = block.to(torch.int32)
                    block[torch.as_tensor(split, device=block.device)] = GUIDANCE_FACTOR * (self.n - 1)
                else:
                    block = block.astype(np.int32)
                    block[split] = GUIDANCE_FACTOR * (self.n - 1)
            return block
        block = points.distances(rows)
        if self.similarity == "max_normalized":
            block /= self.scales[model]
            return block
        block *= self.points[0].distances(rows) if self.transposed_scaling and model == 1 else block
        scales = self.scales[model]
        block /= scales[rows][:, None]
        block /= scales
        return block

    def _symmetric_ranks(self, model: int) -> Array:
        """D + D^T (twice the mean); both models are held, as int16 up to n = 16,384 (together one float32 matrix)."""
        if self._symmetric is None:
            self._symmetric = []
            for m in (0, 1):
                # Sums reach 2 (n - 1), or 10 (n - 1) with guidance.
                largest = (2 if self._labels is None else 2 * GUIDANCE_FACTOR) * (self.n - 1)
                kind = rank_dtype(largest + 1)
                full = self._square(kind)
                for rows in self.blocks():
                    block = self._row_distances(m, rows)
                    full[rows] = block.astype(kind, copy=False) if isinstance(block, np.ndarray) else block
                for i in range(0, self.n, TILE):
                    for j in range(i, self.n, TILE):
                        rows, columns = slice(i, i + TILE), slice(j, j + TILE)
                        total = full[rows, columns] + full[columns, rows].T
                        full[rows, columns] = total
                        full[columns, rows] = total.T
                self._symmetric.append(full)
        return self._symmetric[model]

    def _raw_difference(self, rows: Rows) -> Array:
        """diff_10 for some rows before normalisation, in ``dtype``."""
        p, q = (self._as_float(self.distances(m, rows)) for m in (0, 1))
        if self.symmetrize == "ranks":
            p *= 0.5
            q *= 0.5
        return self.contrast(p, q)

    def contrast(self, p: Array, q: Array, unit: float | None = None) -> Array:
        """The difference of floating-point blocks of D_0 and D_1 before normalisation; overwrites ``q``.

        ``unit``: in which ranks are counted, when they are not those of this graph.
        """
        unit = self.unit if unit is None else unit
        if self.difference_kind == "standard":
            q -= p
            q /= unit
            return q
        xp = _library(p)
        floor = xp.minimum(p, q)
        floor += unit
        q -= p
        q /= floor
        q *= self.gamma
        return xp.tanh(q, out=q)

    def _as_float(self, block: Array) -> Array:
        if isinstance(block, np.ndarray):
            return block.astype(self.dtype)
        return block.to(torch_type(self.dtype), copy=True)

    def _square(self, kind: Any) -> Array:
        """An n x n matrix of no particular content, where this graph computes."""
        if self.device == "cpu":
            return np.empty((self.n, self.n), dtype=kind)

        return torch.empty((self.n, self.n), dtype=torch_type(kind), device=torch_device(self.device))

    def difference(self, rows: Rows, direction: Direction = "10") -> Array:
        """The difference matrix of a direction for some rows: (len(rows), n) in ``dtype``.

        With ``normalize`` the first call makes one pass over all rows for the largest entry, unless `affinity` did so
        already.
        """
        block = self._raw_difference(rows)
        if self.normalize:
            if self.largest is None:
                self.largest = max(_largest_magnitude(self._raw_difference(part)) for part in self.blocks())
            block /= self.largest or 1.0
        if direction == "01":
            block *= -1.0
        return block

    def affinity(self) -> Affinity:
        """Compute and store A_10: O(n^2 (d0 + d1 + log n)) time, one n x n matrix of ``dtype``.

        Raises `ValueError` (exp(beta diff) would overflow (differences of ranks that were not normalised)).
        """
        matrix = self._square(self.dtype)
        largest = 0.0
        limit = 80.0 if self.dtype == np.float32 else 700.0
        for rows in self.blocks():
            block = self._raw_difference(rows)
            largest = max(largest, _largest_magnitude(block))
            if not self.normalize:
                if self.beta * largest > limit:
                    raise ValueError(
                        f"Got differences up to {largest:.3g} and beta={self.beta:g}, so that exp(beta x difference) "
                        "overflows; expected normalize=True, a smaller beta, or difference='locally_biased'"
                    )
                _exponential(block, -self.beta)
            matrix[rows] = block
        self.largest = largest
        if self.normalize:
            for rows in self.blocks():
                _exponential(matrix[rows], -self.beta / (largest or 1.0))
        self._symmetric = None  # its memory is needed by the clustering
        return Affinity(matrix, largest)


class Affinity:
    """A_10 in memory, read in either direction.

    Parameters
    ----------
    matrix : (n, n) float array or tensor
        A_10.
    largest_difference : float
        Largest absolute entry of the difference matrix before normalisation; 0 when the models agree on every pair.
    """

    def __init__(self, matrix: Array, largest_difference: float) -> None:
        self.matrix = matrix
        self.n = len(matrix)
        self.largest_difference = largest_difference

    def rows(self, direction: Direction, rows: Rows) -> Array:
        """A of the direction for some rows: (len(rows), n), a copy or a view; do not write to it."""
        block = self.matrix[rows]
        return block if direction == "10" else 1.0 / block

    def restricted(self, rows: np.ndarray) -> Affinity:
        """The same for some nodes only: a copy."""
        if isinstance(self.matrix, np.ndarray):
            return Affinity(self.matrix[np.ix_(rows, rows)], self.largest_difference)

        places = torch.as_tensor(rows, device=self.matrix.device)
        return Affinity(self.matrix[places][:, places], self.largest_difference)

    def take(self, direction: Direction, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single entries A[rows, columns] with NumPy's broadcasting, float64."""
        if not isinstance(self.matrix, np.ndarray):
            index = [torch.as_tensor(one, device=self.matrix.device) for one in (rows, columns)]
            values = self.matrix[index[0], index[1]].cpu().numpy().astype(np.float64)
        else:
            values = self.matrix[rows, columns].astype(np.float64)
        return values if direction == "10" else 1.0 / values

    def symmetric(self, direction: Direction, out: Array | None = None, *, lower: bool = False) -> Array:
        """Undirected weights of the graph: a second n x n matrix.

        Parameters
        ----------
        direction : {"01", "10"}
        out : (n, n) array, optional
            Where to write.
        lower : bool
            False: W = (A + A^T) / 2 with a zero diagonal. True: the lower triangle mirrored, weight(i < j) = A[j, i],
            diagonal kept, which is what a graph library makes of A when later edges overwrite earlier ones.
        """
        if out is None:
            out = _library(self.matrix).empty_like(self.matrix)
        for i in range(0, self.n, TILE):
            for j in range(0, i + 1, TILE):
                rows, columns = slice(i, i + TILE), slice(j, j + TILE)
                below = self.matrix[rows, columns]
                if direction == "01":
                    below = 1.0 / below
                if lower:
                    if i == j:
                        xp = _library(below)
                        below = xp.tril(below) + xp.tril(below, -1).T
                    mean = below
                else:
                    above = self.matrix[columns, rows].T
                    mean = (below + (1.0 / above if direction == "01" else above)) * 0.5
                out[rows, columns] = mean
                if i != j:
                    out[columns, rows] = mean.T
        if not lower:
            diagonal = np.arange(self.n)
            out[diagonal, diagonal] = 0.0
        return out

    def within(self, direction: Direction, labels: np.ndarray) -> np.ndarray:
        """Mean affinity of each node to the members of its own cluster, itself included: (n,) float64."""
        sizes = np.bincount(labels)
        out = np.empty(self.n)
        for rows, sums in self._to_clusters(direction, labels):
            mine = labels[rows]
            out[rows] = sums[np.arange(len(mine)), mine] / sizes[mine]
        return out

    def between(self, direction: Direction, labels: np.ndarray) -> np.ndarray:
        """Mean affinity of the pairs of two clusters, in both orders: (clusters, clusters) float64."""
        sizes = np.bincount(labels)
        total = np.zeros((len(sizes), len(sizes)))
        for rows, sums in self._to_clusters(direction, labels):
            np.add.at(total, labels[rows], sums)
        return (total + total.T) / (2.0 * np.maximum(1, np.outer(sizes, sizes)))

    def _to_clusters(self, direction: Direction, labels: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of rows with the sums of their affinities to the members of each cluster: (len(rows), clusters)."""
        right: Any = np.zeros((self.n, int(labels.max()) + 1), dtype=np.float64)
        right[np.arange(self.n), labels] = 1.0
        if isinstance(self.matrix, np.ndarray):
            right = right.astype(self.matrix.dtype)
        else:
            right = torch.as_tensor(right, device=self.matrix.device).to(self.matrix.dtype)
        for rows in row_blocks(self.n, self.n):
            yield rows, to_numpy(self.rows(direction, rows) @ right)


def _exponential(block: Array, factor: float) -> None:
    """``block = exp(factor * block)`` in place."""
    block *= factor
    _library(block).exp(block, out=block)


def _largest_magnitude(block: Array) -> float:
    return max(float(block.max()), -float(block.min()))


def _library(block: Array) -> Any:
    """NumPy or torch, whichever computes with ``block``."""
    if isinstance(block, np.ndarray):
        return np

    return torch


def torch_type(kind: Any) -> torch.dtype:
    return {"int16": torch.int16, "int32": torch.int32, "float32": torch.float32, "float64": torch.float64}[
        np.dtype(kind).name
    ]


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Got {name}={value!r}, expected one of {', '.join(map(repr, allowed))}")


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"Got {name}={value!r}, expected a positive number")
