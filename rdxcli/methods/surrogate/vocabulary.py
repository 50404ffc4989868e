"""How many images mention each concept, and which concepts make the vocabulary.

df(j) is the number of images with at least one caption that mentions concept j; a concept is kept when
df >= ``min_count`` and df / N <= ``max_threshold``. Columns are sorted by (lemma, part of speech), or follow a user's
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from rdxcli.progress import human_count

from .extraction import POS_NAMES, Concept, ConceptExtractor


@dataclass(frozen=True)
class ConceptCounts:
    """How many captions of each image mention each concept, before any filter.

    Parameters
    ----------
    ids : sequence of str, length n
        Sample ids.
    concepts : sequence of Concept, length c
        Sorted.
    matrix : csr_array (n, c) int32
        k_ij, the number of captions of image i that mention concept j.
    num_captions : ndarray (n,) int32
        m_i.
    """

    ids: Sequence[str]
    concepts: Sequence[Concept]
    matrix: csr_array
    num_captions: np.ndarray

    @cached_property
    def image_counts(self) -> np.ndarray:
        """df, the number of images that mention each concept: (c,) int64."""
        return np.bincount(self.matrix.indices, minlength=len(self.concepts)).astype(np.int64)


def count_concepts(captions: Mapping[str, Sequence[str]], extractor: ConceptExtractor) -> ConceptCounts:
    """Run the extractor over every caption once.

    Raises `ValueError` (without images, or when an image's captions are one string or hold something else than
    strings).

    Parameters
    ----------
    captions : mapping of sample id to sequence of str
        Images may have different numbers of captions; none at all gives an empty row.

    Notes
    -----
    About 4,000 captions a second on one core; shards of images can be counted in parallel and put together with
    `merge_counts`.
    """
    if not captions:
        raise ValueError("Got no images, expected captions of at least one image")
    ids = list(captions)
    columns: dict[Concept, int] = {}
    rows: list[dict[int, int]] = []
    for name in ids:
        texts = captions[name]
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"Got captions of {name!r} that are not a list of strings")
        row: dict[int, int] = {}
        for text in texts:
            for concept in set(extractor.concepts(text)):
                column = columns.setdefault(concept, len(columns))
                row[column] = row.get(column, 0) + 1
        rows.append(row)
    return _assemble(ids, list(columns), rows, [len(captions[name]) for name in ids])


def _assemble(
    ids: Sequence[str], concepts: Sequence[Concept], rows: Sequence[Mapping[int, int]], num_captions: Sequence[int]
) -> ConceptCounts:
    order = sorted(range(len(concepts)), key=lambda j: concepts[j])
    rank = np.empty(len(concepts), dtype=np.int32)
    rank[order] = np.arange(len(concepts), dtype=np.int32)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    indices = rank[np.fromiter((j for row in rows for j in row), dtype=np.int64, count=int(indptr[-1]))]
    counts = np.fromiter((k for row in rows for k in row.values()), dtype=np.int32, count=int(indptr[-1]))
    matrix = csr_array((counts, indices, indptr), shape=(len(rows), len(concepts)))
    matrix.sort_indices()
    return ConceptCounts(list(ids), [concepts[j] for j in order], matrix, np.asarray(num_captions, dtype=np.int32))


def merge_counts(parts: Sequence[ConceptCounts]) -> ConceptCounts:
    """Counts of several shards of images as one; the result does not depend on how the images were split.

    Raises `ValueError` (without parts, or when an image occurs twice).
    """
    if not parts:
        raise ValueError("Got no parts, expected at least one")
    ids = [name for part in parts for name in part.ids]
    if len(set(ids)) != len(ids):
        raise ValueError("Got an image in more than one part, expected every image once")
    concepts = sorted({concept for part in parts for concept in part.concepts})
    column = {concept: j for j, concept in enumerate(concepts)}
    blocks = []
    for part in parts:
        where = np.array([column[concept] for concept in part.concepts], dtype=np.int32)
        indices = where[part.matrix.indices] if len(where) else part.matrix.indices
        shape = (part.matrix.shape[0], len(concepts))
        blocks.append(csr_array((part.matrix.data, indices, part.matrix.indptr), shape=shape))
    data = np.concatenate([block.data for block in blocks])
    indices = np.concatenate([block.indices for block in blocks])
    sizes = np.concatenate([np.diff(block.indptr) for block in blocks])
    matrix = csr_array((data, indices, np.concatenate([[0], np.cumsum(sizes)])), shape=(len(ids), len(concepts)))
    matrix.sort_indices()
    return ConceptCounts(ids, concepts, matrix, np.concatenate([part.num_captions for part in parts]))


def merge_concepts(
    counts: ConceptCounts,
    groups: Sequence[Sequence[Concept]],
    captions: Mapping[str, Sequence[str]],
    extractor: ConceptExtractor,
) -> ConceptCounts:
    """Counts in which each group of concepts is its first one: a caption that mentions several counts once.

    Raises `ValueError` (a concept is in two groups).

    Parameters
    ----------
    groups : sequence of sequences of Concept
        Without a concept in two groups; the first of each need not be in a caption.
    captions, extractor
        What was counted. Images that mention several concepts of a group are counted again.
    """
    members = [concept for group in groups for concept in group]
    if len(set(members)) < len(members):
        twice = sorted({str(concept) for concept in members if members.count(concept) > 1})
        raise ValueError(f"Got concepts in two groups of synonyms: {', '.join(twice[:5])}; expected each in one")
    first = {concept: group[0] for group in groups for concept in group}
    names = [first.get(concept, concept) for concept in counts.concepts]
    concepts = sorted(set(names))
    column = {concept: j for j, concept in enumerate(concepts)}
    to = np.array([column[name] for name in names], dtype=np.int64)
    rows: list[dict[int, int]] = []
    for i, name in enumerate(counts.ids):
        part = slice(counts.matrix.indptr[i], counts.matrix.indptr[i + 1])
        columns, found = to[counts.matrix.indices[part]].tolist(), counts.matrix.data[part].tolist()
        row = dict(zip(columns, map(int, found), strict=True))
        if len(row) < len(columns):
            row = {}
            for text in captions[name]:
                for j in {column[first.get(concept, concept)] for concept in extractor.concepts(text)}:
                    row[j] = row.get(j, 0) + 1
        rows.append(row)
    return _assemble(counts.ids, concepts, rows, counts.num_captions.tolist())


def near_concepts(
    counts: ConceptCounts, concepts: Sequence[Concept], embeddings: np.ndarray, threshold: float
) -> list[list[Concept]]:
    """Groups of concepts of one part of speech in which every pair is alike, the most frequent first.

    Parameters
    ----------
    concepts : sequence of Concept, length c
    embeddings : ndarray (c, d)
        Of their words.
    threshold : float
        Least cosine.
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    df = dict(zip(counts.concepts, counts.image_counts.tolist(), strict=True))
    order = sorted(range(len(concepts)), key=lambda j: (-df.get(concepts[j], 0), concepts[j]))
    groups: list[list[int]] = []
    place: list[int] = []  # first of each group
    for j in order:
        joined = None
        near = np.flatnonzero(unit[place] @ unit[j] >= threshold) if place else ()
        for g in near:
            group = groups[int(g)]
            if concepts[group[0]].pos == concepts[j].pos and (unit[group] @ unit[j] >= threshold).all():
                joined = group
                break
        if joined is None:
            groups.append([j])
            place.append(j)
        else:
            joined.append(j)
    return [[concepts[j] for j in group] for group in groups if len(group) > 1]


@dataclass(frozen=True)
class Vocabulary:
    """The concepts that get a column, in order.

    Parameters
    ----------
    image_counts : ndarray (c,) int64
        Images that mention each.
    num_images : int
        N.
    notes : sequence of str
        Remarks, for example concepts of a given vocabulary that no caption mentions.
    cut : sequence of (Concept, int, str)
        Concepts of the captions that got no column: the images that mention them, and why; most frequent first.
    """

    concepts: Sequence[Concept]
    image_counts: np.ndarray
    num_images: int
    notes: Sequence[str] = field(default=())
    cut: Sequence[tuple[Concept, int, str]] = field(default=())

    def __len__(self) -> int:
        return len(self.concepts)

    def rows(self) -> list[dict[str, Any]]:
        """The vocabulary table: index, lemma, pos, image_count, image_share, status, reason; kept concepts first."""
        n = max(self.num_images, 1)
        kept = [
            (j, concept, int(count), "kept", "")
            for j, (concept, count) in enumerate(zip(self.concepts, self.image_counts, strict=True))
        ]
        out = [("", concept, count, "cut", reason) for concept, count, reason in self.cut]
        return [
            {
                "index": index,
                "lemma": concept.lemma,
                "pos": concept.pos,
                "image_count": count,
                "image_share": count / n,
                "status": status,
                "reason": reason,
            }
            for index, concept, count, status, reason in [*kept, *out]
        ]


def _listed(given: Iterable[Concept | str], concepts: Sequence[Concept]) -> np.ndarray:
    """Which concepts a user's list names, by lemma or by lemma and part of speech: (c,) bool."""
    parsed = [Concept.parse(entry) if isinstance(entry, str) else Concept(*entry) for entry in given]
    lemmas, exact = {c.lemma for c in parsed if c.pos == "*"}, {c for c in parsed if c.pos != "*"}
    return np.array([c.lemma in lemmas or c in exact for c in concepts], dtype=bool)


def fit_vocabulary(
    counts: ConceptCounts,
    *,
    min_count: int = 3,
    max_threshold: float = 0.1,
    pos: str = "navmp*",
    stop: Iterable[Concept | str] = (),
    keep: Iterable[Concept | str] = (),
    max_size: int | None = None,
) -> Vocabulary:
    """Choose concepts by document frequency.

    Raises `ValueError` for impossible thresholds, and when nothing is left.

    Parameters
    ----------
    min_count : int
        Keep a concept that at least this many images mention (default 3, as published).
    max_threshold : float in (0, 1]
        and at most this share of the images (default 0.1, as published).
    pos : str
        Parts of speech to keep.
    stop : iterable of Concept or str
        Concepts to leave out: ``dog/n``, or ``dog`` for every part of speech.
    keep : iterable of Concept or str
        Concepts that stay whatever the thresholds say, if a caption mentions them.
    max_size : int, optional
        Keep only the most frequent ones; ties in the order of (lemma, pos).
    """
    n = len(counts.ids)
    if min_count < 1:
        raise ValueError(f"Got min_count={min_count}, expected at least 1")
    if not 0 < max_threshold <= 1:
        raise ValueError(f"Got max_threshold={max_threshold}, expected a share in (0, 1]")
    if max_size is not None and max_size < 1:
        raise ValueError(f"Got max_size={max_size}, expected at least 1")
    if unknown := set(pos) - set(POS_NAMES):
        raise ValueError(f"Got parts of speech {sorted(unknown)}, expected some of {sorted(POS_NAMES)}")
    df = counts.image_counts
    stopped, wanted = _listed(stop, counts.concepts), _listed(keep, counts.concepts)
    reasons = (
        (stopped, "left out by name"),
        (~wanted & np.array([c.pos not in pos for c in counts.concepts], dtype=bool), f"part of speech not in {pos}"),
        (~wanted & (df < min_count), f"in fewer than {human_count(min_count, 'image')}"),
        (~wanted & (df / n > max_threshold), f"in more than {max_threshold:.3g} of the images"),
    )
    reason = np.full(len(df), "", dtype=object)
    for rows, why in reversed(reasons):
        reason[rows] = why
    kept = np.flatnonzero(reason == "")
    if max_size is not None and len(kept) > max_size:
        order = kept[np.argsort(-df[kept], kind="stable")]
        reason[order[max_size:]] = f"not among the {max_size} most frequent"
        kept = np.sort(order[:max_size])
    if not len(kept):
        raise ValueError(
            f"Got no concept that at least {min_count} and at most {max_threshold:.0%} of "
            f"{human_count(n, 'image')} mention, out of "
            f"{len(df)}; expected a lower min_count or a higher max_threshold"
        )
    gone = np.flatnonzero(reason != "")
    gone = gone[np.argsort(-df[gone], kind="stable")]
    cut = [(counts.concepts[int(j)], int(df[j]), str(reason[j])) for j in gone]
    return Vocabulary([counts.concepts[int(j)] for j in kept], df[kept], n, _frequent(cut, max_threshold, n), cut)


def _frequent(cut: Sequence[tuple[Concept, int, str]], max_threshold: float, n: int) -> tuple[str, ...]:
    """A remark about the most frequent concepts, which a reader would miss."""
    found = [str(concept) for concept, count, reason in cut if count / n > max_threshold and "more than" in reason]
    if not found:
        return ()
    few = f"{', '.join(found[:8])}{' ...' if len(found) > 8 else ''}"
    return (
        f"without a column: {human_count(len(found), 'concept')} in over {max_threshold:.3g} of the images: {few}; "
        "a higher max_threshold, or their names in the file of concepts to keep, takes them in",
    )


def given_vocabulary(counts: ConceptCounts, concepts: Iterable[Concept | str]) -> Vocabulary:
    """A user's vocabulary in its own order; thresholds do not apply.

    Raises `ValueError` for an empty vocabulary or an entry that occurs twice. `counts`: made by an extractor whose
    ``terms`` hold the entries of part of speech ``*`` and the phrases.
    """
    wanted = [Concept.parse(entry) if isinstance(entry, str) else Concept(*entry) for entry in concepts]
    if not wanted:
        raise ValueError("Got an empty vocabulary, expected at least one concept")
    if len(set(wanted)) != len(wanted):
        twice = sorted({str(concept) for concept in wanted if wanted.count(concept) > 1})
        raise ValueError(f"Got concepts twice: {', '.join(twice[:5])}; expected each once")
    where = {concept: j for j, concept in enumerate(counts.concepts)}
    df = np.array([counts.image_counts[where[c]] if c in where else 0 for c in wanted], dtype=np.int64)
    missing = [str(concept) for concept, count in zip(wanted, df, strict=True) if not count]
    notes = (
        (f"{len(missing)} of {human_count(len(wanted), 'concept')} are in no caption: {', '.join(missing[:5])}",)
        if missing
        else ()
    )
    return Vocabulary(wanted, df, len(counts.ids), notes)
