"""``rdx explain --method le-label | le-siglip | clip-dissect``: what single units respond to, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.blocks import BlockStore
from rdxcli.concepts.explanations import SPLITS, TABLE, store_split
from rdxcli.concepts.gather import counted, gather, needs_concepts, read_splits, split_of
from rdxcli.concepts.labels import Concepts
from rdxcli.concepts.options import check_files
from rdxcli.concepts.scorer import (
    CALIBRATED,
    EMBEDDINGS,
    check_calibration,
    missing_downloads,
    open_scorer,
    wanted,
    with_downloads,
)
from rdxcli.concepts.sets import read_concept_set
from rdxcli.errors import InputError, MissingDataError, RdxError, UsageError
from rdxcli.methods.neurons.chance import LEVEL, Chance
from rdxcli.methods.neurons.character import UnitCharacter
from rdxcli.methods.neurons.choices import Found
from rdxcli.methods.neurons.concepts import LazyCosines
from rdxcli.methods.neurons.inspection import area_chart
from rdxcli.methods.neurons.preparation import Split
from rdxcli.methods.neurons.tables import ExplanationTable, format_explanation, format_table, table_statistics
from rdxcli.methods.registry import get
from rdxcli.models.registry import resolve
from rdxcli.numerics.moments import read_columns
from rdxcli.parameters import Parameter, by_name, estimator_parameters, result_parameters
from rdxcli.progress import human_count
from rdxcli.records import NeuronExplanations, Representation
from rdxcli.representations.layer import representation
from rdxcli.representations.unit_pictures import MAPPED_UNITS, add_masks, ranges, strongest
from rdxcli.representations.units import check_units, parse_units
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.options import ExplainOptions

SPLIT = ("le-label", "le-siglip", "logical", "describe")
"""Methods that are fitted on a training part and judged on a test part."""

BY_LABEL = ("le-label", "logical")
"""Methods for which labels are concepts where nothing else is named."""

BLOCKS = "blocks"
CHANCE_STATUS = "not better than chance"
CHART_CONCEPTS = 4
PRESENT = 0.5  # score from which a concept counts as present in an image
FEWEST = 3  # images of a class that the activity filter asks for
FEWEST_VIEWS = 20
MOST_VIEWS = 2**29  # bytes of what images show
SHOWN_OF_GROUP = 8

CALIBRATION = by_name(
    Parameter("a", float | None, None, "Scale of the sigmoid of similarities."),
    Parameter("b", float | None, None, "Shift of the sigmoid of similarities."),
    Parameter("calibrate", bool, False, "Find scale and shift from the labels."),
)
TEMPLATE = Parameter("template", str, "{}", "Sentence around each word.")
PUBLISHED = Parameter("published", bool, True, "Published class names and superclasses where a data set has them.")


class UnitAnalysis(ExplainAnalysis):
    """Units of one layer, explained by labels, by scores of words or by similarity, each beside what chance reaches."""

    kind = "explanations"
    version = "4"
    resumes = True

    def check(self) -> Mapping[str, Any]:
        options, method = self.options, get("explain", self.options.method)
        labels = options.method in BY_LABEL
        groups = ["superclasses"] if labels or options.method in CALIBRATED else []
        check_files(options.method, options.files, [*sorted(EMBEDDINGS), *groups])
        needs_concepts(options, labels=labels)
        own: dict[str, Parameter] = {"published": PUBLISHED} if labels else {}
        own |= {} if options.method == "le-label" else {"template": TEMPLATE}
        own |= CALIBRATION if options.method in CALIBRATED else {}
        given, mine = estimator_parameters(method.name, method.load(), options.parameters, own, method.parameters)
        check_calibration(options)
        if options.concept_set is not None:
            read_concept_set(options.concept_set, options.selection.root)
        check_units(options.units)
        if options.splits is not None:
            read_splits(options.splits)
        if labels:
            _enough_images(options)
        self.estimator = method.load()(**given, random_state=options.seed)
        kept = result_parameters(self.estimator, NOT_RESULT)
        return {"method": options.method, **kept, "units": options.units, **mine}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        try:
            scorer = open_scorer(options)
            source = representation(options)
            parse_units(options.units, source.d)
            concepts = gather(options, source, labels=options.method in BY_LABEL, scorer=scorer)
        except MissingDataError as error:
            raise with_downloads(error, options) from None
        records: dict[str, Any] = {"representation": source, "concepts": concepts}
        if options.method in SPLIT:
            records["split"] = asdict(split_of(options, source))
        return records

    def compute(self, draft: Draft) -> NeuronExplanations:
        source, concepts = self.source, self.records["concepts"]
        units = parse_units(self.options.units, source.d)
        if self.options.method in SPLIT:
            split = Split(**self.records["split"])
            table, notes = self._linear(units, split, BlockStore(draft.path / BLOCKS, Found))
            draft.discard_at_end(BLOCKS)
            store_split(draft.path / SPLITS, source, split)
        else:
            self.estimator.fit(concepts.values, source.values, concept_names=concepts.names, units=units)
            table, said = with_chance(self.estimator.table(source.layer or ""), self.estimator.chance_)
            notes = [*said, *self.estimator.notes_]
        pictures = {unit: strongest(source, unit) for unit in units}
        entries = unit_entries(table, source, self.options.seed, pictures)
        notes += add_character(entries, source, concepts, self.options.seed)
        add_charts(entries, source, concepts)
        add_masks(entries, self.options, source)
        (draft.path / TABLE).write_text(format_table(table), "utf-8")
        draft.manifest.rows = len(units)
        return result(self, table, entries, [*notes, *concepts.notes])

    def cost(self) -> Mapping[str, Any]:
        """Images, units and concepts where they are known without reading, and what is missing."""
        options = self.options
        read, count = self.read, self.count
        where = options.concepts or options.files.get("image_embeddings") or wanted(options) or "labels"
        return {
            "pool": options.pool,
            **read,
            "concepts": where if count is None else f"{count:,}, by {where}",
            "missing": missing_downloads(options) or read.get("missing") or "nothing",
        }

    @property
    def count(self) -> int | None:
        """Concepts, where their number is known."""
        if self.records:
            return len(self.records["concepts"].names)
        return counted(self.options) or self.read.get("classes")

    def sizes(self) -> Mapping[str, float]:
        return {**super().sizes(), **({} if self.count is None else {"c": self.count})}

    def more(self) -> Mapping[str, Any]:
        """What the fit of this method takes besides concepts and activations."""
        return {}

    def _linear(
        self, units: list[int], split: Split, stored: MutableMapping[str, Found]
    ) -> tuple[ExplanationTable, list[str]]:
        """The table of explanations with test scores, and how they compare with chance."""
        estimator, concepts, values = self.estimator, self.records["concepts"], self.source.values
        estimator.fit(
            concepts.values,
            values,
            train=split.train,
            val=split.val,
            concept_names=concepts.names,
            units=units,
            stored=stored,
            **self.more(),
        )
        table, notes = estimator.table(self.source.layer or ""), list(estimator.notes_)
        if len(split.test) < 4:
            return table, [*notes, f"{human_count(len(split.test), 'test row', 'are')} too few for scores"]
        scores, interval = estimator.score_rows(concepts.values, values, split.test)
        rows = tuple(
            row.with_scores(test_correlation=scores[i], test_low=interval.low[i], test_high=interval.high[i])
            for i, row in enumerate(table.rows)
        )
        notes.append(
            "`test correlation` is measured on the test rows with the explainer's own concepts, with a 95 % interval; "
            "`rdx simulate` measures with those of another model"
        )
        table = replace(table, rows=rows)
        if not estimator.n_shuffled:
            return table, notes
        table, said = with_chance(table, estimator.chance(concepts.values, values, split.test))
        return table, [*said, *notes]


NOT_RESULT = ("device", "block_rows", "random_state")
"""Parameters that do not change the result, or stand in the request already."""


def with_chance(
    table: ExplanationTable, chance: Chance | None, drawn: str = "found by the same search for shuffled units"
) -> tuple[ExplanationTable, list[str]]:
    """The table with what chance reaches, p values and the status that follows, and what to say of it."""
    if chance is None:
        return table, []
    rows = []
    for i, row in enumerate(table.rows):
        scored = row.with_scores(chance=chance.high[i], p_value=chance.p_values[i], q_value=chance.adjusted[i])
        lost = row.status == "explained" and not chance.better[i]
        rows.append(replace(scored, status=CHANCE_STATUS) if lost else scored)
    known = int(sum(bool(row.concepts) for row in table.rows))
    said = (
        f"{int(chance.better.sum())} of {human_count(known, 'explanation')} beat chance: `chance` is "
        "what 95 % of explanations "
        f"{drawn} stay below, `q value` the p value corrected over units (at most {LEVEL:.0%} of those called better "
        "are expected to be chance)"
    )
    return replace(table, rows=tuple(rows)), [said]


def unit_entries(
    table: ExplanationTable,
    source: Representation,
    seed: int,
    pictures: Mapping[int, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """The units of a document.

    `pictures`: unit to the images that activate it most, for the units that a report shows.
    """
    entries: list[dict[str, Any]] = []
    for row in table.rows:
        entry = {**row.to_document(), "text": format_explanation(row, published=False)}
        if row.unit in pictures:
            entry["strongest"] = pictures[row.unit]
            if len(entries) < MAPPED_UNITS:
                entry["ranges"] = ranges(source, row.unit, seed)
        entries.append(entry)
    return entries


def result(
    analysis: ExplainAnalysis, table: ExplanationTable, entries: list[dict[str, Any]], notes: Sequence[str]
) -> NeuronExplanations:
    """The record of a table of explanations."""
    every = [*notes, *(note for note in table.notes if note not in notes)]
    return analysis.answer(NeuronExplanations, every, units=entries, summary=table_statistics(table))


def add_charts(entries: list[dict[str, Any]], source: Representation, concepts: Concepts) -> None:
    """Add to each shown unit which of its concepts fill which band of activation (figure 3 of the paper)."""
    place = {name: column for column, name in reversed(list(enumerate(concepts.names)))}
    rows = np.arange(source.n)
    for entry in entries:
        names = [one["concept"] for one in entry["concepts"] if one["weight"] > 0 and one["concept"] in place]
        names = names[:CHART_CONCEPTS]
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


def add_character(entries: list[dict[str, Any]], source: Representation, concepts: Concepts, seed: int) -> list[str]:
    """Add to each unit how clear it is, how many groups of images drive it, and its nearest twin; what to say of it.

    Images are seen through the embeddings of the vision-language model, or through the concepts.
    """
    views = concepts.values.images if isinstance(concepts.values, LazyCosines) else concepts.values
    if source.n < FEWEST_VIEWS or 8 * source.n * views.shape[1] > MOST_VIEWS:
        return []
    found = UnitCharacter(random_state=seed).fit(views, source.values, units=[entry["unit"] for entry in entries])
    ids = None if source.sample_ids is None else [str(sample) for sample in source.sample_ids]
    place = {int(unit): i for i, unit in enumerate(found.units_)}
    for entry in entries:
        i = place[entry["unit"]]
        groups = []
        for group in range(int(found.groups_[i])):
            rows = found.members_[i][found.group_[i] == group][:SHOWN_OF_GROUP]
            groups.append([str(row) if ids is None else ids[row] for row in rows])
        entry["character"] = {
            "clarity": found.clarity_[i],
            "clarity_chance": found.clarity_chance_,
            "clarity_q_value": found.adjusted_[i],
            "groups": groups,
            "twin": int(found.twin_[i]) if found.twin_[i] >= 0 else None,
            "twin_correlation": found.twin_correlation_[i],
            "twin_images": found.twin_images_[i],
        }
    notes = []
    several = found.units_[found.groups_ > 1]
    if len(several):
        notes.append(
            f"{human_count(len(several), 'unit')} with several separable groups of images, which one explanation may "
            f"mix: {_some(several)}"
        )
    pairs = sorted({tuple(sorted((int(u), int(t)))) for u, t, r in
                    zip(found.units_, found.twin_, found.redundant_, strict=True) if r})  # fmt: skip
    if pairs:
        notes.append(
            f"near duplicates (correlation of at least {found.near}): {human_count(len(pairs), 'pair')} of units: "
            + ", ".join(f"{a} and {b}" for a, b in pairs[:10])
        )
    return notes


def _some(units: np.ndarray) -> str:
    return ", ".join(map(str, units[:10].tolist())) + (", ..." if len(units) > 10 else "")


def _enough_images(options: ExplainOptions) -> None:
    """Refuse a data set without a class of enough images before the model is run, where its labels are known."""
    if options.concepts is not None or options.vlm is not None or options.activations is not None:
        return
    if "superclasses" in options.files or EMBEDDINGS & set(options.files) or "min_top" in options.parameters:
        return
    try:
        dataset = options.selection.open(resolve(str(options.model)).default_dataset)
    except RdxError:
        return  # said when it is read
    if dataset.labels is None:
        raise UsageError(f"`{options.method}` needs labels", "use a data set that has them, or give --concepts FILE")
    largest = max(dataset.labels.count(name) for name in set(dataset.labels)) if len(dataset.labels) else 0
    if largest < FEWEST:
        raise InputError(
            f"the largest class of {dataset.name} has {largest} image{'s' * (largest > 1)}, and a class needs "
            f"{FEWEST} to be seen as a concept",
            "give groups of classes with --file superclasses=FILE, or a data set with more images of each class",
        )


ANALYSIS = UnitAnalysis
