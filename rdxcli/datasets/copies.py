"""Data sets that were fetched or were here: the folder is checked, indexed and opened as every command will."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rdxcli.datasets.imagenet import INDEX, write_index
from rdxcli.datasets.published import NAMES, read
from rdxcli.datasets.registry import open_dataset
from rdxcli.download.catalogue import Recipe
from rdxcli.download.planning import link
from rdxcli.download.store import Home, missing_layout
from rdxcli.errors import MissingDataError
from rdxcli.progress import human_count, log


def use_in_place(recipe: Recipe, root: Path, folder: Path) -> Path:
    """Check a folder that a person has, index it, and use it in place.

    Raises `RdxError` (it is not there, or not what the recipe describes).
    """
    given = folder.expanduser()
    if not given.is_dir():
        raise MissingDataError(f"no such folder: {folder}", "give --from the folder that holds your copy")
    if not missing_layout(recipe, given) and recipe.name in NAMES:
        # before it is linked: what cannot be read must not count as there
        read(recipe, given)
    place = link(recipe, root, given)
    if recipe.reader == "imagenet":
        write_index(place, Home(root, recipe).path / ".rdx" / INDEX)
    return place


def content_of(recipe: Recipe, root: Path) -> dict[str, Any]:
    """Open the data set as every other command will, and compare it with what was published."""
    dataset = open_dataset(recipe.name, root=root)
    counts = Counter(dataset.splits or [])
    for split, published in recipe.splits.items():
        if split in counts and counts[split] != published:
            log.warning(
                "%s: split %s has %s, %d were published",
                recipe.name,
                split,
                human_count(counts[split], "image"),
                published,
            )
    classes = len(dataset.class_names) if dataset.class_names is not None else None
    parts = ", ".join(f"{split} {count}" for split, count in counts.items())
    log.info("%s: %s%s", recipe.name, human_count(len(dataset), "image"), f" ({parts})" if parts else "")
    return {"images": len(dataset), "classes": classes, "splits": dict(counts)}
