"""Names for groups of images: words of a concept set, and captions, that fit a group's images and not the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import fingerprint_json
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.describing import Describer, Proposals
from rdxcli.concepts.gather import read_embeddings
from rdxcli.concepts.image_text import embeddings_of, text_embeddings
from rdxcli.concepts.options import FILES, NamingOptions
from rdxcli.concepts.sets import default_set, read_concept_set
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.difference.naming import PERMUTATIONS, name_groups
from rdxcli.methods.neurons.concepts import clean_concepts
from rdxcli.models.caption_server import check_captioner, open_captioner
from rdxcli.models.vision_language import load_vision_language, resolve_vision_language
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count
from rdxcli.records import Representation

if TYPE_CHECKING:
    from rdxcli.models.vision_language import VisionLanguageModel
    from rdxcli.records import Comparison, DifferenceConcept
    from rdxcli.representations.joining import Joined

Describe = Callable[[Mapping[str, np.ndarray], "Proposals"], tuple[dict[str, list[Any]], list[str]]]

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
    describer : Describer, optional
        Proposes sentences for the groups.
    """

    options: NamingOptions
    selection: SelectionOptions
    outputs: Path
    seed: int
    model: VisionLanguageModel | None
    texts: Mapping[str, list[str]]
    label: str
    notes: list[str]
    describer: Describer | None = None

    def identity(self) -> dict[str, Any]:
        """The model and the candidates, for the request; not who describes, which is asked of a finished comparison."""
        assert self.model is not None
        return {
            "model": self.model.name,
            "weights": self.model.weights_sha256,
            **{family: fingerprint_json(texts) for family, texts in self.texts.items()},
        }

    def embed(self, joined: Joined) -> Embedded:
        """Embeddings of the joined images and of the candidates.

        Raises `RdxError` (no images to embed, or files that do not fit).
        """
        if self.model is None:
            return self._from_files(joined)

        outputs = self.outputs
        of = replace(joined.a, dataset=joined.a.dataset or joined.b.dataset)
        images, fingerprint = embeddings_of(of, self.model, self.selection, outputs)
        names = {WORDS: self.label, CAPTIONS: "captions"}
        texts = {
            family: text_embeddings(self.model, candidates, outputs, name=names[family]).values
            for family, candidates in self.texts.items()
        }
        source = {"model": self.model.name, "words": self.label, "images": fingerprint}
        return Embedded(images, texts, self.texts, source, self.notes, self._descriptions(of, images))

    def _descriptions(self, of: Representation, images: np.ndarray) -> Describe | None:
        """What describes groups of the rows of ``of``."""
        if self.describer is None:
            return None
        dataset, ids = self.selection.open(of.dataset), of.sample_ids
        places = np.arange(of.n) if ids is None else dataset.locate([str(sample) for sample in ids])
        return partial(self.describer.describe, images, dataset, places, seed=self.seed)

    def _from_files(self, joined: Joined) -> Embedded:
        given, root = self.options, self.selection.root
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
    """From groups of rows, and what was proposed before, to the sentences that hold for each, and remarks."""

    def name(self, record: Comparison, seed: int) -> Comparison:
        """The record with the words of each concept, best first.

        A word is an entry of ``words``: ``word``, ``kind`` (word or caption), ``margin``, ``effect``, ``p_value`` and
        ``clear``. Raises `InputError` (embeddings that do not fit each other).
        """
        groups = rows_of(record)
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
        counts = {family: len(texts) for family, texts in self.candidates.items()}
        return replace(
            record,
            concepts=[replace(concept, words=words[key_of(concept)]) for concept in record.concepts],
            parameters={**record.parameters, "naming": {**self.source, **counts, "permutations": PERMUTATIONS}},
            notes=[*record.notes, *self.notes],
        )


def open_naming(
    given: NamingOptions, dataset: str | None, selection: SelectionOptions, outputs: Path, device: str, seed: int
) -> Namer:
    """Read the candidates and load the model, for options that ask for names.

    Raises `RdxError` (unknown names, missing words or weights, options that contradict each other).

    Parameters
    ----------
    dataset : str, optional
        That the images are of, as far as it is known; "" where there are images of no data set.
    """
    if given.model is None:
        read_concept_set(str(given.concept_set), selection.root)
        for name in FILES:
            if not Path(given.files[name].partition(":")[0]).expanduser().exists():
                raise MissingDataError(f"--file {name}: no such file: {given.files[name]}")
        return Namer(given, selection, outputs, seed, None, {}, str(given.concept_set), [])

    spec = resolve_vision_language(given.model)
    if dataset is None:
        raise UsageError(
            "--name-concepts: which images? the two sides are arrays",
            "give --images FOLDER or --dataset NAME; or --file image_embeddings=FILE --file text_embeddings=FILE",
        )
    if given.describe is not None:
        check_captioner(given.describe, given.base_url)
    texts, label, notes = _candidates(given, dataset or None, selection, outputs, seed)
    model, describer = load_vision_language(spec, device=device), None
    if given.describe is not None:
        describer = Describer(open_captioner(given.describe, device, base_url=given.base_url), model)
    return Namer(given, selection, outputs, seed, model, texts, label, notes, describer)


def _candidates(
    given: NamingOptions, dataset: str | None, selection: SelectionOptions, outputs: Path, seed: int
) -> tuple[dict[str, list[str]], str, list[str]]:
    """Words and captions to choose from, the name of the set, and remarks."""
    captions, notes = _captions(given, replace(selection, dataset=dataset), outputs, seed)
    texts: dict[str, list[str]] = {}
    label = "captions"
    try:
        concept_set = given.concept_set or default_set(dataset)
    except UsageError:
        if not captions and given.describe is None:
            raise
    else:
        cleaned = clean_concepts(read_concept_set(concept_set, selection.root))
        texts[WORDS], label = list(cleaned.names), Path(concept_set).stem
        notes = [*cleaned.notes, *notes]
    if captions:
        texts[CAPTIONS] = captions
    return texts, label, notes


def _captions(
    given: NamingOptions, selection: SelectionOptions, outputs: Path, seed: int
) -> tuple[list[str], list[str]]:
    """Distinct captions, at most `MOST_CAPTIONS`, and what to say about them."""
    if given.captions is not None:
        _, found = load_captions(given.captions, selection, outputs)
    else:
        if selection.dataset is None or selection.open().captions is None:
            return [], []
        _, found = load_captions(None, selection, outputs)
    distinct = sorted({caption.strip() for captions in found.values() for caption in captions} - {""})
    if len(distinct) <= MOST_CAPTIONS:
        return distinct, []
    rows = generator(seed, "naming", "captions").choice(len(distinct), MOST_CAPTIONS, replace=False)
    return [distinct[row] for row in sorted(rows)], [
        f"names: {MOST_CAPTIONS:,} of {human_count(len(distinct), 'caption')} were drawn as candidates"
    ]


def key_of(concept: DifferenceConcept) -> str:
    """Name of a concept within its comparison: ``a1``."""
    return f"{concept.closer_in}{concept.index}"


def rows_of(record: Comparison) -> dict[str, np.ndarray]:
    """The rows of every concept, by its name."""
    return {
        key_of(concept): np.flatnonzero(record.arrays[f"labels_{concept.closer_in}"] == concept.index)
        for concept in record.concepts
    }
