"""The page of directions: where each concept is in the images, what it is called, which logits it moves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

MOST = 48


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of a ``directions`` document."""
    model = document["model"]
    found = document["directions"]
    facts = f"{document['samples']['n']} samples"
    if document["samples"]["dataset"]:
        facts += f" of {document['samples']['dataset']}"
    facts += f", layer {model['layer'] or 'array'}, {len(found)} directions, method {document['method']}"
    sections = [Section("Directions", [_card(entry) for entry in found[:MOST]], _TEXT)]
    recovery = document["scores"].get("recovery")
    if recovery:
        rows = [[name, value] for name, value in recovery.items()]
        sections.insert(0, Section("Agreement with the known directions", table=(["score", "value"], rows)))
    return Page(
        "Directions of feature space",
        f"Which directions of {model['name']} carry concepts",
        facts,
        sections,
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


_TEXT = (
    "Images in which the detector of a direction responds most; the colour over an image shows where. Bars: change of "
    "the logits where the concept is present; only those marked * are significant."
)


def _card(entry: Mapping[str, Any]) -> Card:
    labels = entry.get("sample_labels") or [""] * len(entry["sample_ids"])
    maps = entry.get("concept_maps") or [None] * len(entry["sample_ids"])
    pictures = [
        Picture(sample, label, heat=heat if heat and len(heat) * len(heat[0]) > 1 else None)
        for sample, label, heat in zip(entry["sample_ids"], labels, maps, strict=True)
    ]
    moved = entry.get("influence", [])
    largest = max((abs(one["effect"]) for one in moved), default=1.0) or 1.0
    bars = [
        Bar(f"{one['class']}{' *' if one['significant'] else ''}", one["effect"] / largest, f"{one['effect']:+.2f}")
        for one in moved
    ]
    if not bars:
        bars = [Bar(name, share, f"{share:.0%}") for name, share in list(entry["labels"].items())[:6]]
    facts = [
        ("images", entry["images"], "Images in which the detector responds"),
        ("share", entry["share"], "Share of all positions"),
    ]
    mask = entry.get("mask_label")
    if mask:
        facts.append(("IoU", mask["iou"], "Overlap with the concept mask on held-out images"))
    words = entry.get("words", [])
    said = "words: " + ", ".join(word["word"] for word in words[:5]) if words else ""
    title = f"Direction {entry['index']}" + (f": {mask['concept']}" if mask else "")
    return Card(title, facts, pictures, bars, text=said)
