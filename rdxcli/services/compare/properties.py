"""What the images of a group share: tests of everything that is known of them, and a table of all images."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.concepts.heads import SIDES, Head
from rdxcli.concepts.predictions import Predictions, groups_of
from rdxcli.datasets.appearance import PROPERTIES
from rdxcli.datasets.known import Known
from rdxcli.errors import UsageError
from rdxcli.methods.difference.change import shared
from rdxcli.methods.difference.enrichment import Shared, enrich
from rdxcli.records import Comparison
from rdxcli.services.compare.options import CompareOptions

CLEAR = 0.05
"""Corrected p-value from which on something is shown."""


def check_metadata(options: CompareOptions) -> None:
    """Refuse a table that is not there before anything is read. Raises `UsageError`."""
    if options.metadata is not None and not Path(options.metadata).expanduser().is_file():
        raise UsageError(f"--metadata: no such file: {options.metadata}")


def shared_properties(
    known: Known,
    record: Comparison,
    labels: np.ndarray | None,
    predictions: Predictions | None,
    heads: tuple[Head, Head] | None,
    folder: Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The entry ``properties`` of the document, with every test in ``properties.csv``; and the columns by name."""
    columns = known.columns(record.n)
    read = list(columns)
    if predictions is not None:
        for side in ("a", "b"):
            columns[f"prediction of {side}"] = np.asarray(getattr(predictions, side)).astype(np.str_)
            if labels is not None and predictions.named:
                wrong = columns[f"prediction of {side}"] != np.asarray(labels).astype(np.str_)
                columns[f"{side} is"] = np.where(wrong, "wrong", "right")
        if predictions.confidence_a is not None and predictions.confidence_b is not None:
            columns["confidence of a"], columns["confidence of b"] = predictions.confidence_a, predictions.confidence_b
            columns["confidence shift"] = predictions.confidence_b - predictions.confidence_a
    for side, head in zip(SIDES, heads or (), strict=False):
        columns |= {f"prediction of {side}": head.words(), f"confidence of {side}": head.confidence}
        columns[f"entropy of {side}"] = head.entropy
    groups = groups_of(record.concepts, record.arrays)
    if not columns or not groups:
        return {}, columns
    found = enrich(groups, columns, labels)
    _write(folder / "properties.csv", list(Shared.__dataclass_fields__), (one.to_dict().values() for one in found))
    document = {
        "asked": {name: PROPERTIES.get(name, "from the table" if name in read else "") for name in columns},
        "measured": len(known.rows),
        "tests": len(found),
        "notes": known.notes,
        "shared": [one.to_dict() for one in found if one.p_corrected <= CLEAR],
    }
    return document, columns


def write_images(
    path: Path, record: Comparison, neighbours: tuple[np.ndarray, np.ndarray] | None, columns: Mapping[str, np.ndarray]
) -> None:
    """A row per image, those that moved most first: its neighbours in common, its concepts, all that is known of it."""
    arrays = record.arrays
    table: dict[str, np.ndarray] = {"sample_id": arrays["sample_ids"]}
    order = np.arange(record.n)
    if neighbours is not None:
        table["common_neighbours"] = shared(*neighbours) / neighbours[0].shape[1]
        order = np.argsort(table["common_neighbours"], kind="stable")
    if "labels" in arrays:
        table["label"] = arrays["labels"]
    table |= {f"concept_{side}": arrays[f"labels_{side}"] for side in ("a", "b")}
    table |= {name: values for name, values in columns.items() if name not in table}
    rows = zip(*(values[order].tolist() for values in table.values()), strict=True)
    _write(path, list(table), ([_cell(value) for value in row] for row in rows))


def _cell(value: Any) -> Any:
    """Unknown numbers and dates are empty."""
    return "" if value is None or value != value else f"{value:.6g}" if isinstance(value, float) else value


def _write(path: Path, names: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)
