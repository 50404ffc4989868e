"""``rdx compare --layers`` and ``rdx compare A B C ...``: many representations against each other."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.layout import array_dataset, comparisons_folder, slug
from rdxcli.datasets.arrays import is_array
from rdxcli.errors import UsageError
from rdxcli.methods.difference.matrices import (
    MEASURES,
    READ_OUTS,
    Matrices,
    drawn_rows,
    of_equal_depth,
    similarity_matrices,
    tree,
)
from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.record import concepts_of, notes_of, reliability
from rdxcli.methods.difference.significance import concept_stability, difference_test
from rdxcli.methods.difference.walk import ALPHA, Group, follow
from rdxcli.models.taps import layers_command
from rdxcli.parameters import result_parameters
from rdxcli.progress import human_count, log, track
from rdxcli.records import ComparedPair, Representation, Similarities, Verdict, relied_on
from rdxcli.report.similarities import WALK, name_of
from rdxcli.representations.joining import Joined, join_all, take
from rdxcli.representations.pairs import told_apart
from rdxcli.representations.several import plan_layers, resolve_layers
from rdxcli.services.base import Analysis
from rdxcli.services.compare.fitting import is_scoreboard, make_estimator
from rdxcli.services.compare.options import CompareOptions
from rdxcli.services.compare.sides import arrays_of, read_side

MEANT = (
    *("a", "b", "more", "layers", "timeline", "pairs", "reference_runs"),
    *("k", "gamma", "beta", "approximate", "landmarks"),
    *("selection", "pool", "arrays", "labels_a", "labels_b", "sample_ids_a", "sample_ids_b", "layer_a", "layer_b"),
    *("test", "bootstraps", "method", "parameters", "outputs", "run", "seed", "device", "dtype", "force"),
)  # fmt: skip
"""Options that mean something for many representations."""

POOLS = {
    "auto": "mean over positions; of transformers the class token, or the mean of the patches where there is none",
    "avg": "mean over positions, or over all tokens",
    "mean": "mean over positions, or over patches",
    "max": "maximum over positions or tokens",
    "first": "first token",
    "cls": "class token",
    "none": "mean over positions",
}
"""How one vector was made of a map, by ``--pool``."""


def asks_for_many(options: CompareOptions) -> bool:
    """Whether more than one pair of representations is to be compared."""
    return bool(options.layers or options.more or options.reference_runs or options.timeline)


class SimilaritiesAnalysis(Analysis[CompareOptions]):
    """How alike layers, or models, are; the most different pairs, or the neighbours of a series, in full."""

    kind = "similarities"

    @property
    def of_models(self) -> bool:
        """Whether the rows are models, not layers."""
        options = self.options
        return bool(options.more or options.reference_runs or options.timeline)

    @property
    def walks(self) -> bool:
        """Whether the rows are a series whose neighbours are compared."""
        return bool(self.options.timeline or self.pattern == WALK)

    @property
    def pattern(self) -> str | None:
        """``--layers``, as far as it is a word."""
        return self.options.layers.partition(":")[0] if self.options.layers else None

    def check(self) -> Mapping[str, Any]:
        options = self.options
        plain = CompareOptions(options.a, options.b)
        what = "several models" if self.of_models else "--layers"
        if is_scoreboard(options.method):
            raise UsageError(f"--method {options.method} compares two representations", "name one method")
        for part in dataclasses.fields(options):
            if part.name not in MEANT and getattr(options, part.name) != getattr(plain, part.name):
                option = f"--{part.name.replace('_', '-')}"
                raise UsageError(f"{option} means nothing with {what}", "compare two of them alone, or leave it out")
        if self.pattern == WALK and (options.b is not None or self.of_models):
            raise UsageError("--layers consecutive follows one model through its depth", "give one model")
        if self.of_models:
            self._check_models()
        elif options.layer_a or options.layer_b:
            raise UsageError("--layers and --layer-a, --layer-b contradict each other", "leave one of them out")
        self.estimator = make_estimator(options.method, options.parameters, options.seed, options.device)
        return {
            "method": options.method,
            **result_parameters(self.estimator),
            "layers": options.layers,
            "timeline": options.timeline,
            "pairs": options.pairs,
            "test": options.test,
            "bootstraps": options.bootstraps,
        }

    def _check_models(self) -> None:
        options = self.options
        if options.b is None:
            raise UsageError("one model cannot be compared with itself alone", "give several models, or --layers")
        if len(options.reference_runs) == 1:
            raise UsageError("--reference-runs: one run has no pair", "give at least two, such as two seeds")
        if (options.layer_a or options.layer_b) and options.more:
            raise UsageError("--layer-a and --layer-b are for two models", "give --layers NAME for all of them")
        for side in ("labels", "sample_ids"):
            for name in (f"{side}_a", f"{side}_b"):
                if getattr(options, name):
                    option = f"--{name.replace('_', '-')}"
                    raise UsageError(f"{option} is for two models", f"give --{side.replace('_', '-')} for all")

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        if self.of_models:
            texts = [options.a, options.b, *options.more, *options.reference_runs]
            found = [self._model(text, place) for place, text in enumerate(texts)]
            sides = [told_apart(*zip(found, texts, strict=True)), []]
        else:
            texts = [options.a, *([options.b] if options.b is not None else [])]
            sides = [self._layers(text, side) for text, side in zip(texts, "ab", strict=False)]
            sides = _named_apart(sides, texts) if len(sides) == 2 else [*sides, []]
        everything, notes = join_all([*sides[0], *sides[1]])
        rows = drawn_rows(everything[0].n, options.seed)
        if len(rows) < everything[0].n:
            notes.append(f"{len(rows):,} of {human_count(everything[0].n, 'image')} were drawn")
        everything = [take(record, rows) for record in everything]
        for note in notes:
            log.warning("%s", note)
        self.notes = notes
        count = len(sides[0]) - (len(options.reference_runs) if self.of_models else 0)
        self.rows, self.columns = everything[:count], everything[len(sides[0]) :]
        self.runs = everything[count : len(sides[0])]
        self.first = everything[0]
        if self.walks and count < 2:
            model = self.first.source.get("model")
            hint = layers_command(str(model)) if model else "name more of its arrays with --layers"
            raise UsageError(f"{self.first.name} has one layer, expected at least two", hint)
        return {"rows": self.rows, "columns": self.columns, "runs": self.runs}

    def _model(self, text: str | Representation, place: int) -> Representation:
        options = self.options
        if options.layers and isinstance(text, str):
            found = self._layers(text, "a")
            if len(found) != 1:
                raise UsageError(
                    f"--layers {options.layers}: {found[0].name} has {human_count(len(found), 'such layer')}",
                    "of several models one layer each is read",
                )
            return found[0]
        layer = (options.layer_a, options.layer_b)[place] if place < 2 else None
        return read_side(options, text, layer, options.arrays)

    def _layers(self, given: str | Representation | Sequence[Representation], side: str) -> list[Representation]:
        options = self.options
        if not isinstance(given, str):
            return list(given) if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
        layers = str(options.layers)
        if self.pattern == WALK:
            layers = layers.partition(":")[2] or "series"
        return resolve_layers(
            given,
            layers,
            pool=options.pool,
            selection=options.selection,
            arrays=arrays_of(options, side),
            outputs=options.outputs,
            device=options.device,
            force=options.force,
            dtype=options.dtype,
        )

    def folder(self) -> Path:
        options = self.options
        dataset = self.first.source.get("dataset") or array_dataset(self.first.name)
        if self.of_models:
            others = slug("--".join(record.name for record in self.rows[1:]))
            return comparisons_folder(
                options.outputs, dataset, self.rows[0].name, others, options.run or self.name_of_run
            )
        other = self.columns[0].name if self.columns else "layers"
        return comparisons_folder(options.outputs, dataset, self.first.name, other, options.run or self.name_of_run)

    @property
    def name_of_run(self) -> str:
        """Of the folder."""
        if self.of_models:
            return "timeline" if self.options.timeline else "models"
        return f"layers-{slug(str(self.options.layers).replace('*', 'x'))}"

    def compute(self, draft: Draft) -> Similarities:
        options = self.options
        found = similarity_matrices(
            [record.values for record in [*self.rows, *self.runs]],
            [record.values for record in self.columns] or None,
            random_state=options.seed,
        )
        reference = self._reference(found)
        if self.runs:
            found = found.take(len(self.rows))
        pairs: list[ComparedPair] = []
        arrays: dict[str, np.ndarray] = {}
        chosen = self._chosen(found)
        with track("compare pairs", len(chosen), "pairs") as advance:
            for place, (row, column, why) in enumerate(chosen):
                pair, labels = self._pair(row, column, why)
                pairs.append(pair)
                arrays |= {f"labels_{side}.{place}": values.astype(np.int16) for side, values in labels.items()}
                advance(1)
        followed = [one.to_dict() for one in self._followed(pairs, arrays)] if self.walks else []
        ids = self.first.sample_ids if self.first.sample_ids is not None else np.arange(self.first.n).astype(str)
        arrays["sample_ids"] = np.asarray(ids, dtype=np.str_)
        if self.first.labels is not None:
            arrays["labels"] = np.asarray(self.first.labels, dtype=np.str_)
        np.savez_compressed(draft.path / "arrays.npz", **arrays)  # type: ignore[arg-type]
        draft.manifest.rows = self.first.n
        draft.manifest.device = options.device
        joined = None
        if self.of_models and len(self.rows) > 1:
            grown = tree(found.values["score"])
            joined = {"order": grown.order, "merges": grown.merges, "by": "score, average linkage"}
        failed = sorted(
            {str(sample) for record in [*self.rows, *self.columns] for sample in record.source.get("failed", ())}
        )
        return Similarities(
            method=options.method,
            parameters={**self.settings, "repeat": self._how_to_repeat()},
            seed=options.seed,
            arrays=arrays,
            notes=[*self.notes, *self._remarks(found)],
            of="models" if self.of_models else "layers",
            rows=[record.describe() for record in self.rows],
            columns=[record.describe() for record in self.columns or self.rows],
            symmetric=not self.columns,
            n=self.first.n,
            pool=POOLS[options.pool] if "pool" in self.first.source else "as the arrays have it",
            measures=_measures(found),
            pairs=pairs,
            followed=followed,
            tree=joined or {},
            reference=reference,
            samples={"dataset": self.first.dataset, "n": self.first.n, "failed": failed},
        )

    def _remarks(self, found: Matrices) -> list[str]:
        notes = []
        for records, places in zip((self.rows, self.columns), found.constant, strict=True):
            notes += [
                f"{name_of(records[i].describe())} is the same for all images: nothing is said of it" for i in places
            ]
        return notes

    def _how_to_repeat(self) -> dict[str, Any]:
        """What the command that compares one pair is made of, quoted for a shell."""
        options = self.options
        chosen = options.selection
        flags = {
            "dataset": chosen.dataset, "split": chosen.split, "classes": chosen.classes, "per-class": chosen.per_class,
            "sample": chosen.sample, "limit": chosen.limit, "labels": options.arrays.labels,
            "sample-ids": options.arrays.sample_ids, "images": options.arrays.images,
            "pool": None if options.pool == "auto" else options.pool,
        }  # fmt: skip
        words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
        if self.of_models:
            given = [options.a, options.b, *options.more]
            named = [shlex.quote(text) if isinstance(text, str) else None for text in given]
            if options.layers:
                words += ["--layer-a", options.layers, "--layer-b", options.layers]
            return {"rows": named, "columns": named, "by_layer": False, "layers": [], "options": shlex.join(words)}
        sides, by_layer = [], True
        for text, records in ((options.a, self.rows), (options.b or options.a, self.columns or self.rows)):
            of_file = isinstance(text, str) and is_array(text)
            by_layer = by_layer and not of_file
            names = [f"{text}:{record.layer}" if of_file else text for record in records]
            sides.append([shlex.quote(name) if isinstance(name, str) else None for name in names])
        layers = [
            [shlex.quote(str(record.layer)) for record in side] for side in (self.rows, self.columns or self.rows)
        ]
        return {
            "rows": sides[0],
            "columns": sides[1],
            "by_layer": by_layer,
            "layers": layers if by_layer else [],
            "options": shlex.join(words),
        }

    def _reference(self, found: Matrices) -> dict[str, Any]:
        """The scores of pairs of runs, and which pairs of models are more different than all of them."""
        if not self.runs:
            return {}
        count = len(self.rows)
        upper = np.triu_indices(len(self.runs), 1)
        measures = {}
        for name in MEASURES:
            values = found.values[name][count:, count:][upper]
            measures[name] = {"mean": float(values.mean()), "low": float(values.min()), "high": float(values.max())}
        scores = found.values["score"][:count, :count]
        return {
            "runs": [record.describe() for record in self.runs],
            "pairs": len(upper[0]),
            "measures": measures,
            "exceeded": (scores > measures["score"]["high"]).tolist(),
        }

    def _chosen(self, found: Matrices) -> list[tuple[int, int, str]]:
        """Pairs that are compared in full."""
        score, count = found.values["score"], len(self.rows)
        if self.walks:
            pairs = [(i, i + 1, "neighbours") for i in range(count - 1)]
            return [pair for pair in pairs if np.isfinite(score[pair[:2]])]
        if self.of_models:
            pairs = [(i, j, "most different") for i in range(count) for j in range(i + 1, count)]
        elif self.columns:
            names = [[str(record.layer) for record in records] for records in (self.rows, self.columns)]
            pairs = [(i, j, "equal depth") for i, j in dict.fromkeys(of_equal_depth(*names))]
        else:
            pairs = [(i, i + 1, "neighbours") for i in range(count - 1)]
        known = [pair for pair in pairs if np.isfinite(score[pair[:2]])]
        return sorted(known, key=lambda pair: -score[pair[:2]])[: self.options.pairs]

    def _pair(self, row: int, column: int, why: str) -> tuple[ComparedPair, dict[str, np.ndarray]]:
        options = self.options
        a, b = self.rows[row], (self.columns or self.rows)[column]
        estimator = make_estimator(options.method, options.parameters, options.seed, options.device)
        estimator.fit(a.values, b.values)
        own = estimator if isinstance(estimator, RDX) else None
        test = None
        if options.test:
            test = difference_test(
                a.values,
                b.values,
                estimator=own,
                paired=None if self.of_models and not self.walks else False,  # that layers differ at all is no news
                device=options.device,
                random_state=options.seed,
            )
        stability: Mapping[str, Any] = {}
        if own is not None:
            stability = concept_stability(
                own,
                a.values,
                b.values,
                test=test,
                bootstraps=0 if self.walks else options.bootstraps,
                fit_options={},
                random_state=options.seed,
            )
        joined = Joined(replace(a, labels=self.first.labels, sample_ids=self.first.sample_ids), b, "id", [], [], [])
        concepts, labels = concepts_of(estimator, joined.a, stability)
        difference = {"score": None, "verdict": str(Verdict.NOT_TESTED)} if test is None else test.to_dict()
        trust = reliability(estimator)
        return ComparedPair(row, column, why, difference, concepts, notes_of(estimator), trust), labels

    def _followed(self, pairs: Sequence[ComparedPair], arrays: Mapping[str, np.ndarray]) -> list[Any]:
        """Concepts of the series that are more than chance, and what becomes of them."""
        groups = [
            Group(
                pair.row,
                concept.closer_in,
                concept.index,
                arrays[f"labels_{concept.closer_in}.{place}"] == concept.index,
                concept.strength or 0.0,
            )
            for place, pair in enumerate(pairs)
            for concept in pair.concepts
            if relied_on(pair.reliability, concept.closer_in, concept.index)
            and (concept.p_value is None or (concept.p_value <= ALPHA and pair.difference["verdict"] == Verdict.FOUND))
        ]
        return follow([record.values for record in self.rows], groups)

    def headline(self) -> str:
        sides = [self.rows, self.columns or self.rows]
        sizes = " x ".join(str(len(side)) for side in sides)
        labels = (
            f"{human_count(len(set(map(str, self.first.labels))), 'label')}"
            if self.first.labels is not None
            else "no labels"
        )
        names = " and ".join(dict.fromkeys(record.name for side in sides for record in side[:3]))
        what = "models" if self.of_models else "layers"
        return f"comparing {sizes} {what} of {names}: n = {self.first.n:,} ({labels}), method {self.options.method}"

    def cost(self) -> Mapping[str, Any]:
        """What would be read and how much memory it takes; models are opened, no image is."""
        options = self.options
        said: dict[str, Any] = {}
        if self.of_models:
            texts = [options.a, options.b, *options.more, *options.reference_runs]
            count = [len(texts), len(texts)]
            said["models"] = [str(getattr(text, "name", text)) for text in texts]
        else:
            count = []
            for side, text in (("a", options.a), ("b", options.b)):
                if text is None:
                    continue
                if not isinstance(text, str):
                    count.append(len(text) if isinstance(text, list | tuple) else 1)
                    continue
                layers = str(options.layers).partition(":")[2] or "series" if self.pattern == WALK else options.layers
                names, images = plan_layers(text, str(layers), options.selection, options.outputs)
                count.append(len(names))
                said[side] = f"{text}: {human_count(len(names), 'layer')}, {names[0]} to {names[-1]}" + (
                    f"; {images}" if images else ""
                )
            count += count[: 2 - len(count)]
        cells = count[0] * count[1]
        full = count[0] - 1 if self.walks else min(options.pairs, cells)
        total = sum(count) if self.of_models is False and options.b is not None else count[0]
        self.counts = {"n": 2000, "r": total, "t": cells, "k": full}
        return {
            **said,
            "cells": f"{cells:,} ({count[0]} x {count[1]}), {human_count(len(MEASURES), 'measure')} each",
            "pairs in full": full,
            "images": "at most 2,000, drawn with the seed",
        }

    def sizes(self) -> Mapping[str, float]:
        if not self.records:
            return self.counts
        rows, columns = len(self.rows), len(self.columns or self.rows)
        full = rows - 1 if self.walks else min(self.options.pairs, rows * columns)
        return {"n": min(2000, self.first.n), "r": rows + len(self.columns or ()), "t": rows * columns, "k": full}


def _named_apart(
    sides: Sequence[Sequence[Representation]], texts: Sequence[str | Representation]
) -> list[list[Representation]]:
    """Both sides under names that differ, whatever their layers are called."""
    alike = [(replace(side[0], layer=None), text) for side, text in zip(sides, texts, strict=True)]
    names = [record.name for record in told_apart(*alike)]
    return [[replace(record, name=name) for record in side] for side, name in zip(sides, names, strict=True)]


def _measures(found: Matrices) -> dict[str, Any]:
    """The entry ``measures`` of the document."""
    measures: dict[str, Any] = {
        name: {"values": values.round(6).tolist(), "chance": vars(found.chance[name]) if name in found.chance else None}
        for name, values in found.values.items()
    }
    measures["score"]["read_outs"] = {
        side: [{"mean": mean, "max": most} for mean, most in values.tolist()]
        for side, values in (("rows", found.read_outs_first), ("columns", found.read_outs_second))
    } | {"draws": READ_OUTS}
    measures["score"]["neighbours"] = found.neighbours
    return measures
