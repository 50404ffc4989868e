"""Explanations of units as tables: the published CSV layouts, read and written as text.

Layouts
    linear        layer, unit, val correlation, weight0, concept0, ..., weight9, concept9, bias [, score columns]
    description   [layer,] unit, description [, similarity] [, score columns]    (CLIP-Dissect, MILAN, converted tables)
    Network Dissection, raw    unit (from 1), category, label, score, ...

Concept strings are text and nothing else: ``null``, ``nan`` or ``NA`` are words. A slot of a linear explanation is
unused when its weight is zero and its concept is ``0`` or empty; a concept called ``0`` with a weight is a concept.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from rdxcli.progress import human_count

SCORE_COLUMNS = (
    *("val correlation", "similarity", "score", "iou", "auc"),
    *("test correlation", "test low", "test high", "chance", "p value", "q value"),
)
MISSING = frozenset({"", "-", "nan", "NaN", "None"})

Kind = Literal["linear", "description"]


@dataclass(frozen=True)
class Explanation:
    """What one unit responds to: bias + sum_k weight_k P(concept_k).

    Attributes
    ----------
    concepts : tuple of str
        Largest weight first. Empty when the unit has no explanation.
    weights : tuple of float
        For raw concept activations, in units of the raw activation. A description counts as one concept of weight 1.
    layer : str
        May be empty.
    scores : mapping of str to float or None
        ``val correlation``, ``similarity``, ``sim correlation``, ... None where undefined.
    status : str
        ``explained``, or why there is no explanation.
    """

    unit: int
    concepts: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float = 0.0
    layer: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    status: str = "explained"

    def to_document(self) -> dict[str, Any]:
        """``{unit, layer, status, concepts: [{concept, weight}], bias, scores}`` for JSON."""
        return {
            "unit": self.unit,
            "layer": self.layer or None,
            "status": self.status,
            "concepts": [
                {"concept": name, "weight": weight} for name, weight in zip(self.concepts, self.weights, strict=True)
            ],
            "bias": self.bias,
            "scores": dict(self.scores),
        }

    def with_scores(self, **scores: float | None) -> Explanation:
        """A copy with more scores; spaces in their names are written as underscores, NaN becomes None."""
        new = {
            name.replace("_", " "): None if value is None or math.isnan(value) else float(value)
            for name, value in scores.items()
        }
        return replace(self, scores={**self.scores, **new})


@dataclass(frozen=True)
class ExplanationTable:
    """Explanations of the units of one layer.

    Attributes
    ----------
    kind : {"linear", "description"}
    slots : int
        Concept columns of a linear table.
    notes : tuple of str
        Remarks of the reader.
    """

    kind: Kind
    rows: tuple[Explanation, ...]
    slots: int = 10
    notes: tuple[str, ...] = ()

    @classmethod
    def of_layer(
        cls, kind: Kind, rows: Iterable[Explanation], slots: int, notes: Iterable[str], layer: str
    ) -> ExplanationTable:
        """What an explainer found, as the units of a layer of this name."""
        return cls(kind, tuple(replace(row, layer=layer) for row in rows), slots, tuple(notes))

    @property
    def units(self) -> np.ndarray:
        """(m,) int64."""
        return np.array([row.unit for row in self.rows], dtype=np.int64)

    def concepts(self) -> list[str]:
        """Distinct concept strings in order of appearance: what has to be embedded, each once."""
        return list(dict.fromkeys(name for row in self.rows for name in row.concepts))

    def scores(self, name: str) -> np.ndarray:
        """(m,) float64, NaN where a row has no such score."""
        values = [row.scores.get(name) for row in self.rows]
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    def select(self, units: Iterable[int]) -> ExplanationTable:
        """The rows of some units, in the order asked for. Raises `ValueError` (a unit that the table does not have)."""
        by_unit = {row.unit: row for row in self.rows}
        wanted = [int(unit) for unit in units]
        missing = [unit for unit in wanted if unit not in by_unit]
        if missing:
            raise ValueError(f"Got units {missing[:5]}, which the table does not hold")
        return replace(self, rows=tuple(by_unit[unit] for unit in wanted))


def format_explanation(row: Explanation, *, separator: str = "∙", published: bool = True) -> str:
    """One line; a description is given as it is.

    Parameters
    ----------
    published : bool
        As printed by the published code, ``2.55∙concept g + -0.40∙concept b + 1.28``. Otherwise as people write sums,
        ``2.55∙concept g - 0.40∙concept b + 1.28``, and small numbers keep two digits that count instead of becoming 0.
    """
    if not row.concepts:
        return f"({row.status})"
    if row.weights == (1.0,) and row.bias == 0.0:
        return row.concepts[0]
    if published:
        terms = [f"{weight:.2f}{separator}{name}" for name, weight in zip(row.concepts, row.weights, strict=True)]
        return " + ".join([*terms, f"{row.bias:.2f}"])
    parts = [(weight, separator + _factor(name)) for name, weight in zip(row.concepts, row.weights, strict=True)]
    if row.bias:
        parts.append((row.bias, ""))
    text = "".join(f" {'-' if value < 0 else '+'} {_amount(value)}{what}" for value, what in parts)
    return text[3:] if text.startswith(" + ") else "-" + text[3:]


def _factor(name: str) -> str:
    """A concept in a product: formulas in parentheses."""
    return f"({name})" if " AND " in name or " OR " in name else name


def _amount(value: float) -> str:
    size = abs(value)
    return f"{size:.2f}" if size >= 0.095 or size == 0 else f"{size:.2g}"


def clean_netdissect_label(label: str) -> str:
    """Readable Network Dissection label: "-c" to " color", "_" to " ", no "-s", "-" to ", ", in this order."""
    return label.replace("-c", " color").replace("_", " ").replace("-s", "").replace("-", ", ")


def parse_table(
    text: str, *, layer: str | None = None, use: Literal["auto", "linear", "description"] = "auto"
) -> ExplanationTable:
    """Read any of the layouts.

    Raises `ValueError` (not one of the layouts, no rows, numbers that cannot be read, units that repeat, or several
    layers).

    Parameters
    ----------
    text : str
        Content of a CSV file.
    layer : str, optional
        Keep the rows of this layer; needed when the table holds several. Ignored by tables without a layer column.
    use : {"auto", "linear", "description"}
        What to read when a table has both concept columns and a description; "auto" takes the concepts.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise ValueError(f"Got the column {repeated[0]!r} more than once")
    try:
        records = [record for record in reader if any(value for value in record.values())]
    except csv.Error as error:
        raise ValueError(f"Got text that is no CSV: {error}") from None
    if "unit" not in columns:
        raise ValueError(f"Got the columns {', '.join(columns[:8]) or 'none'}, expected a column `unit`")
    if not records:
        raise ValueError("Got a table without rows")
    notes: list[str] = []
    kind, slots = _kind(columns, use, notes)
    raw_netdissect = "description" not in columns and "label" in columns
    if "layer" in columns:
        records = _one_layer(records, layer)
    scores = [name for name in columns if name in SCORE_COLUMNS or name.startswith("sim ")]
    rows = []
    for number, record in enumerate(records, start=2):
        if None in record:
            raise ValueError(f"Got more values than columns in line {number}")
        unit = _unit(record["unit"], number) - int(raw_netdissect)
        shared = {
            "unit": unit,
            "layer": record.get("layer") or "",
            "scores": {name: _number(record[name], name, number, missing=True) for name in scores},
        }
        if kind == "linear":
            names, weights = _slots(record, slots, number)
            bias = _number(record.get("bias") or "0", "bias", number)
            rows.append(_row(names, weights, float(bias or 0.0), record, shared))
        else:
            words = clean_netdissect_label(record["label"]) if raw_netdissect else record["description"] or ""
            rows.append(_row((words,) if words else (), (1.0,) if words else (), 0.0, record, shared))
    units = [row.unit for row in rows]
    if len(set(units)) != len(units):
        again = next(unit for i, unit in enumerate(units) if unit in units[:i])
        raise ValueError(f"Got unit {again} more than once")
    return ExplanationTable(kind, tuple(rows), slots, tuple(notes))


def _kind(columns: Sequence[str], use: str, notes: list[str]) -> tuple[Kind, int]:
    found = sorted(int(match[1]) for name in columns if (match := re.fullmatch(r"concept(\d+)", name)))
    linear = bool(found)
    described = "description" in columns or "label" in columns
    if not linear and not described:
        raise ValueError(
            f"Got the columns {', '.join(columns[:8])}, expected `description`, or `weight0`, `concept0`, ..., `bias`"
        )
    if linear:
        absent = [
            f"{part}{i}" for i in range(len(found)) for part in ("weight", "concept") if f"{part}{i}" not in columns
        ]
        if absent:
            raise ValueError(f"Got concept columns without the column `{absent[0]}`")
    if use == "linear" and not linear:
        raise ValueError("Got a table of descriptions, expected concept columns")
    if use == "description" and not described:
        raise ValueError("Got a table of concepts, expected a column `description`")
    if linear and described and use == "auto":
        notes.append("the table has concepts and a description: the concepts are used")
    return ("linear", len(found)) if linear and use != "description" else ("description", 1)


def _one_layer(records: list[dict[str, str]], layer: str | None) -> list[dict[str, str]]:
    layers = list(dict.fromkeys(record["layer"] for record in records))
    if layer is not None and layer in layers:
        return [record for record in records if record["layer"] == layer]
    if len(layers) > 1:
        wanted = f", not {layer!r}" if layer is not None else ", expected one (choose a layer)"
        raise ValueError(f"Got a table with the layers {', '.join(layers[:10])}{wanted}")
    return records


def _row(
    names: tuple[str, ...], weights: tuple[float, ...], bias: float, record: Mapping[str, str], shared: Any
) -> Explanation:
    status = record.get("status") or ("explained" if names else "no explanation")
    return Explanation(concepts=names, weights=weights, bias=bias, status=status, **shared)


def _slots(record: Mapping[str, str], slots: int, line: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    names: list[str] = []
    weights: list[float] = []
    for i in range(slots):
        name = record[f"concept{i}"] or ""
        weight = float(_number(record[f"weight{i}"] or "0", f"weight{i}", line) or 0.0)
        if name in ("", "0", "0.0"):
            if weight == 0.0:
                break
            if not name:
                raise ValueError(f"Got a weight without a concept in line {line}, column weight{i}")
        names.append(name)
        weights.append(weight)
    return tuple(names), tuple(weights)


def _number(text: str | None, column: str, line: int, *, missing: bool = False) -> float | None:
    if missing and (text is None or text.strip() in MISSING):
        return None
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise ValueError(f"Got {text!r} in line {line}, column `{column}`, expected a number")
    return value


def _unit(text: str | None, line: int) -> int:
    value = _number(text, "unit", line)
    if value is None or value != int(value) or value < 0:
        raise ValueError(f"Got the unit {text!r} in line {line}, expected a number from 0")
    return int(value)


def format_table(table: ExplanationTable) -> str:
    """CSV text in the published layout; unused slots hold 0 in both columns.

    ``layer`` is written when a row has one (always for linear tables), ``status`` when a row has no explanation, and
    scores other than ``val correlation`` come last. Undefined scores are empty.
    """
    linear = table.kind == "linear"
    others = list(
        dict.fromkeys(name for row in table.rows for name in row.scores if name != "val correlation" or not linear)
    )
    columns = ["layer"] if linear or any(row.layer for row in table.rows) else []
    columns.append("unit")
    if linear:
        columns += [
            "val correlation",
            *(f"{part}{i}" for i in range(table.slots) for part in ("weight", "concept")),
            "bias",
        ]
    else:
        columns.append("description")
    columns += others
    unexplained = any(row.status != "explained" for row in table.rows)
    columns += ["status"] * unexplained
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in table.rows:
        if len(row.concepts) > table.slots:
            raise ValueError(
                f"Got {human_count(len(row.concepts), 'concept')} for unit {row.unit}, expected at most {table.slots}"
            )
        cells: list[Any] = [row.layer] if columns[0] == "layer" else []
        cells.append(row.unit)
        if linear:
            cells.append(_cell(row.scores.get("val correlation")))
            for i in range(table.slots):
                used = i < len(row.concepts)
                cells += [repr(float(row.weights[i])), row.concepts[i]] if used else [0, 0]
            cells.append(repr(float(row.bias)))
        else:
            cells.append(row.concepts[0] if row.concepts else "")
        cells += [_cell(row.scores.get(name)) for name in others] + [row.status] * unexplained
        writer.writerow(cells)
    return out.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))


def table_statistics(table: ExplanationTable) -> dict[str, Any]:
    """Figures of a table: rows, each score's mean, standard error (n - 1), extremes, and for linear tables the lengths.

    Returns
    -------
    dict
        ``rows``; per score ``{mean, sem_ddof1, min, max, count}``; ``concepts_per_explanation`` {mean, min, max,
        histogram} (histogram from 0 to the number of slots), ``share_of_negative_weights``, ``distinct_concepts``,
        ``rows_with_weights_not_sorted``.
    """
    names = list(dict.fromkeys(name for row in table.rows for name in row.scores))
    result: dict[str, Any] = {"rows": len(table.rows)}
    for name in names:
        values = table.scores(name)
        values = values[np.isfinite(values)]
        if len(values):
            spread = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            result[name] = {
                "mean": float(values.mean()),
                "sem_ddof1": spread,
                "min": float(values.min()),
                "max": float(values.max()),
                "count": len(values),
            }
    if table.kind == "linear":
        lengths = np.array([len(row.concepts) for row in table.rows])
        weights = np.array([weight for row in table.rows for weight in row.weights])
        result |= {
            "concepts_per_explanation": {
                "mean": float(lengths.mean()),
                "min": int(lengths.min()),
                "max": int(lengths.max()),
                "histogram": np.bincount(lengths, minlength=table.slots + 1).tolist(),
            },
            "share_of_negative_weights": float((weights < 0).mean()) if len(weights) else 0.0,
            "distinct_concepts": len(table.concepts()),
            "rows_with_weights_not_sorted": sum(
                any(a < b for a, b in zip(row.weights, row.weights[1:], strict=False)) for row in table.rows
            ),
        }
    return result
