"""``rdx simulate``: how well explanations predict the units they explain."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.layout import array_dataset, simulations_folder, slug
from rdxcli.concepts.explanations import Explained, check_runs, check_texts, common_split, gather_tables, known_to
from rdxcli.concepts.gather import counted, gather, read_splits, split_of
from rdxcli.concepts.labels import Concepts
from rdxcli.concepts.options import check_files
from rdxcli.concepts.scorer import EMBEDDINGS, check_calibration, missing_downloads, open_scorer, wanted, with_downloads
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.neurons.chance import against_shuffled
from rdxcli.methods.neurons.formulas import formula_parts
from rdxcli.methods.neurons.preparation import Split
from rdxcli.methods.neurons.scores import compare_methods, summarise
from rdxcli.methods.neurons.simulation import correlation_scores, length_curve, simulate, unit_columns
from rdxcli.methods.neurons.tables import ExplanationTable, format_explanation
from rdxcli.numerics.moments import read_columns
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Parameter, checked
from rdxcli.progress import human_count, track
from rdxcli.records import Representation, Simulation
from rdxcli.representations.layer import planned, representation
from rdxcli.representations.units import check_units, parse_units
from rdxcli.services.base import Analysis, Outcome
from rdxcli.services.explain.neurons import CALIBRATION, PUBLISHED, TEMPLATE
from rdxcli.services.simulate import concept_images
from rdxcli.services.simulate.ablation import PARAMETERS, VARIANTS, request_inputs, score_tables
from rdxcli.services.simulate.options import SimulateOptions

PARTS = ("test", "val", "train", "all")
SCORINGS = ("correlation", "ablation", "images")
FILES = (*sorted(EMBEDDINGS), "superclasses", "head", "classes", concept_images.FILE)
BLOCKS = "blocks"
NULL_EXPLANATIONS = 100


class SimulateAnalysis(Analysis[SimulateOptions]):
    """Tables of explanations, scored on rows that their fits have not seen."""

    kind = "simulation"
    version = "6"
    resumes = True

    def check(self) -> Mapping[str, Any]:
        options, source = self.options, self.options.simulator
        if options.part not in PARTS:
            raise UsageError(f"--part {options.part}: unknown", f"choose one of {', '.join(PARTS)}")
        if options.scoring not in SCORINGS:
            raise UsageError(f"unknown scoring `{options.scoring}`", f"choose {' or '.join(SCORINGS)}")
        if options.variant not in VARIANTS:
            raise UsageError(f"unknown variant `{options.variant}`", f"choose {' or '.join(VARIANTS)}")
        check_files("simulate", source.files, FILES)
        known = {**PARAMETERS, PUBLISHED.name: PUBLISHED}
        if wanted(source) or source.files:
            known |= {**CALIBRATION, TEMPLATE.name: TEMPLATE}
        given = checked(options.scoring, known, source.parameters)
        check_calibration(source)
        if options.scoring == "images":
            concept_images.check_images(source)
        check_texts(options.explanations, options.method or None)
        check_units(source.units)
        self.given = read_splits(source.splits) if source.splits is not None else None
        own: dict[str, Parameter] = dict(PARAMETERS) if options.scoring == "ablation" else {}
        own |= {name: parameter for name, parameter in known.items() if name in given and name not in PARAMETERS}
        return {
            "scoring": options.scoring,
            "part": options.part,
            "bootstraps": options.bootstraps,
            "units": source.units,
            **({"variant": options.variant} if options.scoring == "ablation" else {}),
            **{name: given.get(name, parameter.default) for name, parameter in own.items()},
        }

    def gather(self) -> Mapping[str, Any]:
        options, asked = self.options, self.options.simulator
        try:
            # weights that are missing are missed before the layer is extracted
            scorer = None if options.scoring == "images" else open_scorer(asked, ["an image"])
            if options.method and not options.explanations and asked.model:
                check_runs(options.method, asked.outputs, asked.model)
            source = representation(asked)
            tables = gather_tables(
                options.explanations,
                options.method or None,
                source,
                outputs=asked.outputs,
                model=asked.model,
                layer=asked.layer,
            )
            units = None if asked.units is None else parse_units(asked.units, source.d)
            tables = {name: _selected(one, units, source.d) for name, one in tables.items()}
            if options.scoring == "images":
                return self._with_images(source, tables)
            words = list(dict.fromkeys(word for one in tables.values() for word in _words(one)))
            scorer = None if scorer is None else replace(scorer, words=words)
            concepts = gather(asked, source, labels=True, scorer=scorer)
        except MissingDataError as error:
            raise with_downloads(error, asked) from None
        if options.method == "all":
            tables = known_to(tables, concepts.names)
        given = None if asked.splits is None else read_splits(asked.splits, source.n)
        fallback = given or split_of(asked, source)
        split, self.notes = common_split(tables, source, given, fallback)
        self.notes += _same_eyes(tables, concepts)
        size = source.n if options.part == "all" else len(getattr(split, options.part))
        if size < 2:
            raise InputError(f"the {options.part} part has {human_count(size, 'row')}, expected at least 2")
        records = {"representation": source, "concepts": concepts, "tables": tables, "split": asdict(split)}
        if options.scoring == "ablation":
            records["judge"] = request_inputs(asked, source)
        return records

    def _with_images(self, source: Representation, tables: Mapping[str, Explained]) -> Mapping[str, Any]:
        """Records where images of the concepts are the judge, and no simulator is."""
        asked = self.options.simulator
        given = None if asked.splits is None else read_splits(asked.splits, source.n)
        split, self.notes = common_split(tables, source, given, given or split_of(asked, source))
        shown = concept_images.images_of_concepts(asked)
        return {"representation": source, "images of concepts": shown, "tables": tables, "split": asdict(split)}

    def folder(self) -> Path:
        asked, source = self.options, self.source
        dataset = source.source.get("dataset") or array_dataset(source.name)
        model = str(asked.model or source.source.get("model") or source.name)
        endings = {"correlation": "", "ablation": f"--ablation-{self.options.variant}", "images": "--images"}
        suffix = endings[self.options.scoring]
        run = asked.run or "--".join(self.records["tables"]) + _simulator(asked) + suffix
        return simulations_folder(asked.outputs, dataset, model, source.layer or "array", run)

    def compute(self, draft: Draft) -> Simulation:
        options, source, concepts = self.options, self.source, self.records.get("concepts")
        tables = {name: one.table for name, one in self.records["tables"].items()}
        split = Split(**self.records["split"])
        rows = np.arange(source.n) if options.part == "all" else getattr(split, options.part)
        extra: dict[str, Any] = {}
        if options.scoring == "ablation":
            (draft.path / BLOCKS).mkdir(exist_ok=True)
            methods, extra = score_tables(
                options.simulator,
                self.settings,
                source,
                tables,
                concepts,
                split.val,
                np.asarray(rows),
                store=draft.path / BLOCKS,
            )
            draft.discard_at_end(BLOCKS)
        elif options.scoring == "images":
            methods = concept_images.score_tables(tables, source, self.records["images of concepts"], np.asarray(rows))
        else:
            assert concepts is not None
            total = sum(len(table.rows) for table in tables.values())
            methods = []
            with track("simulate", total, "units") as advance:
                for name, table in tables.items():
                    methods.append(_correlation(options, name, table, source, concepts, rows))
                    advance(len(table.rows))
        for entry in methods:
            texts = {row.unit: format_explanation(row, published=False) for row in tables[entry["method"]].rows}
            entry["units"] = [{**unit, "text": texts[unit["unit"]]} for unit in entry["units"]]
        notes = [f"{entry['method']}: {note}" for entry in methods for note in entry["notes"]]
        write_scores(draft.path / "scores.csv", methods)
        draft.manifest.rows = sum(len(entry["units"]) for entry in methods)
        return Simulation(
            method=options.scoring,
            parameters={**self.settings, "tables": list(tables)},
            seed=options.seed,
            notes=[*self.notes, *(concepts.notes if concepts is not None else ()), *notes, *_on_common_units(methods)],
            model=source.describe(),
            methods=methods,
            pairs=_pairs(methods, options.seed),
            **extra,
        )

    def cost(self) -> Mapping[str, Any]:
        options = self.options
        return {
            "tables": list(options.explanations) or options.method,
            "representation": options.model or options.activations,
            **(read := self.read),
            "missing": missing_downloads(options.simulator) or read.get("missing") or "nothing",
        }

    @cached_property
    def read(self) -> dict[str, Any]:
        """What is read and what that takes, before it is read."""
        return planned(self.options)

    def sizes(self) -> Mapping[str, float]:
        if self.records:
            concepts, tables = self.records.get("concepts"), self.records["tables"].values()
            rows = sum(len(one.table.rows) for one in tables)
            known = 1 if concepts is None else len(concepts.names)
            return {"n": self.source.n, "u": rows / max(1, len(tables)), "c": known, "t": len(tables)}
        shape, count = self.read.get("shape"), counted(self.options.simulator) or self.read.get("classes")
        return {} if shape is None or count is None else {"n": shape[0], "u": shape[1], "c": count, "t": 1}

    @property
    def source(self) -> Representation:
        """The representation whose units are simulated."""
        return self.records["representation"]


def run(options: SimulateOptions) -> Outcome:
    """Score one or several tables of explanations and store the result.

    Raises `RdxError` or `ValueError` (missing tables, tables of something else, concepts the simulator does not have,
    rows that do not fit).
    """
    return SimulateAnalysis(options).run()


def plan(options: SimulateOptions) -> dict[str, Any]:
    """What `run` would do."""
    return SimulateAnalysis(options).plan()


def _selected(one: Explained, units: Sequence[int] | None, width: int) -> Explained:
    """The rows of some units, all of which the layer has."""
    try:
        table = one.table if units is None else one.table.select(units)
        unit_columns(table, width, None)
    except ValueError as error:
        raise InputError(f"{one.name}: {error}") from None
    return Explained(one.name, table, one.artifact)


def _words(one: Explained) -> list[str]:
    """What has to be scored for a table: its concepts, or the parts of its formulas."""
    if one.artifact is None or one.artifact.manifest.request.parameters.get("method") != "logical":
        return one.table.concepts()
    return [part for text in one.table.concepts() for part in formula_parts(text)]


def _simulator(asked: SimulateOptions) -> str:
    """What tells runs apart that differ in the simulator alone; empty for labels."""
    name = wanted(asked)
    if name is not None:
        return f"--by-{slug(name)}"
    given = asked.concepts or asked.files.get("image_embeddings")
    return f"--by-{slug(Path(str(given)).stem)}" if given else ""


def _same_eyes(tables: Mapping[str, Explained], concepts: Concepts) -> list[str]:
    """Explanations that are scored with the very concepts, or the model, that they were found with."""
    ours = concepts.identity()
    notes = []
    for name, one in tables.items():
        model = one.concepts.get("model")
        if model is not None and model == concepts.maker:
            notes.append(
                f"{name}: explainer and simulator are the same model ({model}), so the score also measures what it "
                "shares with itself; the published scores use another one"
            )
        elif model is None and one.concepts and {**one.concepts, "names": None} == {**ours, "names": None}:
            notes.append(f"{name}: the simulator reads the same concepts as the explainer did")
    return notes


def _correlation(
    options: SimulateOptions, name: str, table: ExplanationTable, source: Representation, concepts: Concepts, rows: Any
) -> dict[str, Any]:
    arguments = (table, concepts.values, concepts.names, source.values)
    found = correlation_scores(*arguments, rows=rows, n_resamples=options.bootstraps)
    curve = length_curve(*arguments, rows=rows)
    truth = read_columns(source.values, np.sort(rows), unit_columns(table, source.d, None), "activations")
    predictions, _ = simulate(table, concepts.values, concepts.names, rows)
    rng = generator(options.seed, "null-explanations", len(table.rows))
    some = rng.permutation(len(table.rows))[:NULL_EXPLANATIONS]
    chance = against_shuffled(found.scores, truth, predictions[:, some], random_state=options.seed)
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
                "chance": float(chance.high[i]),
                "p_value": float(chance.p_values[i]),
                "q_value": float(chance.adjusted[i]),
            }
            for i, unit in enumerate(found.units)
        ],
        "length_curve": [
            {"length": int(length), **vars(summary)}
            for length, summary in zip(curve.lengths, curve.summaries, strict=True)
        ],
        "notes": list(found.notes),
    }


def _on_common_units(methods: Sequence[dict[str, Any]]) -> list[str]:
    """Add to each of several methods ``common``, its summary over the units that all explain; what to say of it."""
    if len(methods) < 2:
        return []
    by_unit = [{unit["unit"]: unit["score"] for unit in entry["units"]} for entry in methods]
    common = sorted(set.intersection(*(set(scores) for scores in by_unit)))
    for entry, scores in zip(methods, by_unit, strict=True):
        known = np.array([np.nan if scores[unit] is None else scores[unit] for unit in common], dtype=np.float64)
        entry["common"] = vars(summarise(known))
    sizes = ", ".join(f"{entry['method']} {len(entry['units'])}" for entry in methods)
    if len({len(entry["units"]) for entry in methods}) == 1:
        return []
    return [f"means are over the {human_count(len(common), 'unit')} that all tables explain (units: {sizes})"]


def _pairs(methods: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Paired tests of every two methods on the units that all have."""
    if len(methods) < 2:
        return []
    by_unit = {entry["method"]: {unit["unit"]: unit["score"] for unit in entry["units"]} for entry in methods}
    common = sorted(set.intersection(*(set(scores) for scores in by_unit.values())))
    if len(common) < 2:
        raise InputError("the tables have fewer than two units in common, so they cannot be compared")
    aligned = {name: np.array([scores[unit] for unit in common]) for name, scores in by_unit.items()}
    return [vars(test) for test in compare_methods(aligned, random_state=seed)]


def write_scores(path: Path, methods: Sequence[Mapping[str, Any]]) -> None:
    """``method,unit,score,low,high,length`` and, where chance is known, ``p_value,q_value``."""
    extra = [name for name in ("p_value", "q_value") if any(name in unit for m in methods for unit in m["units"])]
    extra += concept_images.columns_of(methods)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["method", "unit", "score", "low", "high", "length", *extra])
        for entry in methods:
            for unit in entry["units"]:
                values = [unit[name] for name in ("score", "low", "high")]
                shown = ["" if v is None else repr(v) for v in values]
                more = ["" if unit[name] is None else unit[name] for name in extra]
                writer.writerow([entry["method"], unit["unit"], *shown, unit["length"], *more])
