"""How many concepts are there? As many as are stronger than chance, and no more than can be told apart again.

Symbols: W the symmetrised RDX affinity of one direction; n images.

The largest eigenvalues of (W - 1) / n belong to groups of images that one model holds together: a block of affinity a
and m images gives (a - 1) m / n. Those above what the *largest* one reaches between two versions of one model (parallel
analysis, Horn 1965, with the null of the difference test) are more than chance. Of so many at most, the largest number
is taken whose concepts come back when the images are drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.graph import DIRECTIONS
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.resampling import Versions
from rdxcli.methods.difference.significance import group_strengths
from rdxcli.methods.difference.stability import concept_stability
from rdxcli.methods.estimator import clone
from rdxcli.numerics.seeding import generator
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import human_count, track

ROWS = 500  # images that are looked at
MOST = 10
DRAWS = 39  # null pairs: the second largest value is their 5 % limit
NOISE = 0.05  # of a version, as in the difference test
STABLE = 0.5  # mean stability of all concepts; chosen on pairs of tests/benchmarks/levels_k.py
BOOTSTRAPS = 8


@dataclass(frozen=True)
class Chosen:
    """A number of concepts and why.

    Attributes
    ----------
    k : int
        At least 1.
    beyond : dict of str to int
        Eigenvalues above the limit, by direction.
    limit : float
        95 % of null pairs have no larger one.
    stability : dict of int to float
        Mean stability of the concepts, of every number that was tried.
    """

    k: int
    beyond: dict[str, int]
    limit: float
    stability: dict[int, float]

    def sentence(self) -> str:
        """For people."""
        counts = max(self.beyond.values())
        said = f"--k auto: {human_count(self.k, 'concept')} per direction; "
        if counts == 0:
            return f"{said}no group is stronger than between two versions of one model"
        if self.k < counts:
            return (
                f"{said}{human_count(counts, 'group', 'are')} stronger than by chance, but so many do not "
                "come back in other images"
            )
        return f"{said}so many groups are stronger than by chance" + (
            f", with a mean stability of {self.stability[self.k]:.2f}" if self.k in self.stability else ""
        )


def choose_k(estimator: RDX, R0: ArrayLike, R1: ArrayLike, *, most: int = MOST, random_state: int = 0) -> Chosen:
    """Choose the number of concepts per direction.

    Parameters
    ----------
    estimator : RDX
        Unfitted; its ``n_clusters`` does not matter.
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    most : int, default 10
    random_state : int, default 0

    Notes
    -----
    At most 500 images, drawn at random, are looked at.
    """
    first, second = check_pair(R0, R1, minimum_rows=5)
    rows = np.sort(generator(random_state, "selection", "rows").permutation(len(first))[:ROWS])
    first, second = first[rows], second[rows]
    most = max(1, min(most, len(rows) // 10))
    model = clone(estimator)
    model.notes_ = []

    def spectrum(X: np.ndarray, Y: np.ndarray, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        affinity = model._graph(X, Y, None, None).affinity()
        return {direction: group_strengths(affinity, direction, count, rng)[0] for direction in DIRECTIONS}

    sources = [
        Versions(R, NOISE, generator(random_state, "selection", "basis", m)) for m, R in enumerate((first, second))
    ]

    def null(b: int) -> float:
        rng = generator(random_state, "selection", "version", b)
        X, Y = (sources[b % 2].draw(R.shape[1], rng) for R in (first, second))
        return max(float(values[0]) for values in spectrum(X, Y, 1, rng).values())

    with track("how many concepts", DRAWS, "pairs") as advance:
        drawn = []
        for value in map_in_threads(null, range(DRAWS)):
            drawn.append(value)
            advance(1)
    limit = float(np.sort(drawn)[-2])
    observed = spectrum(first, second, most, generator(random_state, "selection", "start"))
    beyond = {direction: int((values > limit).sum()) for direction, values in observed.items()}
    stability: dict[int, float] = {}
    for k in range(max(beyond.values()), 1, -1):
        fitted = clone(estimator).set_params(n_clusters=k).fit(first, second)
        found = concept_stability(fitted, first, second, bootstraps=BOOTSTRAPS, random_state=random_state)
        kept = [
            sorted((one["stability"] for one in found[direction].values()), reverse=True)[: beyond[direction]]
            for direction in DIRECTIONS
        ]
        stability[k] = float(np.mean(np.concatenate(kept)))
        if stability[k] >= STABLE:
            return Chosen(k, beyond, limit, stability)
    return Chosen(1, beyond, limit, stability)
