"""A table about the samples (device, place, age), by id; columns are numbers, dates or categories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rdxcli.datasets.seen import ID_NAMES
from rdxcli.datasets.tables import (
    DataTable,
    check_order,
    names_an_index,
    numbers,
    numbers_of_rows,
    pick_column,
    read_table,
    unknown_column,
)
from rdxcli.datasets.words import apart, find, taken_as_one
from rdxcli.errors import InputError
from rdxcli.progress import human_count

FEW = 12  # whole numbers of at most so many values are codes of categories
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?)?")


@dataclass(frozen=True)
class Metadata:
    """Columns of a table in the order of the samples.

    Attributes
    ----------
    name : str
        Of the file.
    columns : dict of str to (n,) array
        float64 (NaN: unknown), datetime64[s] (NaT) or str ("").
    notes : list of str
        What a reader must know.
    """

    name: str
    columns: dict[str, np.ndarray]
    notes: list[str]


def read_metadata(path: Path, ids: Sequence[str] | None, n: int, id_column: str | None = None) -> Metadata:
    """Read a table about n samples.

    Raises `InputError` (no such column, no common id, or rows without ids that are not n).

    Parameters
    ----------
    path : Path
        Any table with a header.
    ids : sequence of n str, optional
        Of the samples. Ids of the table may lack the folder or the ending, or have more of it.
    """
    table = read_table(path)
    if not table.rows:
        raise InputError(f"--metadata {path.name}: it has no row below its header")
    column = id_column or pick_column(table.columns, ID_NAMES)
    if id_column is not None and id_column not in table.columns:
        raise unknown_column(path, id_column, list(table.columns))
    notes: list[str] = []
    places = np.arange(n)
    if column is None:
        column = _numbering(table, ids)
    if ids is not None and column is not None:
        known = table.texts(column)
        places, note = find(ids, known)
        found = int((places >= 0).sum())
        if not found:
            first, second = apart(known[0], ids[0])
            raise InputError(f"--metadata {path.name}: no sample is in it: ids look like `{first}` and `{second}`")
        asked = set(places.tolist())
        again = Counter(known)
        repeated = [known[place] for place in sorted(asked - {-1}) if again[known[place]] > 1]
        if repeated:
            notes.append(
                f"{path.name} has several rows of {human_count(len(repeated), 'sample')}, for example of "
                f"`{repeated[0]}`: the first row is taken"
            )
        if found < n:
            notes.append(f"{path.name} says nothing about {n - found} of {human_count(n, 'sample')}")
        if note:
            notes.append(taken_as_one(note, path.name, "the samples"))
    elif table.rows != n:
        lack = f"no column of ids ({', '.join(list(table.columns)[:8])})" if column is None else "ids, the samples none"
        raise InputError(
            f"--metadata {path.name}: {human_count(table.rows, 'row')} for {human_count(n, 'sample')}, and {lack}",
            "name the column of ids with --id-column" if column is None else "give the ids with --sample-ids",
        )
    else:
        notes.append(f"{path.name}: no ids to match, its rows are taken to be in the order of the samples")
    columns = {name: _column(table, name, places) for name in table.columns if name != column and name.strip()}
    return Metadata(path.name, columns, notes)


def _numbering(table: DataTable, ids: Sequence[str] | None) -> str | None:
    """The column of row numbers, where these are the ids; refused where the rows are numbered in another order."""
    name = next((name for name in table.columns if names_an_index(name)), None)
    counted = [] if name is None else numbers_of_rows({name: table.texts(name)})
    if counted and ids is not None and (find(ids, counted)[0] >= 0).all():
        return name
    check_order(table.path, counted)
    return None


def _column(table: DataTable, name: str, places: np.ndarray) -> np.ndarray:
    """A column as what it is, in the order of the samples."""
    there = places >= 0
    rows = np.where(there, places, 0)
    found = numbers(table.columns[name])
    texts = np.array(table.texts(name), dtype=np.str_)
    if found is not None:
        distinct = np.unique(found[np.isfinite(found)])
        if len(distinct) > FEW or (distinct % 1 != 0).any():
            return np.where(there, found[rows], np.nan)
        texts = np.where(np.isfinite(found), texts, "")
    given = [text for text in texts.tolist() if text]
    if given and all(_DATE.fullmatch(text) for text in given):
        try:
            dates = np.array([text.rstrip("Z") or "NaT" for text in texts.tolist()], dtype="datetime64[s]")
        except ValueError:
            pass
        else:
            return np.where(there, dates[rows], np.datetime64("NaT", "s"))
    return np.where(there, texts[rows], "")
