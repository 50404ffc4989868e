"""The page of explained units: the explanation, the strongest images, the weights, the score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rdxcli.report.charts import histogram, stacked
from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

ENDS = ("test low", "test high", "sim low", "sim high")
"""Ends of intervals, shown with their score."""

NO_SCORES = (*ENDS, "p value", "q value", "chance")
"""What stands beside a score; it is not averaged over units."""

FIRST = ("test correlation", "chance", "q value")
"""What a card shows first: the score on unseen images, and whether it means anything."""


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of an ``explanations`` document."""
    model = document["model"]
    units = document["units"]
    facts = f"{document['samples']['n']} images"
    if document["samples"]["dataset"]:
        facts += f" of {document['samples']['dataset']}"
    facts += f", layer {model['layer'] or 'array'}, {len(units)} units, method {document['method']}"
    shown = sorted(units, key=_interest)
    pictured = [unit for unit in units if "strongest" in unit]
    if len(pictured) < len(units):
        facts += f"; images of {len(pictured)} of them are stored"
    judged = [unit for unit in units if "interpretable" in unit]
    if judged:
        facts += f"; {sum(unit['interpretable'] for unit in judged)} of {len(judged)} interpretable"
    return Page(
        "Explanations of units",
        f"What single units of {model['name']} respond to",
        facts,
        [
            Section("Scores of the layer", table=_scores(document), charts=_distribution(document)),
            Section("Units", [_card(unit) for unit in shown], text=_legend(pictured)),
        ],
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


def _legend(units: list[Mapping[str, Any]]) -> str:
    """How to read the pictures."""
    words = ["The strongest images first, with the unit's activation."] if units else []
    if any(unit.get("ranges") for unit in units):
        words.append("A caption like 5-50: 1.23 means an image drawn from ranks 5 to 50, activation 1.23.")
    if any("map" in shown for unit in units for shown in unit["strongest"]):
        words.append("Colour shows where in the image the unit is active.")
    return " ".join(words)


def _scores(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [name, entry["mean"], entry["sem_ddof1"], entry["min"], entry["max"], entry["count"]]
        for name, entry in document["summary"].items()
        if isinstance(entry, Mapping) and "sem_ddof1" in entry and name not in NO_SCORES
    ]
    return ["score", "mean", "standard error", "lowest", "highest", "units"], rows


def _card(unit: Mapping[str, Any]) -> Card:
    scores = unit["scores"]
    names = [*FIRST, *(name for name in scores if name not in FIRST)]
    facts: list[tuple[str, Any, str]] = [
        (name, scores[name], "") for name in names if scores.get(name) is not None and name not in (*ENDS, "p value")
    ]
    if scores.get("test low") is not None:
        facts.insert(1, ("95 %", f"{scores['test low']:.2f} to {scores['test high']:.2f}", "Interval over images"))
    character = unit.get("character") or {}
    if character.get("clarity") is not None:
        facts.append(("clarity", character["clarity"], f"Mean likeness of its strongest images; chance stays below "
                      f"{character['clarity_chance']:.2f}"))  # fmt: skip
        facts.append(("groups of images", len(character["groups"]), "Separable groups among its strongest images"))
    if character.get("twin") is not None and (character["twin_correlation"] or 0) >= 0.9:
        facts.append(("near duplicate", f"unit {character['twin']}", "Correlation of the activations of at least 0.9"))
    if unit["status"] != "explained":
        facts.insert(0, ("status", unit["status"], ""))
    bars = [
        Bar(entry["concept"], entry["weight"], _weight(entry["weight"]))
        for entry in unit["concepts"]
        if len(unit["concepts"]) > 1 or entry["weight"] != 1.0
    ]
    pictures = [_picture(shown) for shown in unit.get("strongest", [])]
    for band in unit.get("ranges", []):
        pictures += [_picture(shown, f"{band['from']}-{band['to']}: ") for shown in band["samples"]]
    charts = []
    if "area" in unit:
        area = unit["area"]
        share = dict(zip(area["concepts"], area["share"], strict=True))
        charts.append(stacked("Images with each concept, by activation (%)", area["edges"], share, "activation"))
    return Card(
        f"Unit {unit['unit']}", facts, pictures, bars, text=_said(unit), charts=charts, doubtful=_doubtful(unit)
    )


def _doubtful(unit: Mapping[str, Any]) -> bool:
    """No explanation to believe in: none, not better than chance, or an overlap below the threshold."""
    return unit["status"] != "explained" or not unit.get("interpretable", True)


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


def _picture(shown: Mapping[str, Any], before: str = "") -> Picture:
    caption = f"{before}{shown['activation']:.2f}" + (f" · {shown['label']}" if shown["label"] else "")
    return Picture(shown["sample_id"], caption, heat=shown.get("map"))


def _distribution(document: Mapping[str, Any]) -> list[Any]:
    """How the scores of the units are distributed."""
    names = [name for name, entry in document["summary"].items() if isinstance(entry, Mapping) and "sem_ddof1" in entry]
    series = {
        name: [unit["scores"][name] for unit in document["units"] if unit["scores"].get(name) is not None]
        for name in names
        if name not in NO_SCORES
    }
    series = {name: values for name, values in series.items() if len(values) > 1}
    return [histogram("Units by score", series, "score")] if series else []
