"""Image files: folders whose sub-folders are classes, flat folders, and lists of paths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from rdxcli.datasets import addresses, imagetables
from rdxcli.datasets.addresses import Place, address, archive, whole
from rdxcli.datasets.base import Dataset, folder_name
from rdxcli.datasets.files import EXTENSIONS, Walk, sift, walk, with_options
from rdxcli.datasets.images import FileImages, ImageSource, PlaceImages
from rdxcli.datasets.pixelrange import PixelRange, parse_range
from rdxcli.datasets.seen import LABEL_NAMES
from rdxcli.datasets.tables import (
    TABLES,
    path_label_lines,
    pick_column,
    read_columns,
    require_file,
    table_kind,
    unknown_column,
)
from rdxcli.datasets.tars import files_in_tar, is_tar, tar_images
from rdxcli.datasets.words import UNLABELLED, escaped
from rdxcli.errors import InputError, MissingDataError, did_you_mean, without_passwords
from rdxcli.progress import human_count, log

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_PATH_COLUMNS = (
    *("path", "file", "file_path", "filepath", "filename", "file_name", "image", "image_path", "img_path", "paths"),
    *("img", "image_file", "image_name", "fname", "files", "image_filename"),
)
_LABEL_COLUMNS = (*("label", "class", "class_name", "category", "name", "target", "y", "class_index"), *LABEL_NAMES)
_ID_COLUMNS = ("sample_id", "id", "image_id", "uid", "img_id", "uuid", "guid", "key", "__key__", "example_id")


def folder(text: str) -> Dataset:
    """An image folder: the first level of sub-folders gives the classes, deeper levels are searched too.

    When every sub-folder is called like a split (``train``, ``val``, ``test`` ...) the classes are one level below.
    Sample ids are paths relative to the folder, with ``/``; the order is that of these paths. Raises `MissingDataError`
    or `InputError` (no such folder, or no images in it).
    """
    location, options = with_options(text, ("range",))
    root = _root(location, options)
    _say_left_out(root.name, root.found)
    relative = [name.split("/") for name in root.found.names]
    tops = {parts[0] for parts in relative if len(parts) > 1}
    split_level = bool(tops) and all(top.lower() in _SPLITS for top in tops)
    level = 1 if split_level else 0
    inside = [len(parts) > level + 1 for parts in relative]
    outside = len(relative) - sum(inside)
    if not any(inside):
        raise InputError(
            f"{root.name} has {human_count(len(relative), 'image')} but no sub-folders that could be classes",
            f"write `images:{text}`",
        )
    if outside:
        log.warning("%s: leaving out %s that are in no class folder", root.name, human_count(outside, "image"))
    kept = [(name, parts) for name, parts, ok in zip(root.found.names, relative, inside, strict=True) if ok]
    labels = [escaped(parts[level]) for _, parts in kept]
    return Dataset(
        name=root.slug,
        spec=f"folder:{root.spec}{_query(options)}",
        source=root.source([name for name, _ in kept]),
        sample_ids=[escaped(name) for name, _ in kept],
        labels=labels,
        class_names=sorted(set(labels)),
        splits=[escaped(parts[0]) for _, parts in kept] if split_level else None,
    )


def images(text: str) -> Dataset:
    """A flat folder of images, or a list of them.

    Parameters
    ----------
    text : str
        A folder or archive (searched to any depth), a text file with one path per line, a table (``.csv``, ``.tsv``,
        ``.parquet``, ``.json``) with a column of paths and, optionally, ``label``, ``split``, ``caption`` and ``id``,
        or tables that hold the images themselves (see `rdxcli.datasets.imagetables`). Any of them may be an address.
        Relative paths are relative to the list.
    """
    location, options = with_options(text, tuple(dict.fromkeys(("range", "path", "id", "label", *imagetables.OPTIONS))))
    elsewhere = address(location)
    path = Path(location).expanduser()
    if path.is_dir() or _is_archive(location) or (elsewhere and not _is_file(elsewhere)):
        root = _root(location, options)
        if not root.found.names and not _is_archive(location) and (tables := imagetables.tables_in(location)):
            return imagetables.image_tables(location, tables, options, "images")
        _say_left_out(root.name, root.found)
        if not root.found.names:
            raise InputError(f"no images in {root.name}", f"looked for {', '.join(sorted(EXTENSIONS))}")
        return Dataset(
            name=root.slug,
            spec=f"images:{root.spec}{_query(options)}",
            source=root.source(root.found.names),
            sample_ids=[escaped(name) for name in root.found.names],
        )
    if elsewhere is None:
        require_file(path, "folder or list of images")
    if imagetables.holds_images(Place(elsewhere or str(path))):
        return imagetables.image_tables(location, None, options, "images")
    listing = require_file(elsewhere or path, "folder or list of images")
    if listing.suffix.lower() in EXTENSIONS:
        raise InputError(
            f"{elsewhere or listing} is one image, expected a folder or a list",
            f"write `images:{elsewhere.rpartition('/')[0] if elsewhere else listing.parent}`",
        )
    return _from_list(listing, options, elsewhere)


@dataclass(frozen=True)
class _Root:
    """What holds image files: a folder here or elsewhere, or an archive.

    Parameters
    ----------
    name : str
        For people.
    slug : str
        Short name of its data set.
    spec : str
        What opens it again.
    source : callable
        Images of some of the names that were found.
    """

    name: str
    slug: str
    spec: str
    found: Walk
    source: Callable[[Sequence[str]], ImageSource]


def _is_archive(location: str) -> bool:
    here = os.path.isfile(os.path.expanduser(location))
    return (archive(location) is not None or is_tar(location)) and (here or address(location) is not None)


def _is_file(where: str) -> bool:
    """Whether an address names a list rather than a folder: by its ending, without asking."""
    name = where.partition("::")[0] if where.startswith("zip://") else where.partition("?")[0]
    return table_kind(Path(name.rpartition("/")[2])) in {*TABLES, ".txt", ".lst", ".list", *EXTENSIONS}


def _root(location: str, options: Mapping[str, str]) -> _Root:
    pixels = _pixels(options)
    where = archive(location) or address(location)
    shown, slug = whole(location), folder_name(location)
    if is_tar(location) and _is_archive(location):
        members = files_in_tar(location)
        return _Root(shown, slug, shown, sift(members), lambda names: tar_images(members, names, pixels))
    if where is not None:
        files = addresses.listing(where)
        return _Root(
            shown, slug, shown, sift(files), lambda names: PlaceImages([files[name] for name in names], pixels)
        )
    root = _existing_folder(location)
    above = os.path.join(root, "")
    return _Root(
        escaped(os.fspath(root)),
        folder_name(root),
        str(root.resolve()),
        walk(os.fspath(root)),
        lambda names: FileImages([f"{above}{name}" for name in names], pixels),
    )


def _say_left_out(name: str, found: Walk) -> None:
    if found.left_out:
        log.info("%s: %s; left out: %s", name, human_count(len(found.names), "image"), found.left_out_line())


def _query(options: Mapping[str, str]) -> str:
    return "?" + urlencode(options) if options else ""


def _pixels(options: Mapping[str, str]) -> PixelRange | None:
    return parse_range(options["range"]) if "range" in options else None


def _from_list(listing: Path, options: Mapping[str, str], elsewhere: str | None) -> Dataset:
    """A table or text of paths; ``elsewhere`` is the address that ``listing`` is a copy of."""
    columns: dict[str, list[str]] = {}
    if table_kind(listing) in TABLES:
        columns = read_columns(listing)
        if pick_column(columns, _PATH_COLUMNS) is None:
            columns = _without_header(columns) or columns
        column = _column(columns, options.get("path"), _PATH_COLUMNS, listing)
        if column is None:
            raise InputError(
                f"{listing}: no column of paths; columns are: {', '.join(columns)}", f"name it `{_PATH_COLUMNS[0]}`"
            )
    else:
        try:
            text = listing.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{listing} is not a text file with one path per line") from None
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        columns = path_label_lines(lines) or {"path": lines}
        if "label" in columns and any((listing.parent / line).exists() for line in lines[:20]):
            columns = {"path": lines}  # the paths themselves hold spaces
        column = "path"
    names = columns[column]
    if not names:
        raise InputError(f"{listing} lists no images")
    for row, name in enumerate(names):
        if not name or "\0" in name:
            raise InputError(f"{listing}: the path of row {row} is {'no path' if name else 'empty'}")
    head = [name.lower() for name in names[:20]]
    if all(re.fullmatch(r"[-+.0-9e]+|true|false|nan", name) for name in head) and not any(
        (listing.parent / name).exists() for name in names[:20]
    ):
        held = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        raise InputError(
            f"{listing}: its column `{column}` holds {held}, expected paths or pictures",
            f"choose another one: images:{listing}?path=COLUMN",
        )
    ids = _column(columns, options.get("id"), _ID_COLUMNS, listing)
    labels = _column({n: v for n, v in columns.items() if n != ids}, options.get("label"), _LABEL_COLUMNS, listing)
    splits, captions = (pick_column(columns, wanted) for wanted in (("split",), ("caption", "captions", "text")))
    taken = {"paths": column, "ids": ids, "labels": labels, "splits": splits, "captions": captions}
    rest = [name for name in columns if name not in taken.values()]
    log.info(
        "%s: %s; %s%s",
        listing.name,
        human_count(len(names), "image"),
        ", ".join(f"{what} from `{name}`" for what, name in taken.items() if name is not None),
        f"; left out: {', '.join(rest[:8])}{' ...' if len(rest) > 8 else ''}" if rest else "",
    )
    return Dataset(
        name=folder_name(elsewhere or listing),
        spec=f"images:{whole(elsewhere or listing)}{_query(options)}",
        source=_listed(names, elsewhere or str(listing), _pixels(options)),
        sample_ids=columns[ids] if ids is not None else list(map(without_passwords, names)),
        labels=_labelled(columns[labels], listing) if labels is not None else None,
        splits=columns[splits] if splits is not None else None,
        captions=[[text] for text in columns[captions]] if captions is not None else None,
    )


def _listed(names: Sequence[str], listing: str, pixels: PixelRange | None) -> ImageSource:
    """Images by the names that stand in a list: addresses, or paths, which begin where the list lies."""
    if address(listing) is None and not any(map(address, names)):
        return FileImages([os.path.join(os.path.dirname(listing), os.path.expanduser(name)) for name in names], pixels)
    beside = listing.partition("?")[0].rpartition("/")[0]
    return PlaceImages([Place(address(name) or f"{beside}/{name.removeprefix('./')}") for name in names], pixels)


def _column(columns: Mapping[str, list[str]], given: str | None, wanted: Sequence[str], listing: Path) -> str | None:
    if given is None:
        return pick_column(columns, wanted)
    if given not in columns:
        raise unknown_column(listing, given, list(columns))
    return given


def _without_header(columns: dict[str, list[str]]) -> dict[str, list[str]] | None:
    """A table whose first line is no header: one of its cells is the path of an image."""
    first = list(columns)
    path = next((name for name in first if os.path.splitext(name)[1].lower() in EXTENSIONS), None)
    if path is None or len(first) > 2:
        return None
    names = ["path" if name == path else "label" for name in first]
    return {new: [old, *columns[old]] for new, old in zip(names, first, strict=True)}


def _labelled(labels: list[str], listing: Path) -> list[str]:
    missing = labels.count("")
    if missing:
        log.warning(
            "%s: %d of %s have no label; theirs is `%s`",
            listing.name,
            missing,
            human_count(len(labels), "image"),
            UNLABELLED,
        )
    return [label or UNLABELLED for label in labels]


def _existing_folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file, expected a folder", f"write `images:{text}` for a list of paths")
    parent = path.parent
    beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    hint = did_you_mean(path.name, beside, "give a folder with one sub-folder of images for each class", folder=parent)
    raise MissingDataError(f"no such folder: {path}", hint)
