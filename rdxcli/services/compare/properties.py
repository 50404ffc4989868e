"""What is known of the images that are compared: measured pictures, a table of metadata, splits and predictions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.concepts.predictions import Predictions, groups_of
from rdxcli.datasets.appearance import PROPERTIES, measure
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.metadata import Metadata, read_metadata
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import RdxError, UsageError
from rdxcli.methods.difference.change import shared
from rdxcli.methods.difference.enrichment import Shared, enrich
from rdxcli.numerics.seeding import generator
from rdxcli.progress import log
from rdxcli.records import Comparison
from rdxcli.representations.joining import Joined
from rdxcli.services.compare.options import CompareOptions

MOST_MEASURED = 2000
"""Pictures that are measured; of more, so many are drawn with the seed."""

CLEAR = 0.05
"""Corrected p-value from which on something is shown."""


@dataclass(frozen=True)
class Known:
    """Properties that are read before the work, and pictures that are measured in it.

    Attributes
    ----------
    pictures : Dataset or None
        Those of ``rows``, in their order.
    rows : (m,) int array
        Of the joined images.
    metadata : Metadata or None
    """

    pictures: Dataset | None
    rows: np.ndarray
    metadata: Metadata | None
    notes: list[str] = field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        """The content of the pictures, for a request; the table is named by an option."""
        return {"pictures": None if self.pictures is None else self.pictures.fingerprint()}

    def columns(self, n: int) -> dict[str, np.ndarray]:
        """All properties of n images; unknown ones are NaN, NaT or ""."""
        out: dict[str, np.ndarray] = dict(self.metadata.columns) if self.metadata is not None else {}
        if self.pictures is None:
            return out
        for name, values in measure(self.pictures, range(len(self.pictures))).items():
            whole = np.full(n, np.nan)
            whole[self.rows] = values
            out.setdefault(name, whole)
        if self.pictures.splits is not None:
            splits = np.full(n, "", dtype=object)
            splits[self.rows] = list(self.pictures.splits)
            out.setdefault("split", splits.astype(np.str_))
        return out


def read_known(options: CompareOptions, joined: Joined) -> Known:
    """The table of ``--metadata`` and the pictures of the data set, joined by id.

    Raises
    ------
    InputError
        A table that does not fit.
    """
    ids, n = joined.a.sample_ids, joined.a.n
    metadata = None
    if options.metadata is not None:
        known = None if ids is None else list(map(str, ids))
        metadata = read_metadata(Path(options.metadata), known, n, options.arrays.id_column)
        for note in metadata.notes:
            log.warning("%s", note)
    notes = list(metadata.notes) if metadata is not None else []
    spec = joined.a.dataset or joined.b.dataset
    nothing = np.zeros(0, dtype=np.int64)
    if not options.properties or spec is None or ids is None:
        return Known(None, nothing, metadata, notes)
    try:
        dataset = open_dataset(spec, root=options.selection.root)
    except RdxError as error:
        log.info("pictures are not measured: %s", error.message)
        return Known(None, nothing, metadata, notes)
    places = dataset.locate(list(map(str, ids)))
    rows = np.flatnonzero(places >= 0)
    if len(rows) > MOST_MEASURED:
        chosen = generator(options.seed, "properties", "pictures").permutation(len(rows))[:MOST_MEASURED]
        rows = rows[np.sort(chosen)]
        notes.append(f"{MOST_MEASURED:,} of {n:,} pictures were measured")
    return Known(dataset.take(places[rows], {}, "") if len(rows) else None, rows, metadata, notes)


def check_metadata(options: CompareOptions) -> None:
    """Refuse a table that is not there before anything is read.

    Raises
    ------
    UsageError
    """
    if options.metadata is not None and not Path(options.metadata).expanduser().is_file():
        raise UsageError(f"--metadata: no such file: {options.metadata}")


def shared_properties(
    known: Known, record: Comparison, labels: np.ndarray | None, predictions: Predictions | None, folder: Path
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
