"""From what a person types to a `Dataset`.

Three sources of names: the table below, `rdxcli.datasets.published` (sets that ``rdx download`` fetches), and the entry
points of group ``rdx.datasets`` of other packages, each a callable ``open(root: Path) -> Dataset``. Explicit schemes
(``folder:PATH`` ...) need no name. Nothing heavy is imported before a data set is opened.

`rdxcli.datasets.published` offers ``NAMES`` (name -> one line), ``open_published(name, root) -> Dataset``, which raises
`MissingDataError` with the hint ``rdx download NAME``, and ``is_ready(name, root) -> bool``, which reads no images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from rdxcli.datasets.addresses import address
from rdxcli.datasets.base import Dataset
from rdxcli.errors import RdxError, UnknownNameError, UsageError
from rdxcli.places import data_root

ENTRY_POINTS = "rdx.datasets"

# name -> (dotted path of `open(root) -> Dataset`, one line for `rdx list datasets`)
_BUILT_IN: dict[str, tuple[str, str]] = {
    "digits": ("rdxcli.datasets.digits:digits", "1,797 real handwritten digits, 8x8, from scikit-learn; no download"),
    "digits-hflip": ("rdxcli.datasets.digits:digits_hflip", "digits and their left-right mirror images, 20 labels"),
    "digits-vflip": ("rdxcli.datasets.digits:digits_vflip", "digits and their top-bottom mirror images, 20 labels"),
    "mnist": ("rdxcli.datasets.idx:mnist", "70,000 handwritten digits, 28x28; `rdx download mnist`"),
}

# scheme -> dotted path of `open(rest) -> Dataset`
_OPENERS: dict[str, str] = {
    "folder": "rdxcli.datasets.folders:folder",
    "images": "rdxcli.datasets.folders:images",
    "tar": "rdxcli.datasets.tars:tar",
    "array": "rdxcli.datasets.pixels:array",
    "idx": "rdxcli.datasets.idx:idx",
    "torchvision": "rdxcli.datasets.libraries:torchvision",
    "hf": "rdxcli.datasets.libraries:hugging_face",
}

SCHEMES: dict[str, str] = {
    "folder:PATH": "images in sub-folders, which are the classes",
    "images:PATH": "images of a flat folder, a list of paths, a zip or tar, or of tables (Parquet, Arrow)",
    "tar:PATH": "tar archives in the WebDataset layout: shard-*.tar, shard-{000..009}.tar.gz",
    "array:PATH[,LABELS]": "uint8 images (n, h, w[, c]) in a .npy or .npz (PATH.npz:key) file",
    "idx:IMAGES[,LABELS]": "MNIST-style files, plain or .gz",
    "torchvision:NAME?root=PATH": "a torchvision data set that is on disk already",
    "hf:NAME": "a Hugging Face data set (extra `hf`), or a folder in its formats",
}
"""How to write a data set that has no name here, with one line about each form."""


def list_datasets() -> list[str]:
    """Every name that can be opened without a path."""
    return list(dict.fromkeys([*_BUILT_IN, *_published(), *_entry_points()]))


def describe_datasets(root: Path | str | None = None) -> list[dict[str, Any]]:
    """One mapping per name: ``name``, ``description``, ``ready`` (on this machine) and ``fetch`` (what makes it so)."""
    folder = data_root(root)
    published, entries = _published(), _entry_points()
    described = []
    for name in list_datasets():
        if name in _BUILT_IN:
            text, ready = (
                _BUILT_IN[name][1],
                name != "mnist" or _load("rdxcli.datasets.idx:find_mnist")(folder) is not None,
            )
        elif name in published:
            text, ready = published[name], import_module("rdxcli.datasets.published").is_ready(name, folder)
        else:
            text, ready = f"from the package {entries[name].module.partition('.')[0]}", True
        fetch = None if ready else f"rdx download {name}"
        described.append({"name": name, "description": text, "ready": ready, "fetch": fetch})
    return described


def open_dataset(spec: str, *, root: Path | str | None = None) -> Dataset:
    """Open the data set that ``spec`` names.

    Raises `UnknownNameError` (no such name or scheme, with near matches), `MissingDataError` (known, but not on this
    machine; the hint names the command that fetches it) or `InputError` (the path does not exist or holds no images).

    Parameters
    ----------
    spec : str
        A name (``digits``) or a scheme (``folder:PATH``).
    root : Path, optional
        Where downloads are; default ``RDX_DATA`` or ``./data``.
    """
    text = spec.strip()
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _OPENERS and address(text) is None:
        if not rest:
            usage = next(form for form in SCHEMES if form.startswith(f"{scheme}:"))
            raise UsageError(f"data set `{text}`: nothing after the colon", f"write `{usage}`")
        return _load(_OPENERS[scheme])(rest)
    folder = data_root(root)
    if text in _BUILT_IN:
        return _load(_BUILT_IN[text][0])(folder)
    if text in _published():
        return import_module("rdxcli.datasets.published").open_published(text, folder)
    external = _entry_points()
    if text in external:
        return _open_external(text, external[text], folder)
    raise _unknown(text)


def _unknown(text: str) -> RdxError:
    path = Path(text).expanduser()
    if address(text) is not None:
        return UsageError(
            f"unknown data set: `{text}`", f"for your own images write `folder:{text}` or `images:{text}`"
        )
    if path.is_dir():
        return UsageError(
            f"unknown data set: `{text}`", f"for your own images write `folder:{text}` or `images:{text}`"
        )
    if path.is_file():
        scheme = "array" if path.suffix in {".npy", ".npz"} else "images"
        return UsageError(f"unknown data set: `{text}`", f"for your own images write `{scheme}:{text}`")
    known = [*list_datasets(), *SCHEMES]
    return UnknownNameError("data set", text, known, "rdx list datasets")


def _open_external(name: str, point: Any, root: Path) -> Dataset:
    opened = point.load()(root)
    if not isinstance(opened, Dataset):
        raise RdxError(
            f"the plug-in data set `{name}` ({point.value}) gave a {type(opened).__name__}, expected a Dataset"
        )
    return opened


def _published() -> Mapping[str, str]:
    return import_module("rdxcli.datasets.published").NAMES


def _entry_points() -> dict[str, Any]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def _load(target: str) -> Callable[[Any], Dataset]:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
