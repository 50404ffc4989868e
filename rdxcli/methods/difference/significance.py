"""Is there a difference at all? Two statistics with null distributions, a reference pair, and trust in single concepts.

RDX always shows k clusters. Whether they mean something is decided here, by two numbers that need no clustering:

``score``
    Neighbour disagreement: 1 - mean share of the k nearest neighbours that an image has in both models. In [0, 1], 0
    for models that agree up to rotation and scale.
``strength``
    Strength of the strongest group: the largest eigenvalue of (W - 1) / n over both directions, where W is the
    symmetrised RDX affinity. For any group of images, (mean affinity - 1) x (share of images) is at most this number,
    so it bounds what any clustering could find. 0 when the affinity is 1 everywhere.

The first sees any reordering of neighbours, the second only reordering that holds a group of images together. Both
are compared with the same numbers between two runs of one model (where dimension j means the same in both
representations: "changed at all") and between two versions of one model ("more than two read-outs"), see
`rdxcli.methods.difference.resampling`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.change import (
    belonging,
    common_neighbours,
    detectable,
    kind_of_change,
    neighbour_lists,
    shared,
)
from rdxcli.methods.difference.graph import DIRECTIONS, Affinity, Direction
from rdxcli.methods.difference.grouping import group
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.resampling import Copies, Versions, same_features
from rdxcli.methods.difference.stability import concept_stability
from rdxcli.methods.difference.verdict import (
    ConceptNull,
    DifferenceTest,
    Finding,
    Question,
    ReferenceTest,
    Statistic,
    exceedance,
    strengths,
)
from rdxcli.methods.difference.yardsticks import scale
from rdxcli.methods.estimator import clone
from rdxcli.numerics.neighbours import Array, resolve_device
from rdxcli.numerics.seeding import generator
from rdxcli.numerics.spectral import leading_eigenpairs
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import human_count, track
from rdxcli.records import Verdict

__all__ = [
    "DifferenceTest",
    "concept_stability",
    "difference_test",
    "exceedance",
    "group_strength",
    "neighbour_disagreement",
]

MAX_SCORE_ROWS = 2000  # images on which neighbours are compared
MAX_GRAPH_ROWS = 500  # images on which a graph is built
OBSERVED_GRAPHS = 4  # graphs over which the observed strength is averaged when one cannot hold all images
MAX_QUERIES = 250  # images whose neighbours are looked up per null pair
HALF_SAMPLES = 99  # resamplings of images for the comparison with a reference pair
MINIMUM_ROWS = 5

LEAST_DRAWS = 20  # null pairs in any case
BATCH = 10  # null pairs between two looks at whether more are needed
ENOUGH_ABOVE = 5  # null values above the observed one, of both numbers, after which the answer is no
CLEAR = 8.0  # standard deviations of the null above all of it, after which the answer is yes
CLEAR_AFTER = 49  # null pairs before that
DRAWS = 99  # null pairs of a question
CHEAP_ROWS = 350  # images up to which a draw takes milliseconds
CHEAP_DRAWS = 199  # null pairs of a question for so few images
SLACK = 1.005  # rounding of the largest eigenvalue

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
    """
    return float(1.0 - common_neighbours(R0, R1, k, queries, device).mean())


def group_strength(affinity: Affinity, rng: np.random.Generator, buffer: Array | None = None) -> tuple[float, Array]:
    """The largest eigenvalue of (W - 1) / n, diagonal left out, over both directions; and a buffer to give back."""
    strongest = 0.0
    for direction in DIRECTIONS:
        values, buffer = group_strengths(affinity, direction, 1, rng, buffer)
        strongest = max(strongest, float(values[0]))
    assert buffer is not None
    return strongest, buffer


def group_strengths(
    affinity: Affinity, direction: Direction, count: int, rng: np.random.Generator, buffer: Array | None = None
) -> tuple[np.ndarray, Array]:
    """The largest eigenvalues of (W - 1) / n of one direction, diagonal left out, descending; and a buffer."""
    n = affinity.n
    W = affinity.symmetric(direction, buffer)

    def product(block: np.ndarray) -> np.ndarray:
        image = W @ block if isinstance(W, np.ndarray) else (W @ W.new_tensor(block)).cpu().numpy()
        return np.asarray((image - block.sum(axis=0) + block) / n, dtype=block.dtype)

    kind = "float32" if W.itemsize == 4 else "float64"
    return leading_eigenpairs(product, n, min(count, n), rng, tolerance=1e-3, dtype=kind).values, W


class _Measure:
    """The statistics of a pair of representations, with settings shared by observed and null pairs.

    Score and strength always use the default graph of `RDX`: the verdict must not depend on how concepts are drawn.
    """

    def __init__(self, estimator: RDX | None, k: int, random_state: int, device: str) -> None:
        self.standard = RDX(random_state=random_state, device=device)
        self.standard.notes_ = []
        self.estimator = None if estimator is None else _fresh(estimator)
        found = [
            strengths(one.affinities, one.sizes, len(one.labels))[1:]
            for one in getattr(estimator, "directions_", {}).values()
        ]
        self.concepts = np.concatenate(found) if found else None
        self.own_graph = self.estimator is not None and any(
            getattr(self.estimator, name) != getattr(self.standard, name) for name in GRAPH_SETTINGS
        )
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
        if self.own_graph:
            affinity = self.estimator._graph(R0, R1, None, None).affinity()
        found = [0.0]
        for direction in DIRECTIONS:
            groups, self._own.buffer = group(
                affinity, direction, self.estimator, lambda _: None, self._buffer(affinity)
            )
            found += list(strengths(groups.affinities, groups.sizes, affinity.n)[1:])
        return float(max(found))


def least_p(n: int) -> float:
    """The p-value of `difference_test` for n images that have nothing in common, as far as it draws for an answer."""
    draws = CHEAP_DRAWS if n <= CHEAP_ROWS else BATCH * -(-CLEAR_AFTER // BATCH)
    return 2.0 / (1.0 + draws)


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
    paired: bool | None = None,
    replicates: int | None = None,
    noise: float = 0.05,
    rounding: float = 0.02,
    alpha: float = 0.05,
    neighbours: int = 10,
    random_state: int = 0,
    device: str = "auto",
) -> DifferenceTest:
    """Test whether two models differ at all, and by more than two versions of one model would.

    Raises `ValueError` (unusable input (see `check_pair`), fewer than five images, a reference with another number of
    rows, or ``paired`` with different widths).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    reference : two array-likes of n rows, optional
        A pair that sets the scale, for example one model under two seeds: is (R0, R1) more different than these?
    estimator : RDX, optional
        It is run on the versions too, to know how strong its concepts get by chance (for `concept_stability`). Where
        it is fitted, on this pair, it is run only where that can matter to a concept that it found.
    paired : bool, optional
        Whether dimension j means the same in both, as in two edits of one network; default: see
        `rdxcli.methods.difference.resampling.same_features`. The verdict then says whether the model changed at all.
    replicates : int, optional
        At most so many null pairs per question, half of them of each model; by default 199 up to 350 images, 99 above.
        Fewer are drawn where the answer is clear.
    noise : float, default 0.05
        Versions: differences that Gaussian noise of this size, relative to the spread of the features, could make do
        not count.
    rounding : float, default 0.02
        Runs: the same, relative to the spread of each feature. Whole networks in bfloat16 are off by 0.014 to 0.017.
    alpha : float, default 0.05
        A question is answered with yes when its p-value is at most alpha.
    neighbours : int, default 10
        At most a quarter of the images.
    random_state : int, default 0

    Notes
    -----
    At most 2,000 images drawn at random are used for the score (250 of them as query points in null pairs) and four
    times 500 for the strength; ``notes`` says so. Time O(replicates * 500^2 (d0 + d1)).

    Null pairs are drawn until both numbers have been exceeded five times (no), above 350 images until one lies 8
    standard deviations above all of 50 or more (yes), or ``replicates`` times. Five of 199 already mean no, so the
    first rule changes no answer; see docs/methods/significance.md for the second, and for what the nulls can and
    cannot tell. With a fitted
    estimator more are drawn for the concepts that no null pair has matched yet, see
    `rdxcli.methods.difference.verdict.ConceptNull`.
    """
    R0, R1 = check_pair(R0, R1, minimum_rows=MINIMUM_ROWS)
    n = len(R0)
    if replicates is None:
        replicates = CHEAP_DRAWS if n <= CHEAP_ROWS else DRAWS
    least = int(np.ceil(2.0 / alpha)) - 1 if 0.0 < alpha < 1.0 else 0
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"Got alpha={alpha!r}, expected a number between 0 and 1")
    if replicates < least:
        raise ValueError(f"Got replicates={replicates}, expected at least {least} to reach alpha={alpha:g}")
    for name, value in (("noise", noise), ("rounding", rounding)):
        if not value >= 0.0:
            raise ValueError(f"Got {name}={value!r}, expected a number of at least 0")
    if paired and R0.shape[1] != R1.shape[1]:
        raise ValueError(
            f"Got paired=True with {R0.shape[1]} and {human_count(R1.shape[1], 'dimension')}, expected "
            "the same dimensions in both"
        )
    pair = None
    if reference is not None:
        pair = check_pair(*reference, names=("reference[0]", "reference[1]"), minimum_rows=MINIMUM_ROWS)
        if len(pair[0]) != n:
            raise ValueError(
                f"Got {human_count(len(pair[0]), 'row')} in the reference pair, expected {n}, the same images"
            )
    k = max(1, min(neighbours, (n - 1) // 4))
    measure = _Measure(estimator, k, random_state, device)
    notes = [f"the test uses {human_count(k, 'neighbour')} instead of {neighbours}: n = {n}"] if k < neighbours else []
    rng = generator(random_state, "significance", "rows")
    rows = np.sort(rng.permutation(n)[: min(n, MAX_SCORE_ROWS)])
    graph_rows = min(n, MAX_GRAPH_ROWS)
    if len(rows) < n:
        notes.append(f"the difference test uses {len(rows):,} of the {human_count(n, 'image')}")
    subsets = [np.sort(rng.permutation(rows)[:graph_rows]) for _ in range(1 if graph_rows == n else OBSERVED_GRAPHS)]
    queries = np.sort(rng.permutation(len(rows))[:MAX_QUERIES])

    def observed_strength(first: np.ndarray, second: np.ndarray) -> float:
        rng = generator(random_state, "significance", "start")
        return float(np.mean([measure.strength(measure.affinity(first[part], second[part]), rng) for part in subsets]))

    first, second = R0[rows], R1[rows]
    lists = neighbour_lists(first, second, k, device=measure.device)
    agreement = shared(*lists) / k
    score, strength = float(1.0 - agreement.mean()), observed_strength(R0, R1)
    sampler = _Sampler(measure, (first, second), (score, strength), replicates, alpha, graph_rows, random_state)
    versions, concepts = sampler.versions(noise, all_of_them=pair is not None)
    answers = [Finding(Question.READOUTS, Statistic(score, versions[0]), Statistic(strength, versions[1]), alpha)]
    if same_features(first, second) if paired is None else paired:
        runs = sampler.runs(rounding)
        answers.insert(0, Finding(Question.CHANGED, Statistic(score, runs[0]), Statistic(strength, runs[1]), alpha))
    against = None
    if pair is not None:
        of_pair = measure.score(pair[0][rows], pair[1][rows]), observed_strength(*pair)
        against = _against(measure, (R0, R1), pair, answers[-1], of_pair, alpha, random_state)
    margin = 1.96 * float(agreement.std()) / np.sqrt(len(rows))
    test = DifferenceTest(
        tuple(answers),
        (max(0.0, score - margin), min(1.0, score + margin)),
        concepts,
        against,
        k,
        len(rows),
        graph_rows,
        belonging(*lists, random_state),
        scale=scale(first, k, queries, random_state, measure.device),
        notes=notes,
    )
    if test.outcome is Verdict.FOUND:
        changed = kind_of_change(first, second, k, queries, measure.device)
        return replace(test, kind=changed)
    if test.outcome is Verdict.NONE:
        planted = detectable(first, second, k, queries, test.score, alpha, random_state, measure.device)
        return replace(test, detectable=planted)
    return test


class _Sampler:
    """Null distributions of the score, the strength and the strongest concept, drawn as far as the answer needs them.

    Parameters
    ----------
    pair : two arrays
        The images used for the score.
    observed : (score, strength)
    """

    def __init__(
        self,
        measure: _Measure,
        pair: tuple[np.ndarray, np.ndarray],
        observed: tuple[float, float],
        replicates: int,
        alpha: float,
        graph_rows: int,
        random_state: int,
    ) -> None:
        self.measure, self.pair, self.observed = measure, pair, np.array(observed)
        self.replicates, self.graph_rows, self.random_state = replicates, graph_rows, random_state
        # So few null values above the observed one would still be significant after all replicates.
        self.allowed = int(np.floor(alpha / 2.0 * (replicates + 1))) - 1

    def versions(self, noise: float, all_of_them: bool) -> tuple[tuple[np.ndarray, np.ndarray], ConceptNull | None]:
        """Between two versions of one model: scores and strengths, and of concepts with an estimator."""
        widths = tuple(R.shape[1] for R in self.pair)
        sources = [
            Versions(R, noise, generator(self.random_state, "significance", "basis", m))
            for m, R in enumerate(self.pair)
        ]

        def draw(b: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            return sources[b % 2].draw(widths[0], rng), sources[b % 2].draw(widths[1], rng)

        concepts = None if self.measure.estimator is None else ConceptNull(self.measure.concepts)
        return self._draws("version", "versions of one model", draw, concepts, all_of_them=all_of_them), concepts

    def runs(self, rounding: float) -> tuple[np.ndarray, np.ndarray]:
        """Between two runs of one model: scores and strengths."""
        sources = [Copies(R, rounding) for R in self.pair]

        def draw(b: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            return sources[b % 2].draw(rng), sources[b % 2].draw(rng)

        return self._draws("run", "runs of one model", draw, None, all_of_them=False)

    def _draws(
        self,
        stream: str,
        title: str,
        draw: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]],
        concepts: ConceptNull | None,
        *,
        all_of_them: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        n, measure = len(self.pair[0]), self.measure
        # Of the same graph the strongest group that there could be bounds every concept, so that most null pairs need
        # no clustering to say that no concept of theirs is as strong as an observed one.
        bounded = not measure.own_graph

        def replicate(b: int, scored: bool, strong: bool, limit: float) -> tuple[float, float, float]:
            rng = generator(self.random_state, "significance", stream, b)
            first, second = draw(b, rng)
            queries = np.sort(rng.permutation(n)[:MAX_QUERIES])
            score = measure.score(first, second, queries) if scored else np.nan
            if not strong:
                return score, np.nan, np.nan
            part = np.sort(rng.permutation(n)[: self.graph_rows])
            first, second = first[part], second[part]
            affinity = measure.affinity(first, second)
            strength = measure.strength(affinity, rng)
            if concepts is None or (strength * SLACK < limit and b >= ConceptNull.KNOWN):
                return score, strength, np.nan
            return score, strength, measure.strongest_concept(first, second, affinity)

        found: list[tuple[float, float, float]] = []
        decided: int | None = None
        strong = True
        with track(title, self.replicates, "pairs") as advance:
            while len(found) < self.replicates:
                limit = concepts.limit if concepts is not None and bounded else 0.0
                scored = decided is None
                batch = range(len(found), min(self.replicates, len(found) + BATCH))
                one = partial(replicate, scored=scored, strong=strong, limit=limit)
                for values in map_in_threads(one, batch):
                    found.append(values)
                    advance(1)
                if concepts is not None:
                    concepts.add([strongest for _, _, strongest in found[batch.start :]])
                null = np.array(found).T[:2]
                # where both are clear the score, which costs least, makes the p-value smaller by itself
                strong = strong and not (
                    (concepts is None or concepts.clear) and not all_of_them and self._clear(null).all()
                )
                if scored and (len(found) >= self.replicates or (not all_of_them and self._enough(null))):
                    decided = len(found)
                if decided is not None and (concepts is None or concepts.clear):
                    break
        scores, strengths = np.array(found).T[:2, :decided]
        return scores, strengths[np.isfinite(strengths)]

    def _enough(self, null: np.ndarray) -> bool:
        if null.shape[1] < LEAST_DRAWS:
            return False
        above = (null >= self.observed[:, None]).sum(axis=1)
        if (above >= max(ENOUGH_ABOVE, self.allowed + 1)).all():
            return True
        return self.graph_rows > CHEAP_ROWS and bool(self._clear(null).any())

    def _clear(self, null: np.ndarray) -> np.ndarray:
        """Which of both numbers lies far above all of enough null values: (2,) bool."""
        if null.shape[1] < CLEAR_AFTER:
            return np.zeros(2, dtype=bool)
        return np.asarray(self.observed > np.nanmax(null, axis=1) + CLEAR * np.nanstd(null, axis=1))


def _against(
    measure: _Measure,
    pair: tuple[np.ndarray, np.ndarray],
    reference: tuple[np.ndarray, np.ndarray],
    observed: Finding,
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
    for one, other, differences in zip((observed.score, observed.strength), reference_values, gaps, strict=True):
        images = exceedance(0.0, -differences)
        between = one.null[:, None] - one.null[None, :]
        models = exceedance(one.value - other, between[~np.eye(len(one.null), dtype=bool)])
        p_values.append(max(images, models))
    combined = min(1.0, 2.0 * min(p_values))
    score, strength = reference_values
    return ReferenceTest(score, strength, p_values[0], p_values[1], combined, combined <= alpha)
