"""Distances and neighbour ranks, computed in blocks of rows.

Symbols: X (n, d) one representation; S (n, n) squared Euclidean distances; D (n, n) ranks, D[i, j] = number of points
strictly before j when all points are sorted by their distance from i; D[i, i] = 0.

Nothing of size n x n is kept here: callers ask for blocks of rows. Two ways to compute S:

* default: the rows are centred and scaled by a power of two, then |x|^2 + |y|^2 - 2 x.y is one matrix product in
  float64. Centring removes the common offset that makes the expanded formula useless in float32 (see the class
  `Points`), and float64 keeps 15 digits of what remains. Values within the rounding error of zero become exactly zero,
  so that duplicates tie.
* ``exact``: sums of squared coordinate differences, in float64. No cancellation at all; about ten times slower.

Ties are resolved by index, and a point is always its own first neighbour, so ranks are unique and the same on every
machine. In the default mode two squared distances tie when they agree in float32 (relative difference about 6e-8).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import scipy, torch
from rdxcli.progress import human_count

Array = Any  # numpy array on the CPU, torch tensor on another device
Rows = slice | np.ndarray

GROUPS = 128  # of columns, of which one minimum each is partially sorted instead of all columns
BLOCK_ELEMENTS = 2**20  # 8 MiB of float64: two blocks fit in the second-level cache of two cores


def resolve_device(device: str) -> str:
    """Turn ``auto`` into ``cuda`` when there is one, else ``cpu``.

    ``cpu`` computes with NumPy, which sorts several times faster there; ``torch`` runs the code for accelerators on the
    CPU, to check it. Raises `ValueError` (unknown device, or a device that has no float64 or is not there).
    """
    if device == "auto":
        return "cuda" if _cuda() else "cpu"
    kind = device.split(":")[0]
    if kind == "mps":
        return "cpu"  # no float64 there; the CPU computes the same numbers
    if kind not in {"cpu", "cuda", "torch"}:
        raise ValueError(f"Got device {device!r}, expected 'auto', 'cpu', 'cuda' or 'mps'")
    if kind == "cuda" and not _cuda():
        raise ValueError(f"Got device {device!r}, but no CUDA device is available")
    return device


def _cuda() -> bool:
    """Whether torch can compute on a GPU. Torch, two seconds to load, is asked only where the system has a driver."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvhost-ctrl")  # NVIDIA, ROCm, WSL, Tegra
    if "torch" not in sys.modules and os.name == "posix" and not any(map(os.path.exists, drivers)):
        return False

    return torch.cuda.is_available()


def torch_device(device: str) -> torch.device:
    """Where the tensors of a device name (not ``cpu``) live."""
    return torch.device("cpu" if device == "torch" else device)


def to_numpy(values: Array) -> np.ndarray:
    """An array or tensor as an array on the CPU."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu().numpy())


def row_blocks(rows: int, columns: int, block_rows: int | None = None) -> Iterator[slice]:
    """Slices that cover ``rows``, each of about `BLOCK_ELEMENTS` elements when ``columns`` wide."""
    step = block_rows or max(16, BLOCK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


class Points:
    """One representation, centred and scaled, ready to give blocks of squared distances.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Finite numbers of any real type.
    exact : bool
        Direct differences instead of the expanded formula.
    device : str
        ``cpu`` (NumPy), a torch CUDA device, or ``torch``, see `resolve_device`.

    Attributes
    ----------
    values : (n, d) float64
        ``(X - mean) / scale``; with ``exact`` the mean is not subtracted.
    scale : float
        Power of two; distances of ``values`` times ``scale`` are distances of X.

    Notes
    -----
    The original computes the expanded formula in float32 without centring. With a common mean of 40 and a spread of
    0.02 then 97 % of the ranks are wrong (specification, trap T4). Costs O(n m d) per block of m rows, memory n (d + 1)
    float64.
    """

    def __init__(self, X: ArrayLike, *, exact: bool = False, device: str = "cpu") -> None:
        # Coordinates are brought to at most 1 before the mean is taken, so that nothing can overflow.
        values, first = _power_of_two(np.array(X, dtype=np.float64))
        second, mean = 1.0, np.zeros(values.shape[1])
        if not exact:  # differences need no centring, and coordinates on a lattice stay exact without it
            mean = values.mean(axis=0)
            values -= mean
            values, second = _power_of_two(values)
        self.scale = first * second
        self._frame = first, mean, second
        self.exact = exact
        self.n, self.d = values.shape
        self.device = device
        self.values: Array = values if device == "cpu" else _to_tensor(values, device)
        self._norms: Array = (self.values * self.values).sum(1)
        # Rounding error of the expanded formula for two coincident points, with a margin.
        self._coincident: Array = _rounding(self.d) * self._norms

    @property
    def constant(self) -> bool:
        """All rows are equal."""
        return bool((self.values == self.values[0]).all())

    def squared(self, rows: Rows, columns: Rows | None = None) -> Array:
        """Squared distances, in units of ``scale ** 2``, from ``rows`` to ``columns`` (default all): float64 block."""
        left = self.values[rows]
        right = self.values if columns is None else self.values[columns]
        if self.exact:
            return _direct(left, right)
        norms = self._norms if columns is None else self._norms[columns]
        block = left @ right.T
        block *= -2.0
        block += self._norms[rows][:, None]
        block += norms
        block[block <= self._coincident[rows][:, None]] = 0.0
        return block

    def squared_from(self, X: ArrayLike) -> Array:
        """Squared distances to all points, in units of ``scale ** 2``, from others of the same space: float64 block.

        Parameters
        ----------
        X : (m, d) array-like
            Not among the points; placed in their frame.
        """
        first, mean, second = self._frame
        left: Array = (np.asarray(X, dtype=np.float64) / first - mean) / second
        if self.device != "cpu":
            left = _to_tensor(left, self.device)
        if self.exact:
            return _direct(left, self.values)
        own = (left * left).sum(1)[:, None]
        block = left @ self.values.T
        block *= -2.0
        block += own
        block += self._norms
        block[block <= _rounding(self.d) * own] = 0.0
        return block

    def distances(self, rows: Rows, columns: Rows | None = None) -> Array:
        """Euclidean distances of X from ``rows`` to ``columns``: float64 block."""
        block = self.squared(rows, columns)
        block = np.sqrt(block, out=block) if self.device == "cpu" else block.sqrt_()
        block *= self.scale
        return block


def _to_tensor(values: np.ndarray, device: str) -> torch.Tensor:
    return torch.as_tensor(values, device=torch_device(device))


def _direct(left: Array, right: Array) -> Array:
    """Squared distances as sums of squared differences."""
    if isinstance(left, np.ndarray):
        return scipy.spatial.distance.cdist(left, right, "sqeuclidean")

    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _rounding(d: int) -> float:
    """Relative rounding error of the expanded formula in d dimensions, with a margin."""
    return float(8.0 * np.finfo(np.float64).eps * np.sqrt(d + 1.0))


def _power_of_two(values: np.ndarray) -> tuple[np.ndarray, float]:
    largest = float(np.abs(values).max(initial=0.0))
    if not largest > 0.0:
        return values, 1.0
    exponent = int(np.frexp(largest)[1])
    return np.ldexp(values, -exponent), float(np.ldexp(1.0, exponent))


def _row_numbers(rows: Rows, n: int) -> np.ndarray:
    return np.arange(n)[rows]


def _keys(distances: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Non-negative float32 distances (self: -1) and their column numbers packed in one sortable int64.

    The bit pattern of a non-negative float32 grows with its value, and that of -1 is negative; the low half breaks ties
    by column. Sorting these integers is several times faster than any argsort, and stable by construction.
    """
    keys = distances.astype(np.float32).view(np.int32).astype(np.int64)
    keys <<= 32
    keys |= columns
    return keys


def _order(block: Array, exact: bool) -> Array:
    """Columns of each row by ascending distance, ties by column."""
    if not isinstance(block, np.ndarray):
        return (block if exact else block.float()).sort(dim=1, stable=True).indices
    if exact:
        return np.argsort(block, axis=1, kind="stable")
    keys = _keys(block, np.arange(block.shape[1], dtype=np.int64))
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    return keys


def _first(block: np.ndarray, k: int) -> np.ndarray:
    """The first k columns of each row of float32 distances in the order of `_order`.

    The k-th smallest of the minima of disjoint groups of columns bounds the k-th smallest of all: a scan and a short
    partial sort leave few columns, whose keys settle the order and the ties.
    """
    n = block.shape[1]
    groups = max(GROUPS, 4 * k)
    if n >= 4 * groups:
        least = block[:, : n // groups * groups].reshape(len(block), -1, groups).min(axis=1)
    else:
        least = block
    limit = np.partition(least, k - 1, axis=1)[:, k - 1 : k]
    inside = np.flatnonzero(block <= limit)
    rows, columns = np.divmod(inside, n)
    counts = np.bincount(rows, minlength=len(block))
    keys = np.full((len(block), counts.max(initial=k)), np.iinfo(np.int64).max)
    keys[rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = _keys(
        block.reshape(-1)[inside], columns
    )
    keys.sort(axis=1)
    return keys[:, :k] & 0xFFFFFFFF


def rank_dtype(n: int) -> type[np.int16] | type[np.int32]:
    """The smallest of int16 and int32 that holds ranks 0 .. n - 1."""
    return np.int16 if n <= 2**15 else np.int32


def ranks(points: Points, rows: Rows) -> Array:
    """Neighbour ranks of all points as seen from ``rows``.

    Returns
    -------
    (len(rows), n) integer block
        Self 0, nearest neighbour 1, farthest n - 1; int16 up to n = 32,768, else int32. O(n log n) per row.
    """
    numbers = _row_numbers(rows, points.n)
    block = points.squared(rows)
    block[np.arange(len(numbers)), numbers] = -1.0
    order = _order(block, points.exact)
    kind = rank_dtype(points.n)
    if not isinstance(order, np.ndarray):
        positions = torch.arange(points.n, device=order.device, dtype=torch.int16 if kind is np.int16 else torch.int32)
        return torch.empty_like(order, dtype=positions.dtype).scatter_(1, order, positions.expand_as(order))
    return _positions(order, 0, kind)


def ranks_from(points: Points, squared: Array) -> Array:
    """Neighbour ranks of ``points`` as seen from points that are not among them.

    Parameters
    ----------
    squared : (m, n) block of squared distances

    Returns
    -------
    (m, n) integer block
        Nearest neighbour 1, farthest n.
    """
    order = _order(squared, points.exact)
    kind = rank_dtype(points.n + 1)
    if not isinstance(order, np.ndarray):
        positions = torch.arange(1, points.n + 1, device=order.device, dtype=torch.int32)
        return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, positions.expand_as(order))
    return _positions(order, 1, kind)


def _positions(order: np.ndarray, first: int, kind: type) -> np.ndarray:
    """Where each column stands in the order of its row, counted from ``first``; overwrites ``order``."""
    rows, n = order.shape
    out = np.empty(rows * n, dtype=kind)
    order += n * np.arange(rows)[:, None]
    out[order] = np.arange(first, first + n, dtype=kind)
    return out.reshape(rows, n)


def nearest(points: Points, k: int, rows: Rows | None = None, *, members: np.ndarray | None = None) -> np.ndarray:
    """The ``k`` nearest points of each row, itself first.

    Parameters
    ----------
    k : int
        Number of neighbours including the point itself.
    rows : slice or index array, optional
        Points of departure; default all, or all members.
    members : index array, optional
        Search only among these points; ``rows`` and the result then count positions in ``members``.

    Returns
    -------
    (len(rows), k) int64 array
        By ascending distance, ties by position.
    """
    total = points.n if members is None else len(members)
    if not 1 <= k <= total:
        raise ValueError(f"Got k={k}, expected between 1 and the number of points, {total}")
    wanted = _row_numbers(slice(None) if rows is None else rows, total)
    out = np.empty((len(wanted), k), dtype=np.int64)
    for part in row_blocks(len(wanted), total):
        numbers = wanted[part]
        block = points.squared(numbers if members is None else members[numbers], members)
        block[np.arange(len(numbers)), numbers] = -1.0
        if not isinstance(block, np.ndarray) or points.exact:
            out[part] = to_numpy(_order(block, points.exact)[:, :k])
            continue
        out[part] = _first(block.astype(np.float32), k)
    return out


def nth_distance(points: Points, nth: int) -> np.ndarray:
    """Distance of every point to its ``nth`` nearest neighbour, itself counted as number 0: (n,) float64.

    Where that distance is zero (``nth`` or more duplicates) the smallest positive distance of the row is returned
    instead, so that it can serve as a length scale. Raises `ValueError` (fewer than ``nth + 1`` points).
    """
    if nth >= points.n:
        raise ValueError(
            f"Got n={human_count(points.n, 'row')}, expected at least {nth + 1} for the distance to neighbour {nth}"
        )
    out = np.empty(points.n)
    for rows in row_blocks(points.n, points.n):
        block = to_numpy(points.distances(rows))
        numbers = _row_numbers(rows, points.n)
        block[np.arange(len(numbers)), numbers] = 0.0
        value = np.partition(block, nth, axis=1)[:, nth]
        for i in np.flatnonzero(value == 0.0):
            positive = block[i][block[i] > 0.0]
            value[i] = positive.min()
        out[rows] = value
    return out


def largest_distance(points: Points) -> float:
    """The largest Euclidean distance between two points."""
    return max(float(points.squared(rows).max()) for rows in row_blocks(points.n, points.n)) ** 0.5 * points.scale
