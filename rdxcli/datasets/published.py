"""Data sets that ``rdx download`` fetches, by name. Nothing is read before one is opened.

`rdxcli.datasets.registry` asks this module for `NAMES`, `is_ready` and `open_published`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdxcli.datasets import layouts
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.imagenet import INDEX, read_index
from rdxcli.download.catalogue import get
from rdxcli.download.store import Home, content_folder
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.records import ConceptMatrix

if TYPE_CHECKING:
    from rdxcli.download.catalogue import Recipe

NAMES: Mapping[str, str] = {
    "cub": "11,788 birds of 200 species, with the splits of the concept bottleneck models",
    "inat-subset": "eight classes of iNaturalist (RDX)",
    "imagenet": "ImageNet-1k; `rdx download imagenet` explains how to get it",
    "places365": "36,500 validation images of 365 kinds of scenes",
    "cifar100": "60,000 images of 100 classes, 32x32",
    "coco": "COCO 2017 with five captions per image",
    "flickr30k": "31,783 images with five captions each; `rdx download flickr30k` explains how to get it",
    "sun397": "108,754 scenes of 397 kinds",
    "flowers102": "8,189 flowers of 102 kinds",
    "food101": "101,000 dishes of 101 kinds",
    "voc": "9,963 images of PASCAL VOC 2007, 20 classes",
    "mini-imagenet": "60,000 images of 100 ImageNet classes, 64 of them for training (RDR)",
}
"""Name to one line. A test holds it against the recipes."""

_READERS: Mapping[str, str] = {
    "cub": "rdxcli.datasets.layouts:cub",
    "inat-subset": "rdxcli.datasets.layouts:inat_subset",
    "imagenet": "rdxcli.datasets.imagenet:imagenet",
    "places365": "rdxcli.datasets.layouts:places365",
    "cifar100": "rdxcli.datasets.layouts:cifar100",
    "coco": "rdxcli.datasets.layouts:coco",
    "flickr30k": "rdxcli.datasets.layouts:flickr30k",
    "sun397": "rdxcli.datasets.layouts:sun397",
    "flowers102": "rdxcli.datasets.layouts:flowers102",
    "food101": "rdxcli.datasets.layouts:food101",
    "voc": "rdxcli.datasets.layouts:voc",
    "mini-imagenet": "rdxcli.datasets.layouts:mini_imagenet",
}


def is_ready(name: str, root: Path) -> bool:
    """Whether the data set is complete on this machine; reads no images."""
    return Home(root, get(name)).ready()


def open_published(name: str, root: Path) -> Dataset:
    """The data set ``name`` from the data root.

    Raises `MissingDataError` (not there, or not complete; the hint is the command that fetches it).
    """
    recipe = get(name)
    home = Home(root, recipe)
    content = home.content()
    if content is None or not home.ready():
        state = "is not in" if content is None else "is not complete in"
        raise MissingDataError(f"the data set {name} {state} {root}", f"rdx download {recipe.name}")
    return read(recipe, content, home.path)


def read(recipe: Recipe, folder: Path, home: Path | None = None) -> Dataset:
    """The data set that lies in ``folder`` as the recipe's archives unpack.

    Raises `InputError` (the folder is laid out otherwise, or holds no images). `recipe`: of a data set; `home`: folder
    of the recipe in the data root, where an index may be.
    """
    if recipe.reader not in _READERS:
        raise UsageError(f"{recipe.name} is no data set that can be opened by its folder")
    index = home / ".rdx" / INDEX if home is not None else None
    if recipe.reader == "imagenet" and index is not None and index.is_file():
        table = read_index(folder, index)
    else:
        module, _, function = _READERS[recipe.reader].partition(":")
        try:
            table = getattr(import_module(module), function)(folder, recipe)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{folder} is laid out otherwise than {recipe.name}: {error!r}") from None
    if not table.ids:
        raise InputError(f"{folder} holds no images of {recipe.name}")
    return Dataset(
        name=recipe.name,
        spec=recipe.name,
        source=table.source(recipe.name),
        sample_ids=table.ids,
        labels=table.labels or None,
        class_names=table.class_names if table.labels else None,
        splits=table.splits or None,
        captions=table.captions or None,
    )


def concepts(name: str, root: Path) -> ConceptMatrix:
    """Published concept labels of every sample, where a data set has more than one label each.

    `name`: ``voc`` (its 20 classes) or ``cub`` (the attributes of the concept bottleneck models). Raises `UsageError`
    (another data set) or `MissingDataError`.

    Returns
    -------
    ConceptMatrix
        Values 0 or 1, float32, of shape (n, c), rows in the order of the data set.
    """
    recipe = get(name)
    if recipe.name not in {"voc", "cub"}:
        raise UsageError(f"{name} has no published concept labels besides its classes", "voc and cub have some")
    folder = content_folder(recipe.name, root)
    if folder is None:
        raise MissingDataError(f"the data set {name} is not in {root}", f"rdx download {recipe.name}")
    if recipe.name == "voc":
        rows = list(layouts.voc_images(folder))
        shown = [layouts.voc_areas(base, sample) for base, sample, _ in rows]
        values = np.array([[label in areas for label in recipe.class_names] for areas in shown], np.float32)
        ids, names = [sample for _, sample, _ in rows], list(recipe.class_names)
    else:
        ids, values = layouts.cub_attributes(folder)
        names = [f"attribute {i}" for i in range(values.shape[1])]
    return ConceptMatrix(values, names, np.array(ids), {"dataset": recipe.name})
