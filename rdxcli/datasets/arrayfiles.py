"""Reading one array out of a file or folder: what numpy, torch, MATLAB, HDF5, Zarr, pandas and R write.

Nothing is unpickled. ``.npy`` files, uncompressed ``.npz`` members, raw memory maps, ``.safetensors`` and ``.pt``
tensors are memory-mapped.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from rdxcli.datasets.seen import (
    FILE,
    ID_NAMES,
    LABEL_NAMES,
    Seen,
    check_columns,
    pick_positions,
    take_columns,
)
from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import DataTable, begins_with, read_table, require_file, squashed, table_kind
from rdxcli.datasets.words import texts_of
from rdxcli.errors import DependencyError, InputError, RdxError, did_you_mean
from rdxcli.lazy import pyarrow as pa
from rdxcli.lazy import scipy, torch
from rdxcli.progress import human_count

SUFFIXES = (
    *(".npy", ".npz", ".safetensors", ".parquet", ".csv", ".tsv", ".pt", ".pth", ".csv.gz", ".tsv.gz", ".txt", ".dat"),
    *(".jsonl", ".ndjson", ".json", ".feather", ".arrow", ".mat", ".h5", ".hdf5", ".nc", ".zarr", ".bin", ".raw"),
    ".memmap",
)
_FOLDERS = (".zarr", ".parquet")  # what may be a folder

_PATTERN = re.compile(r"(?P<path>.+?(?:" + "|".join(re.escape(s) for s in SUFFIXES) + r"))(?::(?P<key>.+))?", re.I)
_RAW = re.compile(r"(?P<dtype>[<>=|]?[A-Za-z]+\d*),(?P<shape>\d+(?:x\d+)*)(?:,(?P<order>[CF]))?", re.I)


@dataclass(frozen=True)
class ArrayFile:
    """An array and what its file says about its rows.

    Parameters
    ----------
    key : str or None
        Array, tensor or column(s) inside the file.
    values : ndarray
        May be memory-mapped.
    sample_ids, labels : list of str or None
        Of each row, when the file has them under a usual name.
    columns : list of str or None
        Names of the columns, when each is a column of a table.
    seen : Seen or None
        What the file held, and what it was taken for.
    """

    path: Path
    key: str | None
    values: np.ndarray
    sample_ids: list[str] | None = None
    labels: list[str] | None = None
    columns: list[str] | None = None
    seen: Seen | None = None


def split_key(text: str) -> tuple[str, str | None] | None:
    """``PATH[:KEY]`` taken apart, or None when ``text`` does not look like a file of arrays."""
    if text.lower().endswith(SUFFIXES) and Path(text).expanduser().exists():
        return text, None
    found = _PATTERN.fullmatch(text)
    return (found["path"], found["key"]) if found else None


def read_array(text: str, choice: Choice | None = None, concepts: bool = False) -> ArrayFile:
    """Read ``PATH[:KEY]``.

    Without a key the only numeric array of two or more dimensions is taken. Of a table the only column of lists is
    taken, else the columns that are features (see `rdxcli.datasets.seen`); a key may name several columns or patterns,
    separated by commas. Raw memory maps say what they hold: ``PATH.bin:float32,1000x64``. Raises `MissingDataError` (no
    such file) or `InputError` (damaged, of an unknown kind, bookkeeping among the features, or the key does not exist
    or is needed (the message lists the keys)). `choice`: which columns are features, ids and labels; `concepts`:
    columns are scores of concepts.
    """
    parts = split_key(text)
    if parts is None:
        raise InputError(
            f"{text}: not a file of arrays by its name",
            f"readable: {', '.join(SUFFIXES)}; `FILE:KEY` names one array",
        )
    choice = choice or Choice()
    path = Path(parts[0]).expanduser()
    if not (path.suffix.lower() in _FOLDERS and path.is_dir()):
        path = require_file(parts[0], "file of arrays")
    key = parts[1]
    if begins_with(path, b"<!doctype html", b"<html"):
        raise InputError(
            f"{path} is a web page", "downloaded from an address that shows the file instead of sending it?"
        )
    kind = table_kind(path)
    try:
        if kind in _MAPS and key is not None and _RAW.fullmatch(key):
            return _chosen(_raw(path, key), choice, concepts)
        if kind in _TABLES and not path.is_dir():
            return from_table(read_table(path), key, choice, concepts)
        if kind == ".parquet":
            return from_table(_parquet_folder(path), key, choice, concepts)
        return _chosen(_READERS[kind](path, key), choice, concepts)
    except (RdxError, MemoryError):
        raise
    except Exception as error:  # each library has its own family of errors for a damaged file
        text_of_error = " ".join(str(error).split())
        if any(word in text_of_error.lower() for word in ("allow_pickle", "weights_only", "python objects")):
            raise InputError(
                f"{path} holds pickled objects, which rdx never loads because they can run code",
                "save plain numbers: numpy.save(file, array), or safetensors",
            ) from None
        raise InputError(f"{path} cannot be read: {text_of_error[:200] or type(error).__name__}") from None


class _Every(str):
    """A key that stands for all of them: `_choose` leaves the names of the fitting arrays here and takes the first."""

    names: Sequence[str] = ()


def array_keys(text: str) -> list[str]:
    """Keys of the arrays of two or more dimensions in a file of several, in the order in which they were stored.

    Where a format keeps no order (HDF5, Zarr, safetensors) they come by name, ``layer10`` after ``layer9``. Raises
    `MissingDataError` or `InputError` (no such file, or a file of one array).
    """
    path = Path(text).expanduser()
    if not (path.suffix.lower() in _FOLDERS and path.is_dir()):
        path = require_file(text, "file of arrays")
    kind = table_kind(path)
    if kind not in _SEVERAL:
        raise InputError(
            f"{path} holds one array, expected several layers", f"several arrays go into {', '.join(_SEVERAL)}"
        )
    every = _Every("*")
    _READERS[kind](path, every)
    if kind not in (".h5", ".hdf5", ".nc", ".zarr", ".safetensors"):
        return list(every.names)
    return sorted(every.names, key=lambda name: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name)])


def from_table(table: DataTable, key: str | None, choice: Choice, concepts: bool = False) -> ArrayFile:
    """The features, ids and labels of a table."""
    taken = take_columns(table, key, choice, concepts)
    if taken.lists is not None:
        values, columns = _from_lists(table.path, taken.lists, table.columns[taken.lists]), None
    else:
        # a missing value becomes NaN, which is reported with its row
        values = np.column_stack([taken.values[name] for name in taken.features])
        columns = taken.features
    if taken.lists is None and all(_is_single(table, name) for name in taken.features):
        values = values.astype(np.float32)
    ids = table.texts(taken.ids) if taken.ids is not None else None
    labels = table.texts(taken.labels) if taken.labels is not None else None
    seen = Seen(
        table.path.name,
        len(values),
        values.shape[1] if values.ndim > 1 else 1,
        columns if columns is not None else [str(taken.lists)],
        taken.ids,
        taken.labels,
        taken.left_out,
        table.notes,
    )
    return ArrayFile(table.path, key, values, ids, labels, columns, seen)


def _is_single(table: DataTable, name: str) -> bool:
    kind = table.columns[name].type
    return pa.types.is_float32(kind) or pa.types.is_float16(kind)


def _chosen(file: ArrayFile, choice: Choice, concepts: bool) -> ArrayFile:
    """A file of one array: its columns have no names, but may hold bookkeeping all the same."""
    values = file.values
    if values.dtype.names:
        return from_table(_structured(file.path, values), None, choice, concepts)
    if values.dtype == np.dtype("V2"):  # what numpy.save makes of bfloat16
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    notes = []
    width = values.shape[1] if values.ndim > 1 else 1
    if choice.features is not None and choice.features != "all" and values.ndim == 2:
        values = pick_positions(values, choice.features, file.path.name)
        notes.append(f"columns {choice.features} of {width}")
    elif choice.features is None:
        check_columns(values, file.path.name, concepts)
    seen = Seen(
        file.path.name + (f":{file.key}" if file.key else ""),
        len(values) if values.ndim else 1,
        values.shape[1] if values.ndim > 1 else 1,
        ids=FILE if file.sample_ids is not None else None,
        labels=FILE if file.labels is not None else None,
        notes=notes,
    )
    return ArrayFile(file.path, file.key, values, file.sample_ids, file.labels, file.columns, seen)


def _structured(path: Path, values: np.ndarray) -> DataTable:
    """A structured array, such as ``DataFrame.to_records`` gives."""
    columns = {}
    for name in values.dtype.names or ():
        cells = values[name]
        if cells.ndim == 2:
            columns[name] = pa.chunked_array([pa.array(list(cells.astype(np.float64)), pa.list_(pa.float64()))])
        elif cells.dtype.kind in "fiub":
            columns[name] = pa.chunked_array([pa.array(cells.astype(cells.dtype.newbyteorder("=")))])
        else:
            columns[name] = pa.chunked_array([pa.array(texts_of(cells), pa.string())])
    return DataTable(path, columns, typed=True)


def _beside(found: Mapping[str, Callable[[], Any]], wanted: Sequence[str], rows: int) -> list[str] | None:
    """Values under a usual name, when there is one for each row."""
    for name in wanted:
        for key, read in found.items():
            if squashed(key) == squashed(name):
                column = read()
                if len(column) == rows:
                    return texts_of(column)
    return None


def _npy(path: Path, key: str | None) -> ArrayFile:
    if key is not None:
        raise InputError(f"{path} holds one array and has no key `{key}`")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    if begins_with(path, b"PK"):
        raise InputError(f"{path} holds several arrays, as an .npz does", f"mv {path} {path.with_suffix('.npz')}")
    if not begins_with(path, np.lib.format.MAGIC_PREFIX, b"\x80"):  # a pickle is said to be one
        raise InputError(
            f"{path} cannot be read: it does not begin like a file of NumPy", "numpy.save(file, array) writes one"
        )
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

        others = {
            name: (lambda name=name: archive[name])
            for name in names
            if name != chosen and _member_ndim(path, name) == 1
        }
        ids, labels = (_beside(others, wanted, len(values)) for wanted in (ID_NAMES, LABEL_NAMES))
        return ArrayFile(path, chosen, values, ids, labels)


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
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        chosen = _choose(path, key, names, lambda name: len(file.get_slice(name).get_shape()) >= 2)
        return ArrayFile(path, chosen, _from_tensor(file.get_tensor(chosen)))


def _torch(path: Path, key: str | None) -> ArrayFile:
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
    values = _from_tensor(tensors[chosen])
    others = {
        str(name): (lambda value=value: _from_tensor(value) if isinstance(value, torch.Tensor) else value)
        for name, value in content.items()
        if name != chosen and (isinstance(value, list | tuple) or (isinstance(value, torch.Tensor) and value.ndim == 1))
    }
    ids, labels = (_beside(others, wanted, len(values)) for wanted in (ID_NAMES, LABEL_NAMES))
    return ArrayFile(path, chosen, values, ids, labels)


def _from_tensor(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _parquet_folder(path: Path) -> DataTable:
    """A table in parts, as Dask, Spark and dinotool write it; ``part.10`` comes after ``part.9``."""
    parts = sorted(
        path.rglob("*.parquet"), key=lambda part: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", part.name)]
    )
    if not parts:
        raise InputError(f"{path} is a folder without parts that end in .parquet")
    tables = [read_table(part) for part in parts]
    names = list(tables[0].columns)
    for part, table in zip(parts, tables, strict=True):
        if list(table.columns) != names:
            raise InputError(f"{part} has other columns than {parts[0].name}")
    columns = {
        name: pa.chunked_array(
            [chunk for table in tables for chunk in table.columns[name].chunks], tables[0].columns[name].type
        )
        for name in names
    }
    return DataTable(
        path,
        columns,
        typed=True,
        index=tables[0].index,
        notes=[f"{human_count(len(parts), 'part')}"] if len(parts) > 1 else [],
    )


def _mat(path: Path, key: str | None) -> ArrayFile:
    try:
        content = scipy.io.loadmat(path)
    except NotImplementedError:  # version 7.3 is HDF5, whose axes are the other way round
        file = _hdf5(path, key)
        return ArrayFile(path, file.key, file.values.T, file.sample_ids, file.labels)
    arrays = {
        name: value for name, value in content.items() if not name.startswith("__") and isinstance(value, np.ndarray)
    }
    rows = [
        value for value in arrays.values() if value.dtype.kind in "fiub" and value.ndim == 2 and value.shape[0] == 1
    ]
    if key is None and len(arrays) > 2 and len(rows) == len(arrays) and len({row.shape for row in rows}) == 1:
        return ArrayFile(
            path, None, np.concatenate(rows), list(arrays)
        )  # one vector for each name, as thingsvision stores
    chosen = _choose(path, key, list(arrays), lambda name: _is_matrix(arrays[name]))
    others = {name: (lambda value=value: _mat_column(value)) for name, value in arrays.items() if name != chosen}
    ids, labels = (_beside(others, wanted, len(arrays[chosen])) for wanted in (ID_NAMES, LABEL_NAMES))
    return ArrayFile(path, chosen, arrays[chosen], ids, labels)


def _is_matrix(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiub" and array.ndim >= 2 and min(array.shape) > 1


def _mat_column(array: np.ndarray) -> Any:
    """A vector, a char matrix or a cell array of strings of MATLAB as a list."""
    if array.dtype.kind == "U":
        return [text.rstrip() for text in array.ravel()]
    if array.dtype.hasobject:
        return [str(np.asarray(cell).ravel()[0]) if np.size(cell) else "" for cell in array.ravel()]
    return array.ravel()


def _hdf5(path: Path, key: str | None) -> ArrayFile:
    try:
        import h5py
    except ImportError:
        raise DependencyError("h5py", "arrays") from None
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        return _from_store(path, key, found, lambda item: item[()])


def _zarr(path: Path, key: str | None) -> ArrayFile:
    try:
        import zarr
    except ImportError:
        raise DependencyError("zarr", "arrays") from None
    opened = zarr.open(path, mode="r")
    if isinstance(opened, zarr.Array):
        if key is not None:
            raise InputError(f"{path} holds one array and has no key `{key}`")
        return ArrayFile(path, None, np.asarray(opened[...]))
    found = {name.strip("/"): item for name, item in opened.members(max_depth=None) if isinstance(item, zarr.Array)}
    return _from_store(path, key, found, lambda item: item[...])


def _from_store(path: Path, key: str | None, found: Mapping[str, Any], read: Callable[[Any], Any]) -> ArrayFile:
    """Of the arrays of an HDF5 or Zarr store: the matrix, and what stands beside it for each row."""
    numeric = {
        name: item for name, item in found.items() if np.dtype(item.dtype).kind in "fiub" and len(item.shape) >= 2
    }
    split = sorted(numeric)
    parts = [name for name in split if re.fullmatch(r"features_\d+", name)]
    if key is None and len(parts) > 1 and len(parts) == len(found):
        return ArrayFile(path, None, np.concatenate([read(found[name]) for name in parts]))  # thingsvision in pieces
    chosen = _choose(path, key, list(found), lambda name: name in numeric)
    values = np.asarray(read(found[chosen]))
    others = {
        name.rpartition("/")[2]: (lambda item=item: _decoded(read(item)))
        for name, item in found.items()
        if name != chosen and len(item.shape) == 1
    }
    ids, labels = (_beside(others, wanted, len(values)) for wanted in (ID_NAMES, LABEL_NAMES))
    return ArrayFile(path, chosen, values, ids, labels)


def _decoded(values: Any) -> np.ndarray:
    column = np.asarray(values)
    return (
        np.array([v.decode() if isinstance(v, bytes) else v for v in column], object)
        if column.dtype.kind in "OS"
        else column
    )


def _raw(path: Path, key: str | None) -> ArrayFile:
    """A memory map without a header: numpy's ``memmap``, R's ``writeBin`` (column by column: ``F``)."""
    found = _RAW.fullmatch(key or "")
    if not found:
        raise InputError(
            f"{path} has no header: what does it hold?",
            f"write `{path}:DTYPE,ROWSxCOLUMNS`, for example `{path.name}:float32,1000x64`; `>f4` for big-endian, "
            "`,F` at the end for column by column (R, MATLAB)",
        )
    try:
        dtype = np.dtype(found["dtype"])
    except TypeError:
        raise InputError(f"{path}: unknown type `{found['dtype']}`", "float32, float16, >f8 ...") from None
    if dtype.kind not in "fiu":
        raise InputError(f"{path}: got the type `{found['dtype']}`, expected real numbers")
    shape = tuple(int(part) for part in found["shape"].split("x"))
    size, expected = path.stat().st_size, int(np.prod(shape)) * dtype.itemsize
    if size != expected:
        raise InputError(f"{path} has {size} bytes, {found['shape']} of {dtype} are {expected}")
    return ArrayFile(path, None, np.memmap(path, dtype, "r", 0, shape, (found["order"] or "C").upper()))  # type: ignore[call-overload]


def _from_lists(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    lengths = pa.compute.list_value_length(column)
    if column.null_count:
        row = lengths.to_pylist().index(None)
        raise InputError(f"{path}: the column `{name}` is empty in row {row}")
    counts = pa.compute.unique(lengths).to_pylist()
    if len(counts) != 1:
        raise InputError(f"{path}: the lists of column `{name}` have different lengths: {sorted(counts)[:5]}")
    flat = pa.compute.list_flatten(column)
    return flat.to_numpy().reshape(len(column), counts[0])


def _choose(path: Path, key: str | None, names: Sequence[str], fits: Any) -> str:
    if isinstance(key, _Every):
        key.names = [name for name in names if fits(name)]
        if not key.names:
            raise InputError(f"{path} holds no array of two or more dimensions; keys are: {', '.join(names) or 'none'}")
        return key.names[0]
    if key is not None:
        if key not in names:
            raise _no_key(path, key, names, "array")
        return key
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if fits(name)]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"{path} holds {human_count(len(names), 'array')}; keys are: {', '.join(names)}", f"write `{path}:KEY`"
    )


def _no_key(path: Path, key: str, names: Sequence[str], what: str) -> InputError:
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return InputError(f"{path}: no {what} `{key}`; keys are: {listed or 'none'}", did_you_mean(key, names))


_TABLES = {".parquet", ".csv", ".tsv", ".txt", ".dat", ".json", ".jsonl", ".ndjson", ".feather", ".arrow"}
_SEVERAL = (".npz", ".safetensors", ".h5", ".hdf5", ".zarr", ".pt", ".pth", ".mat", ".nc")
_MAPS = {".npy", ".dat"}  # also raw, when the key says type and shape
_READERS: dict[str, Callable[[Path, str | None], ArrayFile]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".mat": _mat,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".nc": _hdf5,
    ".zarr": _zarr,
    ".bin": _raw,
    ".raw": _raw,
    ".memmap": _raw,
}
