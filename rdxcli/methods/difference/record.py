"""What a record says of a fitted comparison: its concepts, their make-up, and the arrays that the report draws."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rdxcli.methods.difference.results import DifferenceGroup
from rdxcli.methods.difference.whereabouts import whereabouts
from rdxcli.numerics.axes import principal_axes
from rdxcli.numerics.neighbours import Points, nearest
from rdxcli.records import DifferenceConcept, Representation

CLOSER_IN = {"01": "a", "10": "b"}
"""The paper's direction names and the side whose model holds the samples together."""

MATRIX_ROWS = 240
"""Rows of the difference matrix that are kept for drawing."""


FOUND_AGAIN = 0.75
"""Jaccard overlap with a concept of the exact method from which an approximate one is the same, as for stability."""

NEIGHBOURS = 6
"""Nearest neighbours that are kept of each shown image, in both models."""


def approximation(estimator: Any) -> dict[str, float | int | None]:
    """Agreement of an approximate fit with the exact method, per side; nothing for an exact one."""
    return {
        f"approximation_{name}_{CLOSER_IN[direction]}": value
        for direction, found in getattr(estimator, "agreement_", {}).items()
        for name, value in found.to_dict().items()
    }


def by_side(note: str) -> str:
    """A method's remark with the sides of the document in place of the paper's directions, and options as typed."""
    for direction, side in CLOSER_IN.items():
        note = note.replace(f"direction {direction}", f"concepts of {side}")
    return re.sub(r"\b(landmarks|approximate)=(\w+)", r"--\1 \2", note)


def reliability(estimator: Any) -> dict[str, dict[str, Any]]:
    """Whether an approximate fit can be relied on, per side; nothing for an exact one.

    Returns
    -------
    dict
        By side: ``reliable``; ``agreement``, the adjusted Rand index with the exact method, None where it could not be
        measured; ``reason``, a remark that stands in place of the estimator's note, None where it is reliable;
        ``concepts``, by index the ``overlap`` with a concept of the exact method, that ``by_chance``, and whether the
        concept can be relied on: on a side that cannot, those that the exact method finds again.
    """
    if not hasattr(estimator, "doubts_") or not estimator.approximate_on(estimator.n_):
        return {}
    found = {}
    for direction, side in CLOSER_IN.items():
        measured, doubt = estimator.agreement_.get(direction), estimator.doubts_.get(direction)
        concepts: dict[str, dict[str, Any]] = {}
        if measured is not None:
            for index, group in enumerate(_by_strength(estimator.directions_[direction].concepts), start=1):
                overlap, chance = measured.concepts[group.label - 1]
                reliable = doubt is None or overlap >= FOUND_AGAIN
                concepts[str(index)] = {"reliable": reliable, "overlap": overlap, "by_chance": chance}
        reason = None
        if doubt is not None:
            again = [
                f"{side}{index} is found by it too (overlap {one['overlap']:.2f}, {one['by_chance']:.2f} by chance)"
                for index, one in concepts.items()
                if one["reliable"]
            ]
            reason = "; ".join([by_side(doubt), *again])
        found[side] = {
            "reliable": doubt is None,
            "agreement": None if measured is None else measured.rand,
            "reason": reason,
            "concepts": concepts,
        }
    return found


def notes_of(estimator: Any) -> list[str]:
    """The estimator's remarks, but for those that `reliability` holds."""
    doubts = set(getattr(estimator, "doubts_", {}).values())
    return [by_side(note) for note in estimator.notes_ if note not in doubts]


def concepts_of(
    estimator: Any,
    source: Representation,
    stability: Mapping[str, Any],
    neighbours: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[list[DifferenceConcept], dict[str, np.ndarray]]:
    """Concepts of both directions, those that explain most first, and the labels in that order (0 = none).

    ``source`` has the ids and classes of the samples; a method that explains no difference has no affinities.
    """
    ids, classes = source.sample_ids, source.labels
    concepts: list[DifferenceConcept] = []
    labels: dict[str, np.ndarray] = {}
    for direction, result in estimator.directions_.items():
        side = CLOSER_IN[direction]
        renumbered = np.zeros(source.n, dtype=np.int32)
        lists = neighbours if neighbours is None or side == "a" else neighbours[::-1]
        for index, found in enumerate(_by_strength(result.concepts), start=1):
            members = np.flatnonzero(result.labels == found.label)
            renumbered[members] = index
            trust = stability.get(direction, {}).get(found.label, {})
            concepts.append(
                DifferenceConcept(
                    closer_in=side,
                    index=index,
                    size=found.size,
                    parts=found.parts,
                    affinity=found.affinity,
                    samples=[int(row) for row in found.samples],
                    sample_ids=[str(ids[row]) if ids is not None else str(row) for row in found.samples],
                    stability=trust.get("stability"),
                    p_value=trust.get("p_value"),
                    effect=trust.get("effect"),
                    labels=make_up(classes[members]) if classes is not None else {},
                    strength=_strength(found, source.n),
                    interval=trust.get("interval"),
                    elsewhere={} if lists is None else whereabouts(renumbered == index, *lists, classes),
                )
            )
        labels[side] = renumbered
    return sorted(concepts, key=lambda concept: concept.closer_in), labels


def _strength(concept: DifferenceGroup, n: int) -> float | None:
    """(mean affinity - 1) x share of the images; None for methods without affinities."""
    return None if np.isnan(concept.affinity) else (concept.affinity - 1.0) * concept.size / n


def _by_strength(concepts: Sequence[DifferenceGroup]) -> list[DifferenceGroup]:
    return sorted(concepts, key=lambda concept: -(_strength(concept, 1) or 0.0))


def make_up(labels: np.ndarray, most: int = 8) -> dict[str, float]:
    """Share of each class, largest first; past ``most`` classes the rest is one entry."""
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {str(names[i]): float(counts[i] / len(labels)) for i in order}
    if len(shares) > most:
        kept = dict(list(shares.items())[: most - 1])
        return {**kept, f"{len(shares) - most + 1} others": 1.0 - sum(kept.values())}
    return shares


def arrays_of(
    estimator: Any, a: Representation, b: Representation, labels: Mapping[str, np.ndarray], shown: Sequence[int]
) -> dict[str, np.ndarray]:
    n = a.n
    ids = a.sample_ids if a.sample_ids is not None else np.arange(n).astype(str)
    arrays: dict[str, np.ndarray] = {"sample_ids": np.asarray(ids, dtype=np.str_)}
    if a.labels is not None:
        arrays["labels"] = np.asarray(a.labels, dtype=np.str_)
    for side, values in (("a", a.values), ("b", b.values)):
        arrays[f"labels_{side}"] = labels[side]
        arrays[f"map_{side}"] = principal_axes(values)
        if shown and n > 1:
            rows = np.asarray(shown, dtype=np.int32)
            found = nearest(Points(values), min(NEIGHBOURS + 1, n), rows)[:, 1:]  # each row itself comes first
            arrays |= {"shown": rows, f"neighbours_{side}": found.astype(np.int32)}
    for direction, result in estimator.directions_.items():
        side = CLOSER_IN[direction]
        if hasattr(estimator, "difference_rows"):
            ordered = np.argsort(np.where(labels[side] == 0, 0, labels[side].max() + 1 - labels[side]), kind="stable")
            rows = ordered[np.unique(np.linspace(0, n - 1, min(n, MATRIX_ROWS)).astype(int))]
            block = estimator.difference_rows(rows, result.direction, rows)
            arrays[f"matrix_{side}"] = block.astype(np.float32)
            arrays[f"matrix_{side}_rows"] = rows
    return arrays
