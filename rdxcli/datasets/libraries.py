"""Data sets of other libraries: torchvision's (already on disk) and Hugging Face's."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from rdxcli.datasets.addresses import address
from rdxcli.datasets.base import Dataset, natural_ids
from rdxcli.datasets.images import ImageSource
from rdxcli.datasets.imagetables import image_tables, tables_in
from rdxcli.errors import (
    DependencyError,
    InputError,
    MissingDataError,
    RdxError,
    UnknownNameError,
    UsageError,
    did_you_mean,
)

if TYPE_CHECKING:
    from PIL import Image

# torchvision reads these with pickle, which rdx never does; the others are videos, pairs or noise
_PICKLED = {"CIFAR10", "CIFAR100", "LSUN", "LSUNClass"}
_NO_IMAGES = {
    "FakeData",
    "HMDB51",
    "Kinetics",
    "UCF101",
    "MovingMNIST",
    "VisionDataset",
    "ImageFolder",
    "DatasetFolder",
}


class LibraryImages(ImageSource):
    """Images of a library's data set object, by position.

    Parameters
    ----------
    dataset : object
        ``dataset[i]`` gives a Pillow image, a tuple that starts with one, or a mapping that holds one.
    fingerprint : str
        Identity of the data set as its library knows it.
    column : str, optional
        Key of the image when items are mappings.
    """

    def __init__(self, dataset: Any, fingerprint: str, column: str | None = None) -> None:
        self.dataset, self.column, self._fingerprint = dataset, column, fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def raw(self, row: int) -> Image.Image:
        item = self.dataset[row]
        image = item[self.column] if self.column is not None else item[0] if isinstance(item, tuple) else item
        if image is None:
            raise InputError("there is no image in this row")
        image.load()
        return image

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(self._fingerprint.encode())
        digest.update(np.ascontiguousarray(rows, dtype=np.int64).data)
        return {"by": "library", "sha256": digest.hexdigest()}


def torchvision(text: str) -> Dataset:
    """``NAME?root=PATH&split=test`` (or ``train=false``); other keywords of the class may follow. Downloads nothing.

    Raises `UnknownNameError` (no such class in ``torchvision.datasets``) or `MissingDataError` (the files are not in
    ``root``).
    """
    from torchvision import datasets

    name, _, query = text.partition("?")
    known = [n for n in datasets.__all__ if n not in _PICKLED | _NO_IMAGES]
    if name in _PICKLED:
        raise UsageError(
            f"torchvision stores {name} as pickles, which can run code when they are read", "use `rdx download` for it"
        )
    if name not in known:
        raise UnknownNameError("torchvision data set", name, known)
    cls = getattr(datasets, name)
    accepted = inspect.signature(cls).parameters
    options = {key: _value(value) for key, value in parse_qsl(query, keep_blank_values=True)}
    options.setdefault("root", "data")
    for key in options:
        if key not in accepted or key in {"download", "transform", "target_transform", "transforms", "loader"}:
            raise UsageError(
                f"torchvision:{name} takes no `{key}`",
                did_you_mean(key, accepted, f"it takes {list(accepted)}"),
            )
    try:
        opened = cls(**options)
    except (RuntimeError, FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError(
            f"torchvision:{name} is not in {options['root']}: {str(error).splitlines()[0]}",
            "rdx downloads nothing through torchvision: fetch it first, then give its folder as `?root=PATH`",
        ) from None
    except (ModuleNotFoundError, ImportError) as error:
        raise DependencyError(getattr(error, "name", None) or str(error)) from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"torchvision:{text}: {str(error).splitlines()[0]}") from None
    return _from_torchvision(name, text, options, opened)


def _from_torchvision(name: str, text: str, options: dict[str, Any], opened: Any) -> Dataset:
    classes = [str(c) if not isinstance(c, tuple) else str(c[0]) for c in getattr(opened, "classes", None) or []]
    targets = next(
        (getattr(opened, key) for key in ("targets", "labels", "_labels") if getattr(opened, key, None) is not None),
        None,
    )
    labels = None
    if targets is not None and len(targets) == len(opened):
        values = np.asarray(targets)
        if values.ndim == 1 and values.dtype.kind in "iu":
            labels = [classes[v] if 0 <= v < len(classes) else str(v) for v in values.tolist()]
    variant = [str(options[key]) for key in ("split", "train", "image_set", "mode") if key in options]
    # torchvision does not say which files it reads: take all that lie below the folder it uses
    folder = next(
        (
            Path(getattr(opened, key))
            for key in ("raw_folder", "_base_folder", "_data_dir", "_images_folder")
            if isinstance(getattr(opened, key, None), str | Path) and Path(getattr(opened, key)).is_dir()
        ),
        Path(options["root"]),
    )
    return Dataset(
        name="-".join([f"torchvision-{name}", *variant]),
        spec=f"torchvision:{text}",
        source=LibraryImages(opened, f"torchvision:{name}:{sorted(options.items())}:{_tree_stamp(folder)}"),
        sample_ids=natural_ids(len(opened)),
        labels=labels,
        class_names=list(dict.fromkeys(classes)) if labels is not None and classes else None,
    )


def _tree_stamp(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            stat = path.stat()
            digest.update(f"{path.relative_to(root).as_posix()}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _value(text: str) -> Any:
    return {"true": True, "false": False}.get(text.lower(), int(text) if text.lstrip("-").isdigit() else text)


def hugging_face(text: str) -> Dataset:
    """``NAME[?split=test&config=...&image=COLUMN&label=COLUMN]``: a data set of the Hub, or a folder in its formats.

    Without ``split`` every split is taken, one after the other. The column of images and the one of class labels are
    found by their types. Code in repositories is never run. A folder of tables, here or elsewhere, is read as it is
    (see `rdxcli.datasets.imagetables`); ``?streaming=true`` does so with the Hub's own tables, of which only what is
    looked at is transferred. Raises `DependencyError` (the package ``datasets`` is not installed (extra ``hf``)) or
    `MissingDataError` (it cannot be had (offline and not cached, or no such name)).
    """
    name, _, query = text.partition("?")
    options = dict(parse_qsl(query))
    unknown = set(options) - {"split", "config", "image", "label", "id", "streaming"}
    if unknown:
        raise UsageError(
            f"hf:{name} takes no `{min(unknown)}`", "it takes split, config, image, label, id and streaming"
        )
    streaming = options.pop("streaming", "false").lower() in ("true", "1", "yes")
    if address(name) is not None or Path(name).expanduser().is_dir():
        tables = tables_in(name)
        if tables:
            return image_tables(name, tables, options, "hf")
    elif streaming:
        where = f"hf://datasets/{name}"
        tables = tables_in(where)
        if not tables:  # the Hub keeps a copy of most data sets as tables
            where += "@refs%2Fconvert%2Fparquet"
            tables = tables_in(where)
        return image_tables(where, tables, options, "hf")
    try:
        import datasets as hf
    except ImportError:
        raise DependencyError("datasets", "hf") from None
    try:
        loaded = hf.load_dataset(name, options.get("config"), split=options.get("split"))
    except Exception as error:
        # the library raises its own, the Hub's, and the network's errors: all mean the same to a person
        raise MissingDataError(
            f"hf:{name} cannot be loaded: {(str(error).splitlines() or [type(error).__name__])[0]}",
            "check the name, or the network, or set HF_HOME to a folder that has it",
        ) from None
    parts = dict(loaded.items()) if isinstance(loaded, dict) else {options.get("split", "all"): loaded}
    joined = hf.concatenate_datasets(list(parts.values())) if len(parts) > 1 else next(iter(parts.values()))
    features = joined.features
    column = options.get("image") or _column_of(features, hf.Image, "images", name)
    label = options.get("label") or next((key for key, f in features.items() if isinstance(f, hf.ClassLabel)), None)
    for key in (column, label):
        if key is not None and key not in features:
            raise UnknownNameError(f"column of hf:{name}", key, list(features))
    labels, class_names = None, None
    if label is not None:
        feature, values = features[label], joined[label]
        class_names = list(feature.names) if isinstance(feature, hf.ClassLabel) else None
        labels = [class_names[v] if class_names and 0 <= v < len(class_names) else str(v) for v in values]
    ids = _split_ids({split: len(part) for split, part in parts.items()})
    return Dataset(
        name=f"hf-{name.rstrip('/').rpartition('/')[2] if Path(name).exists() else name}"
        + "".join(f"-{options[key]}" for key in ("config", "split") if key in options),
        spec=f"hf:{text}",
        source=LibraryImages(joined, "hf:" + ":".join(str(part._fingerprint) for part in parts.values()), column),
        sample_ids=ids,
        labels=labels,
        class_names=class_names,
        splits=[split for split, part in parts.items() for _ in range(len(part))],
    )


def _split_ids(sizes: dict[str, int]) -> list[str]:
    return [f"{split}/{sample}" for split, size in sizes.items() for sample in natural_ids(size)]


def _column_of(features: Any, kind: type, what: str, name: str) -> str:
    found: Sequence[str] = [key for key, feature in features.items() if isinstance(feature, kind)]
    if not found:
        raise RdxError(f"hf:{name} has no column of {what}; columns are: {', '.join(features)}")
    return found[0]
