"""Arrays, tensors, tables and data frames of a Python session as representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array
from rdxcli.datasets.arrayfiles import from_table
from rdxcli.datasets.arrays import check_ids, check_values
from rdxcli.datasets.seen import check_columns
from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import DataTable, arrow_table
from rdxcli.datasets.words import composed, texts_of
from rdxcli.errors import InputError
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import log
from rdxcli.records import Representation


def from_memory(
    values: Any,
    *,
    name: str = "array",
    labels: Sequence[Any] | None = None,
    sample_ids: Sequence[Any] | None = None,
    dataset: str | None = None,
    layer: str | None = None,
    choice: Choice | None = None,
) -> Representation:
    """A representation of values that are in memory.

    Raises `InputError` (not an array of numbers of such a shape; rows that are not finite; labels or ids of another
    length, or ids that occur twice).

    Parameters
    ----------
    values : array-like, tensor, table of Arrow or data frame of shape (n, d) or (n, c, h, w)
        Which columns of a frame are features, ids and labels is decided as for a file, see `rdxcli.datasets.seen`; an
        index that is no plain count gives the ids.
    name : str
        For people, and for the artifact's folder.
    dataset : str, optional
        Data set specification whose images belong to the ids.
    choice : Choice, optional
        Which columns of a frame are what.
    """
    choice = choice or Choice()
    seen: dict[str, Any] | None = None
    table = _table(values, name)
    if table is not None:
        file = from_table(table, None, choice)
        values = file.values
        sample_ids = file.sample_ids if sample_ids is None else sample_ids
        labels = file.labels if labels is None else labels
        if file.seen is not None:
            log.info("%s", file.seen.line())
            seen = file.seen.describe()
    elif hasattr(values, "detach"):
        tensor = values.detach().cpu()
        values = (tensor.float() if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 4 else tensor).numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 4):
        raise InputError(
            f"{name}: got {array.dtype} values of shape {array.shape}, expected numbers of shape (n, d) or (n, c, h, w)"
        )
    array = check_values(array, name, spatial=True)
    if table is None and choice.features is None:
        check_columns(array, name)
    ids = None if sample_ids is None else texts_of(_column(sample_ids))
    if ids is not None:
        check_ids(ids, len(array), name)
    texts = None if labels is None else np.array([composed(label) for label in texts_of(_column(labels))])
    return Representation(
        values=array,
        sample_ids=None if ids is None else np.array(ids),
        name=name,
        layer=layer,
        labels=texts,
        source={
            "array": name,
            "shape": list(array.shape),
            "sha256": fingerprint_array(array),
            **({"seen": seen} if seen is not None else {}),
        },
        dataset=dataset,
    )


def _column(values: Any) -> Any:
    """A sequence, a tensor, or a series of pandas or polars, as an array or a list."""
    if hasattr(values, "detach"):
        return values.detach().cpu().numpy()
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    return values.tolist() if isinstance(values, np.ndarray) and values.dtype.hasobject else values


def _table(values: Any, name: str) -> DataTable | None:
    """A table of Arrow, a frame of pandas or polars, or a structured array, as a table."""
    if isinstance(values, np.ndarray) and values.dtype.names:
        values = pa.table({column: pa.array(values[column]) for column in values.dtype.names})
    if isinstance(values, pa.Table):
        return arrow_table(values, Path(name))
    if not hasattr(values, "columns") or not hasattr(values, "to_numpy"):
        return None
    if hasattr(values, "to_arrow"):
        return arrow_table(values.to_arrow(), Path(name))
    if type(values).__module__.partition(".")[0] == "pandas":
        return arrow_table(pa.Table.from_pandas(values.rename(columns=str)), Path(name))
    cells = np.asarray(values.to_numpy())  # another library's frame
    columns = {
        str(column): pa.array(cells[:, i].tolist() if cells.dtype.hasobject else np.ascontiguousarray(cells[:, i]))
        for i, column in enumerate(values.columns)
    }
    rows = texts_of(list(getattr(values, "index", ())))
    index = ["index"] if len(rows) == len(cells) and rows != [str(i) for i in range(len(cells))] else []
    table = arrow_table(pa.table({**columns, **({"index": pa.array(rows)} if index else {})}), Path(name))
    return replace(table, index=index)
