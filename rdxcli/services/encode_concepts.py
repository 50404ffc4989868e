"""``rdx encode-concepts``: from captions to a vocabulary and sparse concept encodings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.layout import concepts_folder
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.counting import counted, language_of, open_extractor
from rdxcli.concepts.encodings import KEPT
from rdxcli.concepts.vocabularies import given_terms, list_of, read_synonyms, with_examples, write_vocabulary
from rdxcli.concepts.word_options import EncodeOptions
from rdxcli.errors import DependencyError, UsageError
from rdxcli.methods.costs import documented
from rdxcli.methods.surrogate import hanta
from rdxcli.methods.surrogate.encoding import encode
from rdxcli.methods.surrogate.extraction import PHRASES, SOURCES, Concept, missing_packages
from rdxcli.methods.surrogate.languages import NAMES
from rdxcli.methods.surrogate.vocabulary import fit_vocabulary, given_vocabulary, merge_concepts, near_concepts
from rdxcli.models.vision_language import load_vision_language, resolve_vision_language
from rdxcli.progress import human_count
from rdxcli.records import ConceptEncodings
from rdxcli.services.base import Analysis

if TYPE_CHECKING:
    from rdxcli.methods.surrogate.vocabulary import ConceptCounts, Vocabulary
    from rdxcli.models.spec import ModelSpec

PARTS = "parts"


class EncodeAnalysis(Analysis[EncodeOptions]):
    """A vocabulary of concepts, and images encoded over it; an interrupted run goes on after the last 500 images."""

    kind = "encodings"
    version = "2"
    resumes = True
    comparing: ModelSpec | None = None
    """The model that ``--merge-synonyms`` names."""

    def check(self) -> Mapping[str, Any]:
        options = self.options
        for name, value, known in (
            ("tagger", options.source, SOURCES),
            ("phrases", options.phrases, (None, *PHRASES)),
            ("language", options.language, ("auto", *hanta.MODELS)),
            ("method", options.method, ("average", "union")),
        ):
            if value not in known:
                raise UsageError(f"--{name} {value}: choose one of {', '.join(str(one) for one in known if one)}")
        if absent := missing_packages(options.source):
            raise DependencyError(" and ".join(absent), "captions")
        self.terms, self.stop, self.keep = given_terms(options.vocabulary), list_of(options.stop), list_of(options.keep)
        if options.synonyms is not None and self.terms is not None:
            raise UsageError("--merge-synonyms: the concepts of --vocabulary are given", "leave one of them out")
        if not 0 < options.synonym_threshold <= 1:
            raise UsageError(f"--synonym-threshold {options.synonym_threshold}: expected above 0 and up to 1")
        by_model = options.synonyms is not None and not Path(options.synonyms).expanduser().is_file()
        if by_model:
            self.comparing = resolve_vision_language(options.synonyms)
        names = ("method", "min_count", "max_threshold", "pos", "max_size")
        return {
            **{name: getattr(options, name) for name in names},
            "stop": self.stop or [],
            "keep": self.keep or [],
            "vocabulary": self.terms,
            "synonyms": options.synonyms,
            "synonym_threshold": options.synonym_threshold if by_model else None,
        }

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        self.name, self.captions = load_captions(options.captions, options.selection, options.outputs)
        given = self.terms is not None
        self.language, self.remarks = language_of(self.captions, options.language, options.source, given=given)
        self.extractor = open_extractor(
            options.source, self.language, self.terms, normalisation=options.normalisation, phrases=options.phrases
        )
        described = self.extractor.describe()
        self.settings = {**self.settings, "phrases": self.extractor.phrases, "extractor": described}
        weights = None
        if self.comparing is not None:
            self.synonyms = load_vision_language(self.comparing)
            weights = self.synonyms.weights_sha256
        captions = {sample: list(texts) for sample, texts in self.captions.items()}
        return {"captions": captions, **({} if weights is None else {"synonyms": weights})}

    def folder(self) -> Path:
        return concepts_folder(self.options.outputs, self.name, self.options.run or "encodings")

    def headline(self) -> str:
        told = self.settings["extractor"]
        return (
            f"encode-concepts: {human_count(sum(map(len, self.captions.values())), 'caption')} of "
            f"{human_count(len(self.captions), 'image')}, "
            f"language: {NAMES[self.language]}, tagger: {told.get('tagger')}, lexicon: {told.get('lexicon')}"
        )

    def compute(self, draft: Draft) -> ConceptEncodings:
        options = self.options
        counts = counted(self.captions, self.extractor, draft.path / PARTS)
        draft.discard_at_end(PARTS)
        counts, merged = self._merged(counts)
        vocabulary = self._chosen(counts)
        vocabulary = replace(vocabulary, cut=[*vocabulary.cut, *merged])
        encodings = encode(counts, vocabulary, method=options.method)
        rows = with_examples(vocabulary.rows(), counts, self.captions)
        np.savez_compressed(draft.path / "encodings.npz", **encodings.arrays())  # type: ignore[arg-type]
        write_vocabulary(draft.path / "vocabulary.csv", rows)
        (draft.path / "samples.json").write_text(json.dumps(list(encodings.ids), ensure_ascii=False), "utf-8")
        draft.manifest.rows = len(encodings.ids)
        draft.manifest.details = {"captions": options.captions, "dataset": self.name, "language": self.language}
        kept = sorted((row for row in rows if row["status"] == KEPT), key=lambda row: -row["image_count"])
        return ConceptEncodings(
            method=options.method,
            parameters=self.settings,
            seed=options.seed,
            notes=[*self.remarks, *encodings.notes],
            n=len(encodings.ids),
            concepts=len(encodings.concepts),
            concepts_per_image=float(encodings.l0.mean()),
            images_without_concepts=int((~encodings.has_concepts).sum()),
            most_frequent=kept[:20],
            cut=[row for row in rows if row["status"] != KEPT][:20],
        )

    def plan(self) -> dict[str, Any]:
        self.settings = self.check()
        self.name, self.captions = load_captions(self.options.captions, self.options.selection, self.options.outputs)
        total = sum(map(len, self.captions.values()))
        read = {"data set": self.name, "images": len(self.captions), "captions": total}
        return {**read, **documented(self.expected())}

    def sizes(self) -> Mapping[str, float]:
        words = sum(len(text.split()) for texts in self.captions.values() for text in texts)
        return {"n": len(self.captions), "w": words}

    def _merged(self, counts: ConceptCounts) -> tuple[ConceptCounts, list[tuple[Concept, int, str]]]:
        """Counts after ``--merge-synonyms``, and what went into what."""
        options = self.options
        if options.synonyms is None:
            return counts, []
        if self.comparing is None:
            groups = read_synonyms(Path(options.synonyms).expanduser(), counts.concepts)
        else:
            frequent = np.flatnonzero(counts.image_counts >= options.min_count)
            concepts = [counts.concepts[int(j)] for j in frequent]
            words = self.synonyms.encode_text([concept.lemma for concept in concepts], "a photo of a {}")
            groups = near_concepts(counts, concepts, words, options.synonym_threshold)
        df = dict(zip(counts.concepts, counts.image_counts.tolist(), strict=True))
        merged = [(one, df[one], f"merged into {group[0]}") for group in groups for one in group[1:]]
        self.remarks = [
            *self.remarks,
            f"{human_count(len(merged), 'concept', 'were')} merged into {human_count(len(groups), 'other')}",
        ]
        return merge_concepts(counts, groups, self.captions, self.extractor), merged

    def _chosen(self, counts: ConceptCounts) -> Vocabulary:
        if self.terms is not None:
            return given_vocabulary(counts, self.terms)
        options = self.options
        return fit_vocabulary(
            counts,
            min_count=options.min_count,
            max_threshold=options.max_threshold,
            pos=options.pos,
            stop=self.stop or (),
            keep=self.keep or (),
            max_size=options.max_size,
        )
