"""Tables that hold images: Parquet and Arrow files, folders as the Hub keeps them, folders of ``save_to_disk``.

An image is a cell of bytes, or of ``{bytes, path}`` as the package ``datasets`` writes it. Nothing is decoded and no
column of images is loaded when a table is opened: a group of rows is read when one of its images is asked for, from
this machine or from an address. The package ``datasets`` is not needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from rdxcli.datasets.addresses import Place, address, listing, whole
from rdxcli.datasets.base import Dataset, folder_name
from rdxcli.datasets.files import looks_like_image
from rdxcli.datasets.images import CONTENT_LIMIT, ImageSource, decode
from rdxcli.datasets.pixelrange import PixelRange, parse_range
from rdxcli.datasets.tables import pick_column, unknown_column
from rdxcli.datasets.words import UNLABELLED, text_of, texts_of
from rdxcli.errors import InputError, MissingDataError, UsageError, did_you_mean, without_passwords
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import human_count, log

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".parquet", ".pq", ".arrow", ".feather")
OPTIONS = ("range", "image", "label", "id", "split", "config")
_IMAGE_NAMES = ("image", "img", "jpg", "png", "picture", "photo", "bytes", "image_bytes", "data")
_ID_NAMES = ("sample_id", "id", "image_id", "img_id", "uid", "key", "__key__", "file_name", "filename", "path")
_LABEL_NAMES = ("label", "class", "fine_label", "category", "target", "y", "labels", "class_name")
_CAPTION_NAMES = ("caption", "captions", "text", "sentences", "sentence")
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
_SPLITS |= {"val": "validation", "valid": "validation", "validation": "validation", "dev": "validation"}
_SPLIT = re.compile(rf"(?:^|[\W_])({'|'.join(_SPLITS)})(?=$|[\W_\d])", re.I)
_KEPT = 4  # groups of rows in memory: threads read in order and are never far apart
_STATE = ("dataset_info.json", "state.json")


@dataclass(frozen=True)
class _Part:
    """One file of a table.

    Parameters
    ----------
    starts : tuple of int
        First row of each group of rows, and the end.
    """

    place: Place
    split: str | None
    starts: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.starts[-1]


class TableImages(ImageSource):
    """Images in the cells of tables.

    Parameters
    ----------
    column : str
        Of the images.
    pixels : PixelRange, optional
        Of deep images.
    """

    def __init__(self, parts: Sequence[_Part], column: str, pixels: PixelRange | None = None) -> None:
        self.parts, self.column, self.pixels = list(parts), column, pixels
        self.waits = any(part.place.remote for part in parts)
        self._ends = np.cumsum([part.rows for part in parts])
        self._groups: OrderedDict[tuple[int, int], pa.Array] = OrderedDict()
        self._batches: dict[int, list[pa.RecordBatch]] = {}
        self._lock = threading.Lock()
        self._busy: dict[tuple[int, int], threading.Lock] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, row: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._ends, row, side="right"))
        return part, row - (int(self._ends[part - 1]) if part else 0)

    def _group(self, part: int, group: int) -> pa.Array:
        """The cells of a group of rows; read once, by whoever comes first."""
        key = (part, group)
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
                return self._groups[key]
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            with self._lock:
                if key in self._groups:
                    return self._groups[key]
            place = self.parts[part].place
            if _is_parquet(place):
                cells = _read_group(place, group, self.column)
            else:
                if part not in self._batches:
                    self._batches[part] = _arrow(place)[1]
                cells = self._batches[part][group].column(self.column)
            with self._lock:
                self._groups[key] = cells
                while len(self._groups) > _KEPT:
                    self._busy.pop(self._groups.popitem(last=False)[0], None)
            return cells

    def _cell(self, row: int) -> bytes:
        part, inside = self._locate(row)
        group = int(np.searchsorted(self.parts[part].starts, inside, side="right")) - 1
        value = self._group(part, group)[inside - self.parts[part].starts[group]].as_py()
        if isinstance(value, Mapping):
            if value.get("bytes") is None and value.get("path"):
                raise InputError(f"the table names the file {value['path']} and does not hold it")
            value = value.get("bytes")
        if value is None:
            raise InputError("there is no image in this row")
        return value

    def raw(self, row: int) -> Image.Image:
        return decode(io.BytesIO(self._cell(row)))

    def location(self, row: int) -> str | None:
        part, inside = self._locate(row)
        return f"{without_passwords(self.parts[part].place.text)} row {inside}"

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(f"{self.column}{'' if self.pixels is None else repr(self.pixels)}".encode())
        used = sorted({self._locate(int(row))[0] for row in rows})
        sizes = [self.parts[part].place.size or 0 for part in used]
        versions = {part: self.parts[part].place.version for part in used}
        by_content = None in versions.values() or (not self.waits and sum(sizes) <= CONTENT_LIMIT)
        for row in rows:
            part, inside = self._locate(int(row))
            if by_content:
                try:
                    digest.update(hashlib.sha256(self._cell(int(row))).digest())
                except (InputError, OSError):
                    digest.update(b"unreadable\n")
            else:
                digest.update(f"{versions[part]}:{inside}\n".encode())
        how = "content" if by_content else "version" if self.waits else "size and time"
        return {"by": how, "sha256": digest.hexdigest()}


def holds_images(place: Place) -> bool:
    """Whether a file is a table with a column of images."""
    if not place.name.lower().endswith(ENDINGS):
        return False
    try:
        schema = _schema(place)
    except (OSError, pa.ArrowException):
        return False
    return bool(_image_columns(schema)) or any(
        _is_bytes(field.type) and looks_like_image(_first_bytes(place, field.name)) for field in schema
    )


def tables_in(folder: str) -> list[str]:
    """The tables of a folder that is kept like one of the Hub's or of ``save_to_disk``, by their paths below it."""
    if address(folder) is not None:
        names = list(listing(folder))
    else:
        root = Path(folder).expanduser()
        names = [
            path.relative_to(root).as_posix()
            for ending in ENDINGS
            for path in root.rglob(f"*{ending}")
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
        ]
    # what `datasets` caches beside its own files repeats them
    return sorted(
        name for name in names if name.lower().endswith(ENDINGS) and not name.rpartition("/")[2].startswith("cache-")
    )


def image_tables(location: str, names: Sequence[str] | None, options: Mapping[str, str], scheme: str) -> Dataset:
    """The images in a table, or in the tables ``names`` of a folder.

    Raises `InputError` (not readable, or no column of images, or several of which none is chosen).

    Parameters
    ----------
    location : str
        Path or address.
    names : sequence of str, optional
        Of tables below ``location``; None when it is a table itself.
    options : mapping
        ``image``, ``label``, ``id`` name columns; ``split`` and ``config`` choose files; ``range`` as elsewhere.
    scheme : str
        How it was written: ``images`` or ``hf``.
    """
    where = address(location)
    base = where or str(Path(location).expanduser().resolve())
    shown = whole(location)
    if names is None:
        places = {base.rpartition("/")[2]: Place(base)}
    elif where is not None:
        found = listing(where)
        places = {name: found[name] for name in names}
    else:
        places = {name: Place(os.path.join(base, name)) for name in names}
    places = _of_config(places, options.get("config"), shown)
    parts = _parts(places, options.get("split"), shown)
    schema = _schema(parts[0].place)
    for part in parts[1:]:
        if set(_schema(part.place).names) != set(schema.names):
            raise InputError(f"{part.place.text} has other columns than {parts[0].place.name}")
    column = _image_column(parts[0].place, schema, options.get("image"), shown)
    source = TableImages(parts, column, parse_range(options["range"]) if "range" in options else None)
    features = _features(parts[0].place, schema)
    rest = [field.name for field in schema if field.name != column and not _is_image(field.type)]
    columns = dict.fromkeys(rest)
    id_column = _chosen(columns, options.get("id"), _ID_NAMES, shown)
    label_column = _chosen(columns, options.get("label"), _LABEL_NAMES, shown)
    splits = [part.split or "all" for part in parts for _ in range(part.rows)] if _has_splits(parts) else None
    captions = _chosen(columns, None, _CAPTION_NAMES, shown)
    labels, class_names = (None, None) if label_column is None else _labels(parts, label_column, features, shown)
    ids, from_where = _ids(parts, id_column, column, splits)
    log.info(
        "%s: %s from `%s`; ids from %s%s",
        shown.rpartition("/")[2],
        human_count(len(source), "image"),
        column,
        from_where,
        "".join(f"; {what} from `{name}`" for what, name in (("labels", label_column), ("captions", captions)) if name),
    )
    query = "?" + urlencode(options) if options else ""
    return Dataset(
        name=folder_name(location) + "".join(f"-{options[key]}" for key in ("config", "split") if key in options),
        spec=f"{scheme}:{shown}{query}",
        source=source,
        sample_ids=ids,
        labels=labels,
        class_names=class_names,
        splits=splits,
        captions=_captions(parts, captions) if captions is not None else None,
    )


# -- files --------------------------------------------------------------------------------------------------------


def _is_parquet(place: Place) -> bool:
    return place.name.lower().endswith((".parquet", ".pq"))


def _arrow(place: Place) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """An Arrow file; of this machine it is mapped into memory and costs none."""
    stream: Any = pa.PythonFile(place.open(), mode="r") if place.remote else pa.memory_map(place.text)
    try:
        reader = pa.ipc.open_file(stream)
        return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except pa.ArrowInvalid:  # `datasets` writes streams
        stream.seek(0)
        reader = pa.ipc.open_stream(stream)
        return reader.schema, list(reader)


def _schema(place: Place) -> pa.Schema:
    if not _is_parquet(place):
        return _arrow(place)[0]
    with place.open() as stream:
        return pa.parquet.ParquetFile(stream).schema_arrow


def _starts(place: Place) -> tuple[int, ...]:
    try:
        if not _is_parquet(place):
            sizes = [len(batch) for batch in _arrow(place)[1]]
        else:
            with place.open() as stream:
                known = pa.parquet.ParquetFile(stream).metadata
                sizes = [known.row_group(group).num_rows for group in range(known.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{place.text} cannot be read as a table: {text}") from None
    return (0, *map(int, np.cumsum(sizes))) if sizes else (0,)


def _read_group(place: Place, group: int, column: str) -> pa.Array:
    if not _is_parquet(place):
        return _arrow(place)[1][group].column(column)
    with place.open() as stream:
        found = pa.parquet.ParquetFile(stream).read_row_group(group, columns=[column]).column(column)
    return found.combine_chunks()


def _column(parts: Sequence[_Part], name: str) -> list[Any]:
    """A column that holds no images, of all parts."""
    values: list[Any] = []
    for part in parts:
        if _is_parquet(part.place):
            with part.place.open() as stream:
                values += pa.parquet.ParquetFile(stream).read(columns=[name]).column(name).to_pylist()
        else:
            values += [value for batch in _arrow(part.place)[1] for value in batch.column(name).to_pylist()]
    return values


def _of_config(places: dict[str, Place], config: str | None, shown: str) -> dict[str, Place]:
    """The tables of one configuration, where a folder has several: its first level names them."""
    tops = {name.partition("/")[0] for name in places if "/" in name}
    configs = sorted(top for top in tops if _SPLIT.search(top) is None and top != "data")
    if config is not None:
        if config not in configs:
            raise UsageError(f"{shown} has no configuration `{config}`", did_you_mean(config, configs, _list(configs)))
        return {name: place for name, place in places.items() if name.startswith(f"{config}/")}
    if len(configs) > 1 and len({name.partition("/")[0] for name in places}) == len(configs):
        raise UsageError(
            f"{shown} has several configurations: {', '.join(configs)}", f"choose one: ?config={configs[0]}"
        )
    return places


def _parts(places: Mapping[str, Place], split: str | None, shown: str) -> list[_Part]:
    splits = {name: _split_of(name) for name in places}
    if split is not None:
        wanted = _SPLITS.get(split.lower(), split)
        known = sorted({found for found in splits.values() if found is not None})
        if wanted not in known:
            raise UsageError(f"{shown} has no split `{split}`", did_you_mean(split, known, _list(known)))
        places = {name: place for name, place in places.items() if splits[name] == wanted}
    order = {"train": 0, "validation": 1, "test": 2, None: 3}
    names = sorted(places, key=lambda name: (order.get(splits[name], 3), _numbers_apart(name)))
    parts = [_Part(places[name], splits[name], _starts(places[name])) for name in names]
    parts = [part for part in parts if part.rows]
    if not parts:
        raise MissingDataError(f"{shown} holds no rows")
    return parts


def _split_of(name: str) -> str | None:
    """``train`` of ``data/train-00000-of-00002.parquet``, of ``train/0000.parquet``, of ``train/data-00000.arrow``."""
    for part in reversed(name.split("/")):
        found = _SPLIT.search(part)
        if found is not None:
            return _SPLITS[found[1].lower()]
    return None


def _has_splits(parts: Sequence[_Part]) -> bool:
    return any(part.split is not None for part in parts)


def _numbers_apart(name: str) -> list[Any]:
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"(\d+)", name)]


def _list(names: Sequence[str]) -> str:
    return f"it has {', '.join(names) or 'none'}"


# -- columns ------------------------------------------------------------------------------------------------------


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)


def _image_columns(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _is_image(field.type)]


def _first_bytes(place: Place, column: str) -> bytes:
    if len(_starts(place)) < 2:  # it holds no rows
        return b""
    cells = _read_group(place, 0, column)
    return next((cell.as_py()[:16] for cell in cells if cell.is_valid), b"")


def _image_column(place: Place, schema: pa.Schema, given: str | None, shown: str) -> str:
    plain = [field.name for field in schema if _is_bytes(field.type)]
    columns = _image_columns(schema) or [name for name in plain if looks_like_image(_first_bytes(place, name))]
    if given is not None:
        if given not in columns and given not in plain:
            raise unknown_column(Path(shown), given, columns)
        return given
    if not columns:
        raise InputError(
            f"{shown}: no column of images; columns are: {', '.join(schema.names)}",
            "images are cells of bytes, or of {bytes, path}",
        )
    if len(columns) == 1:
        return columns[0]
    named = pick_column(dict.fromkeys(columns), _IMAGE_NAMES)
    if named is None:
        raise InputError(
            f"{shown}: several columns of images: {', '.join(columns)}", f"choose one: ?image={columns[0]}"
        )
    return named


def _chosen(columns: Mapping[str, Any], given: str | None, wanted: Sequence[str], shown: str) -> str | None:
    if given is not None and given not in columns:
        raise unknown_column(Path(shown), given, list(columns))
    return given or pick_column(columns, wanted)


def _features(place: Place, schema: pa.Schema) -> Mapping[str, Any]:
    """What the package ``datasets`` noted about the columns."""
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        found = json.loads(noted)["info"]["features"] if noted else None
        if found is None and not place.remote:
            beside = Path(place.text).with_name(_STATE[0])
            found = json.loads(beside.read_text("utf-8"))["features"] if beside.is_file() else None
    except (ValueError, KeyError, TypeError, OSError):
        found = None
    return found if isinstance(found, Mapping) else {}


def _labels(
    parts: Sequence[_Part], column: str, features: Mapping[str, Any], shown: str
) -> tuple[list[str], list[str] | None]:
    values = _column(parts, column)
    noted = features.get(column)
    names = noted.get("names") if isinstance(noted, Mapping) else None
    if isinstance(names, list) and names:
        texts = [
            str(names[v]) if isinstance(v, int) and 0 <= v < len(names) else "" if v in (None, -1) else text_of(v)
            for v in values
        ]
    else:
        texts, names = texts_of(values), None
    missing = texts.count("")
    if missing:
        log.warning(
            "%s: %d of %s have no label; theirs is `%s`", shown, missing, human_count(len(texts), "image"), UNLABELLED
        )
    used = set(texts)
    classes = [str(name) for name in names if str(name) in used] if names else None
    if classes is not None and missing:
        classes.append(UNLABELLED)
    return [text or UNLABELLED for text in texts], classes


def _ids(parts: Sequence[_Part], given: str | None, images: str, splits: Sequence[str] | None) -> tuple[list[str], str]:
    """Ids: a column of different values, else the paths of the images, else split and row."""
    if given is not None:
        texts = texts_of(_column(parts, given))
        if len(set(texts)) == len(texts) and "" not in texts:
            return texts, f"`{given}`"
    total = sum(part.rows for part in parts)
    width = max(4, len(str(max(total - 1, 0))))
    paths = _paths(parts, images)
    if paths is not None:
        return paths, f"`{images}.path`"
    if splits is None:
        return [f"{row:0{width}d}" for row in range(total)], "the order of the rows"
    seen: dict[str, int] = {}
    ids = []
    for split in splits:
        seen[split] = seen.get(split, -1) + 1
        ids.append(f"{split}/{seen[split]:0{width}d}")
    return ids, "split and row"


def _paths(parts: Sequence[_Part], column: str) -> list[str] | None:
    """The names that the images had as files, when each has one of its own; of an Arrow or a local Parquet file."""
    found: list[Any] = []
    for part in parts:
        if part.place.remote:  # the bytes would come with them
            return None
        if _is_parquet(part.place):
            with part.place.open() as stream:
                file = pa.parquet.ParquetFile(stream)
                if f"{column}.path" not in [file.schema.column(i).path for i in range(len(file.schema))]:
                    return None
                cells = file.read(columns=[f"{column}.path"]).column(column).to_pylist()
        else:
            batches = [batch.column(column) for batch in _arrow(part.place)[1]]
            if not all(_is_image(batch.type) and batch.type.get_field_index("path") >= 0 for batch in batches):
                return None
            cells = [{"path": path} for batch in batches for path in batch.field("path").to_pylist()]
        found += [cell.get("path") if isinstance(cell, Mapping) else None for cell in cells]
    return list(map(str, found)) if all(found) and len(set(found)) == len(found) else None


def _captions(parts: Sequence[_Part], column: str) -> list[list[str]] | None:
    captions = [
        [] if value is None else list(map(text_of, value)) if isinstance(value, list) else [text_of(value)]
        for value in _column(parts, column)
    ]
    return captions if any(captions) else None
