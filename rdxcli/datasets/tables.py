"""Small text tables beside data: lists of paths, labels, sample ids.

One reader for ``.txt`` (one value a line), ``.csv``/``.tsv`` (with a header), ``.json``, ``.npy`` and ``.parquet``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.errors import InputError, MissingDataError

Columns = dict[str, list[str]]


def require_file(path: Path | str, what: str = "file") -> Path:
    """``path`` with ``~`` expanded.

    Raises
    ------
    MissingDataError
        When it does not exist, with names like it in the same folder; `InputError` when it is a folder.
    """
    from rdxcli.errors import near_matches

    resolved = Path(path).expanduser()
    if resolved.is_dir():
        raise InputError(f"{resolved} is a folder, expected a {what}")
    if not resolved.exists():
        folder = resolved.parent
        if not folder.is_dir():
            raise MissingDataError(f"no such {what}: {resolved}", f"the folder {folder} does not exist")
        near = near_matches(resolved.name, [entry.name for entry in folder.iterdir()])
        hint = f"did you mean {' or '.join(f'`{folder / name}`' for name in near)}?" if near else None
        raise MissingDataError(f"no such {what}: {resolved}", hint)
    return resolved


def split_pair(text: str) -> tuple[str, str]:
    """``FIRST[,SECOND]``; a comma that belongs to the name of an existing file does not split."""
    if "," not in text or Path(text).expanduser().exists():
        return text, ""
    first, _, second = text.partition(",")
    return first, second


def read_columns(path: Path | str) -> Columns:
    """Columns of a ``.csv``, ``.tsv``, ``.parquet`` or ``.json`` (list of objects, or object of lists) table as text.

    Raises
    ------
    InputError
        When the file cannot be read as a table, or rows have different numbers of cells.
    """
    file = require_file(path, "table")
    kind = file.suffix.lower()
    try:
        if kind == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(file)
            return {name: [_text(v) for v in table.column(name).to_pylist()] for name in table.column_names}
        if kind == ".json":
            return _json_columns(json.loads(file.read_text("utf-8")), file)
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t" if kind == ".tsv" else ","))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{file} cannot be read as a {kind.lstrip('.') or 'text'} table: {_first_line(error)}"
        ) from None
    rows = [row for row in rows if row]
    if not rows:
        raise InputError(f"{file} is empty")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) != len(header):
        raise InputError(f"{file}: the header names a column twice: {', '.join(header)}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"{file}: row {number} has {len(row)} cells, the header has {len(header)}")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(header)}


def pick_column(columns: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> str | None:
    """First of the names ``wanted`` that is a column, ignoring case."""
    folded = {name.lower(): name for name in columns}
    return next((folded[name] for name in wanted if name in folded), None)


def read_values(path: Path | str, names: Sequence[str], what: str) -> list[str]:
    """A column of text values: labels, sample ids, names.

    Parameters
    ----------
    path : Path
        ``.npy`` (1-D), ``.txt`` or no suffix (one value a line), ``.json`` (list), ``.csv``, ``.tsv`` or ``.parquet``.
        Of several columns the first of ``names`` that occurs is taken. A CSV of one column may lack the header: its
        first line counts as header only if it is one of ``names``.
    names : sequence of str
        Column names that are recognised, best first.
    what : str
        For messages: ``labels``.

    Raises
    ------
    InputError
    """
    file = require_file(path, f"file of {what}")
    kind = file.suffix.lower()
    if kind == ".npy":
        return _array_values(file, what)
    if kind in {".txt", ".lst", ".list", ""}:
        return _lines(file)
    if kind == ".json":
        try:
            content = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file} is not valid JSON: {_first_line(error)}") from None
        if isinstance(content, list) and not any(isinstance(value, list | dict) for value in content):
            return [_text(value) for value in content]
    elif kind not in {".csv", ".tsv", ".parquet"}:
        raise InputError(f"{file}: cannot read {what} from `{kind}`", "use .npy, .txt, .csv, .tsv, .json or .parquet")
    columns = read_columns(file)
    chosen = pick_column(columns, names)
    if chosen is None and len(columns) == 1:
        (chosen,) = columns
        if kind in {".csv", ".tsv"}:
            return [chosen, *columns[chosen]]
    if chosen is None:
        raise InputError(f"{file}: no column of {what}; columns are: {', '.join(columns)}", f"name it `{names[0]}`")
    return list(columns[chosen])


def _array_values(file: Path, what: str) -> list[str]:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} cannot be read: {_first_line(error)}") from None
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if values.ndim != 1:
        raise InputError(f"{file}: got an array of shape {values.shape}, expected one value per row for {what}")
    if values.dtype.kind == "f" and np.all(values == np.floor(values)):
        values = values.astype(np.int64)
    return [_text(value) for value in values.tolist()]


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {_first_line(error)}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def _json_columns(content: Any, file: Path) -> Columns:
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = list(dict.fromkeys(key for row in content for key in row))
        return {name: [_text(row.get(name)) for row in content] for name in names}
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        if len({len(column) for column in content.values()}) != 1:
            raise InputError(f"{file}: columns have different lengths")
        return {str(name): [_text(value) for value in column] for name, column in content.items()}
    raise InputError(f"{file}: expected a JSON list of objects, or an object of equally long lists")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
