"""Captions of samples, from files, data sets and artifacts."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import resolve_artifact
from rdxcli.artifacts.layout import slug
from rdxcli.concepts.encodings import dataset_of
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.progress import human_count, log

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset


def load_captions(text: str | None, selection: SelectionOptions, outputs: Path) -> tuple[str, dict[str, list[str]]]:
    """Name of the data set and the captions of each sample id.

    Raises `RdxError` (nothing to read, or a malformed file).

    Parameters
    ----------
    text : str or None
        ``.json``: ``{id: [caption, ...]}``, a list of objects with an id and captions, or COCO's and Karpathy's lists.
        ``.jsonl``: one object a line. ``.csv``, ``.tsv``: a column of ids and one of captions, one caption a row;
        Flickr30k's ``results.csv`` (with ``|``) too. ``.token``: Flickr's ``image.jpg#0<tab>caption``. ``.txt``: one
        caption a line, each its own sample. A captions artifact. None: the captions of the data set.
    """
    if text is None:
        if selection.dataset is None:
            raise UsageError("which captions?", "give --captions FILE, or --dataset NAME of a data set with captions")
        dataset = selection.open()
        if dataset.captions is None:
            raise MissingDataError(
                f"the data set {dataset.name} has no captions",
                f"make them with `rdx caption --dataset {selection.dataset}`, or name them: --captions FILE",
            )
        return dataset.name, {
            str(sample): list(texts) for sample, texts in zip(dataset.sample_ids, dataset.captions, strict=True)
        }
    path = Path(text)
    if path.is_dir() or not path.exists():
        artifact = resolve_artifact(text, outputs, "captions")
        path = artifact.path / "captions.jsonl"
        name = dataset_of(artifact)
    else:
        # files of one name that differ in their ending are different captions
        name = slug(path.stem if path.suffix.lower() == ".json" else path.name)
    captions = read_captions(path)
    if not captions:
        raise InputError(f"{path} holds no captions")
    return name, captions


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions of each sample id in a file; see `load_captions` for the layouts.

    Raises `InputError` or `MissingDataError`.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = [line.strip() for line in text.splitlines()]
        return {str(i): [line] for i, line in enumerate(lines) if line}
    if suffix in TABLES:
        return _table(text, path)
    entries: list[Any] = []
    try:
        if suffix == ".jsonl":
            entries = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            content = json.loads(text)
            if isinstance(content, dict) and isinstance(content.get("annotations"), list):
                content = content["annotations"]  # the layout of COCO
            elif isinstance(content, dict) and isinstance(content.get("images"), list):
                content = content["images"]  # Karpathy's lists
            entries = content if isinstance(content, list) else [{"id": k, "captions": v} for k, v in content.items()]
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not valid JSON: {error}", f"captions are read from .json, .jsonl, .txt, {', '.join(TABLES)}"
        ) from None
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(entries, start=1):
        sample, texts = _entry(entry, path, number)
        captions.setdefault(sample, []).extend(texts)
    return captions


def captions_of_images(captions: Mapping[str, Sequence[str]], dataset: Dataset, path: Path) -> dict[str, list[str]]:
    """Captions under a data set's own ids, in its order.

    Published files name images by id, by path or by bare file name; whichever fits is used. Raises `InputError` (the
    file ``path`` names none of the images).
    """
    by_name: dict[str, str | None] = {}
    for key in captions:
        for spelling in {key, Path(key).name, Path(key).stem}:
            by_name[spelling] = key if spelling not in by_name else None  # None: stands for several
    found: dict[str, list[str]] = {}
    for sample in map(str, dataset.sample_ids):
        spellings = (sample, Path(sample).name, Path(sample).stem)
        near = next((by_name[spelling] for spelling in spellings if by_name.get(spelling)), None)
        match = sample if sample in captions else near
        if match is not None:
            found[sample] = list(captions[match])
    if not found:
        first, own = next(iter(captions), "none"), dataset.sample_ids[0]
        raise InputError(f"{path} names none of the images of {dataset.name}: it has `{first}`, the data set `{own}`")
    if len(found) < len(dataset):
        log.warning(
            "%d of %s of %s are not in %s",
            len(dataset) - len(found),
            human_count(len(dataset), "image"),
            dataset.name,
            path,
        )
    return found


def write_captions(path: Path, captions: Mapping[str, Sequence[str]]) -> None:
    """One line of JSON an image; captions become one line of single spaces each."""
    rows = ({"sample_id": s, "captions": [" ".join(text.split()) for text in texts]} for s, texts in captions.items())
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def counted_captions(path: Path, shown: int = 5) -> tuple[int, int, list[dict[str, Any]]]:
    """Images and captions in a file of `write_captions`, and its first rows."""
    images, total = 0, 0
    examples: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            images, total = images + 1, total + len(row["captions"])
            if len(examples) < shown:
                examples.append(row)
    return images, total, examples


TABLES = (".csv", ".tsv", ".token")
_IDS = ("sample_id", "image_id", "id", "image", "image_name", "filename", "file", "filepath", "path", "img", "key")
_TEXTS = ("caption", "captions", "comment", "sentence", "text", "description", "raw", "title")
_NUMBERED = re.compile(r"#(?:enr)?\d+$")


def _table(text: str, path: Path) -> dict[str, list[str]]:
    """Captions of a table with one caption a row, and a first row of names where it is one."""
    first = text.partition("\n")[0]
    separator = max("\t|,;", key=first.count) if path.suffix.lower() == ".csv" else "\t"
    if not first.count(separator):
        raise InputError(f"{path}: the first line has one column, expected an id and a caption", f"`{first[:80]}`")
    # quotes are text except where a comma makes them necessary
    quotes: dict[str, Any] = {} if separator in ",;" else {"quoting": csv.QUOTE_NONE}
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=separator, **quotes) if row]
    except csv.Error as error:
        raise InputError(f"{path} is no table: {error}") from None
    head = [cell.strip().lower() for cell in rows[0]]
    sample = next((head.index(name) for name in _IDS if name in head), None)
    caption = next((head.index(name) for name in _TEXTS if name in head), None)
    if sample is not None and caption is not None:
        rows = rows[1:]
    elif len(head) == 2:
        sample, caption = 0, 1
    else:
        raise InputError(
            f"{path} has the columns {', '.join(rows[0][:6])}",
            f"expected one of {', '.join(_IDS)} and one of {', '.join(_TEXTS)}",
        )
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) <= max(sample, caption):
            if len(row) == 1 and not row[0].strip():
                continue
            raise InputError(
                f"{path}: row {number} has {human_count(len(row), 'column')}, expected {len(head)}: `{row[0][:60]}`"
            )
        name, words = _NUMBERED.sub("", row[sample].strip()), row[caption].strip()
        if name and words:
            captions.setdefault(name, []).append(words)
    return captions


def _entry(entry: Any, path: Path, number: int) -> tuple[str, list[str]]:
    """Sample id and captions of one object."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{path}: entry {number} is a {type(entry).__name__}, expected an object with id and captions")
    sample = next((entry[key] for key in ("sample_id", "image_id", "id", "image", "filename") if key in entry), None)
    texts = next((entry[key] for key in ("captions", "caption", "sentences", "text") if key in entry), None)
    if sample is None or texts is None:
        found = ", ".join(map(str, list(entry)[:6]))
        raise InputError(f"{path}: entry {number} has {found}, expected an id and captions")
    listed = list(texts) if isinstance(texts, list | tuple) else [texts]
    raw = [text["raw"] if isinstance(text, Mapping) and "raw" in text else text for text in listed]
    words = [text for text in raw if isinstance(text, str)]
    if len(words) < len(raw):
        raise InputError(f"{path}: the captions of entry {number} are not text")
    return str(sample), words
