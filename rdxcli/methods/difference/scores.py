"""How well a set of image grids shows a difference between two models, and how alike the models are overall.

Symbols: R0 (n, d0), R1 (n, d1) the unmapped representations; D0, D1 (n, n) one of three distances in each of them,
computed over all n images; a grid is the list of images shown for one concept. Grids of the first direction (RDX
``01``, baselines of model 0) succeed where model 0 is the closer one, grids of the second (``10``, model 1) where model
1 is.

Reference: specification, section 5; Song et al., "Feature selection via dependence maximization", JMLR 2012 (debiased
HSIC); Kornblith et al., ICML 2019 (CKA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.inputs import check_pair
from rdxcli.numerics.neighbours import Points, Rows, largest_distance, nth_distance, ranks, row_blocks, to_numpy

Distance = Literal["silb", "mned", "zplsed"]
DISTANCES: tuple[Distance, ...] = ("silb", "mned", "zplsed")


class EvaluationDistances:
    """Rows of the distances in which grids are judged.

    Raises `ValueError` (unusable representations, unknown distance, or fewer than ``sigma + 1`` images for ``zplsed``).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    distance : {"silb", "mned", "zplsed"}
        ``silb``: neighbour rank + 1. ``mned``: Euclidean distance over its maximum. ``zplsed``: squared distance over
        the product of the distances to the ``sigma``-th neighbours.
    sigma : int, default 7
    compat : bool, default False
        Reproduce the original's slip in ``zplsed``: model 1 is E_1[i, j] times the already scaled D_0[j, i]
        (specification, trap T3).
    exact : bool
        Distances by direct differences, see `rdxcli.numerics.neighbours`.
    """

    def __init__(
        self,
        R0: ArrayLike,
        R1: ArrayLike,
        distance: str = "silb",
        *,
        sigma: int = 7,
        compat: bool = False,
        exact: bool = True,
        device: str = "cpu",
    ) -> None:
        if distance not in DISTANCES:
            raise ValueError(f"Got distance={distance!r}, expected one of {', '.join(map(repr, DISTANCES))}")
        R0, R1 = check_pair(R0, R1)
        self.n = len(R0)
        self.distance = distance
        self.compat = compat
        self.points = tuple(Points(R, exact=exact, device=device) for R in (R0, R1))
        self._scales: list[Any] = [None, None]
        self._means: dict[int, float] = {}
        if distance == "mned":
            self._scales = [largest_distance(points) for points in self.points]
        elif distance == "zplsed":
            self._scales = [nth_distance(points, sigma) for points in self.points]

    def rows(self, model: int, rows: Rows) -> np.ndarray:
        """D_model for some rows: (len(rows), n), int64 for ``silb``, else float64."""
        points = self.points[model]
        if self.distance == "silb":
            return to_numpy(ranks(points, rows)).astype(np.int64) + 1
        block = to_numpy(points.distances(rows))
        scale = self._scales[model]
        if self.distance == "mned":
            return block / scale
        block *= self.rows(0, rows) if self.compat and model == 1 else block
        return block / scale[rows][:, None] / scale

    def mean(self, model: int) -> float:
        """Mean of D_model over all n^2 ordered pairs."""
        if self.distance == "silb":
            return (self.n + 1) / 2
        if model not in self._means:
            total = sum(float(self.rows(model, part).sum()) for part in row_blocks(self.n, self.n))
            self._means[model] = total / self.n**2
        return self._means[model]


@dataclass(frozen=True)
class DirectionScores:
    """Scores of the grids of one direction, over all ordered pairs of different places inside each grid.

    Attributes
    ----------
    bsr : float
        Binary success rate: share of pairs that are closer in the right model. Ties count as failures. NaN without
        pairs.
    ties : float
        Share of pairs at equal distance.
    difference : float
        Mean of D_other - D_right ("TSD" in the original code).
    """

    bsr: float
    ties: float
    difference: float
    pairs: int


@dataclass(frozen=True)
class GridScores:
    """Scores of the grids of a method.

    Attributes
    ----------
    distance : {"silb", "mned", "zplsed"}
    first, second : DirectionScores
        Direction 01 (or model 0) and 10 (or model 1).
    mean_bsr, mean_difference : float
        Means of the two directions (mBSR, mTSD).
    mean_distance_0, mean_distance_1 : float
        Mean of D0 and D1 over the whole matrix.
    """

    distance: str
    first: DirectionScores
    second: DirectionScores
    mean_bsr: float
    mean_difference: float
    mean_distance_0: float
    mean_distance_1: float

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionary."""
        return asdict(self)


def score_grids(
    R0: ArrayLike,
    R1: ArrayLike,
    grids_01: Sequence[ArrayLike],
    grids_10: Sequence[ArrayLike],
    distance: str | EvaluationDistances = "silb",
    *,
    sigma: int = 7,
    compat: bool = False,
    means: bool = True,
) -> GridScores:
    """Binary success rate, tie rate and mean difference of two sets of grids.

    Raises `ValueError` (an index is out of range, or the input is unusable).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
        Unmapped representations of all images.
    grids_01, grids_10 : sequences of (m,) int arrays
        Row indices of the images shown per concept, without the null grid; negative entries pad and are ignored.
    distance : {"silb", "mned", "zplsed"} or EvaluationDistances
        Give the prepared distances to score several methods on one input.
    sigma, compat
        See `EvaluationDistances`.
    means : bool
        Also give the mean of both distance matrices, for which all pairs of images are looked at; else they are NaN.

    Notes
    -----
    ``silb`` is the very quantity RDX with neighbour ranks optimises, and no distance notices that grids repeat each
    other (trap T20). Only rows of shown images are computed, plus one pass over all pairs for the mean of ``mned`` and
    ``zplsed``.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.array([[0.0], [1.0], [10.0], [20.0]])
    >>> b = np.array([[0.0], [30.0], [10.0], [20.0]])
    >>> score_grids(a, b, [[0, 1]], [[1, 3]]).first.bsr
    1.0
    """
    if isinstance(distance, EvaluationDistances):
        distances = distance
    else:
        distances = EvaluationDistances(R0, R1, distance, sigma=sigma, compat=compat)
    first = _score(distances, grids_01, right=0)
    second = _score(distances, grids_10, right=1)
    return GridScores(
        distances.distance,
        first,
        second,
        (first.bsr + second.bsr) / 2,
        (first.difference + second.difference) / 2,
        distances.mean(0) if means else float("nan"),
        distances.mean(1) if means else float("nan"),
    )


def _score(distances: EvaluationDistances, grids: Sequence[ArrayLike], right: int) -> DirectionScores:
    lists = []
    for grid in grids:
        shown = np.asarray(grid, dtype=np.int64)
        shown = shown[shown >= 0]
        if len(shown) and shown.max() >= distances.n:
            raise ValueError(f"Got image {shown.max()} in a grid, expected rows below n={distances.n}")
        lists.append(shown)
    wanted = np.unique(np.concatenate(lists)) if lists else np.empty(0, dtype=np.int64)
    success = ties = pairs = 0
    total = 0.0
    if len(wanted):
        own, other = (distances.rows(model, wanted) for model in (right, 1 - right))
        for shown in lists:
            places = np.searchsorted(wanted, shown)
            off = ~np.eye(len(shown), dtype=bool)
            near = own[places][:, shown][off]
            far = other[places][:, shown][off]
            success += int((near < far).sum())
            ties += int((near == far).sum())
            total += float((far - near).sum())
            pairs += len(near)
    if not pairs:
        return DirectionScores(float("nan"), float("nan"), float("nan"), 0)
    return DirectionScores(success / pairs, ties / pairs, total / pairs, pairs)


def linear_cka(R0: ArrayLike, R1: ArrayLike, *, debiased: bool = True) -> float:
    """Linear centred kernel alignment of two representations.

    Raises `ValueError` (unusable input, or a representation whose (debiased) self-similarity is not positive).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    debiased : bool
        Use the unbiased estimate of HSIC (needs n >= 4). May then be slightly negative for unrelated representations.

    Returns
    -------
    float
        1 for representations that agree up to rotation and scale.

    Notes
    -----
    With K = X X^T and L = Y Y^T without diagonals, <K~, L~> = tr(KL) + sum(K) sum(L) / ((n-1)(n-2)) - 2 (K1).(L1) /
    (n-2), where all three terms follow from X^T Y and row norms: O(n d0 d1) time and no n x n matrix.
    """
    X, Y = check_pair(R0, R1, minimum_rows=4 if debiased else 2)
    X, Y = (values / np.abs(values).max() for values in (_centred(X), _centred(Y)))
    product = _unbiased_product if debiased else _biased_product
    cross, first, second = product(X, Y), product(X, X), product(Y, Y)
    if not (first > 0.0 and second > 0.0):
        raise ValueError("Got a representation whose debiased self-similarity is not positive, expected more samples")
    return float(cross / np.sqrt(first * second))


def _centred(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return values - values.mean(axis=0)


def _biased_product(X: np.ndarray, Y: np.ndarray) -> float:
    return float(np.square(X.T @ Y).sum())


def _unbiased_product(X: np.ndarray, Y: np.ndarray) -> float:
    n = len(X)
    norms = [np.square(values).sum(axis=1) for values in (X, Y)]
    trace = np.square(X.T @ Y).sum() - norms[0] @ norms[1]
    sums = [values @ values.sum(axis=0) - norm for values, norm in zip((X, Y), norms, strict=True)]
    return float(trace + sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2)) - 2.0 * (sums[0] @ sums[1]) / (n - 2))
