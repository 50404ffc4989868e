"""Is there a difference at all? Two statistics with a null distribution, a reference pair, and trust in single
concepts.

RDX always shows k clusters. Whether they mean something is decided here, by two numbers that need no clustering:

``score``
    Neighbour disagreement: 1 - mean share of the k nearest neighbours that an image has in both models. In [0, 1], 0
    for models that agree up to rotation and scale.
``strength``
    Strength of the strongest group: the largest eigenvalue of (W - 1) / n over both directions, where W is the
    symmetrised RDX affinity. For any group of images, (mean affinity - 1) x (share of images) is at most this number,
    so it bounds what any clustering could find. 0 when the affinity is 1 everywhere.

The first sees any reordering of neighbours, the second only reordering that holds a group of images together. Both
are compared with the same numbers between two versions of one model (`rdxcli.methods.difference.resampling`).
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from rdxcli.methods.difference.graph import DIRECTIONS, Affinity
from rdxcli.methods.difference.grouping import group
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.resampling import Versions
from rdxcli.methods.difference.stability import concept_stability
from rdxcli.methods.difference.verdict import DifferenceTest, ReferenceTest, Statistic, exceedance, strengths
from rdxcli.numerics.neighbours import Array, Points, nearest, resolve_device
from rdxcli.numerics.seeding import generator
from rdxcli.numerics.spectral import leading_eigenpairs
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import track

__all__ = [
    "DifferenceTest",
    "concept_stability",
    "difference_test",
    "exceedance",
    "group_strength",
    "neighbour_disagreement",
]

MAX_SCORE_ROWS = 2000  # images on which neighbours are compared
MAX_GRAPH_ROWS = 1000  # images on which graphs are built
MAX_QUERIES = 500  # images whose neighbours are looked up per version
HALF_SAMPLES = 49  # resamplings of images for the comparison with a reference pair
MINIMUM_ROWS = 5

GRAPH_SETTINGS = (
    "similarity", "difference", "gamma", "reference_n", "beta", "normalize", "symmetrize", "sigma", "compat", "dtype",
)  # fmt: skip


def neighbour_disagreement(
    R0: np.ndarray, R1: np.ndarray, k: int = 10, queries: np.ndarray | None = None, device: str = "cpu"
) -> float:
    """1 - mean share of common k nearest neighbours, in [0, 1].

    Parameters
    ----------
    R0, R1 : (n, d0) and (n, d1) arrays
    k : int
        Below n.
    queries : index array, optional
        Images whose neighbours are looked up; default all.
    device : str
    """
    every = np.arange(len(R0)) if queries is None else queries
    lists = [nearest(Points(R, device=device), k + 1, every)[:, 1:] for R in (R0, R1)]
    both = np.sort(np.concatenate(lists, axis=1), axis=1)
    return float(1.0 - np.count_nonzero(both[:, 1:] == both[:, :-1]) / (len(every) * k))


def group_strength(affinity: Affinity, rng: np.random.Generator, buffer: Array | None = None) -> tuple[float, Array]:
    """The largest eigenvalue of (W - 1) / n, diagonal left out, over both directions; and a buffer to give back."""
    n = affinity.n
    strongest = 0.0
    for direction in DIRECTIONS:
        buffer = affinity.symmetric(direction, buffer)

        def product(block: np.ndarray, W: Array = buffer) -> np.ndarray:
            if isinstance(W, np.ndarray):
                image = (W @ block.astype(W.dtype)).astype(np.float64)
            else:
                image = (W @ W.new_tensor(block)).cpu().numpy().astype(np.float64)
            return (image - block.sum(axis=0) + block) / n

        values = leading_eigenpairs(product, n, 1, rng, tolerance=1e-3, dtype=buffer.dtype).values
        strongest = max(strongest, float(values[0]))
    assert buffer is not None
    return strongest, buffer


class _Measure:
    """The statistics of a pair of representations, with settings shared by observed and null pairs.

    Score and strength always use the default graph of `RDX`: the verdict must not depend on how concepts are drawn.
    """

    def __init__(self, estimator: RDX | None, k: int, random_state: int, device: str) -> None:
        self.standard = RDX(random_state=random_state, device=device)
        self.standard.notes_ = []
        self.estimator = estimator
        self.k = k
        self.device = resolve_device(device)
        self._own = threading.local()

    def score(self, R0: np.ndarray, R1: np.ndarray, queries: np.ndarray | None = None) -> float:
        return neighbour_disagreement(R0, R1, min(self.k, len(R0) - 1), queries, self.device)

    def affinity(self, R0: np.ndarray, R1: np.ndarray) -> Affinity:
        return self.standard._graph(R0, R1, None, None).affinity()

    def strength(self, affinity: Affinity, rng: np.random.Generator) -> float:
        value, self._own.buffer = group_strength(affinity, rng, self._buffer(affinity))
        return value

    def _buffer(self, affinity: Affinity) -> Array | None:
        """The matrix that this thread used before, if it has the right size."""
        buffer = getattr(self._own, "buffer", None)
        return buffer if buffer is not None and len(buffer) == affinity.n else None

    def strongest_concept(self, R0: np.ndarray, R1: np.ndarray, affinity: Affinity) -> float:
        """As the estimator draws concepts; ``affinity`` is that of the default graph."""
        assert self.estimator is not None
        if any(getattr(self.estimator, name) != getattr(self.standard, name) for name in GRAPH_SETTINGS):
            affinity = self.estimator._graph(R0, R1, None, None).affinity()
        found = [0.0]
        for direction in DIRECTIONS:
            groups, self._own.buffer = group(
                affinity, direction, self.estimator, lambda _: None, self._buffer(affinity)
            )
            found += list(strengths(groups.affinities, groups.sizes, affinity.n)[1:])
        return float(max(found))


def _fresh(estimator: RDX) -> RDX:
    """The estimator, unfitted; a slope that depends on n is fixed to the value that was used on all images."""
    fresh = clone(estimator)
    if hasattr(estimator, "gamma_"):
        fresh.set_params(gamma=estimator.gamma_)
    fresh.notes_ = []
    return fresh


def difference_test(
    R0: ArrayLike,
    R1: ArrayLike,
    *,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
    estimator: RDX | None = None,
    replicates: int = 99,
    noise: float = 0.05,
    alpha: float = 0.05,
    neighbours: int = 10,
    random_state: int = 0,
    device: str = "auto",
) -> DifferenceTest:
    """Test whether two models differ by more than two versions of one model would.

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    reference : two array-likes of n rows, optional
        A pair that sets the scale, for example one model under two seeds: is (R0, R1) more different than these?
    estimator : RDX, optional
        It is run on the versions too, to know how strong its concepts get by chance (for `concept_stability`).
    replicates : int, default 99
        Pairs of versions, half of them of each model.
    noise : float, default 0.05
        Differences that Gaussian noise of this size, relative to the spread of the features, could make do not count.
    alpha : float, default 0.05
        The verdict is "difference found" when ``p_value <= alpha``.
    neighbours : int, default 10
        At most a quarter of the images.
    random_state : int, default 0
    device : str

    Returns
    -------
    DifferenceTest

    Raises
    ------
    ValueError
        Unusable input (see `check_pair`), fewer than five images, or a reference with another number of rows.

    Notes
    -----
    At most 2,000 images drawn at random are used for the score (500 of them as query points in null pairs) and 1,000
    for the strength; ``notes`` says so. Time O(replicates * 1000^2 (d0 + d1)).

    The null hypothesis: both representations are read-outs of one representation through d0 and d1 random linear units,
    up to noise. See docs/methods/significance.md for what it can and cannot tell.
    """
    R0, R1 = check_pair(R0, R1, minimum_rows=MINIMUM_ROWS)
    n = len(R0)
    least = int(np.ceil(2.0 / alpha)) - 1 if 0.0 < alpha < 1.0 else 0
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"Got alpha={alpha!r}, expected a number between 0 and 1")
    if replicates < least:
        raise ValueError(f"Got replicates={replicates}, expected at least {least} to reach alpha={alpha:g}")
    if not noise >= 0.0:
        raise ValueError(f"Got noise={noise!r}, expected a number of at least 0")
    pair = None
    if reference is not None:
        pair = check_pair(*reference, names=("reference[0]", "reference[1]"), minimum_rows=MINIMUM_ROWS)
        if len(pair[0]) != n:
            raise ValueError(f"Got {len(pair[0])} rows in the reference pair, expected {n}, the same images")
    k = max(1, min(neighbours, (n - 1) // 4))
    measure = _Measure(None if estimator is None else _fresh(estimator), k, random_state, device)
    notes = [f"the test uses {k} neighbours instead of {neighbours}: n = {n}"] if k < neighbours else []
    rng = generator(random_state, "significance", "rows")
    rows = np.sort(rng.permutation(n)[: min(n, MAX_SCORE_ROWS)])
    graph_rows = min(n, MAX_GRAPH_ROWS)
    if len(rows) < n:
        notes.append(f"the difference test uses {len(rows):,} of the {n:,} images")
    subsets = [np.sort(rng.permutation(rows)[:graph_rows]) for _ in range(1 if graph_rows == n else 3)]

    def observe(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        rng = generator(random_state, "significance", "start")
        strengths = [measure.strength(measure.affinity(first[part], second[part]), rng) for part in subsets]
        return measure.score(first[rows], second[rows]), float(np.mean(strengths))

    score, strength = observe(R0, R1)
    null = _null(measure, (R0[rows], R1[rows]), replicates, noise, graph_rows, random_state)
    statistics = Statistic(score, null[0]), Statistic(strength, null[1])
    p_value = min(1.0, 2.0 * min(one.p_value for one in statistics))
    against = None
    if pair is not None:
        against = _against(measure, (R0, R1), pair, statistics, observe(*pair), alpha, random_state)
    concepts_null = None if estimator is None else null[2]
    return DifferenceTest(*statistics, p_value, alpha, concepts_null, against, k, len(rows), graph_rows, notes)


def _null(
    measure: _Measure,
    pair: tuple[np.ndarray, np.ndarray],
    replicates: int,
    noise: float,
    graph_rows: int,
    random_state: int,
) -> np.ndarray:
    """Scores, strengths and strongest concepts between two versions of one model: (3, replicates)."""
    widths = tuple(R.shape[1] for R in pair)
    sources = [Versions(R, noise, generator(random_state, "significance", "basis", m)) for m, R in enumerate(pair)]
    n = len(pair[0])

    def replicate(b: int) -> tuple[float, float, float]:
        rng = generator(random_state, "significance", "version", b)
        first, second = (sources[b % 2].draw(width, rng) for width in widths)
        score = measure.score(first, second, np.sort(rng.permutation(n)[:MAX_QUERIES]))
        part = np.sort(rng.permutation(n)[:graph_rows])
        first, second = first[part], second[part]
        affinity = measure.affinity(first, second)
        strength = measure.strength(affinity, rng)
        concept = np.nan if measure.estimator is None else measure.strongest_concept(first, second, affinity)
        return score, strength, concept

    found = []
    with track("versions of one model", replicates, "pairs") as advance:
        for values in map_in_threads(replicate, range(replicates)):
            found.append(values)
            advance(1)
    return np.array(found).T


def _against(
    measure: _Measure,
    pair: tuple[np.ndarray, np.ndarray],
    reference: tuple[np.ndarray, np.ndarray],
    observed: tuple[Statistic, Statistic],
    reference_values: tuple[float, float],
    alpha: float,
    random_state: int,
) -> ReferenceTest:
    n = len(pair[0])
    # Statistics of half of the images vary around those of all images as those of all images vary around the truth.
    half = min(max(MINIMUM_ROWS, n // 2), MAX_GRAPH_ROWS)

    def gap(b: int) -> np.ndarray:
        rng = generator(random_state, "significance", "half", b)
        part = np.sort(rng.permutation(n)[:half])
        values = [
            (measure.score(R0[part], R1[part]), measure.strength(measure.affinity(R0[part], R1[part]), rng))
            for R0, R1 in (pair, reference)
        ]
        return np.subtract(values[0], values[1])

    found = []
    with track("half-samples of the images", HALF_SAMPLES, "samples") as advance:
        for values in map_in_threads(gap, range(HALF_SAMPLES)):
            found.append(values)
            advance(1)
    gaps = np.array(found).T
    p_values = []
    for one, other, differences in zip(observed, reference_values, gaps, strict=True):
        images = exceedance(0.0, -differences)
        between = one.null[:, None] - one.null[None, :]
        models = exceedance(one.value - other, between[~np.eye(len(one.null), dtype=bool)])
        p_values.append(max(images, models))
    combined = min(1.0, 2.0 * min(p_values))
    score, strength = reference_values
    return ReferenceTest(score, strength, p_values[0], p_values[1], combined, combined <= alpha)
