"""``rdx explain --method le-label | le-siglip | clip-dissect``: what single units respond to, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, write_json
from rdxcli.concepts.gather import gather, split_of
from rdxcli.concepts.labels import Concepts
from rdxcli.concepts.scorer import CALIBRATED, PARAMETERS, open_scorer, wanted, with_downloads
from rdxcli.errors import MissingDataError
from rdxcli.services.base import Outcome, check_parameters, parse_units
from rdxcli.services.explain.base import ExplainOptions, folder_of, representation
from rdxcli.services.explain.unit_pictures import SHOWN_UNITS, add_masks, ranges, strongest

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.neurons.tables import ExplanationTable
    from rdxcli.records import Representation

CODE = "3"
LINEAR = ("le-label", "le-siglip")
TABLE = "explanations.csv"
CHART_CONCEPTS = 4
PRESENT = 0.5  # score from which a concept counts as present in an image


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {
        "method": options.method,
        "representation": options.model or options.activations,
        "layer": options.layer or "the penultimate one",
        "concepts": options.concepts or options.files.get("image_embeddings") or wanted(options) or "labels",
        "units": options.units or "all",
        "parameters": dict(options.parameters),
        "memory": "8 c (c + u) bytes for c concepts and u units, besides one block of rows",
    }


def explain(options: ExplainOptions) -> Outcome:
    """Explain the units of a layer and store the table.

    Raises
    ------
    RdxError, ValueError
        Unusable input or options.
    """
    from rdxcli.methods.registry import get

    kind = get("explain", options.method).load()
    own = dict(options.parameters)
    if options.method != "le-label":
        # a, b and so on belong to the scores; `a` of clip-dissect is its own
        theirs = [name for name in PARAMETERS if options.method in CALIBRATED or name == "template"]
        own = {name: value for name, value in own.items() if name not in theirs}
    known = [name for name in kind().get_params() if name not in ("random_state", "device", "block_rows")]
    check_parameters(options.method, own, known)
    try:
        scorer = open_scorer(options)
        source = representation(options)
        concepts = gather(options, source, labels=options.method == "le-label", scorer=scorer)
    except MissingDataError as error:
        raise with_downloads(error, options) from None
    del scorer  # two towers are gigabytes
    units = parse_units(options.units, source.d)
    split = split_of(options, source.n)
    fixed = {"random_state": options.seed} if options.method in LINEAR else {}
    estimator = kind(**own, **fixed)
    request = Request(
        kind="explanations",
        parameters={
            "method": options.method,
            **{name: value for name, value in estimator.get_params().items() if name not in ("device", "block_rows")},
            "units": options.units,
        },
        inputs={
            "activations": dict(source.source),
            "concepts": concepts.source,
            "splits": {name: _rows_of(getattr(split, name)) for name in ("train", "val", "test")},
            "images": source.dataset,
        },
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            from rdxcli.methods.neurons.tables import format_table

            table, notes = _fit(options, estimator, source, concepts, units, split)
            pictures = {unit: strongest(source, unit) for unit in units[:SHOWN_UNITS]}
            notes = [*concepts.notes, *notes]
            record = document(options, request, source, table, notes, folder.as_posix(), strongest=pictures)
            add_charts(record, source, concepts)
            add_masks(record, options, source)
            (draft.path / TABLE).write_text(format_table(table), "utf-8")
            write_json(draft.path / "explanations.json", record)
            draft.manifest.rows = len(units)
    return outcome(draft.result, source)


def outcome(artifact: Artifact, source: Representation) -> Outcome:
    """A finished table of explanations with what people see of it."""
    record = artifact.document()
    rows = [[unit["unit"], unit["text"], *_scores(unit)] for unit in record["units"][:40]]
    return Outcome(
        artifact,
        record,
        f"what the units of {source.name} ({source.layer or 'array'}) respond to",
        ["unit", "explanation", *_score_names(record)],
        rows,
        [f"note: {note}" for note in record["notes"]],
    )


def _fit(
    options: ExplainOptions, estimator: Any, source: Representation, concepts: Concepts, units: list[int], split: Any
) -> tuple[Any, list[str]]:
    """The table of explanations, with test scores where the method is scored on its own concepts."""
    layer = source.layer or ""
    if options.method not in LINEAR:
        estimator.fit(concepts.values, source.values, concept_names=concepts.names, units=units)
        return estimator.table(layer), list(estimator.notes_)
    from dataclasses import replace

    estimator.fit(
        concepts.values, source.values, train=split.train, val=split.val, concept_names=concepts.names, units=units
    )
    table = estimator.table(layer)
    notes = list(estimator.notes_)
    if len(split.test) >= 2:
        scores, interval = estimator.score_rows(concepts.values, source.values, split.test)
        rows = tuple(
            row.with_scores(sim_correlation=scores[i], sim_low=interval.low[i], sim_high=interval.high[i])
            for i, row in enumerate(table.rows)
        )
        table = replace(table, rows=rows)
        notes.append(
            "`sim correlation` is the test correlation with the explainer's own concepts, with a 95 % interval"
        )
    return table, notes


def document(
    options: ExplainOptions,
    request: Request,
    source: Representation,
    table: ExplanationTable,
    notes: list[str],
    artifact: str,
    *,
    strongest: Mapping[int, list[dict[str, Any]]],
) -> dict[str, Any]:
    """The document of a table of explanations.

    Parameters
    ----------
    strongest : mapping
        Unit to the images that activate it most, for the units that a report shows.
    """
    from rdxcli.methods.neurons.tables import format_explanation, table_statistics
    from rdxcli.records import NeuronExplanations

    units = []
    for row in table.rows:
        entry = {**row.to_document(), "text": format_explanation(row)}
        if row.unit in strongest:
            entry["strongest"] = strongest[row.unit]
            entry["ranges"] = ranges(source, row.unit, options.seed)
        units.append(entry)
    return NeuronExplanations(
        method=options.method,
        parameters=request.parameters,
        seed=options.seed,
        notes=[*notes, *(note for note in table.notes if note not in notes)],
        model=source.describe(),
        units=units,
        summary=table_statistics(table),
        samples={"dataset": source.dataset, "n": source.n},
    ).to_document(artifact)


def add_charts(record: dict[str, Any], source: Representation, concepts: Concepts) -> None:
    """Add to each shown unit which of its concepts fill which band of activation (figure 3 of the paper)."""
    import numpy as np

    from rdxcli.methods.neurons.inspection import area_chart
    from rdxcli.numerics.moments import read_columns

    place = {name: column for column, name in reversed(list(enumerate(concepts.names)))}
    rows = np.arange(source.n)
    for entry in record["units"]:
        names = [concept["concept"] for concept in entry["concepts"] if concept["weight"] > 0][:CHART_CONCEPTS]
        if "strongest" not in entry or not names:
            continue
        activations = np.asarray(source.values[:, entry["unit"]], dtype=np.float64)
        if activations.max() <= 0:
            continue
        scores = read_columns(concepts.values, rows, np.array([place[name] for name in names]), "concepts")
        # bands of overlapping concepts would add up to more than all images: an image counts for its first concept
        present = scores >= PRESENT
        first = present & (np.cumsum(present, axis=1) == 1)
        if not first.any():
            continue
        chart = area_chart(first.astype(np.float64), activations)
        entry["area"] = {
            "concepts": names,
            "edges": chart.edges.tolist(),
            "counts": chart.counts.tolist(),
            "share": [[None if count == 0 else float(v) for v, count in zip(row, chart.counts, strict=True)]
                      for row in chart.share],
        }  # fmt: skip


def _rows_of(rows: np.ndarray) -> str:
    from rdxcli.artifacts import fingerprint_array

    return fingerprint_array(rows)


def _score_names(document: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name for unit in document["units"] for name in unit["scores"])
    return [name for name in names if name not in ("sim low", "sim high")]


def _scores(unit: Mapping[str, Any]) -> list[float | None]:
    return [value for name, value in unit["scores"].items() if name not in ("sim low", "sim high")]
