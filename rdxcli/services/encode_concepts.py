"""``rdx encode-concepts``: from captions to a vocabulary and sparse concept encodings."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, fingerprint_json, write_json
from rdxcli.artifacts.layout import concepts_folder
from rdxcli.concepts.captions import load_captions
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, MissingDataError
from rdxcli.progress import log, track

if TYPE_CHECKING:
    from rdxcli.methods.surrogate.encoding import Encodings
    from rdxcli.methods.surrogate.vocabulary import ConceptCounts

CODE = "1"
CHUNK = 500  # images that are lost when the program is killed
PARTS = "parts"


@dataclass(frozen=True)
class EncodeOptions:
    """What to encode and how.

    Parameters
    ----------
    captions : str, optional
        File (.json, .jsonl, .txt) or captions artifact; None takes the captions of the data set.
    source : {"auto", "published", "packaged"}
        Tagger and lemmatiser.
    method : {"average", "union"}
    min_count, max_threshold, pos, max_size
        See `rdxcli.methods.surrogate.vocabulary.fit_vocabulary`.
    normalisation : {"original", "improved"}, optional
        See `rdxcli.methods.surrogate.extraction.ConceptExtractor`; without it that of the tagger.
    phrases : {"none", "compounds", "noun-phrases"}
        Concepts of several words.
    stop : Path, optional
        File with one concept a line to leave out.
    vocabulary : Path, optional
        Concepts in place of a fitted vocabulary: a text file, a ``vocabulary.csv``, the folder of encodings or of a
        surrogate.
    """

    captions: str | None = None
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    source: str = "auto"
    method: str = "average"
    min_count: int = 3
    max_threshold: float = 0.1
    pos: str = "navp*"
    max_size: int | None = None
    normalisation: str | None = None
    phrases: str = "none"
    stop: Path | None = None
    vocabulary: Path | None = None
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """Finished encodings and what to say about them."""

    artifact: Artifact
    document: Mapping[str, Any]


def encode_concepts(options: EncodeOptions) -> Outcome:
    """Count concepts in captions, choose a vocabulary, encode, store.

    Raises
    ------
    RdxError, ValueError
        No captions, malformed files, nothing left after the thresholds.
    """
    name, captions = load_captions(options.captions, options.selection, options.outputs)
    terms = _vocabulary(options.vocabulary)
    stop = _lines(options.stop) or []
    extractor = _extractor(options, terms)
    request = Request(
        kind="encodings",
        parameters={
            **{
                key: getattr(options, key)
                for key in ("method", "min_count", "max_threshold", "pos", "max_size", "phrases")
            },
            "extractor": extractor.describe(),
            "stop": stop,
            "vocabulary": terms,
        },
        inputs={"captions": fingerprint_json(captions)},
        seed=options.seed,
        code=CODE,
    )
    folder = concepts_folder(options.outputs, name, options.run or "encodings")
    with create(folder, request, force=options.force, resume=True) as draft:
        if not draft.reused:
            import numpy as np

            counts = _counted(captions, extractor, draft.path / PARTS)
            draft.discard_at_end(PARTS)
            encodings, vocabulary = _encode(options, counts, terms, stop)
            np.savez_compressed(draft.path / "encodings.npz", **encodings.arrays())  # type: ignore[arg-type]
            _write_vocabulary(draft.path / "vocabulary.csv", vocabulary.rows())
            write_json(draft.path / "samples.json", list(encodings.ids))
            write_json(draft.path / "encodings.json", _document(options, request, encodings, vocabulary, folder))
            draft.manifest.rows = len(encodings.ids)
            draft.manifest.details = {"captions": options.captions}
    document = json.loads((draft.result.path / "encodings.json").read_text("utf-8"))
    return Outcome(draft.result, document)


def _extractor(options: EncodeOptions, terms: list[str] | None) -> Any:
    """Tagger and lemmatiser; NLTK data is looked for where `rdx download nltk` puts it, then where NLTK looks."""
    from rdxcli.datasets.registry import data_root
    from rdxcli.methods.surrogate.extraction import Concept, load_extractor
    from rdxcli.methods.surrogate.nltk_data import find

    parsed = [Concept.parse(term) for term in terms or ()]
    # the tagger finds nouns, adjectives and verbs by itself; what it has no tag for is looked for in the words
    missed = [
        c
        for c in parsed
        if c.pos == "*" or (c.pos == "p" and options.phrases == "none") or (c.pos != "p" and " " in c.lemma)
    ]
    given: dict[str, Any] = {"terms": missed} if missed else {}
    if options.normalisation is not None:
        given["normalisation"] = options.normalisation
    try:
        extractor = load_extractor(
            options.source, nltk_data=find(data_root() / "nltk"), phrases=options.phrases, **given
        )
    except FileNotFoundError:
        raise MissingDataError(
            "the published tagger and WordNet are not on this machine",
            "`rdx download nltk` fetches them; --tagger packaged needs no download",
        ) from None
    described = extractor.describe()
    log.info("tagger: %s, lexicon: %s", described.get("tagger"), described.get("lexicon"))
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
    from rdxcli.methods.surrogate.extraction import Concept

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
    return [(row["lemma"], row["pos"]) for row in rows]


def _counted(captions: Mapping[str, Sequence[str]], extractor: Any, folder: Path) -> ConceptCounts:
    """Concepts of every image. Chunks that are finished lie in ``folder``, where an interrupted run finds them."""
    from rdxcli.methods.surrogate.vocabulary import count_concepts, merge_counts

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


def _encode(
    options: EncodeOptions, counts: ConceptCounts, terms: list[str] | None, stop: list[str]
) -> tuple[Encodings, Any]:
    from rdxcli.methods.surrogate.encoding import encode
    from rdxcli.methods.surrogate.vocabulary import fit_vocabulary, given_vocabulary

    if terms is not None:
        vocabulary = given_vocabulary(counts, terms)
    else:
        vocabulary = fit_vocabulary(
            counts,
            min_count=options.min_count,
            max_threshold=options.max_threshold,
            pos=options.pos,
            stop=stop,
            max_size=options.max_size,
        )
    return encode(counts, vocabulary, method=options.method), vocabulary


def _document(
    options: EncodeOptions, request: Request, encodings: Encodings, vocabulary: Any, folder: Path
) -> dict[str, Any]:
    from rdxcli.records import SCHEMA_VERSION, plain

    rows = sorted(vocabulary.rows(), key=lambda row: -row["image_count"])
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "encodings",
            "artifact": folder.as_posix(),
            "method": options.method,
            "parameters": request.parameters,
            "seed": options.seed,
            "notes": list(encodings.notes),
            "n": len(encodings.ids),
            "concepts": len(encodings.concepts),
            "concepts_per_image": float(encodings.l0.mean()),
            "images_without_concepts": int((~encodings.has_concepts).sum()),
            "most_frequent": rows[:20],
        }
    )


def _lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


def _write_vocabulary(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=["index", "lemma", "pos", "image_count", "image_share"])
        writer.writeheader()
        writer.writerows(rows)


def plan(options: EncodeOptions) -> dict[str, Any]:
    """What `encode_concepts` would do."""
    name, captions = load_captions(options.captions, options.selection, options.outputs)
    total = sum(map(len, captions.values()))
    log.debug("planned %d captions", total)
    return {"data set": name, "images": len(captions), "captions": total, "seconds": f"about {max(1, total // 4000)}"}


def save_counts(path: Path, counts: ConceptCounts) -> None:
    """Write counts in one step: a reader sees the whole file or none."""
    import numpy as np

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
    import zipfile

    import numpy as np
    from scipy.sparse import csr_array

    from rdxcli.methods.surrogate.extraction import Concept
    from rdxcli.methods.surrogate.vocabulary import ConceptCounts

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
