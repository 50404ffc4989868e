"""From what a person types to a `Dataset`.

Three sources of names: the table below, `rdxcli.datasets.published` (sets that ``rdx download`` fetches), and the entry
points of group ``rdx.datasets`` of other packages, each a callable ``open(root: Path) -> Dataset``. Explicit schemes
(``folder:PATH`` ...) need no name. Nothing heavy is imported before a data set is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.errors import RdxError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset

ENTRY_POINTS = "rdx.datasets"

# name -> (dotted path of `open(root) -> Dataset`, one line for `rdx list datasets`)
_BUILT_IN: dict[str, tuple[str, str]] = {
    "digits": ("rdxcli.datasets.digits:digits", "1,797 real handwritten digits, 8x8, from scikit-learn; no download"),
    "digits-hflip": ("rdxcli.datasets.digits:digits_hflip", "digits and their left-right mirror images, 20 labels"),
    "digits-vflip": ("rdxcli.datasets.digits:digits_vflip", "digits and their top-bottom mirror images, 20 labels"),
    "mnist": ("rdxcli.datasets.idx:mnist", "70,000 handwritten digits, 28x28; `rdx download mnist`"),
}

# scheme -> (dotted path of `open(rest) -> Dataset`, how to write it, one line)
_SCHEMES: dict[str, tuple[str, str, str]] = {
    "folder": ("rdxcli.datasets.folders:folder", "folder:PATH", "sub-folders are classes"),
    "images": (
        "rdxcli.datasets.folders:images",
        "images:PATH",
        "a flat folder, or a text, CSV or parquet list of paths",
    ),
    "array": (
        "rdxcli.datasets.pixels:array",
        "array:PATH.npy[,LABELS]",
        "uint8 images (n, h, w[, c]); also PATH.npz[:key]",
    ),
    "idx": ("rdxcli.datasets.idx:idx", "idx:IMAGES[,LABELS]", "MNIST-style files, plain or .gz"),
    "torchvision": ("rdxcli.datasets.libraries:torchvision", "torchvision:NAME?root=PATH", "already on disk"),
    "hf": ("rdxcli.datasets.libraries:hugging_face", "hf:NAME", "Hugging Face data set (extra `hf`)"),
}


def dataset_names() -> dict[str, str]:
    """Every name that can be opened without a path, with one line about it."""
    names = {name: summary for name, (_, summary) in _BUILT_IN.items()}
    for name, summary in _published().items():
        names.setdefault(name, summary)
    for name in _entry_points():
        names.setdefault(name, "from another package")
    return names


def dataset_schemes() -> dict[str, str]:
    """Explicit forms such as ``folder:PATH``, with one line about each."""
    return {usage: summary for _, usage, summary in _SCHEMES.values()}


def open_dataset(spec: str, *, root: Path | str | None = None) -> Dataset:
    """Open the data set that ``spec`` names.

    Parameters
    ----------
    spec : str
        A name (``digits``) or a scheme (``folder:PATH``).
    root : Path, optional
        Where downloads are; default ``RDX_DATA`` or ``./data``.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownNameError
        No such name or scheme, with near matches.
    MissingDataError
        Known, but not on this machine; the hint names the command that fetches it.
    InputError
        The path does not exist or holds no images.
    """
    from rdxcli.datasets.base import data_root

    text = spec.strip()
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _SCHEMES:
        target, usage, _ = _SCHEMES[scheme]
        if not rest:
            raise UsageError(f"data set `{text}`: nothing after the colon", f"write `{usage}`")
        return _load(target)(rest)
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
    if path.is_dir():
        return UsageError(
            f"unknown data set: `{text}`", f"for your own images write `folder:{text}` or `images:{text}`"
        )
    if path.is_file():
        scheme = "array" if path.suffix in {".npy", ".npz"} else "images"
        return UsageError(f"unknown data set: `{text}`", f"for your own images write `{scheme}:{text}`")
    known = [*dataset_names(), *(f"{scheme}:" for scheme in _SCHEMES)]
    return UnknownNameError("data set", text, known, "rdx list datasets")


def _open_external(name: str, point: Any, root: Path) -> Dataset:
    from rdxcli.datasets.base import Dataset

    opened = point.load()(root)
    if not isinstance(opened, Dataset):
        raise RdxError(
            f"the plug-in data set `{name}` ({point.value}) gave a {type(opened).__name__}, expected a Dataset"
        )
    return opened


def _published() -> Mapping[str, str]:
    if find_spec("rdxcli.datasets.published") is None:
        return {}
    return import_module("rdxcli.datasets.published").NAMES


def _entry_points() -> dict[str, Any]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def _load(target: str) -> Callable[[Any], Dataset]:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
