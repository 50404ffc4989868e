"""A fitted comparison as a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdxcli.methods.difference.evaluation import Evaluation
from rdxcli.methods.difference.guidance import Supervision, takes_guidance
from rdxcli.methods.difference.planted import describe_planted
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.record import approximation, arrays_of, concepts_of, notes_of, reliability
from rdxcli.methods.difference.significance import concept_stability
from rdxcli.methods.difference.verdict import DifferenceTest
from rdxcli.progress import human_count
from rdxcli.records import Comparison
from rdxcli.representations.joining import Joined
from rdxcli.services.compare.options import CompareOptions


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
    bootstraps: int,
) -> Comparison:
    """The record of a fitted estimator; the stability of concepts is measured for RDX only."""
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
    concepts, labels = concepts_of(estimator, a, stability, evaluation.neighbours)
    grids = {side: [concept.samples for concept in concepts if concept.closer_in == side] for side in ("a", "b")}
    notes = [*joined.notes, *notes_of(estimator)]
    failed = failed_samples(joined)
    if failed:
        notes.append(f"left out: {human_count(len(failed), 'image')} that could not be read: {', '.join(failed[:5])}")
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
        arrays=arrays_of(estimator, a, b, labels, sorted({row for concept in concepts for row in concept.samples})),
        notes=notes,
        a=a.describe(),
        b=b.describe(),
        n=a.n,
        k=estimator.n_clusters,
        difference=difference,
        concepts=concepts,
        scores={**evaluation.scores(grids), **approximation(estimator)},
        samples={**joined.describe(), "failed": failed},
        reliability=reliability(estimator),
    )
