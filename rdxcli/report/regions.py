"""Relaxed decision regions in a summary: members with the target first, the rule, where its units sit, the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.summary import Bar, Column, Item, Picture, Section, Summary, Table, images_of

COMPARED = 12
"""Targets whose regions are shown side by side."""
UNITS = 12
"""Units of a rule that are written out."""

REGION = {
    "label": Column("label", "Of the target, whose prediction is wrong", on_card=False),
    "taken for": Column("taken for", on_card=False),
    "lift": Column("lift", "How over-represented that class is in the region"),
    "members": Column("members", "Images that have these states"),
    "purity": Column("purity", "Share of the most frequent label among the members", "share", "higher"),
    "base": Column("by chance", "Share of that label among all images", "share", brief=False),
    "labels": Column("labels", "Members by label", on_card=False),
    "coverage": Column("coverage", "Share of all images", "share"),
    "selectivity": Column("selectivity", "How far the rule keeps other labels out", better="higher"),
    "units": Column("units", "Units whose states make the rule"),
    "before": Column("coverage before", "Share of the images that it was found in", "share", brief=False),
    "merged": Column("merged", "Overlapping regions in it", brief=False),
    "drop": Column("ablation: drop", "Fall of the members' probabilities without these units"),
    "p": Column("p", "How often other units of the same number do as much", better="lower"),
    "status": Column("status", "bounded: a rule with members", on_card=False),
}


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``regions`` document."""
    model, regions, applied = document["model"], document["regions"], document.get("applied")
    layer = model["layer"] or "array"
    facts = images_of(document["samples"]["n"], document["samples"]["dataset"])
    facts += f", layer {layer}, {human_count(len(regions), 'region')}"
    if applied:
        facts += f"; found in {human_count(applied['n'], 'image')} with {applied['model']['name']} and applied to these"
    text = _MEMBERSHIP if applied else _BASELINE if document["method"] == "representative" else _TEXT
    values = [_values(region) for region in regions]
    used = [name for name in REGION if any(one[name] not in (None, "") for one in values)]
    items = [_item(region, [one[name] for name in used]) for region, one in zip(regions, values, strict=True)]
    comparison = document.get("comparison")
    return Summary(
        kind="regions",
        method=document["method"],
        kicker="Representative interpretation"
        if document["method"] == "representative"
        else "Relaxed decision regions",
        title=f"{'stored regions in' if applied else 'regions of'} {model['name']} ({layer})",
        facts=facts,
        sections=[
            Section(
                "Regions",
                "regions",
                [item for _, item in sorted(zip(map(_interest, regions), items, strict=True), key=lambda one: one[0])],
                "target",
                [REGION[name] for name in used],
                text,
                scale=1.0,
                printed=True,
            ),
            *(_compared(comparison) if comparison else []),
        ],
        said=_overlaps(comparison),
        notes=document["notes"],
        dataset=document["samples"]["dataset"],
    )


_TEXT = (
    "Images that share the states of a few units with a target (framed); the nearest to the target come first. "
    "The small map says where those units sit; a unit is written channel@row,column."
)
_MEMBERSHIP = "Images that have the states of a stored region; those most like its target, over all units, come first."
_BASELINE = "Images on the target's side of a few pieces of the decision boundary."


def _interest(region: Mapping[str, Any]) -> tuple[float, ...]:
    """What to show first: rules with members; then wrong predictions, those shared by most of the region first; then
    units whose ablation does most."""
    cause, scores = region.get("cause") or {}, region["scores"]
    labels, said = region.get("sample_labels") or [], region.get("sample_predictions") or []
    wrong = bool(cause) or (bool(labels and said) and region.get("stored") is None and labels[0] != said[0])
    effect = (scores.get("ablation") or {}).get("drop") or 0.0
    return region["status"] != "bounded", not wrong, -(cause.get("lift") or 0.0), -effect


def _values(region: Mapping[str, Any]) -> dict[str, Any]:
    scores, cause, stored = region["scores"], region.get("cause") or {}, region.get("stored") or {}
    ablation = scores.get("ablation") or {}
    counts = list((region.get("labels") or {}).items())[:4]
    return {
        "status": region["status"],
        "units": len(region["neurons"]),
        "members": scores["size"],
        "coverage": scores.get("coverage"),
        "purity": scores.get("purity"),
        "base": scores.get("base_rate"),
        "selectivity": scores.get("selectivity"),
        "before": stored.get("coverage"),
        "merged": len(region["merged_targets"]) if "merged_targets" in region else None,
        "labels": ", ".join(f"{name} {count}" for name, count in counts),
        "label": cause.get("label"),
        "taken for": _taken_for(cause),
        "lift": cause.get("lift"),
        "drop": ablation.get("drop"),
        "p": ablation.get("p_value"),
    }


def _taken_for(cause: Mapping[str, Any]) -> str | None:
    """The wrong prediction, and how much of its region shares it where that is known."""
    share = cause.get("prediction_share")
    return cause.get("prediction") if share is None else f"{cause['prediction']} ({share:.0%} of its region)"


def _item(region: Mapping[str, Any], values: Sequence[Any]) -> Item:
    counts = region.get("labels") or {}
    total = sum(counts.values()) or 1
    main, base = region["scores"].get("label"), region["scores"].get("base_rate")
    bars = [
        Bar(name, count / total, str(count), base if name == main else None) for name, count in list(counts.items())[:6]
    ]
    if max(counts.values(), default=0) == 1 and len(counts) > 1:
        bars = []  # every member has a label of its own
    return Item(
        str(region.get("target_id", region.get("target"))),
        _title(region),
        values,
        _text(region),
        _STATUS.get(region["status"], ""),
        region["status"] != "bounded",
        _pictures(region, framed=region.get("stored") is None),
        bars,
        _positions(region),
        _rule(region),
    )


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
    return f"Target {region.get('target_id', region.get('target'))}"


def _text(region: Mapping[str, Any]) -> str:
    said = []
    if "merged_targets" in region:
        merged = len(region["merged_targets"])
        said.append(f"{human_count(merged, 'overlapping region')}" if merged > 1 else "1 region")
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
            lift = "" if cause.get("lift") is None else f", {cause['lift']:.2g} times as many as in all images"
            said.append(f"{cause['prediction_share']:.0%} of its region are {cause['prediction']}{lift}")
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


def _overlaps(comparison: Mapping[str, Any] | None) -> list[str]:
    lines = []
    for pair in (comparison or {}).get("pairs", []):
        said = "no target has two bounded regions"
        if pair["targets"]:
            said = f"regions overlap by {pair['overlap']:.2f} (by chance {pair['expected']:.2f})"
        lines.append(f"{pair['a']} and {pair['b']}: {said}")
    return lines


def _compared(comparison: Mapping[str, Any]) -> list[Section]:
    """The same targets in other layers or models: the numbers, then the regions side by side."""
    columns = [
        Column("first"),
        Column("second"),
        Column("targets", "Targets with two bounded regions"),
        Column("overlap", "Share of the members that both regions of a target have (Jaccard), mean over the targets"),
        Column("by chance", "The overlap of regions of these sizes that know nothing of each other"),
        Column("agreement", "0 as by chance, 1 for equal regions", better="higher"),
        Column("overlap of neighbours", "The same of the neighbours that the regions were made from"),
    ]
    names = ("a", "b", "targets", "overlap", "expected", "agreement", "neighbour_overlap")
    rows = [[pair[name] for name in names] for pair in comparison["pairs"]]
    sides = comparison.get("sides", [])
    sections = [Section("Compared", "compared", tables=[Table("", columns, rows)])]
    for side in sides[:COMPARED]:
        items = [_side(region) for region in side["regions"]]
        sections.append(
            Section(f"Target {side['target_id']}", f"target-{side['target']}" if "target" in side else
                    f"target-{side['target_id']}", items, "region of", SIDE, scale=1.0)
        )  # fmt: skip
    if len(sides) > COMPARED:
        sections[0] = Section(
            "Compared",
            "compared",
            tables=sections[0].tables,
            text=f"{COMPARED} of {human_count(len(sides), 'target')} are shown side by side.",
        )
    return sections


SIDE = (
    Column("images", "Members of the region"),
    Column("only here", "Members that the others lack"),
    Column("purity", "Share of the most frequent label", "share", "higher"),
)


def _side(region: Mapping[str, Any]) -> Item:
    total = sum(region["labels"].values()) or 1
    return Item(
        region["source"],
        region["source"],
        [region["size"], region["only_here"], region["purity"]],
        status=_STATUS.get(region["status"], ""),
        doubtful=region["status"] != "bounded",
        pictures=_pictures(region),
        bars=[Bar(name, count / total, str(count)) for name, count in list(region["labels"].items())[:4]],
    )
