"""The page of relaxed decision regions: members with the target first, where the units sit, what the labels are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

MOST = 48
"""Regions on a page, those with the most members first when they stand for concepts."""


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of a ``regions`` document."""
    model = document["model"]
    regions = document["regions"]
    facts = f"{document['samples']['n']} images"
    if document["samples"]["dataset"]:
        facts += f" of {document['samples']['dataset']}"
    facts += f", layer {model['layer'] or 'array'}, {len(regions)} regions"
    if len(regions) > MOST:
        facts += f", the first {MOST} are shown"
    return Page(
        "Relaxed decision regions",
        f"What groups of units of {model['name']} stand for",
        facts,
        [Section("Regions", [_card(region) for region in regions[:MOST]], _TEXT)],
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


_TEXT = "Images that share the states of a few units with a target (framed); the nearest to the target come first."


def _card(region: Mapping[str, Any]) -> Card:
    scores = region["scores"]
    labels = region.get("sample_labels") or [""] * len(region["sample_ids"])
    pictures = [
        Picture(sample, label, strong=i == 0)
        for i, (sample, label) in enumerate(zip(region["sample_ids"], labels, strict=True))
    ]
    counts = region.get("labels") or {}
    total = sum(counts.values()) or 1
    bars = [Bar(name, count / total, str(count)) for name, count in list(counts.items())[:6]]
    facts = [
        ("images", scores["size"], "Members of the region"),
        ("share", scores["coverage"], "Share of all images"),
        ("purity", scores.get("purity"), "Share of the most frequent label among the members"),
        ("units", len(region["neurons"]), "Units whose states make the rule"),
    ]
    return Card(_title(region), facts, pictures, bars, _positions(region), _text(region))


def _title(region: Mapping[str, Any]) -> str:
    if "concept" in region:
        return f"Concept {region['concept'] + 1} (of {len(region['merged_targets'])} regions)"
    return f"Target {region['target_id']}"


def _text(region: Mapping[str, Any]) -> str:
    cause = region.get("cause")
    if cause:
        return f"a {cause['label']} taken for {cause['prediction']}"
    return "" if region["status"] == "bounded" else f"This region is {region['status']}."


def _positions(region: Mapping[str, Any]) -> Sequence[Sequence[float]] | None:
    """How many chosen units sit at each place of the map, scaled to 1; None for units without places."""
    grid = region.get("position_map")
    if not grid or len(grid) * len(grid[0]) < 2:
        return None
    largest = max(max(row) for row in grid) or 1
    return [[value / largest for value in row] for row in grid]
