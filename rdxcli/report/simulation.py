"""The page of scored explanations: scores by method, their distribution, length curves, activation importance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rdxcli.report.charts import curves, histogram
from rdxcli.report.gallery import Page, Section

MOST = 200
WORDS = {
    "correlation": "Correlation of simulated and true activations",
    "ablation": "Share of a unit's effect on the loss that its simulated activation keeps",
    "images": "How well images of its concept are told from others by a unit (AUC)",
}


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of a ``simulation`` document."""
    model, methods = document["model"], document["methods"]
    title = WORDS[document["method"]]
    sections = [Section(title, table=_summary(document), charts=_charts(document))]
    if document["pairs"]:
        sections.append(Section("Paired differences on the same units", table=_pairs(document["pairs"])))
    for entry in methods:
        shown = sorted(entry["units"], key=lambda unit: -(unit["score"] if unit["score"] is not None else -9.0))
        columns = ["unit", "score", "low", "high", "concepts"]
        rows = [[unit["unit"], unit["score"], unit["low"], unit["high"], unit["length"]] for unit in shown[:MOST]]
        text = f"The best {MOST} of {len(shown)} units" if len(shown) > MOST else ""
        sections.append(Section(f"Units by {entry['method']}", text=text, table=(columns, rows)))
    return Page(
        "Simulation",
        f"How well explanations predict the units of {model['name']}",
        f"layer {model['layer'] or 'array'}, {model['n']} images, rows: {document['parameters']['part']}",
        sections,
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


def _summary(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    methods = document["methods"]
    names = ("mean", "standard_error", "count", "undefined")
    rows = [[entry["method"], *(entry["summary"][name] for name in names)] for entry in methods]
    ends = (document.get("ablation") or {}).get("controls") or {}
    words = {"truth": "for orientation: the units' own activations", "shuffled": "the same in random order"}
    rows += [[words[end], *(summary[name] for name in names)] for end, summary in ends.items()]
    return ["method", "mean", "standard error", "units", "undefined"], rows


def _pairs(pairs: Any) -> tuple[list[str], list[list[Any]]]:
    names = ("first", "second", "units", "difference", "low", "high", "p_adjusted")
    return [*names[:-1], "p (Holm)"], [[pair[name] for name in names] for pair in pairs]


def _charts(document: Mapping[str, Any]) -> list[Any]:
    charts = []
    scores = {
        entry["method"]: [unit["score"] for unit in entry["units"] if unit["score"] is not None]
        for entry in document["methods"]
    }
    scores = {name: values for name, values in scores.items() if values}
    if scores:
        charts.append(histogram("Units by score", scores, "score"))
    lengths = {
        entry["method"]: [
            (point["length"], point["mean"]) for point in entry["length_curve"] if point["mean"] is not None
        ]
        for entry in document["methods"]
    }
    lengths = {name: points for name, points in lengths.items() if len(points) > 1}
    if lengths:
        charts.append(curves("Mean score by number of concepts used", lengths, "concepts"))
    importance = document.get("importance")
    shares = [unit["share"] for unit in importance["units"] if unit["share"]] if importance else []
    if importance and shares:
        mean = [sum(column) / len(column) for column in zip(*shares, strict=True)]
        points = list(zip(importance["cutoffs"], mean, strict=True))
        title = f"Share of a unit's effect by its most activating images, mean of {len(shares)} units"
        charts.append(curves(title, {"share of the effect": points}, "share of the images", (0.0, 1.0)))
    return charts
