"""``rdx encode-concepts``: from captions to a vocabulary and sparse concept encodings."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.layout import concepts_folder
from rdxcli.concepts.captions import load_captions
from rdxcli.concepts.encodings import KEPT
from rdxcli.datasets.registry import data_root
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import DependencyError, InputError, MissingDataError, UsageError
from rdxcli.methods.surrogate import hanta
from rdxcli.methods.surrogate.encoding import encode
from rdxcli.methods.surrogate.extraction import (
    PHRASES,
    SOURCES,
    Concept,
    ConceptExtractor,
    load_extractor,
    missing_packages,
)
from rdxcli.methods.surrogate.languages import NAMES, detect
from rdxcli.methods.surrogate.nltk_data import find
from rdxcli.methods.surrogate.vocabulary import (
    ConceptCounts,
    count_concepts,
    fit_vocabulary,
    given_vocabulary,
    merge_counts,
)
from rdxcli.progress import log, track
from rdxcli.records import ConceptEncodings
from rdxcli.services.base import Analysis, Outcome, Table

if TYPE_CHECKING:
    from rdxcli.methods.surrogate.vocabulary import ConceptCounts, Vocabulary

CHUNK = 500  # images that are lost when the program is killed
PARTS = "parts"


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode and how.

    Parameters
    ----------
    captions : str, optional
        File or captions artifact, see `rdxcli.concepts.captions`; None takes the captions of the data set.
    source : {"auto", "hanta", "published", "packaged"}
        Tagger and lemmatiser.
    language : str
        ``en``, ``de``, ``nl``; ``auto`` looks at the captions.
    method : {"average", "union"}
    min_count, max_threshold, pos, max_size
        See `rdxcli.methods.surrogate.vocabulary.fit_vocabulary`.
    normalisation : {"original", "improved"}, optional
        See `rdxcli.methods.surrogate.extraction.ConceptExtractor`; without it that of the tagger.
    phrases : {"none", "merged", "compounds", "noun-phrases"}, optional
        Concepts of several words; without it those of the tagger.
    stop, keep : Path, optional
        Files with one concept a line: to leave out, and to take whatever the thresholds say.
    vocabulary : Path, optional
        Concepts in place of a fitted vocabulary: a text file, a ``vocabulary.csv``, the folder of encodings or of a
        surrogate.
    """

    captions: str | None = None
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    source: str = "auto"
    language: str = "auto"
    method: str = "average"
    min_count: int = 3
    max_threshold: float = 0.1
    pos: str = "navmp*"
    max_size: int | None = None
    normalisation: str | None = None
    phrases: str | None = None
    stop: Path | None = None
    keep: Path | None = None
    vocabulary: Path | None = None
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    force: bool = False


class EncodeAnalysis(Analysis[EncodeOptions]):
    """A vocabulary of concepts, and images encoded over it; an interrupted run goes on after the last 500 images."""

    kind = "encodings"
    version = "2"
    resumes = True

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
        self.terms, self.stop, self.keep = _vocabulary(options.vocabulary), _lines(options.stop), _lines(options.keep)
        names = ("method", "min_count", "max_threshold", "pos", "max_size")
        return {
            **{name: getattr(options, name) for name in names},
            "stop": self.stop or [],
            "keep": self.keep or [],
            "vocabulary": self.terms,
        }

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        self.name, self.captions = load_captions(options.captions, options.selection, options.outputs)
        self.language, remarks = _language(options, self.captions, given=self.terms is not None)
        self.remarks = remarks
        self.extractor = _extractor(options, self.terms, self.language)
        described = self.extractor.describe()
        self.settings = {**self.settings, "phrases": self.extractor.phrases, "extractor": described}
        return {"captions": {sample: list(texts) for sample, texts in self.captions.items()}}

    def folder(self) -> Path:
        return concepts_folder(self.options.outputs, self.name, self.options.run or "encodings")

    def headline(self) -> str:
        told = self.settings["extractor"]
        return (
            f"encode-concepts: {sum(map(len, self.captions.values())):,} captions of {len(self.captions):,} images, "
            f"language: {NAMES[self.language]}, tagger: {told.get('tagger')}, lexicon: {told.get('lexicon')}"
        )

    def compute(self, draft: Draft) -> ConceptEncodings:
        options = self.options
        counts = _counted(self.captions, self.extractor, draft.path / PARTS)
        draft.discard_at_end(PARTS)
        vocabulary = self._chosen(counts)
        encodings = encode(counts, vocabulary, method=options.method)
        rows = _with_examples(vocabulary.rows(), counts, self.captions)
        np.savez_compressed(draft.path / "encodings.npz", **encodings.arrays())  # type: ignore[arg-type]
        _write_vocabulary(draft.path / "vocabulary.csv", rows)
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

    def table(self, document: Mapping[str, Any]) -> Table:
        title = (
            f"{document['concepts']} concepts in {document['n']} images, {document['concepts_per_image']:.1f} per image"
        )
        rows = [
            [row["lemma"], row["pos"], row["image_count"], row["image_share"]] for row in document["most_frequent"][:12]
        ]
        notes = [f"note: {note}" for note in document["notes"]]
        return Table(title, ["concept", "part of speech", "images", "share"], rows, notes)

    def plan(self) -> dict[str, Any]:
        self.check()
        name, captions = load_captions(self.options.captions, self.options.selection, self.options.outputs)
        total = sum(map(len, captions.values()))
        return {"data set": name, "images": len(captions), "captions": total, "seconds": f"about {3 + total // 4000}"}

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


def encode_concepts(options: EncodeOptions) -> Outcome:
    """Count concepts in captions, choose a vocabulary, encode, store.

    Raises
    ------
    RdxError, ValueError
        No captions, malformed files, nothing left after the thresholds.
    """
    return EncodeAnalysis(options).run()


def plan(options: EncodeOptions) -> dict[str, Any]:
    """What `encode_concepts` would do."""
    return EncodeAnalysis(options).plan()


def _language(options: EncodeOptions, captions: Mapping[str, Sequence[str]], *, given: bool) -> tuple[str, list[str]]:
    """The language of the captions, and what is to be remarked of it.

    Raises
    ------
    InputError
        There is no tagger for it, and no list of words to look for.
    """
    if options.language != "auto":
        return options.language, []
    if not hanta.installed():
        return "en", []
    found = detect([text for texts in captions.values() for text in texts])
    if found.code in (hanta.MODELS if options.source in ("auto", "hanta") else ("en",)):
        return str(found.code), []
    told = f"the captions seem to be {found.name}: {found.english:.0%} of their words are English"
    if given:
        return "en", [f"{told}; the words of --vocabulary are looked for as they are"]
    taught = " and ".join(NAMES[code] for code in hanta.MODELS)
    raise InputError(
        told,
        f"concepts are found in {taught} (--tagger hanta); translate the captions, name the words to look for with "
        "--vocabulary FILE, or insist with --language en",
    )


def _extractor(options: EncodeOptions, terms: list[str] | None, language: str) -> ConceptExtractor:
    """Tagger and lemmatiser; NLTK data is looked for where `rdx download nltk` puts it, then where NLTK looks."""
    given: dict[str, Any] = {}
    for name in ("normalisation", "phrases"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    try:
        extractor = load_extractor(options.source, nltk_data=find(data_root() / "nltk"), language=language, **given)
    except FileNotFoundError:
        raise MissingDataError(
            "the published tagger and WordNet are not on this machine",
            "`rdx download nltk` fetches them; --tagger hanta needs no download",
        ) from None
    parsed = [Concept.parse(term) for term in terms or ()]
    # the tagger finds nouns, adjectives, verbs and names; what it has no tag for is looked for in the words
    missed = [c for c in parsed if c.pos == "*" or (c.pos == "p" and extractor.phrases in ("none", "merged"))]
    missed += [c for c in parsed if c.pos not in ("p", "*") and " " in c.lemma and not extractor.finds(c)]
    extractor.look_for(missed)
    return extractor


def _vocabulary(path: Path | None) -> list[str] | None:
    """A user's concepts: a text file, a ``vocabulary.csv``, or the folder of encodings or of a surrogate.

    Raises
    ------
    MissingDataError, InputError
    """
    if path is None:
        return None
    table, listed = path / "vocabulary.csv", path / "vocabulary.json"
    if path.is_dir() and not table.is_file() and not listed.is_file():
        raise InputError(f"{path} holds no vocabulary", "give a text file, or the folder of encodings or a surrogate")
    if path.is_dir() and not table.is_file():
        pairs = json.loads(listed.read_text("utf-8"))
    elif path.is_dir() or path.suffix.lower() == ".csv":
        pairs = _vocabulary_table(table if path.is_dir() else path)
    else:
        return _lines(path)
    return [str(Concept(str(lemma), str(pos))) for lemma, pos in pairs]


def _vocabulary_table(path: Path) -> list[tuple[str, str]]:
    """Lemmas and parts of speech of a table with these two columns, in its order."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table of concepts: {error}") from None
    if not rows or not {"lemma", "pos"} <= set(rows[0]):
        raise InputError(f"{path} has no columns `lemma` and `pos`")
    return [(row["lemma"], row["pos"]) for row in rows if row.get("status", KEPT) == KEPT]


def _counted(captions: Mapping[str, Sequence[str]], extractor: Any, folder: Path) -> ConceptCounts:
    """Concepts of every image. Chunks that are finished lie in ``folder``, where an interrupted run finds them."""
    ids, parts, found = list(captions), [], 0
    folder.mkdir(exist_ok=True)
    with track("read captions", len(ids), "images") as advance:
        for start in range(0, len(ids), CHUNK):
            chunk, path = ids[start : start + CHUNK], folder / f"{start:09d}.npz"
            part = load_counts(path)
            if part is None or list(part.ids) != chunk:
                part = count_concepts({key: captions[key] for key in chunk}, extractor)
                save_counts(path, part)
            else:
                found += len(chunk)
            parts.append(part)
            advance(len(chunk))
    if found:
        log.info("%d of %d images were done before", found, len(ids))
    return merge_counts(parts)


def _lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


def _with_examples(
    rows: Sequence[Mapping[str, Any]], counts: ConceptCounts, captions: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """The rows with up to two captions that mention each concept, and none of concepts that few images mention."""
    columns = counts.matrix.tocsc()
    rank = np.argsort(np.argsort(np.array(counts.ids, dtype=str)))  # the order of the captions has no influence
    place = {concept: j for j, concept in enumerate(counts.concepts)}
    out = []
    for row in rows:
        j = place.get(Concept(row["lemma"], row["pos"]))
        found: list[str] = []
        if j is not None and (row["status"] == KEPT or row["image_count"] > 2):
            start = str(row["lemma"]).lower()[:4]
            images = columns.indices[columns.indptr[j] : columns.indptr[j + 1]]
            for image in images[np.argsort(rank[images])][:2]:
                texts = captions[counts.ids[image]]
                found.append(next((text for text in texts if start in text.lower()), texts[0]))
        out.append({**row, "examples": " | ".join(found)})
    return out


def _write_vocabulary(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = ["index", "lemma", "pos", "image_count", "image_share", "status", "reason", "examples"]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def save_counts(path: Path, counts: ConceptCounts) -> None:
    """Write counts in one step: a reader sees the whole file or none."""
    names = json.dumps([list(counts.ids), [list(concept) for concept in counts.concepts]], ensure_ascii=False)
    fresh = path.with_suffix(".writing")
    with open(fresh, "wb") as stream:
        np.savez(
            stream,
            indptr=counts.matrix.indptr,
            indices=counts.matrix.indices,
            data=counts.matrix.data,
            num_captions=counts.num_captions,
            names=np.frombuffer(names.encode(), np.uint8),
        )
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, path)


def load_counts(path: Path) -> ConceptCounts | None:
    """What `save_counts` wrote; None when it is not there or cannot be read."""
    from scipy.sparse import csr_array

    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, concepts = json.loads(file["names"].tobytes())
            shape = (len(ids), len(concepts))
            matrix = csr_array((file["data"], file["indices"], file["indptr"]), shape=shape)
            return ConceptCounts(ids, [Concept(*concept) for concept in concepts], matrix, file["num_captions"])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged and made again: %s", path, error)
        return None
