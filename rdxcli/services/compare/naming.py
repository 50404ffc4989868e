"""Names for the concepts of a comparison: words of a concept set, and captions, that fit a concept's images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import fingerprint_json
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.image_text import embeddings_of, text_embeddings
from rdxcli.concepts.sets import default_set, read_concept_set
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.models.registry import resolve
from rdxcli.numerics.seeding import generator
from rdxcli.records import Representation
from rdxcli.services.compare.options import FILES

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.concepts.describing import Describer
    from rdxcli.models.vision_language import VisionLanguageModel
    from rdxcli.records import Comparison, DifferenceConcept
    from rdxcli.representations.joining import Joined
    from rdxcli.services.compare.options import CompareOptions

Describe = Callable[[Mapping[str, np.ndarray]], tuple[dict[str, list[Any]], list[str]]]

MOST_CAPTIONS = 5000
"""Distinct captions that are tried; of more, this many are drawn with the seed."""

WORDS, CAPTIONS = "word", "caption"


@dataclass(frozen=True)
class Namer:
    """What names are chosen from, read before anything expensive starts.

    Attributes
    ----------
    model : VisionLanguageModel or None
        None when embeddings are given as files.
    texts : mapping of str to list of str
        Candidates of each family, ``word`` and ``caption``.
    label : str
        Name of the concept set, for people.
    notes : list of str
    describer : Describer, optional
        Proposes sentences for the groups.
    """

    options: CompareOptions
    model: VisionLanguageModel | None
    texts: Mapping[str, list[str]]
    label: str
    notes: list[str]
    describer: Describer | None = None

    def identity(self) -> dict[str, Any]:
        """The model and the candidates, for the request."""
        assert self.model is not None
        return {
            **({} if self.describer is None else {"describer": self.describer.identity()}),
            "model": self.model.name,
            "weights": self.model.weights_sha256,
            **{family: fingerprint_json(texts) for family, texts in self.texts.items()},
        }

    def embed(self, joined: Joined) -> Embedded:
        """Embeddings of the joined images and of the candidates.

        Raises
        ------
        RdxError
            No images to embed, or files that do not fit.
        """
        if self.model is None:
            return self._from_files(joined)

        outputs = self.options.outputs
        of = replace(joined.a, dataset=joined.a.dataset or joined.b.dataset)
        images, fingerprint = embeddings_of(of, self.model, self.options.selection, outputs)
        names = {WORDS: self.label, CAPTIONS: "captions"}
        texts = {
            family: text_embeddings(self.model, candidates, outputs, name=names[family]).values
            for family, candidates in self.texts.items()
        }
        source = {"model": self.model.name, "words": self.label, "images": fingerprint}
        if self.describer is not None:
            source["describer"] = self.describer.captioner.name
        return Embedded(images, texts, self.texts, source, self.notes, self._descriptions(of, images))

    def _descriptions(self, of: Representation, images: np.ndarray) -> Describe | None:
        """What describes groups of the rows of ``of``."""
        if self.describer is None:
            return None
        dataset, ids = self.options.selection.open(of.dataset), of.sample_ids
        places = np.arange(of.n) if ids is None else dataset.locate([str(sample) for sample in ids])
        return partial(self.describer.describe, images, dataset, places, seed=self.options.seed)

    def _from_files(self, joined: Joined) -> Embedded:
        from rdxcli.concepts.gather import read_embeddings

        given, root = self.options.naming, self.options.selection.root
        images, texts = (given.files[name] for name in FILES)
        found = read_embeddings(images, texts, given.concept_set, joined.a, root)
        return Embedded(found.images, {WORDS: found.texts}, {WORDS: found.words}, found.source, found.notes)


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the joined images, and candidates with their embeddings by family."""

    images: np.ndarray
    texts: Mapping[str, np.ndarray]
    candidates: Mapping[str, list[str]]
    source: Mapping[str, Any]
    notes: list[str]
    describe: Describe | None = None
    """From groups of rows to the sentences that hold for each, and remarks."""

    def name(self, record: Comparison, seed: int) -> Comparison:
        """The record with the words of each concept, best first.

        A word is an entry of ``words``: ``word``, ``kind`` (word or caption), ``margin``, ``effect``, ``p_value`` and
        ``clear``.

        Raises
        ------
        InputError
            Embeddings that do not fit each other.
        """
        from rdxcli.methods.difference.naming import PERMUTATIONS, name_groups

        groups = {
            key_of(concept): np.flatnonzero(record.arrays[f"labels_{concept.closer_in}"] == concept.index)
            for concept in record.concepts
        }
        words: dict[str, list[dict[str, Any]]] = {key: [] for key in groups}
        for family, texts in self.texts.items():
            try:
                found = name_groups(
                    self.images,
                    texts,
                    self.candidates[family],
                    groups,
                    tests=len(groups) * len(self.texts),
                    random_state=seed,
                )
            except ValueError as error:
                raise InputError(f"concepts cannot be named: {error}") from None
            for key, names in found.items():
                words[key] += [{**name.to_dict(), "kind": family} for name in names]
        for key in words:
            words[key].sort(key=lambda word: (not word["clear"], word["kind"] != WORDS, -word["effect"]))
        said, remarks = self.describe(groups) if self.describe is not None else ({}, [])
        counts = {family: len(texts) for family, texts in self.candidates.items()}
        return replace(
            record,
            concepts=[
                replace(
                    concept,
                    words=words[key_of(concept)],
                    descriptions=[one.to_dict() for one in said.get(key_of(concept), ())],
                )
                for concept in record.concepts
            ],
            parameters={**record.parameters, "naming": {**self.source, **counts, "permutations": PERMUTATIONS}},
            notes=[*record.notes, *self.notes, *remarks],
        )


def open_naming(options: CompareOptions) -> Namer | None:
    """Read the candidates and load the model; None when no names are asked for.

    Raises
    ------
    RdxError
        Unknown names, missing words or weights, options that contradict each other.
    """
    given = options.naming
    if not given.wanted:
        return None
    if given.model is None:
        _lines(given.concept_set, options)
        for name in FILES:
            if not Path(given.files[name].partition(":")[0]).expanduser().exists():
                raise MissingDataError(f"--file {name}: no such file: {given.files[name]}")
        return Namer(options, None, {}, str(given.concept_set), [])
    from rdxcli.models.caption_server import check_captioner, open_captioner
    from rdxcli.models.vision_language import load_vision_language, resolve_vision_language

    spec = resolve_vision_language(given.model)
    if _dataset_name(options) is None and options.arrays.images is None:
        raise UsageError(
            "--name-concepts: which images? the two sides are arrays",
            "give --images FOLDER or --dataset NAME; or --file image_embeddings=FILE --file text_embeddings=FILE",
        )
    if given.describe is not None:
        check_captioner(given.describe, given.base_url)
    texts, label, notes = _candidates(options)
    model, describer = load_vision_language(spec, device=options.device), None
    if given.describe is not None:
        from rdxcli.concepts.describing import Describer  # with scipy.stats

        describer = Describer(open_captioner(given.describe, options.device, base_url=given.base_url), model)
    return Namer(options, model, texts, label, notes, describer)


def _lines(concept_set: str | None, options: CompareOptions) -> list[str]:
    return read_concept_set(str(concept_set), options.selection.root)


def _candidates(options: CompareOptions) -> tuple[dict[str, list[str]], str, list[str]]:
    """Words and captions to choose from, the name of the set, and remarks."""
    from rdxcli.methods.neurons.concepts import clean_concepts

    dataset = _dataset_name(options)
    captions, notes = _captions(options, dataset)
    texts: dict[str, list[str]] = {}
    label = "captions"
    try:
        concept_set = options.naming.concept_set or default_set(dataset)
    except UsageError:
        if not captions and options.naming.describe is None:
            raise
    else:
        cleaned = clean_concepts(_lines(concept_set, options))
        texts[WORDS], label = list(cleaned.names), Path(concept_set).stem
        notes = [*cleaned.notes, *notes]
    if captions:
        texts[CAPTIONS] = captions
    return texts, label, notes


def _captions(options: CompareOptions, dataset: str | None) -> tuple[list[str], list[str]]:
    """Distinct captions, at most `MOST_CAPTIONS`, and what to say about them."""
    selection = replace(options.selection, dataset=dataset)
    if options.naming.captions is not None:
        _, found = load_captions(options.naming.captions, selection, options.outputs)
    else:
        if dataset is None or selection.open().captions is None:
            return [], []
        _, found = load_captions(None, selection, options.outputs)
    distinct = sorted({caption.strip() for captions in found.values() for caption in captions} - {""})
    if len(distinct) <= MOST_CAPTIONS:
        return distinct, []
    rows = generator(options.seed, "naming", "captions").choice(len(distinct), MOST_CAPTIONS, replace=False)
    return [distinct[row] for row in sorted(rows)], [
        f"names: {MOST_CAPTIONS:,} of {len(distinct):,} captions were drawn as candidates"
    ]


def _dataset_name(options: CompareOptions) -> str | None:
    """The data set of the comparison, as far as it is known before anything is read."""
    from rdxcli.representations.resolve import find_activations, names_array

    if options.selection.dataset is not None:
        return options.selection.dataset
    for text in (options.a, options.b):
        if isinstance(text, Representation):
            if text.dataset:
                return text.dataset
            continue
        artifact = find_activations(text, options.outputs)
        if artifact is not None:
            found = artifact.manifest.details.get("dataset", {}).get("spec")
        else:
            found = None if names_array(text, options.selection.root) else resolve(text).default_dataset
        if found:
            return str(found)
    return None


def key_of(concept: DifferenceConcept) -> str:
    """Name of a concept within its comparison: ``a1``."""
    return f"{concept.closer_in}{concept.index}"
