"""A summary as data for other tools: CSV of every table, JSON, and Parquet with one row a sample."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.lazy import pyarrow as pa
from rdxcli.records import plain
from rdxcli.report.summary import Summary, Table

SAMPLE_COLUMNS = {
    "id": "Sample id",
    "image": "Path of the image on this machine; empty where there is none",
    "picture": "The image as JPEG or PNG, at most 128 pixels wide or high (--pictures); empty where it cannot be read",
    "label": "Class name",
    "x_a": "First axis of the map of a",
    "y_a": "Second axis of the map of a",
    "x_b": "First axis of the map of b",
    "y_b": "Second axis of the map of b",
    "concept_a": "Concept of a that the sample belongs to, for example a1; empty for none",
    "concept_b": "Concept of b that the sample belongs to, for example b1; empty for none",
    "neighbours_a": "Ids of its nearest neighbours in a, the nearest first; of the samples that are shown",
    "neighbours_b": "The same in b",
    "vector_a": "Values in a (--vectors)",
    "vector_b": "Values in b (--vectors)",
    "umap_x_a": "First coordinate of the UMAP of a (--map umap)",
    "umap_y_a": "Second coordinate of the UMAP of a (--map umap)",
    "umap_x_b": "First coordinate of the UMAP of b (--map umap)",
    "umap_y_b": "Second coordinate of the UMAP of b (--map umap)",
    "x": "First of the two main axes",
    "y": "Second of the two main axes",
    "umap_x": "First coordinate of the UMAP (--map umap)",
    "umap_y": "Second coordinate of the UMAP (--map umap)",
    "vector": "Values (--vectors)",
    "member_of": "Ids of the things that show this sample, for example units or regions",
}
"""Columns of the Parquet file; what a kind does not have is left out."""


def tables(summary: Summary) -> dict[str, str]:
    """Every table as CSV, by a name that suits a file."""
    return {name: written_csv(table) for name, table in summary.tables()}


def written_csv(table: Table) -> str:
    """A table as CSV: full numbers, an interval as two columns, missing values empty."""
    pairs = [any(isinstance(row[i], tuple | list) for row in table.rows) for i in range(len(table.columns))]
    names: list[str] = []
    for place, (column, pair) in enumerate(zip(table.columns, pairs, strict=True)):
        name = column.name or f"column {place + 1}"
        # intervals are called 95 % in every table: in a file each belongs to the column before it
        owner = f"{table.columns[place - 1].name} " if name == "95 %" and place else ""
        names += [f"{owner}{name} low", f"{owner}{name} high"] if pair else [name]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in table.rows:
        cells: list[Any] = []
        for value, pair in zip(row, pairs, strict=True):
            cells += list(value) if isinstance(value, tuple | list) else [value, None][: 1 + pair]
        writer.writerow(["" if cell is None else _tame(cell) for cell in cells])
    return stream.getvalue()


def _tame(cell: Any) -> Any:
    """Text that a spreadsheet would run as a formula is shown as text."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") else cell


def as_json(summary: Summary) -> str:
    """The summary as JSON, without the points of the maps and the pixels of maps over images."""
    whole = dataclasses.asdict(dataclasses.replace(summary, maps=None, sections=[]))
    whole["sections"] = [
        dataclasses.asdict(
            dataclasses.replace(
                section,
                matrix=None,
                drawings=[],
                tables=[*section.tables, *(one.table for one in section.drawings if one.table is not None)],
                items=[
                    dataclasses.replace(item, pictures=[dataclasses.replace(one, heat=None) for one in item.pictures])
                    for item in section.items
                ],
            )
        )
        for section in summary.sections
    ]
    return json.dumps(plain(whole), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_samples(folder: Path, count: int) -> tuple[list[str], list[str] | None]:
    """Ids and labels of the first ``count`` rows of ``samples.parquet``."""
    table = pa.parquet.read_table(folder / "samples.parquet").slice(0, count)
    labels = list(map(str, table["label"].to_pylist())) if "label" in table.column_names else None
    return list(map(str, table["sample_id"].to_pylist())), labels


def samples(
    summary: Summary,
    path: Path,
    locate: Callable[[Sequence[str]], Sequence[str | None]],
    vectors: Mapping[str, np.ndarray] | None = None,
    points: tuple[Sequence[str], Sequence[str] | None, np.ndarray] | None = None,
    draw: Callable[[Sequence[str]], Sequence[bytes | None]] | None = None,
) -> int:
    """Write one row a sample.

    Parameters
    ----------
    locate : callable
        Sample ids to the paths of their images.
    vectors : mapping of column to (n, d) array, optional
    points : (ids, labels, (n, 2) array), optional
        Of a kind without maps.
    draw : callable, optional
        Sample ids to small pictures.

    Returns
    -------
    int
        Rows.
    """
    columns: dict[str, Any] = {}
    labels: Sequence[Any] | np.ndarray | None = None
    if summary.maps is not None:
        maps = summary.maps
        ids, labels = list(map(str, maps.ids)), maps.labels
        for side, found in maps.points.items():
            columns |= {f"x_{side}": found[:, 0], f"y_{side}": found[:, 1]}
        for name, sides in maps.layouts.items():
            for side, found in sides.items():
                columns |= {f"{name.lower()}_{axis}_{side}": found[:, place] for place, axis in enumerate("xy")}
        for side, group in maps.groups.items():
            columns[f"concept_{side}"] = [f"{side}{number}" if number else None for number in group.tolist()]
        if maps.shown is not None:
            for side, rows in maps.neighbours.items():
                known = dict(zip(maps.shown.tolist(), rows.tolist(), strict=True))
                columns[f"neighbours_{side}"] = [
                    [ids[one] for one in known[row]] if row in known else None for row in range(len(ids))
                ]
    elif points is not None:
        ids, labels = list(map(str, points[0])), points[1]
        columns |= {"x": points[2][:, 0], "y": points[2][:, 1]}
    else:
        ids = summary.shown_ids()
        holders: dict[str, list[str]] = {sample: [] for sample in ids}
        for section in summary.sections:
            for item in section.items:
                for sample in dict.fromkeys(picture.sample_id for picture in item.pictures):
                    holders[sample].append(f"{section.noun} {item.key}")
        columns["member_of"] = [holders[sample] for sample in ids]
    arrays = {"id": pa.array(ids), "image": pa.array(locate(ids), pa.string())}
    if draw is not None:
        arrays["picture"] = pa.array(draw(ids), pa.binary())
    if labels is not None:
        arrays["label"] = pa.array([str(label) for label in labels])
    arrays |= {name: pa.array(values) for name, values in columns.items()}
    for name, values in (vectors or {}).items():
        flat = np.asarray(values, np.float32).reshape(len(values), -1)
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    schema = pa.schema(
        [pa.field(name, array.type, metadata={"description": SAMPLE_COLUMNS[name]}) for name, array in arrays.items()],
        metadata={"title": summary.title},
    )
    pa.parquet.write_table(pa.table(list(arrays.values()), schema=schema), path, compression="zstd")
    return len(ids)


def write_tables(summary: Summary, temporary: Path, path: Path) -> list[Path]:
    """The first table in the file itself, every other one beside it, with its name before the ending."""
    first, *others = tables(summary).items()
    temporary.write_text(first[1], "utf-8")
    beside = []
    for name, text in others:
        beside.append(path.with_name(f"{path.stem}.{name}.csv"))
        beside[-1].write_text(text, "utf-8")
    return beside
