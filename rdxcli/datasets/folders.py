"""Image files: folders whose sub-folders are classes, flat folders, and lists of paths."""

from __future__ import annotations

import os
from pathlib import Path

from rdxcli.datasets.base import Dataset, folder_name
from rdxcli.datasets.images import FileImages
from rdxcli.datasets.tables import pick_column, read_columns, require_file
from rdxcli.errors import InputError, MissingDataError, near_matches
from rdxcli.progress import log

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".pbm", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2"}
)
"""File name endings that are images, compared without case."""

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_PATH_COLUMNS = ("path", "file", "file_path", "filepath", "filename", "file_name", "image", "image_path", "img_path")
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "name", "target", "y", "class_index")
_ID_COLUMNS = ("sample_id", "id", "image_id", "uid")


def folder(text: str) -> Dataset:
    """An image folder: the first level of sub-folders gives the classes, deeper levels are searched too.

    When every sub-folder is called like a split (``train``, ``val``, ``test`` ...) the classes are one level below.
    Sample ids are paths relative to the folder, with ``/``; the order is that of these paths.

    Raises
    ------
    MissingDataError, InputError
        No such folder, or no images in it.
    """
    root = _existing_folder(text)
    paths = image_files(root)
    relative = [path.relative_to(root).parts for path in paths]
    tops = {parts[0] for parts in relative if len(parts) > 1}
    split_level = bool(tops) and all(top.lower() in _SPLITS for top in tops)
    level = 1 if split_level else 0
    inside = [len(parts) > level + 1 for parts in relative]
    outside = len(paths) - sum(inside)
    if not any(inside):
        raise InputError(
            f"{root} has {len(paths)} images but no sub-folders that could be classes", f"write `images:{text}`"
        )
    if outside:
        log.warning("%s: leaving out %d images that are in no class folder", root, outside)
    kept = [(path, parts) for path, parts, ok in zip(paths, relative, inside, strict=True) if ok]
    labels = [parts[level] for _, parts in kept]
    return Dataset(
        name=folder_name(root),
        spec=f"folder:{root.resolve()}",
        source=FileImages([path for path, _ in kept]),
        sample_ids=["/".join(parts) for _, parts in kept],
        labels=labels,
        class_names=sorted(set(labels)),
        splits=[parts[0] for _, parts in kept] if split_level else None,
    )


def images(text: str) -> Dataset:
    """A flat folder of images, or a list of them.

    Parameters
    ----------
    text : str
        A folder (searched to any depth), a text file with one path per line, or a table (``.csv``, ``.tsv``,
        ``.parquet``, ``.json``) with a column of paths and, optionally, ``label``, ``split``, ``caption`` and ``id``.
        Relative paths are relative to the list.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        files = image_files(path)
        if not files:
            raise InputError(f"no images in {path}", f"looked for {', '.join(sorted(EXTENSIONS))}")
        return Dataset(
            name=folder_name(path),
            spec=f"images:{path.resolve()}",
            source=FileImages(files),
            sample_ids=[file.relative_to(path).as_posix() for file in files],
        )
    listing = require_file(path, "folder or list of images")
    if listing.suffix.lower() in EXTENSIONS:
        raise InputError(f"{listing} is one image, expected a folder or a list", f"write `images:{listing.parent}`")
    return _from_list(listing)


def image_files(root: Path) -> list[Path]:
    """Every image below ``root``, sorted by relative path; hidden files and folders are left out."""
    found: list[str] = []
    for folder_path, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(folder_path, name)
            for name in files
            if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")
        ]
    return sorted(map(Path, found), key=lambda file: file.relative_to(root).as_posix())


def _from_list(listing: Path) -> Dataset:
    columns: dict[str, list[str]] = {}
    if listing.suffix.lower() in {".csv", ".tsv", ".parquet", ".json"}:
        columns = read_columns(listing)
        column = pick_column(columns, _PATH_COLUMNS)
        if column is None:
            raise InputError(
                f"{listing}: no column of paths; columns are: {', '.join(columns)}", f"name it `{_PATH_COLUMNS[0]}`"
            )
        names = columns[column]
    else:
        try:
            text = listing.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{listing} is not a text file with one path per line") from None
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{listing} lists no images")

    def optional(wanted: tuple[str, ...]) -> list[str] | None:
        chosen = pick_column(columns, wanted)
        return columns[chosen] if chosen is not None else None

    captions = optional(("caption", "captions", "text"))
    return Dataset(
        name=folder_name(listing),
        spec=f"images:{listing.resolve()}",
        source=FileImages([listing.parent / Path(name).expanduser() for name in names]),
        sample_ids=optional(_ID_COLUMNS) or names,
        labels=optional(_LABEL_COLUMNS),
        splits=optional(("split",)),
        captions=[[caption] for caption in captions] if captions is not None else None,
    )


def _existing_folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file, expected a folder", f"write `images:{text}` for a list of paths")
    parent = path.parent
    near = near_matches(path.name, [entry.name for entry in parent.iterdir()]) if parent.is_dir() else []
    hint = f"did you mean {' or '.join(f'`{parent / name}`' for name in near)}?" if near else None
    raise MissingDataError(f"no such folder: {path}", hint)
