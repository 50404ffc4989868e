"""What is known of images besides their pixels and labels: measured pictures, a table of metadata, splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.appearance import measure
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.metadata import Metadata, read_metadata
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import RdxError
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count, log

MOST_MEASURED = 2000
"""Pictures that are measured; of more, so many are drawn with the seed."""


@dataclass(frozen=True)
class Known:
    """Properties that are read before the work, and pictures that are measured in it.

    Attributes
    ----------
    pictures : Dataset or None
        Those of ``rows``, in their order.
    rows : (m,) int array
        Of the joined images.
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


def read_known(
    ids: list[str] | None,
    n: int,
    *,
    table: Path | None = None,
    id_column: str | None = None,
    spec: str | None = None,
    root: Path | None = None,
    seed: int = 0,
) -> Known:
    """What is known of n images, joined by id.

    Raises `InputError` (a table that does not fit).

    Parameters
    ----------
    table : Path, optional
        Of metadata.
    id_column : str, optional
        Of the table.
    spec : str, optional
        The data set whose pictures are measured.
    root : Path, optional
        Where downloads are.
    seed : int
        Draws the pictures where there are many.
    """
    metadata = None
    if table is not None:
        metadata = read_metadata(table, ids, n, id_column)
        for note in metadata.notes:
            log.warning("%s", note)
    notes = list(metadata.notes) if metadata is not None else []
    nothing = Known(None, np.zeros(0, dtype=np.int64), metadata, notes)
    if spec is None or ids is None:
        return nothing
    try:
        dataset = open_dataset(spec, root=root)
    except RdxError as error:
        log.info("pictures are not measured: %s", error.message)
        return nothing
    places = dataset.locate(ids)
    rows = np.flatnonzero(places >= 0)
    if len(rows) > MOST_MEASURED:
        chosen = generator(seed, "properties", "pictures").permutation(len(rows))[:MOST_MEASURED]
        rows = rows[np.sort(chosen)]
        notes.append(f"{MOST_MEASURED:,} of {human_count(n, 'picture')} were measured")
    return Known(dataset.take(places[rows], {}, "") if len(rows) else None, rows, metadata, notes)
