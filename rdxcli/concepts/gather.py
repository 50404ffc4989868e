"""Concept matrices for explaining and simulating units: labels, files, embeddings, joined to the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array, fingerprint_json
from rdxcli.concepts.embeddings import named_rows
from rdxcli.concepts.labels import Concepts, label_matrix
from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.scorer import EMBEDDINGS, Scorer, dataset_name, score, wanted
from rdxcli.concepts.sets import default_set, read_concept_set
from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.seen import counted_ids
from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import UNREADABLE
from rdxcli.datasets.words import find_all, taken_as_one
from rdxcli.errors import InputError, MissingDataError, RdxError, UsageError
from rdxcli.methods.neurons.concepts import LazyCosines, clean_concepts
from rdxcli.methods.neurons.preparation import Split, check_split, random_split
from rdxcli.progress import human_count
from rdxcli.records import Representation
from rdxcli.representations.resolve import resolve_concepts


@dataclass(frozen=True)
class GivenEmbeddings:
    """Image and text embeddings from files.

    Attributes
    ----------
    images : (n, d) array
        A row per row of the representation.
    texts : (c, d) array
        A row per distinct word.
    words : list of c str
    source : dict
        Fingerprints.
    """

    images: np.ndarray
    texts: np.ndarray
    words: list[str]
    source: dict[str, Any]
    notes: list[str]


def gather(
    options: ConceptOptions, representation: Representation, *, labels: bool, scorer: Scorer | None = None
) -> Concepts:
    """The concept matrix that the options name.

    In this order: ``--concepts FILE``; ``--file image_embeddings=FILE --file text_embeddings=FILE`` with a concept set;
    scores by a vision-language model; the labels, when the method takes them. Raises `RdxError` (nothing to take
    concepts from, or rows that do not fit).

    Parameters
    ----------
    representation : Representation
        Its rows are the rows of the result.
    labels : bool
        Whether class labels are concepts for this method.
    scorer : Scorer, optional
        Vision-language model and words (see `rdxcli.concepts.scorer.open_scorer`).
    """
    if options.concepts is not None:
        return _from_file(options, representation)
    if "image_embeddings" in options.files or "text_embeddings" in options.files:
        return _from_embeddings(options, representation)
    if scorer is not None:
        values, source, notes = score(options, scorer, representation)
        return Concepts(values, list(scorer.words), source, notes)
    needs_concepts(options, labels=labels)
    return label_matrix(options, representation)


def needs_concepts(options: ConceptOptions, *, labels: bool) -> None:
    """Refuse options that name no concepts at all, before anything is read. Raises `UsageError`."""
    if options.concepts is None and not (EMBEDDINGS & set(options.files)) and wanted(options) is None and not labels:
        raise UsageError(
            f"`{options.method}` needs concept scores of the images",
            "give --vlm NAME --concept-set FILE, or --concepts FILE --concept-names FILE, or "
            "--file image_embeddings=FILE --file text_embeddings=FILE --concept-set FILE",
        )


def counted(options: ConceptOptions) -> int | None:
    """How many concepts `gather` would give, where that is known without scoring images; None where it is not."""
    try:
        if options.concepts is not None:
            matrix = resolve_concepts(
                options.concepts, names=options.concept_names, choice=Choice(ids=options.arrays.id_column)
            )
            return int(matrix.values.shape[1])
        if EMBEDDINGS & set(options.files) or wanted(options) is not None:
            words = options.concept_set or default_set(dataset_name(options))
            return len(clean_concepts(read_concept_set(words, options.selection.root)).names)
        if options.arrays.labels is not None or options.model is None:
            return None
        return len(options.selection.open(dataset_name(options)).class_names or ()) or None
    except RdxError:
        return None  # said when it is read


def read_splits(path: Path, n: int | None = None) -> Split:
    """Train, validation and test rows of an ``.npz`` file.

    `n`: number of rows, where it is known already. Raises `RdxError` (a part is missing in the file, it cannot be read,
    or the parts overlap or do not fit).
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise MissingDataError(f"no such file: {path}") from None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}", "splits are an .npz with train, val and test") from None
    missing = [name for name in ("train", "val", "test") if name not in parts]
    if missing:
        raise InputError(f"{path} has no `{missing[0]}`", f"it holds {', '.join(parts) or 'nothing'}")
    given = {name: np.asarray(parts[name]) for name in ("train", "val", "test")}
    if n is None:  # whatever n is, it is larger than these
        n = max((len(one) if one.dtype == bool else int(one.max(initial=0)) + 1) for one in given.values())
    try:
        train, val, test = check_split(given["train"], given["val"], given["test"], n)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    assert test is not None
    return Split(train, val, test)


def split_of(options: ConceptOptions, representation: Representation) -> Split:
    """The train, validation and test rows: ``--splits FILE``, else 70/10/20 drawn with the seed.

    Of rows with ids the ids are drawn, in sorted order, so that the same samples in another order are split alike.
    Raises `RdxError` (see `read_splits`).
    """
    if options.splits is not None:
        return read_splits(options.splits, representation.n)
    drawn = random_split(representation.n, options.seed)
    if representation.sample_ids is None:
        return drawn
    order = np.argsort(np.asarray(representation.sample_ids).astype(str), kind="stable")
    return Split(*(part if part is None else np.sort(order[part]) for part in (drawn.train, drawn.val, drawn.test)))


def _from_file(options: ConceptOptions, representation: Representation) -> Concepts:
    matrix = resolve_concepts(
        str(options.concepts), names=options.concept_names, choice=Choice(ids=options.arrays.id_column)
    )
    blank = [column for column, name in enumerate(matrix.names) if not str(name).strip()]
    if blank:
        raise InputError(
            f"{options.concept_names or options.concepts}: the concept of column {blank[0]} has an empty name",
            "every concept needs a name, one a line",
        )
    rows, notes = _rows(
        matrix.sample_ids, matrix.values.shape[0], matrix.source.get("seen"), representation, str(options.concepts)
    )
    values = matrix.values if rows is None else matrix.values[rows]
    return Concepts(values, list(matrix.names), dict(matrix.source), notes)


def _rows(
    ids: np.ndarray | None, n: int, seen: Any, representation: Representation, what: str
) -> tuple[np.ndarray | None, list[str]]:
    """Rows of another file that belong to the rows of the representation; None when they are in order already."""
    known = None if ids is None else list(map(str, ids))
    wanted = representation.ids() or None
    if known is None and wanted is not None:
        known = counted_ids(seen, n, wanted)
    elif wanted is None and known is not None:
        wanted = counted_ids(representation.source.get("seen"), representation.n, known)
    if known is None or wanted is None:
        if n != representation.n:
            raise InputError(
                f"{what} has {human_count(n, 'row')}, {representation.name} has {representation.n}, and "
                "there are no ids to match them"
            )
        if known is None and wanted is None:
            return None, []
        unknown, other = (what, representation.name) if known is None else (representation.name, what)
        return None, [f"{unknown} has no sample ids: its rows are taken to be in the order of {other}"]
    n = len(wanted)
    places, note = find_all(wanted, known, lambda count, one, other: InputError(
        f"{what} lacks {count} of {human_count(n, 'sample')}, for example `{one}`", f"its ids look like `{other}`"
    ))  # fmt: skip
    return places, [taken_as_one(note, representation.name, what)] if note else []


def _from_embeddings(options: ConceptOptions, representation: Representation) -> Concepts:
    for name in ("image_embeddings", "text_embeddings"):
        if name not in options.files:
            raise UsageError(f"--file {name}=FILE is missing", "image and text embeddings are needed together")
    files = (options.files["image_embeddings"], options.files["text_embeddings"])
    found = read_embeddings(*files, options.concept_set, representation, options.selection.root)
    calibration = {name: float(options.parameters[name]) for name in ("a", "b") if name in options.parameters}
    values = LazyCosines(found.images, found.texts, **calibration)
    return Concepts(values, found.words, {**found.source, **calibration}, found.notes)


def read_embeddings(
    image_file: str, text_file: str, concept_set: str | None, representation: Representation, root: Path | None = None
) -> GivenEmbeddings:
    """Embeddings that a vision-language model made elsewhere.

    Raises `RdxError` (files that cannot be read, do not fit each other, or lack samples).

    Parameters
    ----------
    image_file, text_file : str
        Arrays of shape (n, d) and (lines of the concept set, d). Rows of texts whose ids are words are joined by them.
    representation : Representation
        Whose rows are wanted.
    root : Path, optional
        Where downloads are.
    """
    if concept_set is None:
        raise UsageError("which words are the text embeddings of?", "give --concept-set FILE, one word a line")
    images, texts = load_representation(image_file), load_representation(text_file)
    words = [line.strip() for line in read_concept_set(concept_set, root)]
    cleaned = clean_concepts(words)
    if texts.sample_ids is not None:
        ids = list(map(str, texts.sample_ids))
        said, _ = named_rows(list(cleaned.names), concept_set, np.asarray(texts.values), ids, "text")
    elif len(words) != texts.n:
        raise InputError(
            f"{concept_set} has {human_count(len(words), 'line')}, {texts.name} has {human_count(texts.n, 'row')}"
        )
    else:
        said = texts.values[[words.index(name) for name in cleaned.names]]
    rows, notes = _rows(images.sample_ids, images.n, images.source.get("seen"), representation, images.name)
    source = {
        "images": fingerprint_array(images.values),
        "texts": fingerprint_array(texts.values),
        "words": fingerprint_json(words),
    }
    placed = images.values if rows is None else images.values[rows]
    return GivenEmbeddings(placed, np.asarray(said), list(cleaned.names), source, [*notes, *cleaned.notes])
