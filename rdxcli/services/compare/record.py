"""A fitted comparison as a record: its concepts, their make-up and stability, and the arrays that the report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rdxcli.methods.difference.evaluation import Evaluation
from rdxcli.methods.difference.planted import describe_planted
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.results import DifferenceGroup
from rdxcli.methods.difference.significance import concept_stability
from rdxcli.methods.difference.verdict import DifferenceTest
from rdxcli.methods.difference.whereabouts import whereabouts
from rdxcli.numerics.axes import principal_axes
from rdxcli.numerics.neighbours import Points, nearest
from rdxcli.records import Comparison, DifferenceConcept
from rdxcli.representations.joining import Joined
from rdxcli.services.compare.fitting import takes_guidance
from rdxcli.services.compare.guidance import Supervision
from rdxcli.services.compare.options import CompareOptions

CLOSER_IN = {"01": "a", "10": "b"}
"""The paper's direction names and the side whose model holds the samples together."""

MATRIX_ROWS = 240
"""Rows of the difference matrix that are kept for drawing."""


NEIGHBOURS = 6
"""Nearest neighbours that are kept of each shown image, in both models."""


def failed_samples(joined: Joined) -> list[str]:
    """Ids of the images that ``extract`` could not read, on either side."""
    return sorted({str(sample) for side in (joined.a, joined.b) for sample in side.source.get("failed", ())})


def make_record(
    options: CompareOptions,
    method: str,
    estimator: Any,
    joined: Joined,
    evaluation: Evaluation,
    supervision: Supervision,
    test: DifferenceTest | None,
    difference: Mapping[str, Any],
    bootstraps: int | None = None,
) -> Comparison:
    """The record of a fitted estimator; the stability of concepts is measured for RDX only.

    ``bootstraps`` is that of the options unless given.
    """
    bootstraps = options.bootstraps if bootstraps is None else bootstraps
    a, b = joined.a, joined.b
    given = supervision.fit_options if takes_guidance(estimator) else {}
    stability: Mapping[str, Any] = {}
    if isinstance(estimator, RDX):
        stability = concept_stability(
            estimator,
            a.values,
            b.values,
            test=test,
            bootstraps=bootstraps,
            fit_options=given,
            random_state=options.seed,
        )
    concepts, labels = concepts_of(estimator, joined, stability, evaluation.neighbours)
    grids = {side: [concept.samples for concept in concepts if concept.closer_in == side] for side in ("a", "b")}
    notes = [*joined.notes, *map(_by_side, estimator.notes_)]
    failed = failed_samples(joined)
    if failed:
        notes.append(f"{len(failed)} images could not be read and are left out: {', '.join(failed[:5])}")
    if test is not None and given:
        what = " and ".join(name for name, on in (("--align", options.align), ("--guidance", "labels0" in given)) if on)
        notes.append(f"the verdict is about the two representations as they are; {what} changes the concepts only")
    if supervision and not given:
        notes.append("without --align and --guidance: this method describes each model on its own")
    return Comparison(
        method=method,
        parameters={
            **estimator.get_params(),
            "guidance": options.guidance if given else "none",
            "align": options.align and bool(given),
            "bootstraps": bootstraps if stability else 0,
            "planted": describe_planted(evaluation.planted),
            **(supervision.details if given else {}),
        },
        seed=options.seed,
        arrays=_arrays(estimator, joined, labels, sorted({row for concept in concepts for row in concept.samples})),
        notes=notes,
        a=a.describe(),
        b=b.describe(),
        n=a.n,
        k=estimator.n_clusters,
        difference=difference,
        concepts=concepts,
        scores={**evaluation.scores(grids), **_approximation(estimator)},
        samples={**joined.describe(), "failed": failed},
    )


def _approximation(estimator: Any) -> dict[str, float | int | None]:
    """Agreement of an approximate fit with the exact method, per side; nothing for an exact one."""
    return {
        f"approximation_{name}_{CLOSER_IN[direction]}": value
        for direction, found in getattr(estimator, "agreement_", {}).items()
        for name, value in found.to_dict().items()
    }


def _by_side(note: str) -> str:
    """A method's remark with the sides of the document in place of the paper's directions."""
    for direction, side in CLOSER_IN.items():
        note = note.replace(f"direction {direction}", f"concepts of {side}")
    return note


def concepts_of(
    estimator: Any,
    joined: Joined,
    stability: Mapping[str, Any],
    neighbours: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[list[DifferenceConcept], dict[str, np.ndarray]]:
    """Concepts of both directions, those that explain most first, and the labels in that order (0 = none)."""
    ids, classes = joined.a.sample_ids, joined.a.labels
    concepts: list[DifferenceConcept] = []
    labels: dict[str, np.ndarray] = {}
    for direction, result in estimator.directions_.items():
        side = CLOSER_IN[direction]
        renumbered = np.zeros(joined.a.n, dtype=np.int32)
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
                    affinity=found.affinity,
                    samples=[int(row) for row in found.samples],
                    sample_ids=[str(ids[row]) if ids is not None else str(row) for row in found.samples],
                    stability=trust.get("stability"),
                    p_value=trust.get("p_value"),
                    effect=trust.get("effect"),
                    labels=make_up(classes[members]) if classes is not None else {},
                    strength=_strength(found, joined.a.n),
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


def _arrays(
    estimator: Any, joined: Joined, labels: Mapping[str, np.ndarray], shown: Sequence[int]
) -> dict[str, np.ndarray]:
    n = joined.a.n
    ids = joined.a.sample_ids if joined.a.sample_ids is not None else np.arange(n).astype(str)
    arrays: dict[str, np.ndarray] = {"sample_ids": np.asarray(ids, dtype=np.str_)}
    if joined.a.labels is not None:
        arrays["labels"] = np.asarray(joined.a.labels, dtype=np.str_)
    for side, values in (("a", joined.a.values), ("b", joined.b.values)):
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
