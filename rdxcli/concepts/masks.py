"""Concept masks of images: of the data set, of a plain folder, or of a Broden folder."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rdxcli.artifacts import fingerprint_file
from rdxcli.concepts.options import ConceptOptions
from rdxcli.datasets.tables import UNREADABLE
from rdxcli.errors import InputError, MissingDataError, UsageError, did_you_mean
from rdxcli.methods.neurons.concepts import text_lines
from rdxcli.models import load
from rdxcli.models.preprocessing import Preprocessing, cut_labels
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from rdxcli.records import Representation

SUFFIXES = (".png", ".npy", ".gif", ".bmp", ".tif", ".tiff")
BRODEN_CATEGORIES = ("color", "object", "part", "material", "scene", "texture")


@dataclass(frozen=True)
class Masks:
    """Masks of the rows of a representation.

    Attributes
    ----------
    read : callable
        ``read(row)``: (h, w) integers, label k is concept k; or (c, h, w) bool.
    names : list of str
        Of the concepts.
    source : dict
        Fingerprints.
    """

    read: Callable[[int], np.ndarray]
    names: list[str]
    source: dict[str, Any]
    categories: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the content, for a request."""
        return {**self.source, "names": self.names, "categories": self.categories}


def open_masks(options: ConceptOptions, source: Representation) -> Masks:
    """The masks that the options name.

    ``--file broden=FOLDER``; ``--file masks=FOLDER`` with one mask per image under the image's name (``.png`` of label
    numbers or palette, ``.npy``); else the data set's own. Raises `RdxError` (no masks, or an image without one).
    """
    return _as_seen(options, source, _whole(options, source))


def _as_seen(options: ConceptOptions, source: Representation, masks: Masks) -> Masks:
    """The masks cut as the model's preprocessing cuts its images, so that maps and masks cover the same pixels."""
    name = options.model or source.source.get("model")
    if name is None:
        return masks

    transform = load(str(name), device="cpu").transform
    if not isinstance(transform, Preprocessing):
        note = "the maps are laid over whole masks: how this model's own processor crops images is not known"
        return replace(masks, notes=[*masks.notes, note])
    return replace(masks, read=lambda row: cut_labels(transform, masks.read(row)))


def _whole(options: ConceptOptions, source: Representation) -> Masks:
    if "broden" in options.files:
        return _broden(Path(options.files["broden"]).expanduser(), source)
    if "masks" in options.files:
        return _folder(options, Path(options.files["masks"]).expanduser(), source)
    dataset = options.selection.open(source.dataset) if options.selection.dataset or source.dataset else None
    if dataset is None or dataset.mask is None:
        raise UsageError(
            "network dissection needs concept masks of the images",
            "give --file masks=FOLDER with a mask per image, or --file broden=FOLDER",
        )
    places = dataset.locate(_ids(source))
    if (places < 0).any():
        raise InputError(f"some samples of {source.name} are not in {dataset.name}")
    names = list(dataset.mask_names or _names_file(options) or [])
    if not names:
        raise UsageError(f"the masks of {dataset.name} have no names", "give --concept-names FILE, one per label")

    def read(row: int) -> np.ndarray:
        return dataset.mask_of(int(places[row]))

    return Masks(read, names, {"masks": _digest(read(row) for row in range(len(places))), "names": names})


def _digest(masks: Iterable[np.ndarray]) -> str:
    """SHA-256 of the content of masks in their order."""
    digest = hashlib.sha256()
    for mask in masks:
        digest.update(f"{mask.shape} {mask.dtype.kind}".encode())
        digest.update(np.ascontiguousarray(mask if mask.dtype == bool else mask.astype(np.int32)).tobytes())
    return digest.hexdigest()


def _folder(options: ConceptOptions, folder: Path, source: Representation) -> Masks:
    if not folder.is_dir():
        raise MissingDataError(f"no such folder of masks: {folder}")
    by_stem: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            by_stem[path.relative_to(folder).with_suffix("").as_posix()] = path
            by_stem.setdefault(path.stem, path)
    paths = []
    for sample in _ids(source):
        stem = Path(sample).with_suffix("").as_posix() if Path(sample).suffix else sample
        found = by_stem.get(stem) or by_stem.get(Path(stem).name) or by_stem.get(sample)
        if found is None:
            hint = did_you_mean(Path(stem).name, by_stem, "masks have the names of their images")
            raise MissingDataError(f"{folder} has no mask of the image `{sample}`", hint)
        paths.append(found)
    digest = hashlib.sha256()
    largest = 0
    for path in paths:
        mask = read_mask(path)
        largest = max(largest, int(mask[mask < 255].max(initial=0)))
        digest.update(np.ascontiguousarray(mask, dtype=np.int32).tobytes())
    names = _names_file(options)
    notes = []
    if names is None:
        names = [f"label {i}" for i in range(largest + 1)]
        notes.append("the labels of the masks have no names: give --concept-names FILE, one name per label from 0")
    elif largest >= len(names):
        notes.append(f"labels from {len(names)} (the largest is {largest}) have no name and count as unlabelled")
    return Masks(lambda row: read_mask(paths[row]), names, {"masks": digest.hexdigest(), "names": names}, notes=notes)


def read_mask(path: Path) -> np.ndarray:
    """A mask file as integers (h, w). Raises `InputError` (colours instead of label numbers, or no image)."""
    try:
        if path.suffix.lower() == ".npy":
            mask = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                mask = np.asarray(image.convert("L") if image.mode in ("1", "LA") else image)
    except UNREADABLE as error:
        raise InputError(f"cannot read the mask {path}: {error}") from None
    if mask.ndim != 2 or mask.dtype.kind not in "iub":
        raise InputError(
            f"{path} holds an array {mask.shape} of {mask.dtype}, expected (h, w) label numbers",
            "masks are grey or palette images whose pixel values are the labels",
        )
    return mask.astype(np.int64)


def _names_file(options: ConceptOptions) -> list[str] | None:
    if options.concept_names is None:
        return None
    try:
        return [line.strip() for line in text_lines(options.concept_names.read_text("utf-8"))]
    except OSError as error:
        raise MissingDataError(f"cannot read {options.concept_names}: {error.strerror}") from None


def _ids(source: Representation) -> list[str]:
    if source.sample_ids is None:
        raise UsageError(f"the rows of {source.name} have no ids, so no mask belongs to them", "give --sample-ids FILE")
    return [str(sample) for sample in source.sample_ids]


def _broden(folder: Path, source: Representation) -> Masks:
    """``index.csv``, ``label.csv`` and ``images/`` as the Broden archives have them.

    ``index.csv`` has ``image`` and, per category, a list separated by ";" of files below ``images/`` (pixel value: red
    + 256 green) and of label numbers that hold for the whole image. ``sh`` and ``sw`` are the size of the masks.
    """
    index, labels = _table(folder / "index.csv"), _table(folder / "label.csv")
    order = {int(row["number"]): row for row in labels if int(row["number"]) > 0}
    numbers = {number: i for i, number in enumerate(sorted(order))}
    names = [order[number]["name"] for number in numbers]
    categories = [order[number]["category"].split("(")[0].split(";")[0].strip() for number in numbers]
    by_image = {row["image"]: row for row in index}
    by_name = {Path(name).name: row for name, row in by_image.items()}
    rows = []
    for sample in _ids(source):
        row = by_image.get(sample) or by_image.get(sample.removeprefix("images/")) or by_name.get(Path(sample).name)
        if row is None:
            raise MissingDataError(f"{folder / 'index.csv'} has no image `{sample}`")
        rows.append(row)

    fingerprints = {name: fingerprint_file(folder / f"{name}.csv") for name in ("index", "label")}
    digest = hashlib.sha256()
    for row in rows:
        for part in _broden_files(row):
            try:
                digest.update(hashlib.sha256((folder / "images" / part).read_bytes()).digest())
            except OSError as error:
                raise InputError(f"cannot read the mask {folder / 'images' / part}: {error}") from None
    fingerprints["masks"] = digest.hexdigest()
    return Masks(lambda row: broden_mask(folder, rows[row], numbers), names, fingerprints, categories)


def _broden_files(row: Mapping[str, str]) -> list[str]:
    """Files of one line of ``index.csv``, below ``images/``."""
    parts = [part for category in BRODEN_CATEGORIES for part in (row.get(category) or "").split(";")]
    return [part for part in parts if part and not part.isdecimal()]


def broden_mask(folder: Path, row: Mapping[str, str], numbers: Mapping[int, int]) -> np.ndarray:
    """(c, h, w) bool masks of one line of ``index.csv``."""
    mask = np.zeros((len(numbers), int(row["sh"]), int(row["sw"])), bool)
    for category in BRODEN_CATEGORIES:
        for part in filter(None, (row.get(category) or "").split(";")):
            if part.isdecimal():
                if int(part) in numbers:
                    mask[numbers[int(part)]] = True
                continue
            try:
                with Image.open(folder / "images" / part) as image:
                    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
            except OSError as error:
                raise InputError(f"cannot read the mask {folder / 'images' / part}: {error}") from None
            codes = pixels[..., 0] + 256 * pixels[..., 1]
            if codes.shape != mask.shape[1:]:
                raise InputError(
                    f"{part} has {codes.shape[0]} x {human_count(codes.shape[1], 'pixel')}, expected {mask.shape[1:]}"
                )
            for code in np.unique(codes):
                if int(code) in numbers:
                    mask[numbers[int(code)]] |= codes == code
    return mask


def _table(path: Path) -> Sequence[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
