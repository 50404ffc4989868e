"""``rdx encode-concepts``: from captions to a vocabulary and sparse concept encodings."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, fingerprint_json, resolve_artifact, write_json
from rdxcli.artifacts.layout import concepts_folder, slug
from rdxcli.errors import InputError, MissingDataError, RdxError, UsageError
from rdxcli.progress import log, track
from rdxcli.services.inputs import SelectionOptions

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
    from rdxcli.services.concept_parts import load_counts, save_counts

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


def load_captions(text: str | None, selection: SelectionOptions, outputs: Path) -> tuple[str, dict[str, list[str]]]:
    """Name of the data set and the captions of each sample id.

    Parameters
    ----------
    text : str or None
        ``.json``: ``{id: [caption, ...]}`` or a list of objects with an id and captions. ``.jsonl``: one object a line.
        ``.txt``: one caption a line, each its own sample. A captions artifact. None: the captions of the data set.

    Raises
    ------
    RdxError
        Nothing to read, or a malformed file.
    """
    if text is None:
        if selection.dataset is None:
            raise UsageError("which captions?", "give --captions FILE, or --dataset NAME of a data set with captions")
        dataset = selection.open()
        if dataset.captions is None:
            raise MissingDataError(
                f"the data set {dataset.name} has no captions",
                f"make them with `rdx caption --dataset {selection.dataset}`, or name them: --captions FILE",
            )
        return dataset.name, {
            str(sample): list(texts) for sample, texts in zip(dataset.sample_ids, dataset.captions, strict=True)
        }
    path = Path(text)
    if path.is_dir() or not path.exists():
        artifact = resolve_artifact(text, outputs, "captions")
        path = artifact.path / "captions.jsonl"
        name = artifact.path.parts[-3] if len(artifact.path.parts) >= 3 else artifact.path.name
    else:
        name = slug(path.stem)
    captions = read_captions(path)
    if not captions:
        raise InputError(f"{path} holds no captions")
    return name, captions


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions of each sample id in a file; see `load_captions` for the layouts.

    Raises
    ------
    InputError, MissingDataError
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = [line.strip() for line in text.splitlines()]
        return {str(i): [line] for i, line in enumerate(lines) if line}
    entries: list[Any] = []
    try:
        if suffix == ".jsonl":
            entries = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            content = json.loads(text)
            if isinstance(content, dict) and isinstance(content.get("annotations"), list):
                content = content["annotations"]  # the layout of COCO
            elif isinstance(content, dict) and isinstance(content.get("images"), list):
                content = content["images"]  # Karpathy's lists
            entries = content if isinstance(content, list) else [{"id": k, "captions": v} for k, v in content.items()]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(entries, start=1):
        sample, texts = _entry(entry, path, number)
        captions.setdefault(sample, []).extend(texts)
    return captions


def _entry(entry: Any, path: Path, number: int) -> tuple[str, list[str]]:
    """Sample id and captions of one object."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{path}: entry {number} is a {type(entry).__name__}, expected an object with id and captions")
    sample = next((entry[key] for key in ("sample_id", "image_id", "id", "image", "filename") if key in entry), None)
    texts = next((entry[key] for key in ("captions", "caption", "sentences", "text") if key in entry), None)
    if sample is None or texts is None:
        found = ", ".join(map(str, list(entry)[:6]))
        raise InputError(f"{path}: entry {number} has {found}, expected an id and captions")
    listed = [texts] if isinstance(texts, str) else list(texts)
    raw = [text["raw"] if isinstance(text, Mapping) and "raw" in text else text for text in listed]
    words = [text for text in raw if isinstance(text, str)]
    if len(words) < len(raw):
        raise InputError(f"{path}: the captions of entry {number} are not text")
    return str(sample), words


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


def load_encodings(text: str, outputs: Path) -> Encodings:
    """Encodings of an artifact of ``encode-concepts``, or a user's matrix (dense array or SciPy CSR ``.npz``).

    Raises
    ------
    RdxError
        No such artifact or file, or a damaged one.
    """
    from rdxcli.methods.surrogate.encoding import from_arrays, from_matrix
    from rdxcli.methods.surrogate.extraction import Concept

    path = Path(text)
    folder = path.parent if path.name == "encodings.npz" and (path.parent / "manifest.json").is_file() else path
    if path.is_file() and folder is path:
        from rdxcli.services.inputs import resolve_concepts

        matrix = resolve_concepts(text)
        ids = [str(i) for i in range(matrix.values.shape[0])] if matrix.sample_ids is None else list(matrix.sample_ids)
        return from_matrix(matrix.values, ids, [Concept.parse(name) for name in matrix.names])
    import numpy as np

    artifact = resolve_artifact(str(folder), outputs, "encodings")
    with np.load(artifact.path / "encodings.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    ids = json.loads((artifact.path / "samples.json").read_text("utf-8"))
    with open(artifact.path / "vocabulary.csv", encoding="utf-8", newline="") as stream:
        concepts = [Concept(row["lemma"], row["pos"]) for row in csv.DictReader(stream)]
    return from_arrays(arrays, ids, concepts, method=str(artifact.manifest.request.parameters["method"]))


def details_of(text: str, outputs: Path, kind: str) -> Mapping[str, Any]:
    """What the manifest of an artifact notes about its making; nothing for a bare file."""
    path = Path(text)
    try:
        artifact = resolve_artifact(str(path.parent if path.is_file() else path), outputs, kind)
    except RdxError:
        return {}
    return artifact.manifest.details if artifact.kind == kind else {}


def plan(options: EncodeOptions) -> dict[str, Any]:
    """What `encode_concepts` would do."""
    name, captions = load_captions(options.captions, options.selection, options.outputs)
    total = sum(map(len, captions.values()))
    log.debug("planned %d captions", total)
    return {"data set": name, "images": len(captions), "captions": total, "seconds": f"about {max(1, total // 4000)}"}
