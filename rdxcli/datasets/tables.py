"""Tables as they come: ``.csv`` with any separator, ``.tsv``, text of ``savetxt``, JSON, ``.parquet``.

One reader for all of them. Cells of text files stay the text that they are until somebody wants numbers: the id 007,
the date 2024-01-02 and the class 1e5 come through unchanged.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.addresses import address, local_copy
from rdxcli.datasets.words import text_of, texts_of
from rdxcli.errors import InputError, MissingDataError, did_you_mean
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import human_count, log

Columns = dict[str, list[str]]

TABLES = {".csv", ".tsv", ".tab", ".parquet", ".pq", ".feather", ".arrow", ".json", ".jsonl", ".ndjson"}

_SEPARATORS = (",", ";", "\t", "|")
_HEAD = 60  # lines that are looked at to find out how a text table is written
_PATH_AND_LABEL = re.compile(r"(?P<path>.+?\.(?:jpe?g|png|bmp|gif|tiff?|webp|ppm|pgm|jp2))[\s,;]+(?P<label>\S.*)", re.I)


UNREADABLE = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is empty, cut, damaged, or of another kind (one array where several are wanted)."""


@dataclass
class DataTable:
    """Columns of a file, in their order.

    Attributes
    ----------
    columns : dict of str to ChunkedArray
        Strings as written when ``typed`` is false.
    typed : bool
        Whether the file itself says what is a number.
    index : list of str
        Columns that pandas wrote as the index of a frame.
    notes : list of str
        What was concluded about the file: separator, missing header.
    """

    path: Path
    columns: dict[str, pa.ChunkedArray]
    typed: bool
    index: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def texts(self, name: str) -> list[str]:
        """A column as text."""
        column = self.columns[name]
        values = column.to_pylist()
        return [text_of(v) for v in values] if pa.types.is_string(column.type) else texts_of(values)


def require_file(path: Path | str, what: str = "file") -> Path:
    """``path`` with ``~`` expanded; of an address the local copy.

    Raises `MissingDataError` (when it does not exist, with names like it in the same folder; `InputError` when it is a
    folder).
    """
    if address(path) is not None:
        return local_copy(path)
    resolved = Path(path).expanduser()
    if resolved.is_dir():
        raise InputError(f"{resolved} is a folder, expected a {what}")
    if not resolved.exists():
        folder = resolved.parent
        if not folder.is_dir():
            raise MissingDataError(f"no such {what}: {resolved}", f"the folder {folder} does not exist")
        hint = did_you_mean(resolved.name, [entry.name for entry in folder.iterdir()], folder=folder)
        raise MissingDataError(f"no such {what}: {resolved}", hint)
    if not resolved.is_file():  # a pipe without a writer would be waited for, and none can be read twice
        raise InputError(f"{resolved} is a pipe, a socket or a device, expected a {what}", "write it to a file first")
    if begins_with(resolved, LFS_POINTER):
        raise MissingDataError(f"{resolved} is a pointer of Git LFS, its content was not fetched", "git lfs pull")
    return resolved


LFS_POINTER = b"version https://git-lfs"
"""First bytes of what Git leaves in place of a large file."""


def begins_with(path: Path, *starts: bytes) -> bool:
    """Whether a file begins with one of these; False for one that cannot be read, and for pipes and devices."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            first = stream.read(max(map(len, starts))).lower()
    except OSError:
        return False
    return first.startswith(tuple(start.lower() for start in starts))


def split_pair(text: str) -> tuple[str, str]:
    """``FIRST[,SECOND]``; a comma that belongs to the name of an existing file does not split."""
    if "," not in text or Path(text).expanduser().exists():
        return text, ""
    first, _, second = text.partition(",")
    return first, second


def table_kind(path: Path) -> str:
    """The ending that says how a file is read: that before ``.gz`` when it is compressed."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes[-1] if suffixes else "")


def read_table(path: Path | str) -> DataTable:
    """Any table.

    Raises `InputError` when the file cannot be read as a table, or rows have different numbers of cells.
    """
    file = require_file(path, "table")
    kind = table_kind(file)
    try:
        if kind in {".parquet", ".pq"}:
            return arrow_table(pa.parquet.read_table(file), file)
        if kind in {".feather", ".arrow"}:
            return arrow_table(_feather(file), file)
        if kind in {".json", ".jsonl", ".ndjson"}:
            columns = _json_columns(_json(file, kind != ".json"), file)
            return DataTable(
                file, {name: pa.chunked_array([_cells(cells)]) for name, cells in columns.items()}, typed=False
            )
        return _text_table(file, kind)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise InputError(
            f"{file} cannot be read as a table ({kind.lstrip('.') or 'text'}): {_first_line(error)}"
        ) from None


def arrow_table(table: pa.Table, path: Path) -> DataTable:
    """A table of Arrow with what pandas noted about it."""
    names = table.column_names
    if len(set(names)) != len(names):
        raise InputError(f"{path}: the header names a column twice: {', '.join(names)}")
    index: list[str] = []
    noted = (table.schema.metadata or {}).get(b"pandas")
    if noted:
        try:
            index = [name for name in json.loads(noted).get("index_columns", []) if isinstance(name, str)]
        except (ValueError, AttributeError):
            index = []
    columns = {name: _plain_column(table.column(name)) for name in names}
    return DataTable(path, columns, typed=True, index=[name for name in index if name in columns])


def read_columns(path: Path | str) -> Columns:
    """Columns of a table as text.

    Raises `InputError` when the file cannot be read as a table, or rows have different numbers of cells.
    """
    table = read_table(path)
    return {name: table.texts(name) for name in table.columns}


def pick_column(columns: Mapping[str, Any], wanted: Sequence[str]) -> str | None:
    """First of the names ``wanted`` that is a column, ignoring case, spaces and underscores."""
    folded = {squashed(name): name for name in reversed(list(columns))}
    return next((folded[squashed(name)] for name in wanted if squashed(name) in folded), None)


def squashed(name: str) -> str:
    """A column's name without case, spaces and underscores: ``Image Path`` and ``image_path`` are one."""
    return re.sub(r"[\s_.\-]+", "", name).lower()


_INDEX_NAMES = {
    *("", "index", "idx", "rownames", "rowname", "rownumber", "rownum", "rowid", "row", "rows", "nr", "#"),
    *("unnamed:0", "...1", "position", "lineno", "frameidx"),
}


def names_an_index(name: str) -> bool:
    """Whether a column is called as programs call the numbers of rows; pandas leaves the name out."""
    plain = squashed(name)
    return plain in _INDEX_NAMES or re.fullmatch(r"(unnamed:?|indexlevel|level)\d+", plain) is not None


def numbers_of_rows(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The numbers of the rows that a program wrote beside the values; empty where there are none."""
    found = next((list(texts) for name, texts in columns.items() if names_an_index(name)), [])
    return found if all(map(str.isdecimal, found)) and len(set(found)) == len(found) else []


def check_order(path: Path | str, numbers: Sequence[str]) -> None:
    """Raise `InputError` where rows are numbered in another order than they stand: whose rows they are is a guess."""
    if sorted(numbers, key=int) != list(numbers):
        raise InputError(
            f"{path}: its rows are numbered {', '.join(numbers[:3])} ...: which samples are they?",
            "sort the rows by their numbers, give them the ids of the samples, or leave the numbers out if the "
            "rows stand in the order of the samples",
        )


def read_values(
    path: Path | str, names: Sequence[str], what: str, column: str | None = None, *, in_order: bool = True
) -> list[str]:
    """A column of text values: labels, sample ids, names.

    Raises `InputError`.

    Parameters
    ----------
    path : Path
        ``.npy`` (1-D), ``.txt`` or no suffix (one value a line), ``.json`` (list), or any table. Of several columns the
        first of ``names`` that occurs is taken. A CSV of one column may lack the header: its first line counts as
        header only if it is one of ``names``.
    names : sequence of str
        Column names that are recognised, best first.
    what : str
        For messages: ``labels``.
    column : str, optional
        The column to take, when it is known.
    in_order : bool
        The rows are taken by their position, so that rows numbered in another order are refused.
    """
    file = require_file(path, f"file of {what}")
    kind = table_kind(file)
    if kind == ".npy":
        return _array_values(file, what)
    if kind in {".txt", ".lst", ".list", ""}:
        lines = read_lines(file)
        pairs = path_label_lines(lines)
        return pairs[pick_column(pairs, names) or "label"] if pairs is not None else lines
    if kind == ".json":
        content = _json(file, False)
        if isinstance(content, list) and not any(isinstance(value, list | dict) for value in content):
            return [_json_text(value) for value in content]
    elif kind not in TABLES:
        raise InputError(f"{file}: cannot read {what} from `{kind}`", "use .npy, .txt, .csv, .tsv, .json or .parquet")
    table = read_table(file)
    if column is not None and column not in table.columns:
        raise unknown_column(file, column, list(table.columns))
    chosen = column or pick_column(table.columns, names)
    if chosen is None and len(table.columns) == 1:
        (chosen,) = table.columns
        if kind in {".csv", ".tsv"} and not any("header" in note for note in table.notes):
            return [chosen, *table.texts(chosen)]
    rest = [name for name in table.columns if not names_an_index(name) and name not in table.index]
    if chosen is None and len(rest) == 1:
        (chosen,) = rest
        log.info("%s: %s from `%s`, the only column besides the numbers of the rows", file.name, what, chosen)
    if chosen is None:
        raise InputError(
            f"{file}: no column of {what}; columns are: {', '.join(table.columns)}", f"name it `{names[0]}`"
        )
    if in_order:
        check_order(file, numbers_of_rows({name: table.texts(name) for name in table.columns if names_an_index(name)}))
    return table.texts(chosen)


def unknown_column(path: Path, name: str, names: Sequence[str]) -> InputError:
    """The error for a column that is not there."""
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return InputError(f"{path}: no column `{name}`; keys are: {listed or 'none'}", did_you_mean(name, names))


def path_label_lines(lines: Sequence[str]) -> Columns | None:
    """``a/b.jpg 3`` on every line, taken apart; None when the lines are something else."""
    found = [_PATH_AND_LABEL.fullmatch(line.strip()) for line in lines]
    if not lines or not all(found):
        return None
    return {
        "path": [match["path"] for match in found if match],
        "label": [match["label"].strip() for match in found if match],
    }


def numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column as float64, gaps as NaN; None when it is not made of numbers."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _parsed(column)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.to_numpy().astype(np.float64)
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64()).to_numpy()
    return None


_GAPS = ("", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "None", "none", "<NA>", "-", ".")


def _parsed(column: pa.ChunkedArray) -> np.ndarray | None:
    for change in (
        lambda c: c,
        lambda c: pa.compute.utf8_trim_whitespace(c),
        lambda c: pa.compute.if_else(
            pa.compute.is_in(pa.compute.utf8_trim_whitespace(c), value_set=pa.array(_GAPS)),
            None,
            pa.compute.utf8_trim_whitespace(c),
        ),
        lambda c: pa.compute.replace_substring(pa.compute.utf8_trim_whitespace(c), ",", "."),  # decimal commas
        lambda c: pa.compute.utf8_ltrim(pa.compute.utf8_trim_whitespace(c), "+"),
    ):
        try:
            values = pa.compute.cast(change(column), pa.float64())
        except pa.ArrowInvalid:
            continue
        if values.null_count == len(values):
            return None
        return values.to_numpy().astype(np.float64)
    return None


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if isinstance(kind, pa.ExtensionType):
        column, kind = column.cast(kind.storage_type), kind.storage_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.string())
    return column


def _feather(file: Path) -> pa.Table:
    try:
        return pa.feather.read_table(file)
    except pa.ArrowInvalid:
        with pa.memory_map(str(file)) as source:  # as `datasets` stores them
            return pa.ipc.open_stream(source).read_all()


def _text_table(file: Path, kind: str) -> DataTable:
    content = file.read_bytes()
    if file.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    if not content.strip():
        raise InputError(f"{file} is empty")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    comments, body = _comments(content.lstrip(b"\r\n"))
    head = body[: 1 << 20].decode("utf-8", "replace").splitlines()[:_HEAD]
    separator = _separator(head, kind)
    if separator == " ":
        return _spaced(file, comments, body)
    rows = [row for row in csv.reader(head, delimiter=separator, skipinitialspace=True) if row]
    if len(head) == _HEAD:
        rows = rows[:-1]  # it may end inside a quoted cell
    width = len(rows[1]) if len(rows) > 1 else len(rows[0])
    notes = [] if separator == "," else [f"cells are separated by {separator!r}"]
    named = _named_in(comments, separator, width)
    first = [name.strip() for name in rows[0]]
    if named:
        names, skip = named, 0
        notes.append("the header stands in a comment")
    elif len(first) == width - 1 and len(rows) > 1:
        names, skip = ["", *first], 1  # R leaves out the name of the row names
    elif _is_header(rows):
        names, skip = first, 1
    else:
        names, skip = [f"f{i}" for i in range(len(first))], 0
        notes.append("there is no header")
    if len(set(names)) != len(names):
        raise InputError(f"{file}: the header names a column twice: {', '.join(names)}")
    columns = _read_cells(file, body, names, skip, separator, len(comments))
    for name, column in columns.items():
        columns[name] = _vectors(file, name, column)
    return DataTable(file, columns, typed=False, notes=notes)


def _read_cells(
    file: Path, body: bytes, names: list[str], skip: int, separator: str, before: int
) -> dict[str, pa.ChunkedArray]:
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    body.decode("utf-8")  # or what is wrong with a row cannot be told to `note`
    keys = [str(i) for i in range(len(names))]
    table = pa.csv.read_csv(
        io.BytesIO(body),
        read_options=pa.csv.ReadOptions(column_names=keys, skip_rows=skip),
        parse_options=pa.csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, invalid_row_handler=note, ignore_empty_lines=True
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types={key: pa.string() for key in keys}, strings_can_be_null=False
        ),
    )
    if bad:
        reader = csv.reader(io.StringIO(body.decode("utf-8")), delimiter=separator)
        for number, row in enumerate((row for row in reader if row), start=1 + before):
            if len(row) != len(names) and number > skip + before:
                raise InputError(
                    f"{file}: row {number} has {human_count(len(row), 'cell')}, the header has {len(names)}"
                )
        raise InputError(f"{file}: a row has {human_count(bad[0].actual_columns, 'cell')}, the header has {len(names)}")
    return {
        name: pa.compute.utf8_trim_whitespace(table.column(key)) if len(table) else table.column(key)
        for name, key in zip(names, keys, strict=True)
    }


def _vectors(file: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells like ``[0.1, 0.2]`` or ``[0.1 0.2]``, as pandas prints lists and arrays, taken apart."""
    first = column[0].as_py() if len(column) else ""
    if not (first.startswith("[") and first.endswith("]")):
        return column
    try:
        rows = [[float(part) for part in cell.strip("[]").replace(",", " ").split()] for cell in column.to_pylist()]
    except ValueError:
        if any("..." in cell for cell in column.to_pylist()):
            raise InputError(
                f"{file}: the cells of column `{name}` are shortened: `{first[:40]}`", "store the values in full"
            ) from None
        return column
    return pa.chunked_array([pa.array(rows, pa.list_(pa.float64()))])


def _comments(content: bytes) -> tuple[list[str], bytes]:
    """Lines before the table that start with ``#`` (as ``numpy.savetxt`` writes a header), and the rest."""
    comments: list[str] = []
    while content.startswith(b"#"):
        line, _, rest = content.partition(b"\n")
        if not rest.strip():
            break
        comments.append(line.decode("utf-8", "replace").lstrip("#").strip("\r\n"))
        content = rest
    return comments, content


def _named_in(comments: Sequence[str], separator: str, width: int) -> list[str] | None:
    for line in reversed(comments):
        cells = [cell.strip() for cell in (line.split() if separator == " " else line.split(separator))]
        if len(cells) == width and len(set(cells)) == width and not all(map(_is_number, cells)):
            return cells
    return None


def _separator(head: Sequence[str], kind: str) -> str:
    """What stands between the cells: what divides every line into equally many."""
    lines = [line for line in head if line.strip()][: _HEAD - 1]
    usual = "\t" if kind in {".tsv", ".tab"} else ","
    counts = {}
    for separator in _SEPARATORS:
        widths = {len(row) for row in csv.reader(lines, delimiter=separator) if row}
        # R's header has one cell less; a quoted cell may span lines
        counts[separator] = max(widths) if min(widths) > 1 and max(widths) - min(widths) <= 1 else 0
    if counts[";"] and all(_is_number(cell.replace(",", ".")) for cell in lines[-1].split(";")):
        return ";"  # a comma inside the cells is a decimal comma
    if counts[usual]:
        return usual
    best = max(counts, key=lambda separator: counts[separator])
    if counts[best]:
        return best
    spaced = [line.split() for line in lines]
    if len(spaced) > 1 and len(spaced[-1]) > 1 and len({len(row) for row in spaced[1:]}) == 1:
        numeric = [cell for row in spaced[1:] for cell in row[1:]]
        if all(map(_is_number, numeric)):
            return " "
    return usual


def _spaced(file: Path, comments: Sequence[str], body: bytes) -> DataTable:
    """A table whose cells stand apart by spaces."""
    rows = [line.split() for line in body.decode("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    width = len(rows[-1])
    names = _named_in(comments, " ", width)
    if names is None:
        if len(rows[0]) == width - 1:
            names, rows = ["", *rows[0]], rows[1:]
        elif _is_header(rows[:_HEAD]):
            names, rows = rows[0], rows[1:]
        else:
            names = [f"f{i}" for i in range(width)]
    width = len(names)
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise InputError(f"{file}: row {number} has {human_count(len(row), 'cell')}, the header has {width}")
    columns = {name: pa.chunked_array([pa.array([row[i] for row in rows])]) for i, name in enumerate(names)}
    return DataTable(file, columns, typed=False, notes=["cells are separated by spaces"])


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: text above numbers, or 0, 1, 2 ... as pandas numbers them."""
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    if not rest:
        return not all(map(_is_number, first))
    numeric = [
        i
        for i in range(len(first))
        if all(_is_number(row[i].replace(",", ".")) for row in rest if i < len(row) and row[i].strip())
    ]
    if not numeric:
        return True
    if any(not _is_number(first[i].replace(",", ".")) for i in numeric):
        return True
    counted = [first[i] for i in range(len(first)) if first[i] and _is_number(first[i])]
    return len(counted) > 1 and counted in (
        [str(i) for i in range(len(counted))],
        [str(i + 1) for i in range(len(counted))],
    )


def _array_values(file: Path, what: str) -> list[str]:
    try:
        values = np.load(file, allow_pickle=False)
    except UNREADABLE as error:
        raise InputError(f"{file} cannot be read: {_first_line(error)}") from None
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    if values.ndim != 1:
        raise InputError(f"{file}: got an array of shape {values.shape}, expected one value per row for {what}")
    return texts_of(values)


def read_lines(file: Path) -> list[str]:
    """Lines of a text file without the spaces around them; empty ones at the end are left out."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {_first_line(error)}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


class _Number(str):
    """A number of a JSON file as it is written there."""


def _json(file: Path, by_line: bool) -> Any:
    try:
        text = file.read_bytes()
        text = gzip.decompress(text) if file.suffix.lower() == ".gz" else text
        kept: Any = {"parse_float": _Number, "parse_int": _Number}
        content = text.decode("utf-8-sig")
        if by_line:
            return [json.loads(line, **kept) for line in content.splitlines() if line.strip()]
        return json.loads(content, **kept)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not valid JSON: {_first_line(error)}") from None


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else text_of(value)


def _json_columns(content: Any, file: Path) -> dict[str, list[Any]]:
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = list(dict.fromkeys(key for row in content for key in row))
        return {name: [row.get(name) for row in content] for name in names}
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        if len({len(column) for column in content.values()}) != 1:
            raise InputError(f"{file}: columns have different lengths")
        return {str(name): column for name, column in content.items()}
    if isinstance(content, list) and content and all(isinstance(row, list) and row for row in content):
        if len({len(row) for row in content}) != 1:
            raise InputError(f"{file}: rows have different lengths")
        return {f"f{i}": list(column) for i, column in enumerate(zip(*content, strict=True))}
    raise InputError(f"{file}: expected a JSON list of objects or of rows, or an object of equally long lists")


def _cells(cells: list[Any]) -> pa.Array:
    """Cells of JSON: lists of numbers as such, everything else as text."""
    if cells and all(isinstance(cell, list) for cell in cells):
        try:
            return pa.array([[float(value) for value in cell] for cell in cells], pa.list_(pa.float64()))
        except (TypeError, ValueError):
            pass
    return pa.array([_json_text(cell) for cell in cells], pa.string())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
