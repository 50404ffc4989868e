"""Output folders of other tools, opened as they are: thingsvision, dinotool, clip-retrieval, FiftyOne.

| tool | what is in the folder |
|---|---|
| thingsvision | ``features.npy`` (or ``.h5``, ``.mat``, ``.pt``, ``.txt``, or pieces of it) and ``file_names.txt`` |
| dinotool | ``*.parquet``, a file or a folder of parts, indexed by ``filename``; patches are averaged per image |
| clip-retrieval | ``img_emb/img_emb_N.npy`` and ``metadata/metadata_N.parquet`` |
| FiftyOne | ``samples.json`` of an exported data set with a vector field |
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.arrayfiles import ArrayFile, from_table, read_array
from rdxcli.datasets.seen import Seen
from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import DataTable, pick_column, read_lines, read_table
from rdxcli.datasets.words import text_of
from rdxcli.errors import InputError
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import human_count

_PIECE = re.compile(r"features.*?(?:_(\d+))?(?:[-_](\d+))?\.(npy|pt)")
_WHOLE = ("features.npy", "features.pt", "features.h5", "features.hdf5", "features.mat", "features.txt")


def is_foreign(text: str) -> bool:
    """Whether ``text`` is a folder that one of the tools wrote (``FOLDER`` or ``FOLDER:FIELD``)."""
    return _tool(_folder(text)[0]) is not None


def read_foreign(text: str, choice: Choice | None = None) -> ArrayFile:
    """The features in the folder of another tool, with the names of its images as ids.

    Raises `InputError` (pieces that do not fit together, or several vector fields of which none is chosen).
    """
    folder, key = _folder(text)
    tool = _tool(folder)
    readers = {
        "thingsvision": _thingsvision,
        "clip-retrieval": _clip_retrieval,
        "FiftyOne": _fiftyone,
        "dinotool": _dinotool,
    }
    file = readers[str(tool)](folder, key, choice or Choice())
    seen = file.seen or Seen(folder.name, len(file.values), file.values.shape[-1])
    return replace(
        file,
        path=folder,
        key=key,
        seen=replace(
            seen,
            name=folder.name,
            ids=seen.ids or ("the tool's list" if file.sample_ids is not None else None),
            labels=seen.labels or ("the tool's list" if file.labels is not None else None),
            notes=[f"written by {tool}", *seen.notes],
        ),
    )


def _folder(text: str) -> tuple[Path, str | None]:
    path = Path(text).expanduser()
    if path.is_dir():
        return path, None
    head, colon, key = text.rpartition(":")
    return (Path(head).expanduser(), key) if colon else (path, None)


def _tool(folder: Path) -> str | None:
    if not folder.is_dir() or (folder / "manifest.json").is_file():
        return None
    if (folder / "img_emb").is_dir() and any((folder / "img_emb").glob("*.npy")):
        return "clip-retrieval"
    if (folder / "samples.json").is_file() and (folder / "metadata.json").is_file():
        return "FiftyOne"
    if any((folder / name).is_file() for name in _WHOLE) or _pieces(folder):
        return "thingsvision"
    if folder.suffix != ".parquet" and any(folder.glob("*.parquet")):
        return "dinotool"
    return None


def _pieces(folder: Path) -> list[Path]:
    """``features_0-100.npy``, ``features_100-200.npy`` ... in order."""
    found = [
        (match, path) for path in folder.glob("features*_*") if (match := _PIECE.fullmatch(path.name)) and match[1]
    ]
    return [path for _, path in sorted(found, key=lambda pair: (int(pair[0][1]), int(pair[0][2] or 0)))]


def _thingsvision(folder: Path, key: str | None, choice: Choice) -> ArrayFile:
    whole = [folder / name for name in _WHOLE if (folder / name).is_file()]
    if len(whole) > 1:
        raise InputError(f"{folder} holds {', '.join(path.name for path in whole)}", f"name one: `{whole[0]}`")
    paths = whole or _pieces(folder)
    files = [read_array(str(path) + (f":{key}" if key else ""), choice) for path in paths]
    values = files[0].values if len(files) == 1 else np.concatenate([file.values for file in files])
    if values.ndim == 4 and values.shape[2:] == (1, 1):
        values = values[:, :, 0, 0]
    listing = next(
        (path / "file_names.txt" for path in (folder, folder.parent) if (path / "file_names.txt").is_file()), None
    )
    ids = read_lines(listing) if listing is not None else files[0].sample_ids
    if listing is not None and ids is not None and len(ids) != len(values):
        raise InputError(
            f"{listing} names {human_count(len(ids), 'file')}, the features have {human_count(len(values), 'row')}"
        )
    seen = files[0].seen
    return replace(files[0], values=values, sample_ids=ids, seen=replace(seen, rows=len(values)) if seen else None)


def _clip_retrieval(folder: Path, key: str | None, choice: Choice) -> ArrayFile:
    kind = key or "img_emb"
    arrays = _numbered(folder / kind, f"{kind}_*.npy")
    if not arrays:
        raise InputError(
            f"{folder} has no {kind}/{kind}_0.npy", "`FOLDER:text_emb` takes the embeddings of the captions"
        )
    tables = _numbered(folder / "metadata", "metadata_*.parquet")
    parts, ids, labels = [], [], []
    for path in arrays:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        parts.append(values)
        number = path.stem.rpartition("_")[2]
        table = next((t for t in tables if t.stem.rpartition("_")[2] == number), None)
        if table is None:
            continue
        columns = read_table(table)
        if columns.rows != len(values):
            raise InputError(f"{table} has {human_count(columns.rows, 'row')}, {path.name} has {len(values)}")
        name = (
            choice.ids if choice.ids in columns.columns else pick_column(columns.columns, ("image_path", "key", "url"))
        )
        if name is not None:
            ids += columns.texts(name)
        label = choice.labels if choice.labels in columns.columns else pick_column(columns.columns, ("label", "class"))
        if label is not None:
            labels += columns.texts(label)
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return ArrayFile(
        folder, key, values, ids if len(ids) == len(values) else None, labels if len(labels) == len(values) else None
    )


def _numbered(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: int(re.sub(r"\D", "", path.stem.rpartition("_")[2]) or 0))


def _dinotool(folder: Path, key: str | None, choice: Choice) -> ArrayFile:
    if any(re.fullmatch(r"part\.\d+\.parquet", path.name) for path in folder.glob("*.parquet")):
        files = _numbered_parts(folder)
    else:
        files = sorted(folder.glob("*.parquet"))
        if len(files) > 1 and key is not None:
            files = [path for path in files if path.stem == key]
        if not files:
            raise InputError(f"{folder} has no {key}.parquet")
    tables = [read_table(path) if path.is_file() else None for path in files]
    if len(files) == 1 and tables[0] is None:
        return _per_image(read_array(str(files[0]), choice))
    known = [table for table in tables if table is not None]
    names = list(known[0].columns)
    if any(list(table.columns) != names for table in known):
        raise InputError(
            f"{folder} holds tables with different columns: {', '.join(path.name for path in files[:4])}",
            f"name one: `{files[0]}`",
        )
    columns = {
        name: pa.chunked_array([c for table in known for c in table.columns[name].chunks], known[0].columns[name].type)
        for name in names
    }
    return _per_image(from_table(DataTable(folder, columns, True, known[0].index), None, choice))


def _numbered_parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part.*.parquet"), key=lambda path: int(path.name.split(".")[1]))


def _per_image(file: ArrayFile) -> ArrayFile:
    """Rows of patches averaged over each image, in the order in which the images first occur."""
    ids = file.sample_ids
    if ids is None or len(set(ids)) == len(ids):
        return file
    order = {name: place for place, name in enumerate(dict.fromkeys(ids))}
    places = np.array([order[name] for name in ids])
    sums = np.zeros((len(order), file.values.shape[1]))
    np.add.at(sums, places, np.asarray(file.values, dtype=np.float64))
    counts = np.bincount(places, minlength=len(order))
    seen = file.seen
    note = (
        f"{human_count(counts.min(), 'patch')} averaged per image"
        if counts.min() == counts.max()
        else "patches averaged per image"
    )
    return replace(
        file,
        values=(sums / counts[:, None]).astype(np.float32),
        sample_ids=list(order),
        labels=None,
        seen=replace(seen, rows=len(order), notes=[*seen.notes, note]) if seen else None,
    )


def _fiftyone(folder: Path, key: str | None, choice: Choice) -> ArrayFile:
    path = folder / "samples.json"
    try:
        samples = json.loads(path.read_text("utf-8"))
        samples = samples["samples"] if isinstance(samples, dict) else samples
        fields = {name for sample in samples for name, value in sample.items() if _is_vector(value)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no list of samples: {error}") from None
    wanted = key or choice.features
    if wanted is None and len(fields) == 1:
        (wanted,) = fields
    if wanted not in fields:
        raise InputError(
            f"{path}: {human_count(len(fields), 'field', 'hold')} vectors: {', '.join(sorted(fields)) or 'none'}",
            f"write `{folder}:FIELD`",
        )
    rows, ids, labels = [], [], []
    label_field = choice.labels or "ground_truth"
    for sample in samples:
        vector = _vector(sample.get(wanted), path)
        if vector is None:
            continue
        rows.append(vector)
        ids.append(text_of(sample.get(choice.ids or "filepath")).removeprefix("data/"))
        value = sample.get(label_field)
        labels.append(text_of(value.get("label") if isinstance(value, dict) else value))
    if len({len(row) for row in rows}) != 1:
        raise InputError(f"{path}: the vectors of `{wanted}` have different lengths")
    notes = (
        [f"{human_count(len(samples) - len(rows), 'sample', 'have')} no `{wanted}`"] if len(rows) < len(samples) else []
    )
    seen = Seen(
        folder.name,
        len(rows),
        len(rows[0]),
        [str(wanted)],
        choice.ids or "filepath",
        label_field if any(labels) else None,
        notes=notes,
    )
    return ArrayFile(folder, key, np.stack(rows), ids, labels if all(labels) else None, seen=seen)


def _is_vector(value: Any) -> bool:
    if isinstance(value, dict):
        return "$binary" in value
    return isinstance(value, list) and len(value) > 1 and all(isinstance(part, int | float) for part in value)


def _vector(value: Any, path: Path) -> np.ndarray | None:
    """A list of numbers, or an array as FiftyOne packs it: ``numpy.save``, zlib, base64."""
    if value is None:
        return None
    if isinstance(value, list):
        return np.asarray(value, dtype=np.float64)
    packed = value.get("$binary") if isinstance(value, dict) else None
    packed = packed.get("base64") if isinstance(packed, dict) else packed
    try:
        content = zlib.decompress(base64.b64decode(packed or ""))
        return np.ravel(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, TypeError, OSError, EOFError, zlib.error, binascii.Error) as error:
        raise InputError(f"{path}: a vector cannot be read: {error}") from None
