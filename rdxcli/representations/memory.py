"""Arrays, tensors and data frames of a Python session as representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array
from rdxcli.datasets.arrays import check_ids, check_values
from rdxcli.errors import InputError
from rdxcli.records import Representation


def from_memory(
    values: Any,
    *,
    name: str = "array",
    labels: Sequence[Any] | None = None,
    sample_ids: Sequence[Any] | None = None,
    dataset: str | None = None,
    layer: str | None = None,
) -> Representation:
    """A representation of values that are in memory.

    Parameters
    ----------
    values : array-like, tensor or data frame of shape (n, d) or (n, c, h, w)
        Of a data frame, every column must be a number; an index that is no plain count gives the ids.
    name : str
        For people, and for the artifact's folder.
    labels, sample_ids : sequence of n, optional
    dataset : str, optional
        Data set specification whose images belong to the ids.
    layer : str, optional

    Raises
    ------
    InputError
        Not an array of numbers of such a shape; rows that are not finite; labels or ids of another length, or ids that
        occur twice.
    """
    if hasattr(values, "columns") and hasattr(values, "to_numpy"):
        values, sample_ids = _of_frame(values, name, sample_ids)
    elif hasattr(values, "detach"):
        tensor = values.detach().cpu()
        values = (tensor.float() if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 4 else tensor).numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 4):
        raise InputError(
            f"{name}: got {array.dtype} values of shape {array.shape}, expected numbers of shape (n, d) or (n, c, h, w)"
        )
    array = check_values(array, name, spatial=True)
    ids = None if sample_ids is None else [str(sample) for sample in sample_ids]
    if ids is not None:
        check_ids(ids, len(array), name)
    texts = None if labels is None else np.array([str(label) for label in labels])
    return Representation(
        values=array,
        sample_ids=None if ids is None else np.array(ids),
        name=name,
        layer=layer,
        labels=texts,
        source={"array": name, "shape": list(array.shape), "sha256": fingerprint_array(array)},
        dataset=dataset,
    )


def _of_frame(frame: Any, name: str, ids: Sequence[Any] | None) -> tuple[np.ndarray, Sequence[Any] | None]:
    """Values and ids of a data frame."""
    words = [str(column) for column, kind in zip(frame.columns, frame.dtypes, strict=True) if kind.kind not in "fiub"]
    if words:
        raise InputError(
            f"{name}: the column {', '.join(f'`{word}`' for word in words[:4])} holds no numbers",
            "give the columns of features only, and labels=frame[...], sample_ids=frame[...]",
        )
    index = list(frame.index)
    if ids is None and index != list(range(len(index))):
        ids = index
    return frame.to_numpy(), ids
