"""Encoded captions in a summary: the vocabulary that was kept, and what was cut and why."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.summary import Column, Section, Summary, Table

COLUMNS = (
    Column("concept", "Lemma"),
    Column("part of speech"),
    Column("images", "Images whose captions name it"),
    Column("share", "Of all images", "share"),
)
CUT = (*COLUMNS, Column("why"))
KEPT = "kept"


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of an ``encodings`` document."""
    rows = _vocabulary(folder)
    kept = [row for row in rows if row["status"] == KEPT] or document["most_frequent"]
    cut = [row for row in rows if row["status"] != KEPT] or document["cut"]
    n, without = document["n"], document["images_without_concepts"]
    images = human_count(n, "image")
    concepts = human_count(document["concepts"], "concept")
    title = f"{concepts} in {images}, {document['concepts_per_image']:.1f} per image"
    facts = f"{images}, {concepts}; {human_count(without, 'image')} without any of them"
    sections = [
        Section(
            "Vocabulary",
            "vocabulary",
            tables=[Table("", COLUMNS, _rows(kept), left_out=document["concepts"] - len(kept))],
            text="The most frequent first.",
            printed=True,
        )
    ]
    if cut:
        table = Table("", CUT, [[*row, one["status"]] for row, one in zip(_rows(cut), cut, strict=True)])
        sections.append(Section("Left out", "left-out", tables=[table], text="The most frequent first."))
    return Summary(
        "encodings", document["method"], "Concepts of captions", title, facts, sections, notes=document["notes"]
    )


def _rows(entries: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[row["lemma"], row["pos"], int(row["image_count"]), float(row["image_share"])] for row in entries]


def _vocabulary(folder: Path | None) -> list[dict[str, Any]]:
    """All rows of ``vocabulary.csv``, the most frequent first."""
    if folder is None or not (folder / "vocabulary.csv").is_file():
        return []
    with open(folder / "vocabulary.csv", encoding="utf-8", newline="") as stream:
        return sorted(csv.DictReader(stream), key=lambda row: -int(row["image_count"]))
