"""Explained units in a summary: the explanation, the strongest images, the weights, the score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.summary import Bar, Chart, Column, Item, Picture, Section, Summary, Table, images_of

INTERVALS = {"test correlation": ("test low", "test high"), "sim correlation": ("sim low", "sim high")}
"""Scores that have one, and its ends."""

ENDS = tuple(end for ends in INTERVALS.values() for end in ends)

NO_SCORES = (*ENDS, "p value", "q value", "chance")
"""What stands beside a score; it is not averaged over units."""

MEANINGS = {
    "test correlation": ("Correlation of explanation and activation on unseen images", "higher"),
    "sim correlation": ("The same, simulated with the explainer's own concepts", "higher"),
    "val correlation": ("The same on the images that chose the explanation", "higher"),
    "iou": ("Overlap of the active area with the concept's masks", "higher"),
    "similarity": ("Likeness of the unit's activations and the concept's scores", "higher"),
    "auc": ("How well images of the concept are told from others", "higher"),
    "chance": ("What as good a search reaches on a unit without meaning", ""),
    "p value": ("How often chance is as good", "lower"),
    "q value": ("The p value corrected for the number of units", "lower"),
}
FIRST = ("test correlation", "iou", "similarity", "val correlation", "auc", "chance", "q value")
"""Scores that the terminal shows, in this order."""

TWIN = 0.9
"""Correlation from which on two units are near duplicates."""


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of an ``explanations`` document."""
    model, units = document["model"], document["units"]
    layer = model["layer"] or "array"
    has = {name for unit in units for name, value in unit["scores"].items() if value is not None}
    scores = [name for name in (*FIRST, *sorted(has - set(FIRST) - set(ENDS))) if name in has]
    pictured = [unit for unit in units if "strongest" in unit]
    judged = [unit for unit in units if "interpretable" in unit]
    facts = [images_of(document["samples"]["n"], document["samples"]["dataset"]), f"layer {layer}"]
    facts += [human_count(len(units), "unit"), f"method {document['method']}"]
    if len(pictured) < len(units):
        facts.append(f"images of {len(pictured)} of them are stored")
    if judged:
        facts.append(f"{sum(unit['interpretable'] for unit in judged)} of {len(judged)} interpretable")
    return Summary(
        kind="explanations",
        method=document["method"],
        kicker="Explanations of units",
        title=f"what the units of {model['name']} ({layer}) respond to",
        facts=", ".join(facts),
        sections=[
            Section(
                "Units",
                "units",
                [_item(unit, scores) for unit in sorted(units, key=_interest)],
                "unit",
                _columns(scores),
                _legend(pictured),
                printed=True,
            ),
            Section("Scores of the layer", "layer", tables=[_layer(document)], charts=_distribution(document)),
        ],
        notes=document["notes"],
        dataset=document["samples"]["dataset"],
    )


def _columns(scores: list[str]) -> list[Column]:
    columns = [Column("explanation", on_card=False)]
    for name in scores:
        meaning, better = MEANINGS.get(name, ("", ""))
        columns.append(Column(name, meaning, better=better, brief=name in FIRST))  # type: ignore[arg-type]
        if name in INTERVALS:
            columns.append(Column("95 %", f"Interval of the {name} over images", brief=name in FIRST))
    return [
        *columns,
        Column("clarity", "Mean likeness of its strongest images; chance stays below 0.05 of the cases", brief=False),
        Column("status", "Whether the explanation can be believed", brief=False, on_card=False),
    ]


def _item(unit: Mapping[str, Any], names: list[str]) -> Item:
    scores, values = unit["scores"], []
    for name in names:
        values.append(scores.get(name))
        if name in INTERVALS:
            low, high = (scores.get(end) for end in INTERVALS[name])
            values.append(None if low is None else (low, high))
    character = unit.get("character") or {}
    status, said = _status(unit), _said(unit)
    beside = []
    if character.get("clarity") is not None:
        beside.append(f"clarity {character['clarity']:.2f}, chance stays below {character['clarity_chance']:.2f}")
        beside.append(f"{human_count(len(character['groups']), 'separable group')} among its strongest images")
    if character.get("twin") is not None and (character["twin_correlation"] or 0) >= TWIN:
        beside.append(f"near duplicate of unit {character['twin']}: their activations correlate by {TWIN} or more")
    shown = f"{unit['text']} ({status})" if unit["text"] and status else unit["text"]
    return Item(
        unit["unit"],
        f"Unit {unit['unit']}",
        [shown, *values, character.get("clarity"), status],
        said,
        status,
        _doubtful(unit),
        _pictures(unit),
        [
            Bar(entry["concept"], entry["weight"], _weight(entry["weight"]))
            for entry in unit["concepts"]
            if len(unit["concepts"]) > 1 or entry["weight"] != 1.0
        ],
        beside=beside,
        charts=_area(unit),
    )


def _pictures(unit: Mapping[str, Any]) -> list[Picture]:
    pictures = [_picture(shown) for shown in unit.get("strongest", [])]
    for band in unit.get("ranges", []):
        pictures += [_picture(shown, f"{band['from']}-{band['to']}: ") for shown in band["samples"]]
    return pictures


def _picture(shown: Mapping[str, Any], before: str = "") -> Picture:
    caption = f"{before}{shown['activation']:.2f}" + (f" · {shown['label']}" if shown["label"] else "")
    return Picture(shown["sample_id"], caption, heat=shown.get("map"))


def _area(unit: Mapping[str, Any]) -> list[Chart]:
    if "area" not in unit:
        return []
    area = unit["area"]
    share = dict(zip(area["concepts"], area["share"], strict=True))
    title = "Images with each concept, by activation (%)"
    return [Chart(title, "stacked", share, "activation", "share of the images", edges=area["edges"])]


def _doubtful(unit: Mapping[str, Any]) -> bool:
    """No explanation to believe in: none, not better than chance, or an overlap below the threshold."""
    return unit["status"] != "explained" or not unit.get("interpretable", True)


def _status(unit: Mapping[str, Any]) -> str:
    if unit["status"] != "explained":
        return str(unit["status"])
    return "" if unit.get("interpretable", True) else "not interpretable"


def _said(unit: Mapping[str, Any]) -> str:
    if unit.get("interpretable", True) or not unit["text"]:
        return unit["text"]
    return f"not interpretable, the overlap is below the threshold; the nearest concept: {unit['text']}"


def _interest(unit: Mapping[str, Any]) -> tuple[bool, float]:
    """What to show first: explanations to believe in, the highest score first."""
    scores = unit["scores"]
    names = [FIRST[0], *(name for name in scores if name not in NO_SCORES)]
    value = next((scores[name] for name in names if scores.get(name) is not None), 0.0)
    return _doubtful(unit), -float(value)


def _weight(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:.2g}"


def _legend(units: list[Mapping[str, Any]]) -> str:
    """How to read the pictures."""
    words = ["The strongest images first, with the unit's activation."] if units else []
    if any(unit.get("ranges") for unit in units):
        words.append("A caption like 5-50: 1.23 means an image drawn from ranks 5 to 50, activation 1.23.")
    if any("map" in shown for unit in units for shown in unit["strongest"]):
        words.append("Colour shows where in the image the unit is active.")
    return " ".join(words)


def _layer(document: Mapping[str, Any]) -> Table:
    rows = [
        [name, entry["mean"], entry["sem_ddof1"], entry["min"], entry["max"], entry["count"]]
        for name, entry in _scored(document).items()
    ]
    columns = ["score", "mean", "standard error", "lowest", "highest", "units"]
    return Table("", [Column(name) for name in columns], rows)


def _scored(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: entry
        for name, entry in document["summary"].items()
        if isinstance(entry, Mapping) and "sem_ddof1" in entry and name not in NO_SCORES
    }


def _distribution(document: Mapping[str, Any]) -> list[Chart]:
    """How the scores of the units are distributed."""
    series = {
        name: [unit["scores"][name] for unit in document["units"] if unit["scores"].get(name) is not None]
        for name in _scored(document)
    }
    series = {name: values for name, values in series.items() if len(values) > 1}
    return [Chart("Units by score", "histogram", series, "score", "units")] if series else []
