"""``rdx simulate``: how well explanations predict the units they explain."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, find_artifacts, fingerprint_file, write_json
from rdxcli.artifacts.layout import array_dataset, model_slug, simulations_folder, slug
from rdxcli.artifacts.manifest import fingerprint_json
from rdxcli.concepts.gather import gather, split_of
from rdxcli.concepts.scorer import PARAMETERS as SCORE_PARAMETERS
from rdxcli.concepts.scorer import open_scorer, wanted, with_downloads
from rdxcli.errors import ArtifactError, InputError, MissingDataError, UsageError
from rdxcli.progress import log
from rdxcli.services.base import check_parameters as check_known
from rdxcli.services.explain.base import ExplainOptions, representation
from rdxcli.services.simulate.ablation import request_inputs

if TYPE_CHECKING:
    from rdxcli.methods.neurons.tables import ExplanationTable
    from rdxcli.records import Representation

CODE = "3"
PARTS = ("test", "val", "train", "all")
SCORINGS = ("correlation", "ablation")


@dataclass(frozen=True)
class SimulateOptions:
    """What to score.

    Parameters
    ----------
    source : ExplainOptions
        The representation and the simulator's concepts.
    explanations : sequence of str
        Tables: CSV files or ``explain`` artifacts.
    method : str, optional
        Name of an explanation run of the layer, or ``all``.
    part : {"test", "val", "train", "all"}
        Rows on which units are scored.
    bootstraps : int
        Resamplings for the interval of each score.
    scoring : {"correlation", "ablation"}
    variant : {"optim", "norm"}
        How ablation brings simulated activations to the unit's scale.
    """

    source: ExplainOptions
    explanations: Sequence[str] = ()
    method: str | None = None
    part: str = "test"
    bootstraps: int = 1000
    scoring: str = "correlation"
    variant: str = "optim"


@dataclass(frozen=True)
class Outcome:
    """A finished simulation."""

    artifact: Artifact
    document: Mapping[str, Any]


def simulate(options: SimulateOptions) -> Outcome:
    """Score one or several tables of explanations and store the result.

    Raises
    ------
    RdxError, ValueError
        Missing tables, concepts the simulator does not have, rows that do not fit.
    """
    if options.part not in PARTS:
        raise UsageError(f"--part {options.part}: unknown", f"choose one of {', '.join(PARTS)}")
    parameters = _parameters(options)
    try:
        source = representation(options.source)
        tables = _tables(options, source)
        words = list(dict.fromkeys(name for table in tables.values() for name in table.concepts()))
        scorer = open_scorer(options.source, words)
        concepts = gather(options.source, source, labels=True, scorer=scorer)
    except MissingDataError as error:
        raise with_downloads(error, options.source) from None
    if options.method == "all":
        tables = _known(tables, concepts.names)
    split = split_of(options.source, source.n)
    request = Request(
        kind="simulation",
        parameters={
            "scoring": options.scoring,
            "part": options.part,
            **parameters,
            "units": options.source.units,
            "tables": list(tables),
        },
        inputs={
            "activations": dict(source.source),
            "concepts": concepts.source,
            "tables": {name: fingerprint_json(_plain_table(table)) for name, table in tables.items()},
            "splits": fingerprint_file(options.source.splits) if options.source.splits else None,
            **({"judge": request_inputs(options.source, source)} if options.scoring == "ablation" else {}),
        },
        seed=options.source.seed,
        code=CODE,
    )
    dataset = source.source.get("dataset") or array_dataset(source.name)
    model = str(options.source.model or source.source.get("model") or source.name)
    suffix = "" if options.scoring == "correlation" else f"--ablation-{options.variant}"
    run = options.source.run or "--".join(tables) + suffix
    folder = simulations_folder(options.source.outputs, dataset, model, source.layer or "array", run)
    rows = None if options.part == "all" else getattr(split, options.part)
    with create(folder, request, force=options.source.force) as draft:
        if not draft.reused:
            record = _score(options, request, source, tables, concepts, rows, split.val)
            _write_scores(draft.path / "scores.csv", record["methods"])
            write_json(draft.path / "summary.json", {**record, "artifact": folder.as_posix()})
            draft.manifest.rows = sum(len(entry["units"]) for entry in record["methods"])
    return Outcome(draft.result, draft.result.document())


def _score(
    options: SimulateOptions,
    request: Request,
    source: Representation,
    tables: Mapping[str, ExplanationTable],
    concepts: Any,
    rows: Any,
    val: Any,
) -> dict[str, Any]:
    import numpy as np

    from rdxcli.records import Simulation

    extra: dict[str, Any] = {}
    if options.scoring == "ablation":
        from rdxcli.services.simulate.ablation import score_tables

        test = np.arange(source.n) if rows is None else np.asarray(rows)
        methods, extra = score_tables(
            options.source, options.variant, source, tables, concepts, val, test, options.bootstraps
        )
    else:
        methods = [_correlation(options, name, table, source, concepts, rows) for name, table in tables.items()]
    record = Simulation(
        method=options.scoring,
        parameters=request.parameters,
        seed=options.source.seed,
        notes=[f"{entry['method']}: {note}" for entry in methods for note in entry["notes"]],
        model=source.describe(),
        methods=methods,
        pairs=_pairs(methods, options.source.seed),
    ).to_document()
    return {**record, **extra}


def _correlation(
    options: SimulateOptions, name: str, table: ExplanationTable, source: Representation, concepts: Any, rows: Any
) -> dict[str, Any]:
    from rdxcli.methods.neurons.simulation import correlation_scores, length_curve

    arguments = (table, concepts.values, concepts.names, source.values)
    found = correlation_scores(*arguments, rows=rows, n_resamples=options.bootstraps)
    curve = length_curve(*arguments, rows=rows)
    interval = found.interval
    return {
        "method": name,
        "summary": vars(found.summary),
        "units": [
            {
                "unit": int(unit),
                "score": float(found.scores[i]),
                "low": None if interval is None else float(interval.low[i]),
                "high": None if interval is None else float(interval.high[i]),
                "length": int(found.lengths[i]),
            }
            for i, unit in enumerate(found.units)
        ],
        "length_curve": [
            {"length": int(length), **vars(summary)}
            for length, summary in zip(curve.lengths, curve.summaries, strict=True)
        ],
        "notes": list(found.notes),
    }


def _pairs(methods: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Paired tests of every two methods on the units that all have."""
    import numpy as np

    from rdxcli.methods.neurons.scores import compare_methods

    if len(methods) < 2:
        return []
    by_unit = {entry["method"]: {unit["unit"]: unit["score"] for unit in entry["units"]} for entry in methods}
    common = sorted(set.intersection(*(set(scores) for scores in by_unit.values())))
    if len(common) < 2:
        raise InputError("the tables have fewer than two units in common, so they cannot be compared")
    aligned = {name: np.array([scores[unit] for unit in common]) for name, scores in by_unit.items()}
    return [vars(test) for test in compare_methods(aligned, random_state=seed)]


def _parameters(options: SimulateOptions) -> dict[str, Any]:
    """What scoring depends on, checked before anything is read."""
    from rdxcli.services.simulate.ablation import PARAMETERS as ABLATION
    from rdxcli.services.simulate.ablation import VARIANTS, check_parameters

    if options.scoring not in SCORINGS:
        raise UsageError(f"unknown scoring `{options.scoring}`", f"choose {' or '.join(SCORINGS)}")
    if options.variant not in VARIANTS:
        raise UsageError(f"unknown variant `{options.variant}`", f"choose {' or '.join(VARIANTS)}")
    vlm = wanted(options.source)
    known = [*(SCORE_PARAMETERS if vlm or options.source.files else ()), *ABLATION]
    check_known(options.scoring, options.source.parameters, known)
    if options.scoring == "correlation":
        return {"bootstraps": options.bootstraps}
    return {"variant": options.variant, "bootstraps": options.bootstraps, **check_parameters(options.source.parameters)}


def _tables(options: SimulateOptions, source: Representation) -> dict[str, ExplanationTable]:
    """The tables to score by name: given files and artifacts, or the runs of this layer."""
    tables: dict[str, ExplanationTable] = {}
    for text in options.explanations:
        name, table = _read(text, options, source)
        if name in tables:
            raise UsageError(f"two tables are called `{name}`", "rename one of the files")
        tables[name] = table
    if options.method is not None:
        for name, path in _runs(options, source).items():
            tables.setdefault(name, _parse(path, source.layer))
    if not tables:
        raise UsageError(
            "what is to be scored?", "give --explanations FILE, or --method NAME of an earlier `rdx explain`"
        )
    if options.source.units is not None:
        from rdxcli.services.base import parse_units

        wanted = parse_units(options.source.units, source.d)
        tables = {name: table.select(wanted) for name, table in tables.items()}
    return tables


def _known(tables: Mapping[str, ExplanationTable], names: Sequence[str]) -> dict[str, ExplanationTable]:
    """The tables whose concepts the simulator has; the others are left out with a warning."""
    from rdxcli.methods.neurons.simulation import find_concepts

    kept = {}
    for name, table in tables.items():
        missing = find_concepts(table, names).missing
        if missing:
            log.warning("%s is left out: the simulator has no concept `%s`", name, missing[0])
        else:
            kept[name] = table
    if not kept:
        raise InputError("the simulator has the concepts of none of the tables", "give the right --concepts")
    return kept


def _read(text: str, options: SimulateOptions, source: Representation) -> tuple[str, ExplanationTable]:
    path = Path(text)
    if path.is_file():
        return slug(path.stem), _parse(path, source.layer)
    from rdxcli.artifacts import resolve_artifact

    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        raise MissingDataError(f"there is no file {path}", "--explanations takes a CSV file or an explain artifact")
    artifact = resolve_artifact(text, options.source.outputs, "explanations")
    return artifact.path.name, _parse(artifact.path / "explanations.csv", source.layer)


def _runs(options: SimulateOptions, source: Representation) -> dict[str, Path]:
    """Explanation runs of this model and layer: the one called ``method``, or all of them."""
    layer = slug(source.layer or "array")
    model = model_slug(str(options.source.model or source.source.get("model") or source.name))
    found = {
        artifact.path.name: artifact.path / "explanations.csv"
        for artifact in find_artifacts(options.source.outputs, "explanations")
        if artifact.path.parts[-4:-2] == (model, layer)
    }
    if options.method == "all":
        if not found:
            raise ArtifactError(f"no explanations of {model}, layer {layer}", "run `rdx explain` first")
        return found
    if options.method not in found:
        from rdxcli.errors import near_matches

        near = near_matches(str(options.method), found)
        hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "run `rdx explain` first"
        raise ArtifactError(f"no explanation run `{options.method}` of {model}, layer {layer}", hint)
    return {str(options.method): found[str(options.method)]}


def _parse(path: Path, layer: str | None) -> ExplanationTable:
    from rdxcli.methods.neurons.tables import parse_table

    try:
        return parse_table(path.read_text("utf-8"), layer=layer)
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def _plain_table(table: ExplanationTable) -> list[Any]:
    return [[row.unit, list(row.concepts), list(row.weights), row.bias] for row in table.rows]


def _write_scores(path: Path, methods: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["method", "unit", "score", "low", "high", "length"])
        for entry in methods:
            for unit in entry["units"]:
                values = [unit[name] for name in ("score", "low", "high")]
                writer.writerow(
                    [entry["method"], unit["unit"], *("" if v is None else repr(v) for v in values), unit["length"]]
                )


def plan(options: SimulateOptions) -> dict[str, Any]:
    """What `simulate` would do."""
    return {
        "scoring": options.scoring,
        "tables": list(options.explanations) or options.method,
        "representation": options.source.model or options.source.activations,
        "part": options.part,
    }
