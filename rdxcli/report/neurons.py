"""The page of explained units: the explanation, the strongest images, the weights, the score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

MOST = 64


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of an ``explanations`` document."""
    model = document["model"]
    units = document["units"]
    facts = f"{document['samples']['n']} images"
    if document["samples"]["dataset"]:
        facts += f" of {document['samples']['dataset']}"
    facts += f", layer {model['layer'] or 'array'}, {len(units)} units, method {document['method']}"
    shown = [unit for unit in units if "strongest" in unit][:MOST]
    if len(shown) < len(units):
        facts += f"; the first {len(shown)} are shown"
    return Page(
        "Explanations of units",
        f"What single units of {model['name']} respond to",
        facts,
        [Section("Scores of the layer", table=_scores(document)), Section("Units", [_card(unit) for unit in shown])],
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


def _scores(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [name, entry["mean"], entry["sem_ddof1"], entry["min"], entry["max"], entry["count"]]
        for name, entry in document["summary"].items()
        if isinstance(entry, Mapping) and "sem_ddof1" in entry and name not in ("sim low", "sim high")
    ]
    return ["score", "mean", "standard error", "lowest", "highest", "units"], rows


def _card(unit: Mapping[str, Any]) -> Card:
    scores = unit["scores"]
    facts = [
        (name, value, "") for name, value in scores.items() if name not in ("sim low", "sim high") and value is not None
    ]
    if scores.get("sim low") is not None:
        facts.append(("95 %", f"{scores['sim low']:.2f} to {scores['sim high']:.2f}", "Bootstrap interval over images"))
    largest = max((abs(entry["weight"]) for entry in unit["concepts"]), default=1.0) or 1.0
    bars = [
        Bar(entry["concept"], entry["weight"] / largest, f"{entry['weight']:.2f}")
        for entry in unit["concepts"]
        if len(unit["concepts"]) > 1 or entry["weight"] != 1.0
    ]
    pictures = [
        Picture(shown["sample_id"], f"{shown['activation']:.2f}" + (f" · {shown['label']}" if shown["label"] else ""))
        for shown in unit["strongest"]
    ]
    return Card(f"Unit {unit['unit']}", facts, pictures, bars, text=unit["text"])
