"""The page of relaxed decision regions: members with the target first, the rule, where its units sit, the labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

COMPARED = 12
"""Targets whose regions are shown side by side."""
UNITS = 12
"""Units of a rule that are written out."""


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of a ``regions`` document."""
    model = document["model"]
    regions = document["regions"]
    applied = document.get("applied")
    facts = f"{document['samples']['n']} images"
    if document["samples"]["dataset"]:
        facts += f" of {document['samples']['dataset']}"
    facts += f", layer {model['layer'] or 'array'}, {len(regions)} region{'s' * (len(regions) != 1)}"
    if applied:
        facts += f"; found in {applied['n']} images with {applied['model']['name']} and applied to these"
    text = _MEMBERSHIP if applied else _BASELINE if document["method"] == "representative" else _TEXT
    comparison = document.get("comparison")
    return Page(
        "Representative interpretation" if document["method"] == "representative" else "Relaxed decision regions",
        f"What groups of units of {model['name']} stand for",
        facts,
        [
            Section("Regions", [_card(region) for region in regions], text, scale=1.0),
            *(_compared(comparison) if comparison else []),
        ],
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


_TEXT = (
    "Images that share the states of a few units with a target (framed); the nearest to the target come first. "
    "The small map says where those units sit; a unit is written channel@row,column."
)
_MEMBERSHIP = "Images that have the states of a stored region; those most like its target, over all units, come first."
_BASELINE = "Images on the target's side of a few pieces of the decision boundary."


def _card(region: Mapping[str, Any]) -> Card:
    scores = region["scores"]
    counts = region.get("labels") or {}
    total = sum(counts.values()) or 1
    bars = [Bar(name, count / total, str(count)) for name, count in list(counts.items())[:6]]
    if max(counts.values(), default=0) == 1 and len(counts) > 1:
        bars = []  # every member has a label of its own
    facts = [
        ("images", scores["size"], "Members of the region"),
        ("share", _share(scores.get("coverage")), "Share of all images"),
        ("purity", scores.get("purity"), "Share of the most frequent label among the members"),
    ]
    stored = region.get("stored")
    if stored:
        facts.append(("share before", _share(stored["coverage"]), "Where the region was found"))
    elif region["neurons"]:
        facts.append(("units", len(region["neurons"]), "Units whose states make the rule"))
    ablation = scores.get("ablation")
    if ablation:
        facts.append(("drop", ablation["drop"], "Fall of the members' probabilities without these units"))
    return Card(
        _title(region),
        [fact for fact in facts if fact[1] is not None],
        _pictures(region, framed=stored is None),
        bars,
        _positions(region),
        _text(region),
        beside=_rule(region),
    )


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _pictures(region: Mapping[str, Any], framed: bool = True) -> list[Picture]:
    """The samples that are shown; a wrong prediction is written behind the label."""
    labels = region.get("sample_labels") or [""] * len(region["sample_ids"])
    said = region.get("sample_predictions") or labels
    return [
        Picture(
            sample, label if label == guess else f"{label} \u2192 {guess}" if label else guess, strong=framed and i == 0
        )
        for i, (sample, label, guess) in enumerate(zip(region["sample_ids"], labels, said, strict=True))
    ]


def _title(region: Mapping[str, Any]) -> str:
    label = region["scores"].get("label")
    if "concept" in region:
        return f"Concept {region['concept'] + 1}" + (f": {label}" if label else "")
    return f"Target {region['target_id']}"


def _text(region: Mapping[str, Any]) -> str:
    said = []
    if "merged_targets" in region:
        merged = len(region["merged_targets"])
        said.append(f"{merged} overlapping regions" if merged > 1 else "1 region")
    subclass = region.get("subclass")
    if subclass:
        said.append(f"{subclass['share']:.0%} of the class")
        finer = [f"{name} {count}" for name, count in list(subclass["finer"].items())[:4]]
        if finer:
            said.append("finer labels: " + ", ".join(finer))
    cause = region.get("cause")
    if cause:
        said.append(f"{cause['label']} taken for {cause['prediction']}")
        if cause["prediction_share"] is not None:
            said.append(f"{cause['prediction_share']:.0%} of its region are {cause['prediction']}")
    if region["status"] != "bounded":
        said.append(_STATUS[region["status"]])
    return "; ".join(said)


_STATUS = {
    "unbounded": "unbounded: its rule holds for every image, or there is none",
    "empty": "empty: no image has these states",
}


def _positions(region: Mapping[str, Any]) -> Sequence[Sequence[float]] | None:
    """How many chosen units sit at each place of the map, scaled to 1; None for units without places."""
    grid = region.get("position_map")
    if not grid or len(grid) * len(grid[0]) < 2:
        return None
    largest = max(max(row) for row in grid) or 1
    return [[value / largest for value in row] for row in grid]


def _rule(region: Mapping[str, Any]) -> list[str]:
    """The units that are on and those that are off, in the order of choice."""
    places = region.get("positions") or [[neuron] for neuron in region["neurons"]]
    written: dict[int, list[str]] = {1: [], 0: []}
    for place, state in zip(places, region["states"], strict=True):
        written[int(state)].append(f"{place[0]}@{place[1]},{place[2]}" if len(place) == 3 else str(place[0]))
    lines = []
    for state, word in ((1, "on"), (0, "off")):
        names = written[state]
        if names:
            more = f" and {len(names) - UNITS} more" if len(names) > UNITS else ""
            lines.append(f"{word}: " + " \u00b7 ".join(names[:UNITS]) + more)
    return lines


def _compared(comparison: Mapping[str, Any]) -> list[Section]:
    """The same targets in other layers or models: the numbers, then the regions side by side."""
    columns = ["", "", "targets", "overlap", "by chance", "agreement", "overlap of neighbours"]
    names = ("a", "b", "targets", "overlap", "expected", "agreement", "neighbour_overlap")
    rows = [[pair[name] for name in names] for pair in comparison["pairs"]]
    sections = [Section("Compared", table=(columns, rows), text=_COMPARED)]
    for side in comparison.get("sides", [])[:COMPARED]:
        sections.append(
            Section(f"Target {side['target_id']}", [_side(region) for region in side["regions"]], scale=1.0)
        )
    return sections


_COMPARED = (
    "Overlap: share of the members that both regions of a target have (Jaccard), mean over the targets. "
    "Agreement: 0 as by chance, 1 for equal regions."
)


def _side(region: Mapping[str, Any]) -> Card:
    total = sum(region["labels"].values()) or 1
    return Card(
        region["source"],
        [
            ("images", region["size"], "Members of the region"),
            ("only here", region["only_here"], "Members that the others lack"),
            *(
                [("purity", region["purity"], "Share of the most frequent label")]
                if region["purity"] is not None
                else []
            ),
        ],
        _pictures(region),
        [Bar(name, count / total, str(count)) for name, count in list(region["labels"].items())[:4]],
        text="" if region["status"] == "bounded" else _STATUS[region["status"]],
    )
