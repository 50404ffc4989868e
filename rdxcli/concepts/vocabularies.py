"""Vocabularies as people read and write them: lists of concepts, and the table with counts, reasons and examples."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.concepts.encodings import KEPT
from rdxcli.errors import InputError, MissingDataError
from rdxcli.methods.surrogate.extraction import POS_NAMES, Concept
from rdxcli.methods.surrogate.vocabulary import ConceptCounts


def given_terms(path: Path | None) -> list[str] | None:
    """A user's concepts: a text file, a ``vocabulary.csv``, or the folder of encodings or of a surrogate.

    Raises `MissingDataError` or `InputError`.
    """
    if path is None:
        return None
    table, listed = path / "vocabulary.csv", path / "vocabulary.json"
    if path.is_dir() and not table.is_file() and not listed.is_file():
        raise InputError(f"{path} holds no vocabulary", "give a text file, or the folder of encodings or a surrogate")
    if path.is_dir() and not table.is_file():
        pairs = json.loads(listed.read_text("utf-8"))
    elif path.is_dir() or path.suffix.lower() in (".csv", ".tsv"):
        pairs = _vocabulary_table(table if path.is_dir() else path)
    else:
        return list_of(path)
    return [str(Concept(str(lemma), str(pos))) for lemma, pos in pairs]


def _vocabulary_table(path: Path) -> list[tuple[str, str]]:
    """Lemmas and parts of speech of a table with these two columns, in its order, as spreadsheets save it.

    Cells may be separated by semicolons or tabs; a row without a status, which a person has added, counts as kept.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            separator = max(",;\t", key=stream.readline().count)
            stream.seek(0)
            rows = [
                {(name or "").strip().lower(): cell.strip() for name, cell in row.items() if isinstance(cell, str)}
                for row in csv.DictReader(stream, delimiter=separator)
            ]
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table of concepts: {error}") from None
    if not rows or not {"lemma", "pos"} <= set(rows[0]):
        raise InputError(f"{path} has no columns `lemma` and `pos`")
    pairs = [
        (row["lemma"], row.get("pos") or "*")
        for row in rows
        if row.get("lemma") and (row.get("status") or KEPT).lower() == KEPT
    ]
    if not pairs:
        raise InputError(f"{path} keeps no concept", f"the status of a concept that is wanted is `{KEPT}` or empty")
    if strange := next((pair for pair in pairs if pair[1] not in POS_NAMES), None):
        raise InputError(
            f"{path}: `{strange[0]}` has the part of speech `{strange[1]}`", f"expected one of {', '.join(POS_NAMES)}"
        )
    return pairs


def list_of(path: Path | None) -> list[str] | None:
    """The lines of a file of concepts that are not empty; None without a file.

    Raises `MissingDataError` or `InputError`.
    """
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None


def read_synonyms(path: Path, concepts: Sequence[Concept]) -> list[list[Concept]]:
    """Groups of a file, one a line and separated by commas: ``dog, puppy, hound``, the first being what they become.

    An entry without a part of speech stands for every part of speech of its word that the first has too. `concepts`: of
    the captions. Raises `MissingDataError` or `InputError` (no such file, or a line with a single word).
    """
    known = set(concepts)
    groups: list[list[Concept]] = []
    for line in list_of(path) or []:
        entries = [Concept.parse(part.strip()) for part in line.split(",") if part.strip()]
        if len(entries) < 2:
            raise InputError(f"{path}: `{line}` is one concept", "write those that are one with commas: dog, puppy")
        first, *others = entries
        for pos in sorted({concept.pos for concept in known}) if first.pos == "*" else [first.pos]:
            one = Concept(first.lemma, pos)
            same = [Concept(other.lemma, pos) for other in others if other.pos in ("*", pos)]
            if members := [concept for concept in same if concept in known and concept != one]:
                groups.append([one, *members])
    return groups


def with_examples(
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


def write_vocabulary(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table ``vocabulary.csv``."""
    columns = ["index", "lemma", "pos", "image_count", "image_share", "status", "reason", "examples"]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
