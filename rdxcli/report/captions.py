"""Captions in a summary: every image with its sentences, the failed ones, the words that occur most."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.summary import Column, Item, Picture, Section, Summary, Table, images_of

WORDS = 40
"""Words in the table of words."""
SHORTEST = 4
"""Characters of a word that is counted."""


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``captions`` document."""
    dataset = _spec(folder)
    entries = _entries(folder) or [(one["sample_id"], list(one["captions"])) for one in document["examples"]]
    counts: Counter[str] = Counter()
    for _, captions in entries:
        counts.update({word for caption in captions for word in _words(caption)})
    rows = [[word, count, count / len(entries)] for word, count in counts.most_common(WORDS)]
    columns = [Column("word"), Column("images"), Column("share", "Of all images", "share")]
    items = [
        Item(sample, sample, [len(captions), " · ".join(captions)], pictures=[Picture(sample)] if dataset else [])
        for sample, captions in entries
    ]
    failed = [[one["sample_id"], one["error"]] for one in document["failed"]]
    sections = [Section("Images", "images", items, "image", [Column("captions"), Column("sentences")], printed=True)]
    if failed:
        columns_of_failed = [Column("image"), Column("error")]
        sections.append(Section("Not captioned", "failed", tables=[Table("", columns_of_failed, failed)]))
    sections.append(
        Section(
            "Words",
            "words",
            tables=[Table("", columns, rows, left_out=max(0, len(counts) - WORDS))],
            text=f"Words of {SHORTEST} letters or more, the most frequent first.",
        )
    )
    return Summary(
        kind="captions",
        method=document["method"],
        kicker="Captions",
        title=f"{human_count(document['captions'], 'caption')} of {human_count(document['images'], 'image')}",
        facts=f"{images_of(document['images'], dataset or document['dataset'])}, by {document['captioner']}",
        sections=sections,
        notes=[*document["notes"], *[f"{human_count(len(failed), 'image')} could not be captioned"][: len(failed)]],
        dataset=dataset,
    )


def _spec(folder: Path | None) -> str | None:
    """What opens the captioned images again, as the manifest has it."""
    if folder is None or not (folder / "manifest.json").is_file():
        return None
    details = json.loads((folder / "manifest.json").read_text("utf-8")).get("details") or {}
    return (details.get("dataset") or {}).get("spec")


def _words(caption: str) -> set[str]:
    found = "".join(character if character.isalpha() else " " for character in caption.lower()).split()
    return {word for word in found if len(word) >= SHORTEST}


def _entries(folder: Path | None) -> list[tuple[str, list[str]]]:
    if folder is None or not (folder / "captions.jsonl").is_file():
        return []
    with open(folder / "captions.jsonl", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    return [(str(row["sample_id"]), list(map(str, row["captions"]))) for row in rows]
