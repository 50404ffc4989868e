"""Approximate RDX: landmarks are clustered exactly, all others join them, the agreement with exact is measured.

See `rdxcli.methods.difference.landmarks` for the mathematics and the symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.linalg import subspace_angles

from rdxcli.lazy import scipy
from rdxcli.methods.difference.graph import Affinity, DifferenceGraph, Direction
from rdxcli.methods.difference.grids import choose_images, neighbourhoods
from rdxcli.methods.difference.grouping import Grouping, Groups, group, numbered
from rdxcli.methods.difference.landmarks import Extension, tighten
from rdxcli.methods.difference.results import DirectionResult
from rdxcli.methods.difference.sides import Sides
from rdxcli.numerics.seeding import generator
from rdxcli.numerics.spectral import lloyd
from rdxcli.progress import human_count

EXACT_UP_TO = 20_000
"""Above this n ``approximate="auto"`` takes landmarks: two n x n matrices would need more than 3.2 GB."""

AGREEMENT_ROWS = 4000
"""Images on which the approximation is compared with the exact method."""

ANCHORS = 8
"""Landmark neighbourhoods per concept that are looked at again among all images."""

OWN: Mapping[Direction, int] = {"01": 0, "10": 1}
"""The model that holds the images of a direction together."""


class ApproximateSettings(Grouping, Protocol):
    """The parameters of `rdxcli.methods.difference.rdx.RDX` that matter here."""

    selection: str
    num_samples: int


@dataclass(frozen=True)
class Approximate:
    """One direction of an approximate fit.

    Attributes
    ----------
    coordinates : (n, k) float64 or None
        Of spectral clustering.
    """

    result: DirectionResult
    coordinates: np.ndarray | None


@dataclass(frozen=True)
class Agreement:
    """How an approximate result agrees with the exact method on a subsample, in one direction.

    Attributes
    ----------
    rand : float
        Adjusted Rand index of the labels, the null cluster included.
    angle : float or None
        Largest angle between the subspaces of the two embeddings, degrees; None without an embedding.
    overlap : float or None
        Mean squared cosine of all angles but that of the constant.
    shown : float or None
        Share of the images shown by the exact method that lie in the matching approximate concept; None when it shows
        none.
    concepts : tuple of (float, float)
        For each approximate concept the Jaccard overlap with the exact one that shares most with it, and the overlap of
        two groups of these sizes that know nothing of each other; 0 where there is none.
    """

    rand: float
    angle: float | None
    overlap: float | None
    shown: float | None
    concepts: tuple[tuple[float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plain numbers of the direction."""
        return {name: value for name, value in vars(self).items() if name != "concepts"}


def draw_landmarks(n: int, count: int, seed: int) -> np.ndarray:
    """Rows of the landmarks: (count,) int64, ascending."""
    return np.sort(generator(seed, "rdx", "landmarks").permutation(n)[:count])


def fit_landmarks(
    sides: Sides,
    graph: DifferenceGraph,
    landmarks: np.ndarray,
    directions: Sequence[Direction],
    settings: ApproximateSettings,
    note: Callable[[str], None],
) -> dict[Direction, Approximate]:
    """The concepts of some directions.

    Parameters
    ----------
    sides : Sides
        All n images.
    graph : DifferenceGraph
        Of the landmarks, ``images=n``.
    landmarks : (m,) int array, ascending
    directions : sequence of {"01", "10"}
    note : callable
        Takes remarks.
    """
    affinity = graph.affinity()
    grouped: dict[Direction, Groups] = {}
    buffer = None
    for direction in directions:
        grouped[direction], buffer = group(affinity, direction, settings, note, buffer)
    del buffer
    rest = np.setdiff1d(np.arange(len(sides)), landmarks, assume_unique=True)
    embedded = {
        direction: (found.coordinates, found.eigenvalues)
        for direction, found in grouped.items()
        if found.coordinates is not None
    }
    outside = Extension(graph, sides, landmarks).coordinates(rest, embedded) if embedded else {}
    out = {}
    for direction, found in grouped.items():
        coordinates: np.ndarray | None = None
        if found.coordinates is not None:
            coordinates = np.empty((len(sides), found.coordinates.shape[1]))
            coordinates[landmarks], coordinates[rest] = found.coordinates, outside[direction]
        elif affinity.largest_difference:
            note(
                f"approximate: only the {human_count(len(landmarks), 'landmark')} can be in a group of "
                f"{settings.clustering}"
            )
        labels, affinities, parts, at_landmarks, within = _all_labels(
            affinity, direction, found, coordinates, landmarks, len(sides), settings, note
        )
        samples = _shown(affinity, graph, sides, direction, labels, at_landmarks, within, landmarks, settings)
        sizes = np.bincount(labels, minlength=len(affinities))
        result = DirectionResult(direction, labels, affinities, sizes, samples, found.eigenvalues, parts)
        out[direction] = Approximate(result, coordinates)
    return out


def _all_labels(
    affinity: Affinity,
    direction: Direction,
    found: Groups,
    coordinates: np.ndarray | None,
    landmarks: np.ndarray,
    n: int,
    settings: Grouping,
    note: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels of all images, mean affinities and parts; labels of the landmarks, and their mean affinity to them."""
    if coordinates is None:
        labels = np.zeros(n, dtype=np.int64)
        labels[landmarks] = found.labels
        return labels, found.affinities, found.parts, found.labels, found.within
    centres = np.stack(
        [found.coordinates[found.clusters == one].mean(axis=0) for one in range(int(found.clusters.max()) + 1)]  # type: ignore[index]
    )
    middle = coordinates.mean(axis=0)
    clusters = lloyd(coordinates - middle, (centres - middle)[None])[0][0]
    used, at_landmarks = np.unique(clusters[landmarks], return_inverse=True)
    numbers, affinities, _, parts, within = numbered(affinity, direction, at_landmarks.astype(np.int64), settings, note)
    renumber = np.zeros(len(centres), dtype=np.int64)
    renumber[clusters[landmarks]] = numbers
    if len(used) < len(centres):
        note(
            f"direction {direction}: {human_count(len(centres) - len(used), 'cluster', 'have')} no "
            "landmark and are left out"
        )
    return renumber[clusters], affinities, parts, numbers, within


def _shown(
    affinity: Affinity,
    graph: DifferenceGraph,
    sides: Sides,
    direction: Direction,
    labels: np.ndarray,
    at_landmarks: np.ndarray,
    within: np.ndarray,
    landmarks: np.ndarray,
    settings: ApproximateSettings,
) -> list[np.ndarray]:
    """Images shown per label: chosen among the landmarks, for the published strategy then among all near the best."""
    own = graph.points[OWN[direction]]
    rng = generator(settings.random_state, "rdx", "selection", direction)
    count = settings.num_samples
    chosen = choose_images(settings.selection, affinity, direction, at_landmarks, own, count, rng, within=within)
    samples = [landmarks[rows] for rows in chosen]
    if settings.selection != "maximize_total_neighborhood_affinity" or graph.similarity != "neighborhood":
        return samples
    for label in range(1, len(samples)):
        inside = np.flatnonzero(at_landmarks == label)
        members = np.flatnonzero(labels == label)
        _, totals = neighbourhoods(affinity, direction, own, inside, min(count, len(inside)))
        anchors = landmarks[inside[np.argsort(-totals, kind="stable")[:ANCHORS]]]
        samples[label] = tighten(graph, sides, OWN[direction], direction, anchors, members, min(count, len(members)))
    return samples


def agreement(
    exact: DirectionResult, exact_coordinates: np.ndarray | None, ours: Approximate, rows: np.ndarray
) -> Agreement:
    """Compare an exact fit on some rows with an approximate one on all.

    Parameters
    ----------
    exact : DirectionResult
        Of the rows alone.
    exact_coordinates : (r, k) array or None
    rows : (r,) int array
    """
    labels = ours.result.labels[rows]
    angle = overlap = None
    if exact_coordinates is not None and ours.coordinates is not None:
        angles = subspace_angles(exact_coordinates, ours.coordinates[rows])
        angle = float(np.degrees(angles.max()))
        overlap = float(np.mean(np.sort(np.cos(angles) ** 2)[:-1])) if len(angles) > 1 else 1.0

    counts = contingency(exact.labels, labels, int(ours.result.labels.max()))
    theirs, mine = scipy.optimize.linear_sum_assignment(-counts[1:, 1:])
    match = dict(zip(theirs + 1, mine + 1, strict=True))
    hits = [float(np.mean(labels[concept.samples] == match.get(concept.label, -1))) for concept in exact.concepts]
    return Agreement(
        rand=adjusted_rand(counts),
        angle=angle,
        overlap=overlap,
        shown=float(np.mean(hits)) if hits else None,
        concepts=found_again(counts),
    )


def contingency(theirs: np.ndarray, ours: np.ndarray, most: int) -> np.ndarray:
    """How many images have a label of each partition: (r, most + 1) float64, for ``ours`` of 0 to ``most``."""
    counts = np.zeros((int(theirs.max()) + 1, most + 1))
    np.add.at(counts, (theirs, ours), 1)
    return counts


def found_again(counts: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Jaccard overlap of every column of a contingency table with its best row, and what chance gives the two.

    Parameters
    ----------
    counts : (r, c) array
        Row and column 0 are the images in no concept.
    """
    n, rows, columns = counts.sum(), counts.sum(axis=1)[1:, None], counts.sum(axis=0)[None, 1:]
    if not len(rows):
        return ((0.0, 0.0),) * columns.size
    sizes, shared = rows + columns, np.stack([counts[1:, 1:], rows * columns / n])
    jaccard, chance = np.divide(shared, sizes - shared, out=np.zeros_like(shared), where=sizes > shared)
    best = jaccard.argmax(axis=0), np.arange(columns.size)
    return tuple(zip(jaccard[best].tolist(), chance[best].tolist(), strict=True))


def adjusted_rand(counts: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985) of two partitions from their contingency table."""
    pairs = [float((part * (part - 1.0)).sum() / 2.0) for part in (counts, counts.sum(axis=1), counts.sum(axis=0))]
    n = float(counts.sum())
    chance = pairs[1] * pairs[2] / max(n * (n - 1.0) / 2.0, 1.0)
    most = (pairs[1] + pairs[2]) / 2.0
    return 1.0 if most == chance else (pairs[0] - chance) / (most - chance)
