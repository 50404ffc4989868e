"""Scored explanations in a summary: scores by method, unit by unit, length curves, activation importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count, human_p
from rdxcli.report.summary import Chart, Column, Section, Summary, Table

TITLES = {
    "correlation": "correlation of simulated and true activations",
    "ablation": "share of a unit's effect on the loss that its simulated activation keeps",
    "images": "how well images of its concept are told from others by a unit (AUC)",
}
UNITS = (
    Column("unit"),
    Column("score", better="higher"),
    Column("95 %", "Interval of the score over images"),
    Column("concepts", "Concepts of the explanation"),
    Column("q value", "How often chance is as good, corrected for the number of units", better="lower"),
    Column("explanation"),
)
CLEAR = 0.05


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``simulation`` document."""
    model, methods = document["model"], document["methods"]
    title = TITLES[document["method"]]
    heading = title[0].upper() + title[1:]
    sections = [Section(heading, "scores", tables=[_summary(document)], charts=_charts(document), printed=True)]
    if document["pairs"]:
        sections.append(Section("Paired differences", "pairs", tables=[_pairs(document["pairs"])]))
    if len(methods) > 1:
        sections.append(Section("Units side by side", "units", tables=[_side_by_side(methods)]))
    for entry in methods:
        sections.append(Section(f"Units by {entry['method']}", f"units-{entry['method']}", tables=[_units(entry)]))
    return Summary(
        kind="simulation",
        method=document["method"],
        kicker="Simulation",
        title=f"how well explanations predict the units of {model['name']}",
        facts=f"layer {model['layer'] or 'array'}, {human_count(model['n'], 'image')}, rows: "
        f"{document['parameters']['part']}",
        sections=sections,
        said=_said(document),
        notes=document["notes"],
    )


def _said(document: Mapping[str, Any]) -> list[str]:
    """Both ends of the scale, and every two methods side by side."""
    ends = (document.get("ablation") or {}).get("controls")
    lines = [
        f"{pair['first']} against {pair['second']}: {pair['difference']:+.3f} ({pair['low']:+.3f} to "
        f"{pair['high']:+.3f}), p {human_p(pair['p_adjusted'], 3)} (Holm), {human_count(pair['units'], 'unit')}"
        for pair in document["pairs"]
    ]
    for row in reversed(_summary(document).rows[: len(document["methods"])]):
        name, mean, error, count, _, better = row
        if mean is not None:
            spread = "" if error is None else f" (standard error {error:.2g})"
            told = f"; better than chance: {better}" if better else ""
            lines.insert(0, f"{name}: mean score {mean:.3f}{spread} over {human_count(count, 'unit')}{told}")
    if ends:
        lines.insert(
            0,
            f"for orientation: the units' own activations score {ends['truth']['mean']:.2f}, in random order "
            f"{ends['shuffled']['mean']:.2f}",
        )
    return lines


def _summary(document: Mapping[str, Any]) -> Table:
    """Scores by method; of several those on the units that all of them explain."""
    several = len(document["methods"]) > 1
    names = ("mean", "standard_error", "count", "undefined")
    rows = []
    for entry in document["methods"]:
        known = [unit["q_value"] for unit in entry["units"] if unit.get("q_value") is not None]
        better = f"{sum(q <= CLEAR for q in known)} of {len(known)}" if known else None
        shown = entry["common"] if several and "common" in entry else entry["summary"]
        rows.append([entry["method"], *(shown[name] for name in names), better])
    ends = (document.get("ablation") or {}).get("controls") or {}
    words = {"truth": "for orientation: the units' own activations", "shuffled": "the same in random order"}
    rows += [[words[end], *(summary[name] for name in names), None] for end, summary in ends.items()]
    columns = [
        Column("method"),
        Column("mean", better="higher"),
        Column("standard error"),
        Column("units", "Units with a score"),
        Column("undefined", "Units without one"),
        Column("better than chance", f"Units with q of at most {CLEAR}"),
    ]
    text = "Over the units that all methods explain." if several else ""
    return Table("" if not several else "Methods", columns, rows, text)


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("first"),
        Column("second"),
        Column("units", "Units that both explain"),
        Column("difference", "Mean score of the first minus that of the second, on the same units"),
        Column("95 %", "Interval of the difference"),
        Column("p (Holm)", "Corrected for the number of pairs", better="lower"),
    ]
    rows = [
        [*(pair[name] for name in ("first", "second", "units", "difference")), (pair["low"], pair["high"]),
         pair["p_adjusted"]]
        for pair in pairs
    ]  # fmt: skip
    return Table("On the same units", columns, rows)


def _units(entry: Mapping[str, Any]) -> Table:
    shown = sorted(entry["units"], key=lambda unit: -(unit["score"] if unit["score"] is not None else -9.0))
    rows = [[unit["unit"], unit["score"], _interval(unit), unit["length"], unit.get("q_value"), unit.get("text")]
            for unit in shown]  # fmt: skip
    return Table("", UNITS, rows)


def _side_by_side(methods: Sequence[Mapping[str, Any]]) -> Table:
    """What each method says of each unit, the units that any of them predicts best first."""
    by_unit: dict[int, dict[str, Mapping[str, Any]]] = {}
    for entry in methods:
        for unit in entry["units"]:
            by_unit.setdefault(unit["unit"], {})[entry["method"]] = unit
    names = [entry["method"] for entry in methods]
    best = {
        number: max((one["score"] for one in found.values() if one["score"] is not None), default=-9.0)
        for number, found in by_unit.items()
    }
    columns, rows = [Column("unit")], []
    for name in names:
        columns += [Column(name, f"Score of {name}", better="higher"), Column(f"said by {name}")]
    for number in sorted(by_unit, key=lambda one: -best[one]):
        cells: list[Any] = [number]
        for name in names:
            unit = by_unit[number].get(name, {})
            q = unit.get("q_value")
            doubt = "not better than chance: " if q is not None and q > CLEAR else ""
            cells += [unit.get("score"), f"{doubt}{unit['text']}" if unit.get("text") else None]
        rows.append(cells)
    return Table("", columns, rows)


def _interval(unit: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if unit.get("low") is None else (unit["low"], unit["high"])


def _charts(document: Mapping[str, Any]) -> list[Chart]:
    charts = []
    known = {
        entry["method"]: {unit["unit"]: unit for unit in entry["units"] if unit["score"] is not None}
        for entry in document["methods"]
    }
    known = {name: units for name, units in known.items() if units}
    if known:
        scores = {name: [unit["score"] for unit in units.values()] for name, units in known.items()}
        charts.append(Chart("Units by score", "histogram", scores, "score", "units"))
    if len(known) == 1:
        ((name, units),) = known.items()
        ordered = sorted(units.values(), key=lambda unit: unit["score"])
        points = [(rank, unit["score"], *(_interval(unit) or ())) for rank, unit in enumerate(ordered, start=1)]
        charts.append(Chart("Every unit with its interval", "scatter", {name: points}, "rank of the unit", "score"))
    for first, second in pairwise(known):
        both = [unit for unit in known[first] if unit in known[second]]
        points = [(known[first][unit]["score"], known[second][unit]["score"]) for unit in both]
        if points:
            charts.append(Chart(f"{first} and {second}, unit by unit", "scatter", {"units": points}, first, second))
    lengths = {
        entry["method"]: [
            (point["length"], point["mean"]) for point in entry["length_curve"] if point["mean"] is not None
        ]
        for entry in document["methods"]
    }
    lengths = {name: points for name, points in lengths.items() if len(points) > 1}
    if lengths:
        charts.append(Chart("Mean score by number of concepts used", "curves", lengths, "concepts", "mean score"))
    importance = document.get("importance")
    shares = [unit["share"] for unit in importance["units"] if unit["share"]] if importance else []
    if importance and shares:
        mean = [sum(column) / len(column) for column in zip(*shares, strict=True)]
        points = list(zip(importance["cutoffs"], mean, strict=True))
        title = f"Share of a unit's effect by its most activating images, mean of {human_count(len(shares), 'unit')}"
        charts.append(
            Chart(title, "curves", {"share of the effect": points}, "share of the images", "share", (0.0, 1.0))
        )
    return charts
