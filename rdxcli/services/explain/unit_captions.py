"""``rdx explain --method describe``: free text for units, from captions of their strongest images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.layout import model_slug
from rdxcli.concepts.captions import load_captions, read_captions
from rdxcli.concepts.gather import gather, read_splits, split_of
from rdxcli.concepts.options import check_files
from rdxcli.concepts.scorer import open_scorer, wanted, with_downloads
from rdxcli.concepts.word_options import CaptionOptions
from rdxcli.datasets.base import Dataset, short_digest
from rdxcli.datasets.views import Box, ImageView, views_of
from rdxcli.datasets.words import find
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.neurons.descriptions import UnitDescriptions, shared_phrases
from rdxcli.models.registry import resolve
from rdxcli.numerics.moments import read_columns
from rdxcli.parameters import Count, NonNegative, Parameter, by_name, estimator_parameters, result_parameters
from rdxcli.progress import human_count, log
from rdxcli.records import NeuronExplanations, Representation
from rdxcli.representations.layer import representation
from rdxcli.representations.unit_pictures import maps_over_square
from rdxcli.representations.units import check_units, parse_units
from rdxcli.services.caption import CAPTIONS, HUMAN, CaptionAnalysis
from rdxcli.services.explain.neurons import NOT_RESULT, TEMPLATE, UnitAnalysis

FILE = "captions"
HALF = 0.25  # of the side of the centred square: half of the side of what is cut out around the strongest position
SHOWN_PROPOSALS = 12

CAPTIONING = by_name(
    Parameter(
        "captioner", str | None, None, "Captioner as of `rdx caption`; the data set's own captions where it has any."
    ),
    Parameter("base_url", str | None, None, "Address of a server, for captioners called openai:NAME."),
    Parameter("images", Count, 10, "Strongest training images of each unit that captions are taken of."),
    Parameter("crops", bool, True, "Captions of the strongest place in each image too, where the layer has places."),
    Parameter("captions_per_image", Count, 1, "Captions of each picture."),
    Parameter("temperature", NonNegative, 0.0, "Of the captioner; 0 takes the likeliest words."),
    Parameter("max_tokens", Count, 40, "Of a caption."),
    Parameter("prompt", str | None, None, "What the captioner is asked, see `rdx caption`."),
    Parameter("phrases", bool, True, "Phrases that captions of several images share are proposals too."),
)


class DescribeAnalysis(UnitAnalysis):
    """Units of one layer in free text: captions of some images are proposals, other images choose and judge."""

    version = "1"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options.method, options.files, [FILE])
        own = {**CAPTIONING, TEMPLATE.name: TEMPLATE}
        given, mine = estimator_parameters(options.method, UnitDescriptions, options.parameters, own)
        if options.concepts is not None or options.concept_set is not None:
            raise UsageError("`describe` finds its own words", "leave --concepts and --concept-set out")
        if wanted(options) is None:
            raise UsageError("`describe` compares texts with images", "give --vlm NAME")
        if FILE in options.files and mine["captioner"] is not None:
            raise UsageError(f"--file {FILE}= and --param captioner= contradict each other", "give one of them")
        self.captioning = CaptionOptions(
            model=mine["captioner"],
            base_url=mine["base_url"],
            captions=mine["captions_per_image"],
            temperature=mine["temperature"],
            max_tokens=mine["max_tokens"],
            prompt=mine["prompt"],
            outputs=options.outputs,
            seed=options.seed,
            device=options.device,
        )
        if mine["captions_per_image"] > 1 and mine["temperature"] == 0:
            raise UsageError("temperature 0 gives one caption per image", "--param temperature=1 draws several")
        check_units(options.units)
        if options.splits is not None:
            read_splits(options.splits)
        self.estimator = UnitDescriptions(**given, random_state=options.seed)
        kept = result_parameters(self.estimator, NOT_RESULT)
        return {"method": options.method, **kept, "units": options.units, **mine}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        try:
            captioner = None
            if FILE not in options.files:
                captioner = self._captioning(self._pictures()).check()["captioner"]  # refused before the layer is read
            else:
                load_captions(options.files[FILE], options.selection, options.outputs)
            scorer = open_scorer(options, ["an image"])
            assert scorer is not None  # checked
            source = representation(options)
            units = parse_units(options.units, source.d)
            split = split_of(options, source)
            shown = _strongest(source, units, split.train, self.settings["images"])
            texts, notes = self._texts(source, units, shown, captioner)
            proposals = [_distinct(of, self.settings["phrases"]) for of in texts]
            words = list(dict.fromkeys(text for own in proposals for text in own))
            if not words:
                raise InputError("none of the strongest images of the units has a caption", "give others with --file")
            scorer = replace(scorer, words=words, label="descriptions", notes=notes)
            concepts = gather(options, source, labels=False, scorer=scorer)
        except MissingDataError as error:
            raise with_downloads(error, options) from None
        return {
            "representation": source,
            "concepts": concepts,
            "split": asdict(split),
            "proposals": proposals,
            "shown": [rows.tolist() for rows in shown],
        }

    def compute(self, draft: Draft) -> NeuronExplanations:
        found = super().compute(draft)
        proposed = zip(found.units, self.records["proposals"], strict=True)
        return replace(found, units=[{**entry, "proposals": own[:SHOWN_PROPOSALS]} for entry, own in proposed])

    def more(self) -> Mapping[str, Any]:
        place = {text: column for column, text in enumerate(self.records["concepts"].names)}
        proposals = [np.array([place[text] for text in own], dtype=np.int64) for own in self.records["proposals"]]
        return {"proposals": proposals, "shown": [np.array(rows, dtype=np.int64) for rows in self.records["shown"]]}

    def cost(self) -> Mapping[str, Any]:
        settings, options = self.settings, self.options
        per_unit = settings["images"] * (1 + settings["crops"])
        made = FILE not in options.files
        whose = options.files.get(FILE) or settings["captioner"] or "of the data set, if it has any"
        return {
            **super().cost(),
            "concepts": f"captions ({whose})",
            **({"captions": f"of up to {human_count(per_unit, 'picture')} for each unit"} if made else {}),
        }

    def sizes(self) -> Mapping[str, float]:
        found = super().sizes()
        most = found.get("u", 0) * self.settings["images"] * (1 + self.settings["crops"])
        return {"c": most * self.settings["captions_per_image"], **found}

    def _pictures(self) -> Dataset:
        """The data set that the units are seen on."""
        options = self.options
        return options.selection.open(None if options.model is None else resolve(str(options.model)).default_dataset)

    def _captioning(self, pictures: Dataset, **more: Any) -> CaptionAnalysis:
        """`rdx caption` of pictures that are at hand."""
        analysis = CaptionAnalysis(replace(self.captioning, **more))
        analysis.dataset = pictures
        return analysis

    def _texts(
        self, source: Representation, units: Sequence[int], shown: Sequence[np.ndarray], captioner: str | None
    ) -> tuple[list[list[list[str]]], list[str]]:
        """Captions of each image of each unit, and what to say of them."""
        ids = [str(one) for one in (range(source.n) if source.sample_ids is None else source.sample_ids)]
        if captioner is None:
            _, found = load_captions(self.options.files[FILE], self.options.selection, self.options.outputs)
            keys = list(found)
            rows = sorted({int(row) for own in shown for row in own})
            near = find([ids[row] for row in rows], keys)[0]
            of_row = {row: list(found[keys[k]]) if k >= 0 else [] for row, k in zip(rows, near, strict=True)}
            missing = sum(not texts for texts in of_row.values())
            notes = [f"{missing} of {human_count(len(rows), 'image')} have no caption"] if missing else []
            return [[of_row[int(row)] for row in own] for own in shown], notes
        dataset = self.options.selection.open(source.dataset)
        places = np.arange(source.n) if source.sample_ids is None else dataset.locate(ids)
        if (places < 0).any() or places.max() >= len(dataset):
            raise InputError(f"some samples of {source.name} have no image in {dataset.name}")
        if captioner == HUMAN:
            own = dataset.captions or ()
            return [[list(own[places[row]]) for row in rows] for rows in shown], []
        boxes = self._boxes(source, units, shown, ids) if self.settings["crops"] else {}
        views = [
            [[ImageView(int(places[row]), box) for box in (None, *boxes.get((unit, int(row)), ()))] for row in rows]
            for unit, rows in zip(units, shown, strict=True)
        ]  # fmt: skip
        every = list(dict.fromkeys(view for own in views for of in own for view in of))
        pictures = views_of(dataset, every)
        log.info("%s of %s are captioned", human_count(len(every), "picture"), human_count(len(units), "unit"))
        asked = {key: self.settings[key] for key in CAPTIONING}
        run = f"{model_slug(captioner)}--units-{short_digest([repr(asked), *pictures.sample_ids])}"
        made = self._captioning(pictures, model=captioner, run=run).run()
        found = read_captions(made.artifact.path / CAPTIONS)
        told = dict(zip(every, pictures.sample_ids, strict=True))
        notes = [] if boxes or not self.settings["crops"] else ["the layer has no places to cut out: whole images only"]
        failed = len(every) - len(found)
        notes += [f"{human_count(failed, 'picture')} could not be captioned"] if failed else []
        return [[[text for view in of for text in found.get(told[view], ())] for of in own] for own in views], notes

    def _boxes(
        self, source: Representation, units: Sequence[int], shown: Sequence[np.ndarray], ids: Sequence[str]
    ) -> dict[tuple[int, int], list[Box]]:
        """The square around the strongest position of each unit in each of its images; empty without positions."""
        asked: dict[str, list[int]] = {}
        rows: dict[str, int] = {}
        for unit, own in zip(units, shown, strict=True):
            for row in own:
                asked.setdefault(ids[row], []).append(unit)
                rows[ids[row]] = int(row)
        maps = maps_over_square(self.options, source, False, asked) if source.dataset is not None else {}
        found: dict[tuple[int, int], list[Box]] = {}
        for sample, of_units in maps.items():
            for unit, one in zip(asked[sample], of_units, strict=True):
                found[unit, rows[sample]] = [_box(one)]
        return found


def _strongest(source: Representation, units: Sequence[int], among: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows of ``among`` that activate each unit most; none for a unit that does not vary."""
    rows = np.sort(among)
    values = read_columns(source.values, rows, np.asarray(units), "activations")
    order = np.argsort(-values, axis=0, kind="stable")[:count]
    varies = np.ptp(values, axis=0) > 0
    return [rows[order[:, i]] if varies[i] else rows[:0] for i in range(len(units))]


def _box(one: np.ndarray) -> Box:
    """A square of the centred square around the largest cell of a map."""
    known = np.where(np.isnan(one), -np.inf, one)
    y, x = np.unravel_index(int(np.argmax(known)), known.shape)
    centre = (np.array([x, y]) + 0.5) / np.array(known.shape)[::-1]
    left, top = np.clip(centre, HALF, 1.0 - HALF) - HALF
    return float(left), float(top), float(left + 2 * HALF), float(top + 2 * HALF)


def _distinct(captions: Sequence[Sequence[str]], phrases: bool) -> list[str]:
    """Proposals of one unit: its captions, each once, and what several of them share."""
    texts = {
        " ".join(text.split()).casefold(): " ".join(text.split()) for of in captions for text in of if text.strip()
    }
    shared = shared_phrases(captions) if phrases else []
    return [*texts.values(), *(phrase for phrase in shared if phrase not in texts)]


ANALYSIS = DescribeAnalysis
