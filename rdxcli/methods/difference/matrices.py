"""How alike every layer (or model) of one list is to every one of another, beside what chance would give.

Symbols: X_i (n, d_i), Y_j (n, d_j) representations of the same n images; K_i = X_i X_i^T; m images that are used.

======================  ==========================================================  ================================
measure                 value of a cell                                             chance
======================  ==========================================================  ================================
``cka``                 debiased linear CKA                                         rows in random order, exactly
``mutual_knn``          mean share of common k nearest neighbours                   rows in random order, drawn
``rsa``                 rank correlation of the distances between images            rows in random order, drawn
``score``               difference score, 1 - ``mutual_knn``                        two read-outs of one layer
======================  ==========================================================  ================================

Each layer is read once for its neighbours, its ranks of distances and its part of K; cells are products of these.

Debiased CKA is the cosine of two U-centred kernel matrices, vectors of a space of n (n - 3) / 2 dimensions. For rows in
random order its mean is therefore exactly 0 and its variance exactly 2 / (n (n - 3)), whatever the layers are (Mantel
1967 gives the moments). Its distribution depends on the layers; Cantelli's inequality bounds 95 % of it.

References: Kornblith et al., ICML 2019 (CKA); Song et al., JMLR 2012 (debiased HSIC); Mantel, Cancer Research 1967
(permutations of rows and columns); Huh et al., ICML 2024 (mutual nearest neighbours); Kriegeskorte et al., 2008 (RSA).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rdxcli.lazy import scipy
from rdxcli.methods.difference.enrichment import midranks
from rdxcli.methods.difference.inputs import check_representation
from rdxcli.methods.difference.resampling import Versions
from rdxcli.methods.difference.significance import MAX_QUERIES, MAX_SCORE_ROWS, neighbour_disagreement
from rdxcli.methods.difference.similarity import RSA_ROWS
from rdxcli.numerics.neighbours import Points, nearest, to_numpy
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count, track

MEASURES = ("cka", "mutual_knn", "rsa", "score")

BLOCK_BYTES = 2**27
"""Memory for the rows of all kernel matrices that are held at one time."""

CELLS = 400
"""So many cells of rows in random order are drawn at least, over all cells of a matrix."""

FEWEST, MOST = 5, 99
"""Random orders of the rows, at least and at most."""

READ_OUTS = 10
"""Pairs of versions of each layer."""

NOISE = 0.05
"""Of versions, as in `rdxcli.methods.difference.significance.difference_test`."""

CANTELLI = np.sqrt(19.0)
"""Standard deviations above the mean that at most one in twenty exceeds, whatever the distribution."""


@dataclass(frozen=True)
class ByChance:
    """What a measure gives when nothing is alike.

    Attributes
    ----------
    high : float
        At most one cell in twenty is above.
    how : str
        Where this is from, in words.
    """

    mean: float
    high: float
    how: str


@dataclass(frozen=True)
class Matrices:
    """Outcome of `similarity_matrices`.

    Attributes
    ----------
    values : dict of str to (r, c) float64 array
        By measure; NaN where a layer is constant.
    chance : dict of str to ByChance
        Of ``cka``, ``mutual_knn`` and ``rsa``.
    read_outs_first, read_outs_second : (r, 2), (c, 2) float64 arrays
        Mean and maximum of the score between two versions of each layer.
    rows, neighbours : int
        Images used, and k.
    constant : tuple of list of int
        Layers of either list whose rows are all equal.
    """

    values: dict[str, np.ndarray]
    chance: dict[str, ByChance]
    read_outs_first: np.ndarray
    read_outs_second: np.ndarray
    rows: int
    neighbours: int
    constant: tuple[list[int], list[int]]

    def take(self, count: int) -> Matrices:
        """The first layers of a list compared with itself."""
        return replace(
            self,
            values={name: values[:count, :count] for name, values in self.values.items()},
            read_outs_first=self.read_outs_first[:count],
            read_outs_second=self.read_outs_second[:count],
            constant=([i for i in self.constant[0] if i < count], []),
        )

    def limit(self, row: int, column: int) -> float:
        """The largest score between two versions of either layer: below it a cell says nothing."""
        return float(max(self.read_outs_first[row, 1], self.read_outs_second[column, 1]))


def similarity_matrices(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray] | None = None,
    *,
    neighbours: int = 10,
    random_state: int = 0,
    device: str = "cpu",
) -> Matrices:
    """Every measure for every pair of layers.

    Raises `ValueError` (no layer, fewer than five images, different numbers of images, or unusable values).

    Parameters
    ----------
    first, second : sequences of (n, d) arrays
        Layers, over the same n images; arrays may be memory-mapped. Without ``second`` every layer of ``first`` is
        compared with every other one.
    neighbours : int
        At most a quarter of the images.

    Notes
    -----
    At most 2,000 images drawn at random are used (1,000 for ``rsa``), the same as in
    `rdxcli.methods.difference.significance.difference_test`. With l layers in all: time O(l m^2 d + l^2 m^2), memory
    O(l m k + l 1000^2 / 2) and `BLOCK_BYTES`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=(60, 4))
    >>> found = similarity_matrices([a, rng.normal(size=(60, 3))], [2.0 * a])
    >>> found.values["cka"].round(2).tolist()[0], bool(found.values["cka"][1, 0] < 0.2)
    ([1.0], True)
    """
    layers = [*first, *(second or ())]
    names = [f"first[{i}]" for i in range(len(first))] + [f"second[{i}]" for i in range(len(second or ()))]
    if not first or (second is not None and not second):
        raise ValueError("Got no layer, expected at least one on each side")
    n = len(layers[0])
    constant = []
    for place, (values, name) in enumerate(zip(layers, names, strict=True)):
        if len(values) != n:
            raise ValueError(
                f"Got {human_count(len(values), 'row')} in {name} and {n} in {names[0]}, expected the same images"
            )
        if len(values) and (np.asarray(values) == np.asarray(values[0])).all():
            constant.append(place)
        else:
            check_representation(values, name, minimum_rows=5)
    if n < 5:
        raise ValueError(f"Got {human_count(n, 'row')}, expected at least 5")
    rows = drawn_rows(n, random_state)
    k = max(1, min(neighbours, (n - 1) // 4))
    split = len(first)
    count = split * (len(layers) - split if second is not None else split)
    draws = int(np.clip(-(-CELLS // count), FEWEST, MOST))
    orders = [generator(random_state, "matrices", "order", b).permutation(len(rows)) for b in range(draws)]
    varied = _Layers(layers, rows, constant, split, second is not None)
    common, common_by_chance = _common_neighbours(varied, k, orders, device)
    correlation, correlation_by_chance = _rank_correlations(varied, orders, random_state)
    read_outs = _read_outs(varied, k, random_state, device)
    m = len(rows)
    drawn = f"{human_count(draws, 'random order')} of the rows"
    return Matrices(
        values={"cka": _kernel_cosines(varied), "mutual_knn": common, "rsa": correlation, "score": 1.0 - common},
        chance={
            "cka": ByChance(0.0, float(CANTELLI * np.sqrt(2.0 / (m * (m - 3.0)))), "exact moments, Cantelli's bound"),
            "mutual_knn": ByChance(k / (m - 1.0), _high(common_by_chance), drawn),
            "rsa": ByChance(float(np.nanmean(correlation_by_chance)), _high(correlation_by_chance), drawn),
        },
        read_outs_first=read_outs[:split],
        read_outs_second=read_outs[split:] if second is not None else read_outs,
        rows=m,
        neighbours=k,
        constant=([i for i in constant if i < split], [i - split for i in constant if i >= split]),
    )


def drawn_rows(n: int, random_state: int) -> np.ndarray:
    """At most 2,000 of n images, ascending."""
    return np.sort(generator(random_state, "significance", "rows").permutation(n)[: min(n, MAX_SCORE_ROWS)])


def _high(drawn: np.ndarray) -> float:
    return float(np.nanquantile(drawn, 0.95))


@dataclass(frozen=True)
class _Layers:
    """The layers of both sides on the images that are used."""

    layers: Sequence[np.ndarray]
    rows: np.ndarray
    constant: Sequence[int]
    split: int
    two_sided: bool

    def __len__(self) -> int:
        return len(self.layers)

    def get(self, place: int, rows: np.ndarray | None = None) -> np.ndarray:
        """A layer as float64, with the values of a constant one replaced so that every measure is defined."""
        rows = self.rows if rows is None else rows
        if place in self.constant:
            return np.arange(len(rows), dtype=np.float64)[:, None]
        return np.asarray(self.layers[place][rows], dtype=np.float64)

    def sides(self) -> tuple[slice, slice]:
        """Places of the rows and of the columns of the matrix."""
        return slice(0, self.split), slice(self.split, None) if self.two_sided else slice(0, self.split)

    def blank(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix with NaN where a layer is constant."""
        rows, columns = self.sides()
        is_constant = np.isin(np.arange(len(self)), self.constant)
        matrix[is_constant[rows]] = np.nan
        matrix[:, is_constant[columns]] = np.nan
        return matrix


def _common_neighbours(
    layers: _Layers, k: int, orders: Sequence[np.ndarray], device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean share of common neighbours of every pair, and (draws, r, c) of the same for rows in random order."""
    m = len(layers.rows)
    lists = np.empty((len(layers), m, k), dtype=np.int32)
    with track("neighbours of each layer", len(layers), "layers") as advance:
        for place in range(len(layers)):
            lists[place] = nearest(Points(layers.get(place), device=device), k + 1)[:, 1:]
            advance(1)
    rows, columns = layers.sides()
    others = lists[columns]
    permuted = []
    for order in orders:
        back = np.empty(m, dtype=np.int32)
        back[order] = np.arange(m, dtype=np.int32)
        permuted.append(back[others[:, order]])
    found = np.empty((len(lists[rows]), len(others)))
    chance = np.empty((len(orders), *found.shape))
    every = np.arange(m)[:, None]
    for row, own in enumerate(lists[rows]):
        member = np.zeros((m, m), dtype=bool)
        member[every, own] = True
        found[row] = member[every, others].mean(axis=(1, 2))
        for b, shuffled in enumerate(permuted):
            chance[b, row] = member[every, shuffled].mean(axis=(1, 2))
    return layers.blank(found), chance


def _rank_correlations(
    layers: _Layers, orders: Sequence[np.ndarray], random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spearman's correlation of the distances, and (draws, r, c) of the same for rows in random order."""
    m = min(len(layers.rows), RSA_ROWS)
    part = np.sort(generator(random_state, "matrices", "rsa").permutation(len(layers.rows))[:m])
    upper = np.triu_indices(m, 1)
    ranks = np.empty((len(layers), len(upper[0])), dtype=np.float32)
    with track("distances of each layer", len(layers), "layers") as advance:
        for place in range(len(layers)):
            squared = to_numpy(Points(layers.get(place, layers.rows[part])).squared(slice(None)))[upper]
            values = midranks(squared)
            values -= values.mean()
            size = float(np.sqrt(values @ values))
            ranks[place] = values / (size or 1.0)
            advance(1)
    rows, columns = layers.sides()
    found = _bounded(ranks[rows] @ ranks[columns].T)
    place_of = np.zeros((m, m), dtype=np.int64)
    place_of[upper] = np.arange(len(upper[0]))
    place_of += place_of.T
    chance = np.empty((len(orders), *found.shape))
    for b, order in enumerate(orders):
        shuffled = np.argsort(order[part], kind="stable")
        moved = place_of[shuffled[upper[0]], shuffled[upper[1]]]
        for column, own in enumerate(ranks[columns]):
            chance[b, :, column] = ranks[rows] @ own[moved]
    return layers.blank(found), chance


def _bounded(values: np.ndarray) -> np.ndarray:
    """Correlations in float64, without what single precision adds to 1."""
    return np.clip(values.astype(np.float64), -1.0, 1.0)


def _kernel_cosines(layers: _Layers) -> np.ndarray:
    """Debiased linear CKA of every pair, from U-centred kernel matrices that are made a block of rows at a time."""
    m = len(layers.rows)
    step = max(1, BLOCK_BYTES // (4 * m * len(layers)))
    products = np.zeros((len(layers), len(layers)))
    blocks = range(0, m, step)
    with track("kernels of each layer", len(blocks) * len(layers), "blocks") as advance:
        for start in blocks:
            part = np.arange(start, min(m, start + step))
            kernels = np.empty((len(layers), len(part) * m), dtype=np.float32)
            for place in range(len(layers)):
                kernels[place] = _centred_rows(layers.get(place), part).ravel()
                advance(1)
            products += kernels @ kernels.T
    sizes = np.sqrt(np.diag(products))
    rows, columns = layers.sides()
    return layers.blank(_bounded(products[rows, columns] / sizes[rows, None] / sizes[None, columns]))


def _centred_rows(X: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Some rows of the U-centred kernel matrix: zero diagonal, rows that sum to zero. (len(part), m) float32."""
    m = len(X)
    X = X - X.mean(axis=0)
    X /= np.sqrt(np.square(X).sum() / m)
    lengths = np.square(X).sum(axis=1)
    mean = -lengths / (m - 2.0)  # rows of a kernel of centred values sum to zero, the diagonal included
    mean -= mean.sum() / (2.0 * (m - 1.0))
    X = X.astype(np.float32)
    block = X[part] @ X.T
    block -= mean[part, None].astype(np.float32)
    block -= mean[None].astype(np.float32)
    block[np.arange(len(part)), part] = 0.0
    return block


def _read_outs(layers: _Layers, k: int, random_state: int, device: str) -> np.ndarray:
    """Mean and maximum of the score between two versions of each layer: (l, 2)."""
    m = len(layers.rows)
    queries = np.sort(generator(random_state, "matrices", "queries").permutation(m)[:MAX_QUERIES])
    found = np.full((len(layers), 2), np.nan)
    with track("read-outs of each layer", len(layers), "layers") as advance:
        for place in range(len(layers)):
            if place not in layers.constant:
                X = layers.get(place)
                side = (0, place) if place < layers.split else (1, place - layers.split)
                rng = generator(random_state, "matrices", "read-outs", *side)
                versions = Versions(X, NOISE, rng)
                scores = [
                    neighbour_disagreement(
                        versions.draw(X.shape[1], rng), versions.draw(X.shape[1], rng), k, queries, device
                    )
                    for _ in range(READ_OUTS)
                ]
                found[place] = np.mean(scores), np.max(scores)
            advance(1)
    return found


def of_equal_depth(rows: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of layers that stand for each other: those of equal names, where both sides have the same ones; else those
    at the same share of the depth (the last of three blocks is not the third of nine).
    """
    places = {name: place for place, name in enumerate(columns)}
    if len(places) == len(columns) == len(rows) and set(rows) == set(columns):
        yield from ((row, places[name]) for row, name in enumerate(rows))
        return
    longest = max(len(rows), len(columns))
    for depth in range(longest):
        share = depth / max(1, longest - 1)
        yield round(share * (len(rows) - 1)), round(share * (len(columns) - 1))


@dataclass(frozen=True)
class Dendrogram:
    """Models joined step by step, the most alike first (average linkage).

    Attributes
    ----------
    order : list of int
        Models so that those that are alike stand beside each other.
    merges : list of (int, int, float)
        The two nodes that are joined and the mean distance between their models; node ``len(order) + i`` is what step i
        made.
    """

    order: list[int]
    merges: list[tuple[int, int, float]]


def tree(distances: np.ndarray) -> Dendrogram:
    """The tree of a symmetric (l, l) matrix of distances, l at least 2; NaN counts as the largest."""
    known = np.nan_to_num(distances, nan=float(np.nanmax(distances, initial=1.0)))
    condensed = ((known + known.T) / 2.0)[np.triu_indices(len(known), 1)]

    joined = scipy.cluster.hierarchy.linkage(condensed, "average", optimal_ordering=True)
    merges = [(int(a), int(b), float(height)) for a, b, height, _ in joined]
    return Dendrogram([int(leaf) for leaf in scipy.cluster.hierarchy.leaves_list(joined)], merges)
