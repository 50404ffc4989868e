"""One builder of a `Summary` for each kind of artifact: the registry of reports.

A new kind is one function ``build(document, folder) -> Summary`` in a module of its own, and one line in `BUILDERS`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdxcli.report.summary import Section, Summary

Builder = Callable[[Mapping[str, Any], Path | None], Summary]

BUILDERS: dict[str, str] = {
    "comparison": "rdxcli.report.comparison",
    "explanations": "rdxcli.report.neurons",
    "similarities": "rdxcli.report.similarities",
    "simulation": "rdxcli.report.simulation",
    "regions": "rdxcli.report.regions",
    "directions": "rdxcli.report.directions",
    "attributions": "rdxcli.report.attributions",
    "surrogate": "rdxcli.report.surrogate",
    "encodings": "rdxcli.report.encodings",
    "captions": "rdxcli.report.captions",
    "activations": "rdxcli.report.activations",
}
"""Kind of artifact, and the module whose ``build`` summarises it."""


def summarize(document: Mapping[str, Any], folder: Path | None = None, command: str = "") -> Summary:
    """The summary of an artifact.

    Parameters
    ----------
    document : mapping
        Its JSON document; of a kind without one, ``{"kind": ...}`` is enough.
    folder : Path, optional
        Where its arrays are; without it the summary is what the document says.
    command : str
        What made it.
    """
    build: Builder = importlib.import_module(BUILDERS[document["kind"]]).build
    found = build(document, folder)
    made = [
        ("command", command),
        ("seed", document.get("seed")),
        *((name, json.dumps(value)) for name, value in document.get("parameters", {}).items()),
    ]
    said = [(name, value) for name, value in (*made, *found.provenance) if value not in ("", None, "[]", [], {})]
    return replace(
        found,
        provenance=said,
        notes=list(dict.fromkeys(found.notes)),
        sections=[without_empty(section) for section in found.sections],
    )


def without_empty(section: Section) -> Section:
    """A section without the columns in which nothing stands."""

    def used(rows: Sequence[Sequence[Any]], count: int) -> list[int]:
        return [i for i in range(count) if not rows or any(row[i] not in (None, "") for row in rows)]

    kept = used([item.values for item in section.items], len(section.columns))
    tables = []
    for table in section.tables:
        own = used(table.rows, len(table.columns))
        rows = [[row[i] for i in own] for row in table.rows]
        tables.append(replace(table, columns=[table.columns[i] for i in own], rows=rows))
    return replace(
        section,
        items=[replace(item, values=[item.values[i] for i in kept]) for item in section.items],
        columns=[section.columns[i] for i in kept],
        tables=tables,
    )
