"""Reading one array out of a file: ``.npy``, ``.npz``, ``.safetensors``, ``.parquet``, ``.csv``, ``.tsv``, ``.pt``.

Nothing is unpickled. ``.npy`` files, uncompressed ``.npz`` members, ``.safetensors`` and ``.pt`` tensors are
memory-mapped.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.datasets.tables import require_file
from rdxcli.errors import InputError, near_matches

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet", ".csv", ".tsv", ".pt", ".pth")
ID_NAMES = ("sample_id", "sample_ids", "id", "ids", "image_id", "file", "path", "filename")
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "targets", "y")

_PATTERN = re.compile(r"(?P<path>.+?(?:" + "|".join(re.escape(s) for s in SUFFIXES) + r"))(?::(?P<key>.+))?", re.I)


@dataclass(frozen=True)
class ArrayFile:
    """An array and what its file says about its rows.

    Parameters
    ----------
    path : Path
    key : str or None
        Array, tensor or column(s) inside the file.
    values : ndarray
        May be memory-mapped.
    sample_ids, labels : list of str or None
        Of each row, when the file has them under a usual name.
    columns : list of str or None
        Names of the columns, when each is a column of a table.
    """

    path: Path
    key: str | None
    values: np.ndarray
    sample_ids: list[str] | None = None
    labels: list[str] | None = None
    columns: list[str] | None = None


def split_key(text: str) -> tuple[str, str | None] | None:
    """``PATH[:KEY]`` taken apart, or None when ``text`` does not look like a file of arrays."""
    if Path(text).suffix.lower() in SUFFIXES and Path(text).expanduser().exists():
        return text, None
    found = _PATTERN.fullmatch(text)
    return (found["path"], found["key"]) if found else None


def read_array(text: str) -> ArrayFile:
    """Read ``PATH[:KEY]``.

    Without a key the only numeric array of two or more dimensions is taken. Of a table the only column of lists is
    taken, else all numeric columns; a key may name several columns, separated by commas.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Damaged, of an unknown kind, or the key does not exist or is needed (the message lists the keys).
    """
    parts = split_key(text)
    if parts is None:
        raise InputError(
            f"{text}: not a file of arrays by its name",
            f"readable: {', '.join(SUFFIXES[:-1])}; `FILE:KEY` names one array",
        )
    path = require_file(parts[0], "file of arrays")
    key = parts[1]
    reader = _READERS[path.suffix.lower()]
    try:
        return reader(path, key)
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # each library has its own family of errors for a damaged file
        text_of_error = " ".join(str(error).split())
        if "allow_pickle" in text_of_error or "weights_only" in text_of_error.lower():
            raise InputError(
                f"{path} holds pickled objects, which rdx never loads because they can run code",
                "save plain numbers: numpy.save(file, array), or safetensors",
            ) from None
        raise InputError(f"{path} cannot be read: {text_of_error[:200] or type(error).__name__}") from None


def _npy(path: Path, key: str | None) -> ArrayFile:
    if key is not None:
        raise InputError(f"{path} holds one array and has no key `{key}`")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    return ArrayFile(path, None, np.load(path, mmap_mode="r", allow_pickle=False))


def _npz(path: Path, key: str | None) -> ArrayFile:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if {"data", "indices", "indptr", "shape"} <= set(names):
            raise InputError(f"{path} holds a sparse matrix, expected a dense array")
        chosen = _choose(path, key, names, lambda name: _member_ndim(path, name) >= 2)
        values = _mapped_member(path, chosen)
        if values is None:
            values = archive[chosen]

        def beside(wanted: Sequence[str]) -> list[str] | None:
            found = next((name for name in names if name.lower() in wanted and name != chosen), None)
            if found is None or _member_ndim(path, found) != 1:
                return None
            column = archive[found]
            return [str(value) for value in column.tolist()] if len(column) == len(values) else None

        return ArrayFile(path, chosen, values, beside(ID_NAMES), beside(LABEL_NAMES))


def _member_header(path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype, int, int]:
    """Shape, Fortran order, dtype, offset in the archive, and compression of an array in an ``.npz``."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(member)
            header = member.tell()
    with open(path, "rb") as stream:
        stream.seek(info.header_offset + 26)  # the local header's own name and extra lengths count, not the directory's
        name_length, extra_length = np.frombuffer(stream.read(4), "<u2")
    offset = info.header_offset + 30 + int(name_length) + int(extra_length) + header
    return shape, fortran, dtype, offset, info.compress_type


def _member_ndim(path: Path, name: str) -> int:
    try:
        return len(_member_header(path, name)[0])
    except (KeyError, ValueError):
        return 0


def _mapped_member(path: Path, name: str) -> np.ndarray | None:
    shape, fortran, dtype, offset, compression = _member_header(path, name)
    if compression != zipfile.ZIP_STORED or dtype.hasobject or 0 in shape:
        return None
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _safetensors(path: Path, key: str | None) -> ArrayFile:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        chosen = _choose(path, key, names, lambda name: len(file.get_slice(name).get_shape()) >= 2)
        return ArrayFile(path, chosen, _from_tensor(file.get_tensor(chosen)))


def _torch(path: Path, key: str | None) -> ArrayFile:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        content = torch.load(path, map_location="cpu", weights_only=True)  # the older format cannot be mapped
    if isinstance(content, torch.Tensor):
        if key is not None:
            raise InputError(f"{path} holds one tensor and has no key `{key}`")
        return ArrayFile(path, None, _from_tensor(content))
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a tensor or a mapping of tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    chosen = _choose(path, key, list(tensors), lambda name: tensors[name].ndim >= 2)
    return ArrayFile(path, chosen, _from_tensor(tensors[chosen]))


def _from_tensor(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _parquet(path: Path, key: str | None) -> ArrayFile:
    import pyarrow.parquet as pq

    return _table(path, key, pq.read_table(path))


def _csv(path: Path, key: str | None) -> ArrayFile:
    import pyarrow.csv

    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    parse = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    table = pyarrow.csv.read_csv(path, parse_options=parse)
    if all(_is_number(name) for name in table.column_names):
        read = pyarrow.csv.ReadOptions(autogenerate_column_names=True)  # no header: the first line is data
        table = pyarrow.csv.read_csv(path, read_options=read, parse_options=parse)
    return _table(path, key, table)


def _table(path: Path, key: str | None, table: pa.Table) -> ArrayFile:
    import pyarrow.types as types

    names = table.column_names
    kinds = {name: table.schema.field(name).type for name in names}
    lists = [
        n
        for n in names
        if types.is_list(kinds[n]) or types.is_large_list(kinds[n]) or types.is_fixed_size_list(kinds[n])
    ]
    special = {*ID_NAMES, *LABEL_NAMES}
    numeric = [
        n
        for n in names
        if (types.is_floating(kinds[n]) or types.is_integer(kinds[n]) or types.is_boolean(kinds[n]))
        and n.lower() not in special
    ]
    if key is not None:
        wanted = [key] if key in names else [part.strip() for part in key.split(",")]
        for name in wanted:
            if name not in names:
                raise _no_key(path, name, names, "column")
    elif len(lists) == 1:
        wanted = lists
    elif lists or not numeric:
        raise InputError(
            f"{path}: which column holds the values? columns are: {', '.join(names)}", f"write `{path}:COLUMN`"
        )
    else:
        wanted = numeric

    def beside(known: Sequence[str]) -> list[str] | None:
        found = next((n for n in names if n.lower() in known and n not in wanted), None)
        return [str(value) for value in table.column(found).to_pylist()] if found is not None else None

    if len(wanted) == 1 and wanted[0] in lists:
        values, columns = _from_lists(path, wanted[0], table.column(wanted[0])), None
    else:
        for name in wanted:
            if types.is_string(kinds[name]) or types.is_large_string(kinds[name]) or name in lists:
                raise InputError(f"{path}: the column `{name}` holds {kinds[name]}, expected numbers")
        # a missing value becomes NaN, which is reported with its row
        values = np.column_stack([table.column(n).to_numpy().astype(np.float64) for n in wanted])
        columns = wanted
    return ArrayFile(path, key, values, beside(ID_NAMES), beside(LABEL_NAMES), columns)


def _from_lists(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column)
    if column.null_count:
        row = lengths.to_pylist().index(None)
        raise InputError(f"{path}: the column `{name}` is empty in row {row}")
    counts = pc.unique(lengths).to_pylist()
    if len(counts) != 1:
        raise InputError(f"{path}: the lists of column `{name}` have different lengths: {sorted(counts)[:5]}")
    flat = pc.list_flatten(column)
    return flat.to_numpy().reshape(len(column), counts[0])


def _choose(path: Path, key: str | None, names: Sequence[str], fits: Any) -> str:
    if key is not None:
        if key not in names:
            raise _no_key(path, key, names, "array")
        return key
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if fits(name)]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(f"{path} holds {len(names)} arrays; keys are: {', '.join(names)}", f"write `{path}:KEY`")


def _no_key(path: Path, key: str, names: Sequence[str], what: str) -> InputError:
    near = near_matches(key, names)
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return InputError(
        f"{path}: no {what} `{key}`; keys are: {listed or 'none'}", f"did you mean `{near[0]}`?" if near else None
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".pt": _torch,
    ".pth": _torch,
}
