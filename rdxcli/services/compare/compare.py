"""``rdx compare``: join two representations, explain and test their difference, store the result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rdxcli.artifacts import Artifact, Draft, Request, write_json
from rdxcli.artifacts.blocks import BlockStore
from rdxcli.artifacts.layout import array_dataset, comparisons_folder
from rdxcli.concepts.heads import SIDES, heads_document
from rdxcli.concepts.named_comparisons import described, made_before, named
from rdxcli.concepts.naming import Embedded, Namer, open_naming
from rdxcli.concepts.predictions import Predictions, predictions_document
from rdxcli.datasets.appearance import seconds_of_one
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.known import MOST_MEASURED, read_known
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import ArtifactError, GateError, RdxError, UsageError
from rdxcli.methods.costs import Cost, comparison, documented
from rdxcli.methods.difference.evaluation import Evaluation
from rdxcli.methods.difference.guidance import GUIDANCES, supervise, takes_guidance
from rdxcli.methods.difference.planted import planted_difference
from rdxcli.methods.difference.significance import least_p
from rdxcli.methods.difference.yardsticks import YARDSTICKS
from rdxcli.models.devices import DTYPES
from rdxcli.parameters import result_parameters
from rdxcli.progress import approve, human_count, log
from rdxcli.records import Comparison
from rdxcli.report.comparison import doubts
from rdxcli.report.gates import parse_gates
from rdxcli.report.junit import JunitCase, junit
from rdxcli.representations.joining import Joined
from rdxcli.representations.layer import extracted_side, stored_side
from rdxcli.representations.options import ExtractOptions
from rdxcli.representations.pairs import check_rows_differ, without
from rdxcli.representations.resolve import (
    columns_taken,
    dataset_of,
)
from rdxcli.services.base import Analysis, Outcome
from rdxcli.services.compare.fitting import difference_of, fit, is_scoreboard, make_estimators, settle_k
from rdxcli.services.compare.options import AUTO, CompareOptions
from rdxcli.services.compare.patches import IMAGES, OTHERS, check_patches, open_patches, patches_of
from rdxcli.services.compare.properties import check_metadata, shared_properties, write_images
from rdxcli.services.compare.record import make_record
from rdxcli.services.compare.scoreboard import run_all
from rdxcli.services.compare.sides import check_row_options, read_pair, read_reference
from rdxcli.services.compare.similarities import SimilaritiesAnalysis, asks_for_many

METHODS = "methods"
"""Methods of a scoreboard that are done; not part of the finished artifact."""

ON_CHANGE = ("fail", "new", "replace")


class CompareAnalysis(Analysis[CompareOptions]):
    """What two representations of the same images see differently, and whether they differ at all."""

    kind = "comparison"
    version = "8"

    joined: Joined
    """Both sides on the images they share, from `gather`."""

    failed: RdxError | None = None
    """Why the groups are not described, where the comparison stands without."""

    def check(self) -> Mapping[str, Any]:
        options = self.options
        if options.b is None:
            raise UsageError("which second one? one side is given", "give two, or `--layers all` for one model alone")
        _one_of("guidance", options.guidance, GUIDANCES)
        _one_of("dtype", options.dtype, DTYPES)
        if options.on_change not in (None, *ON_CHANGE):
            raise UsageError(f"--on-change {options.on_change}: expected one of {', '.join(ON_CHANGE)}")
        if options.yardstick is not None and options.yardstick not in YARDSTICKS:
            raise UsageError(f"--yardstick {options.yardstick}: expected one of {', '.join(YARDSTICKS)}")
        if options.yardstick is not None and options.reference:
            raise UsageError("--yardstick and --reference are two reference pairs", "give one of them")
        if not options.test and (options.reference or options.yardstick or options.paired is not None):
            name = "--yardstick" if options.yardstick else "--reference" if options.reference else "--paired"
            raise UsageError(f"{name} is compared by the test, which --no-test leaves out", "leave one of them out")
        measured = options.reference is not None or options.yardstick is not None
        for gate in parse_gates(options.fail_on, options.fail_above):
            gate.needs(test=options.test, reference=measured)
        check_metadata(options)
        check_row_options(options)
        for side in SIDES:
            names = getattr(options, f"classes_{side}")
            if names is not None and not Path(names).expanduser().is_file():
                raise UsageError(
                    f"--classes-{side}: no such file: {names}", "one name a line, in the order of the outputs"
                )
        _ = options.seconds  # refused now, not after the first method
        check_patches(options)
        self.estimators, self.resumes = make_estimators(options), is_scoreboard(options.method)
        if options.align or options.guidance != "none":
            _check_takes_guidance(self.estimators)
        parameters = {name: result_parameters(estimator) for name, estimator in self.estimators.items()}
        return {
            "method": options.method,
            **({"methods": parameters} if is_scoreboard(options.method) else parameters[options.method]),
            "guidance": options.guidance,
            "align": options.align,
            "planted": options.planted,
            "test": options.test,
            "bootstraps": options.bootstraps,
            "yardstick": options.yardstick,
            **({} if options.paired is None else {"paired": options.paired}),
            "properties": options.properties,
            "patches": options.patches,
            **({"k": AUTO} if options.automatic else {}),
        }

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        self.namer = self._namer()
        self.readers = open_patches(options)
        self.joined, self.predictions, self.heads = read_pair(options)
        judged = self.joined.a.labels is not None and (self.predictions is None or self.predictions.named)
        for gate in parse_gates(options.fail_on, options.fail_above):
            gate.needs_predictions(given=judged or self.predictions is not None, judged=judged)
            gate.reachable(least_p(self.joined.a.n), self.joined.a.n)
        for estimator in self.estimators.values():
            _check_groups(estimator, self.joined.a.n)
        check_rows_differ(self.joined.a, self.joined.b)
        if options.paired and self.joined.a.d != self.joined.b.d:
            raise UsageError(
                f"--paired: {self.joined.a.name} has {human_count(self.joined.a.d, 'dimension')}, "
                f"{self.joined.b.name} {self.joined.b.d:,}, expected the same dimensions in both",
                "leave it out: the question is then whether they differ more than two read-outs",
            )
        for note in self.joined.notes:
            log.warning("%s", note)
        self.reference = read_reference(options, self.joined)
        ids = self.joined.a.ids() or None
        self.known = read_known(
            ids,
            self.joined.a.n,
            table=options.metadata,
            id_column=options.arrays.id_column,
            spec=(self.joined.a.dataset or self.joined.b.dataset) if options.properties else None,
            root=options.selection.root,
            seed=options.seed,
        )
        # Files are read now; a model embeds in `compute`, from texts and images that are read now.
        self.embedded = self.namer.embed(self.joined) if self.namer is not None and self.namer.model is None else None
        return {
            "a": self.joined.a,
            "b": self.joined.b,
            "joined": self.joined.describe(),
            "reference": None if self.reference is None else [self.reference.a, self.reference.b],
            "predictions": self.predictions,
            **({} if self.heads is None else {"heads": list(self.heads)}),
            "properties": self.known,
            "naming": self.embedded.source if self.embedded is not None else self.namer,
        }

    def _namer(self) -> Namer | None:
        options = self.options
        if not options.naming.wanted:
            return None
        dataset = options.selection.dataset
        if dataset is None and options.naming.model is not None:
            known = (dataset_of(side, options.outputs, options.selection.root) for side in (options.a, options.b))
            dataset = next(filter(None, known), "" if options.arrays.images is not None else None)
        return open_naming(options.naming, dataset, options.selection, options.outputs, options.device, options.seed)

    def folder(self) -> Path:
        options, a, b = self.options, self.joined.a, self.joined.b
        dataset = a.source.get("dataset") or b.source.get("dataset") or array_dataset(a.name)
        first, second = (
            side.name if layer is None or side.name.endswith(f".{layer}") else f"{side.name}.{layer}"
            for side, layer in ((a, options.layer_a), (b, options.layer_b))
        )
        run = options.run or options.method.replace(" ", "").replace(",", "+")
        return self._free(comparisons_folder(options.outputs, dataset, first, second, run))

    def _free(self, folder: Path) -> Path:
        """The folder, or what ``--on-change`` wants where it holds a run made from something else."""
        request, number, options = self.request(), 1, self.options
        policy = options.policy
        while not options.force and policy != "fail":
            place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
            try:
                made_before(place, request)
            except ArtifactError:
                number += 1
                if policy == "replace":
                    log.info("replacing %s, which was made from something else", place)
                    self.options = replace(options, force=True)
                    return place
            else:
                return place
        return folder

    def make(self, folder: Path, request: Request) -> Draft:
        """The comparison first, then names for one that has none, then the sentences of a describer."""
        before = None if self.options.force or self.namer is None else self._made_before(folder, request)
        if before is not None and before.manifest.fingerprint != request.fingerprint():
            named(before, request, self._embedded(), self.options.seed)
        draft = super().make(folder, request)
        if self.namer is not None and self.namer.describer is not None:
            describer = self.namer.describer.identity()
            force = self.options.force
            try:
                draft.artifact = described(draft.result, self._embedded(), describer, force)
            except RdxError as error:
                self.failed = error
        return draft

    def _made_before(self, folder: Path, request: Request) -> Artifact | None:
        try:
            return made_before(folder, request)
        except ArtifactError:
            return None  # `create` says what is there

    def _embedded(self) -> Embedded:
        """Embeddings of the images and of the words."""
        assert self.namer is not None
        if self.embedded is None:
            self.embedded = self.namer.embed(self.joined)
        return self.embedded

    def outcome(self, artifact: Artifact, reused: bool = False) -> Outcome:
        return replace(super().outcome(artifact, reused), failed=self.failed)

    def compute(self, draft: Draft) -> Comparison:
        options, joined = self.options, self.joined
        a, b = joined.a, joined.b
        planted = planted_difference(options.planted, (a.name, b.name), a.labels)
        evaluation = Evaluation(a.values, b.values, a.labels, planted, options.seed)
        embedded = None if self.namer is None else self._embedded()
        supervision = supervise(a, b, options.guidance, options.align, options.seed)
        chosen = settle_k(self.estimators, joined, options.seed, options.device) if options.automatic else None
        if is_scoreboard(options.method):
            kept = BlockStore(draft.path / METHODS, SimpleNamespace)
            draft.discard_at_end(METHODS)
            record = run_all(options, self.estimators, joined, self.reference, evaluation, supervision, kept)
        else:
            [(_, estimator)] = self.estimators.items()
            fit(estimator, options.method, joined, supervision, options.seconds)
            test, difference = difference_of(options, estimator, joined, self.reference)
            record = make_record(
                options,
                options.method,
                estimator,
                joined,
                evaluation,
                supervision,
                test,
                difference,
                options.bootstraps,
            )
        if chosen is not None:
            record = replace(record, notes=[chosen, *record.notes])
        if embedded is not None:
            record = embedded.name(record, options.seed)
        predictions = self.predictions or (
            Predictions(*evaluation.probed, "linear probe, 5-fold") if evaluation.probed is not None else None
        )
        if predictions is not None:
            found = predictions_document(predictions, joined.a.labels, record.concepts, record.arrays)
            arrays = {**record.arrays, "predictions_a": predictions.a, "predictions_b": predictions.b}
            record = replace(record, predictions=found, arrays=arrays)
        if self.heads is not None:
            told = heads_document(self.heads, joined.a.labels, record.concepts, record.arrays)
            said = {f"predictions_{side}": head.words() for side, head in zip(SIDES, self.heads, strict=True)}
            record = replace(record, heads=told, arrays={**record.arrays, **said})
        if self.readers is not None:
            patches, more = patches_of(self.readers, record, joined, options.seed)
            record = replace(record, patches=patches, arrays={**record.arrays, **more})
        shared, columns = shared_properties(self.known, record, joined.a.labels, predictions, self.heads, draft.path)
        record = replace(record, properties=shared)
        write_images(draft.path / "images.csv", record, evaluation.neighbours, columns)
        np.savez_compressed(draft.path / "arrays.npz", **dict(record.arrays))  # type: ignore[arg-type]
        document = record.to_document()
        write_json(draft.path / "scores.json", {"scores": document["scores"], "difference": document["difference"]})
        draft.manifest.rows = record.n
        draft.manifest.device = options.device
        return record

    def headline(self) -> str:
        a, b = self.joined.a, self.joined.b
        labels = f"{human_count(len(set(map(str, a.labels))), 'label')}" if a.labels is not None else "no labels"
        return (
            f"comparing {a.name} and {b.name}: n = {a.n}, d = {a.d} and {b.d}, method {self.options.method} "
            f"({labels}, joined by {self.joined.by})"
        )

    def expected(self) -> Cost | None:
        return self._cost(self.joined.a.n, self.joined.a.d + self.joined.b.d, self.known.pictures)

    def _cost(self, n: int, width: int, pictures: Dataset | None) -> Cost:
        options = self.options
        groups = sum(2 * one.get_params().get("n_clusters", 1) for one in list(self.estimators.values())[:1])
        return comparison(
            self.estimators,
            n,
            width,
            tested=options.test,
            bootstraps=options.bootstraps,
            limit=options.seconds,
            pictures=0 if pictures is None else min(n, MOST_MEASURED),
            looking=None if pictures is None else seconds_of_one(pictures),
            patches=OTHERS + groups * IMAGES if options.patches else 0,
        )

    def announce(self) -> Cost | None:
        cost = super().announce()
        if is_scoreboard(self.options.method) and self.options.seconds is None and cost is not None and cost.seconds:
            approve(cost.seconds, f"--method {self.options.method} takes about {cost.in_words()}")
        return cost

    def plan(self) -> dict[str, Any]:
        self.settings = self.check()
        n, width, document, spec = plan(self.options, self.estimators)
        if width is None:
            return document
        pictures = None
        if spec is not None and self.options.properties:
            with suppress(RdxError):  # the run says it
                pictures = open_dataset(spec, root=self.options.selection.root)
        return {**document, **documented(self._cost(n, width, pictures))}


def compare(options: CompareOptions) -> Outcome:
    """Compare representations and store the result.

    Raises `RdxError` (unusable input or options, or an artifact made with other parameters; see the message).
    """
    return analysis(options).run()


def analysis(options: CompareOptions) -> Analysis[CompareOptions]:
    """The analysis that the options ask for: of a pair, or of many layers or models."""
    pair = options.reference or ()
    if any(isinstance(one, str) and (one.startswith("--") or one in YARDSTICKS) for one in pair):
        raise UsageError(
            f"--reference takes two models or arrays, got {' and '.join(f'`{one}`' for one in pair)}",
            f"a pair made of the first model is --yardstick {'|'.join(YARDSTICKS)}",
        )
    if not asks_for_many(options):
        return CompareAnalysis(options)
    if options.automatic:
        raise UsageError("--k auto chooses for one pair", "give a number with many layers or models")
    return SimilaritiesAnalysis(options)


def _check_groups(estimator: Any, n: int) -> None:
    """Raises `UsageError` (more groups than there are images, as people give them)."""
    k, others = getattr(estimator, "n_clusters", 1), int(bool(getattr(estimator, "null_cluster", False)))
    if isinstance(k, int) and k + others > n:
        rest = " and one of all others" if others else ""
        raise UsageError(
            f"--k {k}: {human_count(k, 'group')}{rest} need as many images, there {'is' if n == 1 else 'are'} {n}",
            f"choose --k {max(1, n // 10)}, or more images",
        )


def gates_of(outcome: Outcome, options: CompareOptions) -> dict[str, str | None]:
    """Every gate of the options, as it was given, and why it is not met; None when it is."""
    gates = parse_gates(options.fail_on, options.fail_above)
    return {gate.option: gate.reason(outcome.document) for gate in gates}


def as_junit(outcome: Outcome, options: CompareOptions) -> str:
    """The gates as test cases, or the verdict as one that passes."""
    document = outcome.document
    sides = " and ".join(str(document[side]["name"]) for side in ("a", "b") if isinstance(document.get(side), Mapping))
    difference = document.get("difference") or {}
    said = "\n".join(
        [
            f"verdict: {difference.get('verdict')}",
            *doubts(document).values(),
            *difference.get("sentences", []),
            *outcome.lines,
        ]
    )
    cases = [JunitCase(gate, reason, said) for gate, reason in gates_of(outcome, options).items()]
    return junit(f"rdx compare {sides}", cases or [JunitCase("compared", None, said)])


def check_gates(outcome: Outcome, options: CompareOptions) -> None:
    """Fail when a gate of the options is not met.

    Raises `GateError` with every reason, and with what is not reliable (exit code 3).
    """
    reasons = [reason for reason in gates_of(outcome, options).values() if reason is not None]
    if reasons:
        raise GateError("; ".join([*reasons, *doubts(outcome.document).values()]))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"unknown {name} `{value}`", f"choose one of {', '.join(choices)}")


def _check_takes_guidance(estimators: Mapping[str, Any]) -> None:
    if not any(map(takes_guidance, estimators.values())):
        raise UsageError(
            f"--align and --guidance mean nothing to {', '.join(f'`{name}`' for name in estimators)}",
            "it describes each model on its own; use `rdx`",
        )


def plan(options: CompareOptions, estimators: Mapping[str, Any]) -> tuple[int, int | None, dict[str, Any], str | None]:
    """What `compare` would read, without its work.

    Images, dimensions of both sides if they are known, the rest, and the data set whose pictures are looked at.
    """
    named = options.naming.wanted
    document: dict[str, Any] = {}
    sizes, widths, spec = [], [], options.selection.dataset
    for side, text, layer in (("a", options.a, options.layer_a), ("b", options.b, options.layer_b)):
        asked = ExtractOptions(str(text), (layer,), options.selection, options.pool, options.dtype)
        asked = replace(asked, outputs=options.outputs, device=options.device, engine="local")
        record = stored_side(text, asked, options.arrays)
        if record is None:
            n, width, document[side] = extracted_side(asked)
            spec = spec or dataset_of(str(text), options.outputs, options.selection.root)
        else:
            record = without(record, getattr(options, f"drop_{side}"), f"--drop-{side}")
            n, width, spec = record.n, record.d, spec or record.dataset
            document[side] = f"{record.name}, {human_count(n, 'row')} of {width}{columns_taken(record)}"
        sizes.append(n)
        widths += [] if width is None else [width]
    n = min(sizes)
    document["method"] = options.method
    settings = {name: result_parameters(estimator) for name, estimator in estimators.items()}
    document["parameters"] = settings if is_scoreboard(options.method) else settings[options.method]
    document["images"] = n
    if named:
        document["names"] = f"by {options.naming.model or ' and '.join(options.naming.files.values())}"
    if any(getattr(estimator, "approximate_on", lambda _: False)(n) for estimator in estimators.values()):
        document["approximate"] = "yes: landmarks are grouped exactly, the other images join them"
    return n, sum(widths) if len(widths) == len(sizes) else None, document, spec
