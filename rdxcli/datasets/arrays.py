"""A user's own arrays as records: `Representation` and `ConceptMatrix`, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import DEBUG, INFO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from rdxcli.datasets.addresses import address, with_slashes
from rdxcli.datasets.arrayfiles import ArrayFile, read_array, split_key
from rdxcli.datasets.foreign import is_foreign, read_foreign
from rdxcli.datasets.registry import open_dataset
from rdxcli.datasets.seen import ANOTHER_FILE, ID_NAMES, LABEL_NAMES, Seen
from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import (
    TABLES,
    UNREADABLE,
    names_an_index,
    numbers_of_rows,
    path_label_lines,
    pick_column,
    read_columns,
    read_lines,
    read_values,
    require_file,
    table_kind,
)
from rdxcli.datasets.words import composed, find, find_all, taken_as_one
from rdxcli.errors import InputError, MissingDataError
from rdxcli.progress import human_count, log
from rdxcli.records import ConceptMatrix, Representation

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK = 16 * 2**20  # bytes that are looked at at once


def is_array(text: str) -> bool:
    """Whether ``text`` is written like a file of arrays (``PATH.npz:key``), or is the output folder of another tool."""
    if text.startswith("file:"):  # weights of a model
        return False
    return split_key(text) is not None or is_foreign(text)


def open_file(text: str, choice: Choice | None = None) -> ArrayFile:
    """A file of arrays, or the output folder of another tool, as it is."""
    return read_foreign(text, choice) if is_foreign(text) else read_array(text, choice)


def load_representation(
    text: str,
    *,
    labels: Path | str | None = None,
    sample_ids: Path | str | None = None,
    images: Path | str | None = None,
    spatial: bool = False,
    pool: str = "auto",
    choice: Choice | None = None,
) -> Representation:
    """A file of arrays, or the output folder of another tool, as a `Representation`.

    Raises `MissingDataError` or `InputError` with what was found, and for NaN or infinite values the rows.

    Parameters
    ----------
    text : str
        ``PATH[:KEY]``; see `rdxcli.datasets.arrayfiles.read_array`.
    labels, sample_ids : Path, optional
        Files of one value per row (``.npy``, ``.txt``, ``.csv``, ``.json``, ``.parquet``). A table of labels that has a
        column of ids is matched by id. They win over ids and labels in the array's own file.
    images : Path, optional
        Folder, list or data set with the images of the rows, matched by id (with or without folder and ending), or by
        order when the rows have no ids and there are as many images as rows.
    spatial : bool
        Keep (n, c, h, w) as it is. Otherwise positions are pooled.
    pool : str
        For (n, c, h, w): ``auto`` and ``avg`` average over positions, ``max`` takes the largest, ``first`` the first.
    choice : Choice, optional
        Which columns of a table are features, ids and labels, where names and content leave it open.

    Returns
    -------
    Representation
        ``values`` float16, float32 or float64 as stored, memory-mapped where possible; integers become float32.
    """
    choice = choice or Choice()
    file = open_file(text, choice)
    name = file.path.stem + (f":{file.key}" if file.key and split_key(text) != (text, None) else "")
    return as_representation(file, name, labels, sample_ids, images, spatial, pool, choice)


def as_representation(
    file: ArrayFile,
    name: str,
    labels: Path | str | None = None,
    sample_ids: Path | str | None = None,
    images: Path | str | None = None,
    spatial: bool = False,
    pool: str = "auto",
    choice: Choice | None = None,
) -> Representation:
    """What was read from a file, checked and joined with what belongs to its rows; see `load_representation`."""
    choice = choice or Choice()
    values = check_values(file.values, name, spatial=spatial, pool=pool)
    given = {what: Path(path).name for what, path in {"labels": labels, "ids": sample_ids}.items() if path is not None}
    n, seen = len(values), _as_taken(file, values, pool, given)
    ids = read_values(sample_ids, ID_NAMES, "sample ids") if sample_ids is not None else file.sample_ids
    if ids is not None:
        check_ids(ids, n, name)
    dataset = None
    if images is not None:
        ids, dataset = _with_images(str(images), ids, n, name)
    found_labels = file.labels
    if labels is not None:
        columns = {"id_column": choice.ids, "column": choice.labels}
        found_labels = row_values(Path(labels), LABEL_NAMES, "labels", ids, n, name, **columns)
    if seen is not None:
        log.log(INFO if seen.remarkable else DEBUG, "%s", seen.line())
    return Representation(
        values=values,
        sample_ids=np.array(ids) if ids is not None else None,
        name=name,
        labels=np.array([composed(label) for label in found_labels]) if found_labels is not None else None,
        source={
            "array": str(file.path.resolve()),
            "key": file.key,
            "shape": list(file.values.shape),
            # where labels came from is no part of what they are: the same ones in a renamed file make no new request
            "seen": _with(seen, dict.fromkeys(given, ANOTHER_FILE)).describe() if seen is not None else None,
        },
        dataset=dataset,
    )


def _as_taken(file: ArrayFile, values: np.ndarray, pool: str, given: Mapping[str, str]) -> Seen | None:
    """What is said of a file: other files may give its labels and ids, and its positions may have been pooled."""
    if file.seen is None:
        return None
    seen, shape = _with(file.seen, given), file.values.shape
    if len(shape) == 4 and values.ndim == 2:
        done = {"max": "the largest", "first": "the first", "cls": "the first"}.get(pool, "the mean")
        note = f"{done} of {shape[2]} x {human_count(shape[3], 'place')} of each of {human_count(shape[1], 'channel')}"
        seen = replace(seen, notes=[*seen.notes, note])
    return seen


def _with(seen: Seen, given: Mapping[str, str]) -> Seen:
    return replace(seen, labels=given.get("labels", seen.labels), ids=given.get("ids", seen.ids))


def load_concepts(
    text: str,
    *,
    names: Path | str | Sequence[str] | None = None,
    sample_ids: Path | str | None = None,
    choice: Choice | None = None,
) -> ConceptMatrix:
    """A file of concept scores as a `ConceptMatrix`.

    Parameters
    ----------
    text : str
        ``PATH[:KEY]`` of an (n, c) array, or a CSR matrix as ``scipy.sparse.save_npz`` writes it.
    names : Path or sequence of str, optional
        Name of each column; by default the columns of a table, else ``concept0``, ``concept1`` ...
    sample_ids : Path, optional
        File of one id per row.
    choice : Choice, optional
        Which columns of a table are scores of concepts and ids.
    """
    sparse = _sparse(text)
    ids: list[str] | None = None
    columns: list[str] | None = None
    seen: Seen | None = None
    values: np.ndarray | csr_array
    if sparse is not None:
        values, label = sparse, Path(text).stem
    else:
        file = read_array(text, choice, concepts=True)
        label, seen = file.path.stem, file.seen
        if seen is not None:
            log.log(INFO if seen.remarkable else DEBUG, "%s", seen.line())
        values, ids, columns = check_values(file.values, label, minimum=1), file.sample_ids, file.columns
    if sample_ids is not None:
        ids = read_values(sample_ids, ID_NAMES, "sample ids")
    if ids is not None:
        check_ids(ids, values.shape[0], label)
    if isinstance(names, str | Path):
        columns = read_values(names, ("concept", "name", "word", "text"), "concept names")
    elif names is not None:
        columns = list(names)
    if columns is None:
        columns = [f"concept{i}" for i in range(values.shape[1])]
    if len(columns) != values.shape[1]:
        raise InputError(
            f"{label}: got {human_count(values.shape[1], 'column')} but {human_count(len(columns), 'concept name')}"
        )
    path = (split_key(text) or (text, None))[0]
    source: dict[str, Any] = {"array": str(Path(path).expanduser().resolve())}
    if seen is not None:
        source["seen"] = seen.describe()
    return ConceptMatrix(values, columns, np.array(ids) if ids is not None else None, source)


def check_values(
    values: np.ndarray, name: str, *, spatial: bool = False, pool: str = "auto", minimum: int = 2
) -> np.ndarray:
    """``values`` as an (n, d) array of floats, or (n, c, h, w) when ``spatial``.

    Floating-point arrays are returned as they are (no copy); integers and booleans become float32, or float64 where
    float32 would round. Raises `InputError` (not numeric, wrong shape, fewer than ``minimum`` rows, no columns, or rows
    with NaN or infinity).
    """
    if values.dtype.kind not in "fiub":
        raise InputError(f"{name}: got dtype {values.dtype}, expected real numbers")
    if values.ndim == 4 and not spatial:
        values = _pooled(values, pool, name)
    if values.ndim != 2 and not (spatial and values.ndim == 4):
        expected = "(n, d) or (n, c, h, w)" if spatial else "(n, d)"
        raise InputError(
            f"{name}: got an array of shape {values.shape}, expected {expected}",
            "one row per sample and one column per dimension" if values.ndim != 3 else "average or select tokens first",
        )
    if len(values) < minimum:
        raise InputError(f"{name}: got {human_count(len(values), 'row')}, expected at least {minimum}")
    if 0 in values.shape[1:]:
        raise InputError(f"{name}: got an array of shape {values.shape}, expected at least one column")
    if values.dtype.kind != "f":
        exact = values.dtype.itemsize <= 2 or bool(np.abs(values.astype(np.float64)).max() <= 2**24)
        values = values.astype(np.float32 if exact else np.float64)
    elif not values.dtype.isnative or values.dtype.itemsize > 8:
        values = values.astype(np.float64 if values.dtype.itemsize >= 8 else values.dtype.newbyteorder("="))
    bad = bad_rows(values)
    if len(bad):
        shown = ", ".join(map(str, bad[:10])) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise InputError(
            f"{name}: {len(bad)} of {human_count(len(values), 'row')} hold NaN or infinity: "
            f"row{'s' if len(bad) > 1 else ''} {shown}",
            "remove or repair these rows (counted from 0)",
        )
    return values


def bad_rows(values: np.ndarray) -> np.ndarray:
    """Numbers of the rows that hold NaN or infinity, looked for in blocks."""
    step = max(1, _BLOCK // max(1, values[:1].nbytes))
    found = []
    for start in range(0, len(values), step):
        block = np.asarray(values[start : start + step])
        finite = np.isfinite(block)
        if not finite.all():
            found.append(start + np.flatnonzero(~finite.reshape(len(block), -1).all(axis=1)))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def check_ids(ids: Sequence[str], n: int, name: str) -> None:
    """Raise `InputError` unless there are ``n`` different, non-empty ids."""
    if len(ids) != n:
        raise InputError(f"{name}: got {human_count(n, 'row')} but {human_count(len(ids), 'sample id')}")
    seen: dict[str, int] = {}
    for row, sample in enumerate(ids):
        if not sample:
            raise InputError(f"{name}: the sample id of row {row} is empty")
        if sample in seen:
            raise InputError(f"{name}: the sample id `{sample}` occurs in rows {seen[sample]} and {row}")
        seen[sample] = row


def _pooled(values: np.ndarray, pool: str, name: str) -> np.ndarray:
    n, c = values.shape[:2]
    if pool == "none":
        raise InputError(f"{name}: got an array of shape {values.shape}, expected (n, d)", "choose --pool avg or max")
    result = np.empty((n, c), np.float32 if values.dtype.itemsize <= 4 else np.float64)
    step = max(1, _BLOCK // max(1, values[:1].nbytes))
    for start in range(0, n, step):
        block = np.asarray(values[start : start + step]).reshape(-1, c, values.shape[2] * values.shape[3])
        match pool:
            case "max":
                pooled = block.max(axis=2)
            case "first" | "cls":
                pooled = block[:, :, 0]
            case _:
                pooled = block.mean(axis=2, dtype=result.dtype)
        result[start : start + step] = pooled
    return result


def row_values(
    path: Path,
    names: Sequence[str],
    what: str,
    ids: Sequence[str] | None,
    n: int,
    name: str,
    *,
    id_column: str | None = None,
    column: str | None = None,
) -> list[str]:
    """One text for each of n rows out of a file: labels, predictions, finer classes.

    A file with ids is joined by them, one whose rows are numbered by the numbers where these are the ids. Every other
    is taken by position, which is said where the file alone has ids, and refused where its rows are numbered in another
    order. Raises `InputError` (an id that is missing or repeated, no such column, or values that are not n).

    Parameters
    ----------
    names : sequence of str
        Names of the column, best first. Without one, the only column besides ids and numbers is taken.
    what : str
        For messages: ``labels``.
    ids : sequence of n str, optional
        None or nothing for rows without ids.
    name : str
        Whose rows these are.
    id_column, column : str, optional
        Columns that are known; others are taken where the file has no such column.
    """
    ids = ids or None
    columns = _value_table(path)
    id_column = id_column if id_column in columns else pick_column(columns, ID_NAMES)
    chosen = column if column in columns else pick_column({c: v for c, v in columns.items() if c != id_column}, names)
    others = [other for other in columns if other != id_column and not names_an_index(other)]
    if chosen is None and id_column is not None and len(others) == 1:
        (chosen,) = others
        log.info("%s: %s from `%s`, the only column besides the ids", path.name, what, chosen)
    if id_column is not None and chosen is not None and ids is not None:
        known = columns[id_column]
        check_ids(known, len(known), path.name)
        single = what.removesuffix("s")
        places, note = find_all(ids, known, lambda count, one, _: InputError(
            f"{path}: no {single} for {count} of {human_count(n, 'sample id')} of {name}, for example `{one}`"
        ))  # fmt: skip
        if note:
            log.info("%s", taken_as_one(note, name, path.name))
        return [columns[chosen][place] for place in places]
    numbers = numbers_of_rows(columns)
    if numbers and ids is not None and ((places := find(ids, numbers)[0]) >= 0).all():
        values = read_values(path, names, what, chosen, in_order=False)
        return [values[place] for place in places]
    values = read_values(path, names, what, chosen)
    if len(values) != n:
        raise InputError(f"{path}: got {len(values)} {what} for the {human_count(n, 'row')} of {name}")
    if id_column is not None and chosen is not None:
        log.warning("%s has no sample ids: %s of %s are taken to be in its order", name, what, path.name)
    return values


def _value_table(path: Path) -> dict[str, list[str]]:
    """Columns of a file of values, when it is a table or lines of path and label."""
    kind = table_kind(path)
    if kind in {".txt", ".lst", ".list", ""} and path.is_file():
        return path_label_lines(read_lines(path)) or {}
    if kind not in TABLES or not path.is_file():
        return {}
    try:
        return read_columns(path)
    except InputError:
        if kind == ".json":  # a plain list
            return {}
        raise


def _with_images(text: str, ids: list[str] | None, n: int, name: str) -> tuple[list[str] | None, str]:
    """The ids of the rows and the data set that shows them."""
    text = with_slashes(Path(text))
    where = address(text)
    spec = f"images:{where}" if where else text if ":" in text and not Path(text).exists() else f"images:{text}"
    dataset = open_dataset(spec)
    if ids is None:
        if len(dataset) != n:
            raise InputError(
                f"{name}: got {human_count(n, 'row')} without ids but {human_count(len(dataset), 'image')} in {text}",
                "give the ids with --sample-ids",
            )
        return list(dataset.sample_ids), dataset.spec
    found = dataset.locate(ids)
    missing = [sample for sample, index in zip(ids, found, strict=True) if index < 0]
    if missing:
        raise MissingDataError(
            f"{text} has no image for {len(missing)} of {human_count(n, 'sample id')} of {name}, for "
            f"example `{missing[0]}`",
            "ids are compared with paths below the folder, with and without their ending",
        )
    return ids, dataset.spec


def _sparse(text: str) -> csr_array | None:
    if not text.endswith(".npz"):
        return None
    path = require_file(text, "file of arrays")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not {"data", "shape", "format"} <= set(archive.files):
                return None
        matrix = sp.csr_array(sp.load_npz(path))
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {(str(error).splitlines() or ['damaged'])[0]}") from None
    if not np.isfinite(matrix.data).all():
        raise InputError(f"{path} holds NaN or infinity")
    return matrix
