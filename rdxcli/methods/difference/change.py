"""What a change is made of: do the rows belong together, what takes the difference away, what would have been found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rdxcli.methods.difference.verdict import Belonging, Detectable, Kind, Statistic, exceedance
from rdxcli.numerics.neighbours import Points, nearest
from rdxcli.numerics.seeding import generator

SHUFFLES = 199  # rows in random order
WHITENED = 4  # rows per dimension from which on a representation can be whitened
IMAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # shares of the images in which a change is planted
DIMENSIONS = (1.0, 0.25)  # shares of the dimensions


def common_neighbours(
    R0: np.ndarray, R1: np.ndarray, k: int, queries: np.ndarray | None = None, device: str = "cpu"
) -> np.ndarray:
    """Share of the k nearest neighbours that an image has in both: (len(queries),) float64.

    Parameters
    ----------
    R0, R1 : (n, d0) and (n, d1) arrays
    k : int
        Below n.
    queries : index array, optional
        Images whose neighbours are looked up; default all.
    """
    first, second = neighbour_lists(R0, R1, k, queries, device)
    return shared(first, second) / k


def neighbour_lists(
    R0: np.ndarray, R1: np.ndarray, k: int, queries: np.ndarray | None = None, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest neighbours of some images in both representations: two (len(queries), k) int64 arrays."""
    every = np.arange(len(R0)) if queries is None else queries
    first, second = (nearest(Points(R, device=device), k + 1, every)[:, 1:] for R in (R0, R1))
    return first, second


def shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many entries two lists have in common, row by row; no list repeats an entry."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return np.count_nonzero(both[:, 1:] == both[:, :-1], axis=1)


def belonging(first: np.ndarray, second: np.ndarray, random_state: int) -> Belonging | None:
    """Whether row i of both can be the same image, from the neighbours of all n images.

    Parameters
    ----------
    first, second : (n, k) int arrays
        See `neighbour_lists`.

    Returns
    -------
    Belonging or None
        None where the agreement is so far above chance that no test is needed.
    """
    n, k = first.shape
    agreement = float(shared(first, second).mean() / k)
    if agreement > 0.1 + 3.0 * k / (n - 1):
        return None
    rng = generator(random_state, "significance", "rows in random order")
    by_chance = np.empty(SHUFFLES)
    for b in range(SHUFFLES):
        order = rng.permutation(n)
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n)
        by_chance[b] = shared(first, place[second[order]]).mean() / k
    return Belonging(agreement, float(by_chance.mean()), exceedance(agreement, by_chance))


def kind_of_change(R0: np.ndarray, R1: np.ndarray, k: int, queries: np.ndarray, device: str) -> Kind:
    """The score after each of three changes of both representations that a network may owe to its last layers only.

    Parameters
    ----------
    R0, R1 : (n, d0) and (n, d1) arrays
    """

    def score(change: Callable[[np.ndarray], np.ndarray | None]) -> float | None:
        changed = [change(np.asarray(R, dtype=np.float64)) for R in (R0, R1)]
        if changed[0] is None or changed[1] is None:
            return None
        return float(1.0 - common_neighbours(changed[0], changed[1], k, queries, device).mean())

    before = score(lambda R: R)
    assert before is not None
    return Kind(before, score(_unit_rows), score(_equal_spread), score(_whitened))


def _unit_rows(R: np.ndarray) -> np.ndarray | None:
    lengths = np.linalg.norm(R, axis=1, keepdims=True)
    return R / np.where(lengths > 0.0, lengths, 1.0)


def _equal_spread(R: np.ndarray) -> np.ndarray | None:
    spread = R.std(axis=0)
    return np.asarray(R[:, spread > 0.0] / spread[spread > 0.0])


def _whitened(R: np.ndarray) -> np.ndarray | None:
    """Uncorrelated dimensions of equal spread, as far as n rows determine them."""
    n, d = R.shape
    if n < WHITENED * d:
        return None
    left, values, _ = np.linalg.svd(R - R.mean(axis=0), full_matrices=False)
    return np.asarray(left[:, values > 1e-6 * values[0]])


def detectable(
    R0: np.ndarray,
    R1: np.ndarray,
    k: int,
    queries: np.ndarray,
    statistic: Statistic,
    alpha: float,
    random_state: int,
    device: str,
) -> Detectable:
    """The smallest changes that the score would have found, planted on top of this pair.

    Some images exchange some of their dimensions in R1 among each other. The strength may find less, never more is
    needed.

    Parameters
    ----------
    R0, R1 : (n, d0) and (n, d1) arrays
    queries : int array
        Images that are looked at.
    statistic : Statistic
        The score and its null.
    """
    n, d = R1.shape
    limit = _critical(statistic.null, alpha)
    found: list[tuple[float, float]] = []
    for dimensions in DIMENSIONS if d > 1 else DIMENSIONS[:1]:
        for images in IMAGES:
            rng = generator(random_state, "significance", "planted", round(100 * images), round(100 * dimensions))
            rows = rng.permutation(n)[: max(2, round(images * n))]
            columns = rng.permutation(d)[: max(1, round(dimensions * d))]
            planted = R1.copy()
            planted[np.ix_(rows, columns)] = R1[np.ix_(np.roll(rows, 1), columns)]
            if 1.0 - common_neighbours(R0, planted, k, queries, device).mean() > limit:
                found.append((dimensions, images))
                break
    return Detectable(k, n, tuple(found))


def _critical(null: np.ndarray, alpha: float) -> float:
    """What a score must exceed; few draws are taken to be normal, so that the limit is not too low."""
    allowed = int(np.floor(alpha / 2.0 * (len(null) + 1))) - 1
    largest = np.sort(null)[-1 - max(0, allowed)]
    return float(max(largest, null.mean() + 2.3 * null.std()))
