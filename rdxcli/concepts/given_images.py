"""Concepts that a person shows: sets of images (or arrays of their features), and random ones to tell them from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.arrays import is_array
from rdxcli.datasets.registry import open_dataset
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, UsageError
from rdxcli.progress import human_count
from rdxcli.records import Representation
from rdxcli.representations.resolve import resolve_representation


@dataclass(frozen=True)
class GivenImages:
    """What `read` gives: one representation for each data set, and rows of them by concept.

    Parameters
    ----------
    concepts : mapping of str to ndarray
        Features (n, d) or (n, c, h, w) of the images of each concept.
    sources : list of Representation
        What was read, the random images last.
    """

    concepts: Mapping[str, np.ndarray]
    random: np.ndarray
    sources: Sequence[Representation]

    def identity(self) -> list[Any]:
        """What was read, with fingerprints."""
        return [dict(source.source) for source in self.sources]


def check(given: Sequence[str], random: str | None, fewest: int, root: Path | None = None) -> list[str]:
    """Names of the concepts; classes of a data set are concepts of their own.

    Raises `RdxError` (nothing there, too few images, or two concepts of one name).

    Parameters
    ----------
    given : sequence of str
        Data sets (``folder:PATH``, ``images:PATH`` ...) or files of arrays.
    random : str, optional
        The same, of random images.
    fewest : int
        Images of each concept, and random images.
    """
    counts: dict[str, int] = {}
    for spec in given:
        for name, count in _counts(spec, root).items():
            if name in counts:
                raise InputError(f"--concept-images: two concepts are called `{name}`", "rename one of the folders")
            counts[name] = count
    asked = {f"concept `{name}`": count for name, count in counts.items()}
    if random is not None and not is_array(random):
        asked["random images"] = len(open_dataset(random, root=root))
    for what, count in asked.items():
        if 0 <= count < fewest:
            raise InputError(
                f"{what}: {human_count(count, 'image')}, expected at least {fewest}", "give more images (30 or more)"
            )
    return list(counts)


def _counts(spec: str, root: Path | None) -> dict[str, int]:
    """Images by concept; -1 for an array, which is not read yet."""
    if is_array(spec):
        return {Path(spec.partition(":")[0]).stem: -1}
    data = open_dataset(spec, root=root)
    if data.labels is None:
        return {data.name: len(data)}
    names, counts = np.unique(np.array(list(data.labels)), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def read(
    given: Sequence[str],
    random: str | None,
    source: Representation,
    *,
    model: str | None,
    pool: str,
    seed: int,
    root: Path | None,
    outputs: Path,
    device: str,
) -> GivenImages:
    """Features of the images at the layer of ``source``, in the order of `check`; without random images those of
    ``source`` stand for them.

    Raises `RdxError` (what cannot be read, or features of another size).
    """

    def at_layer(spec: str) -> Representation:
        array = is_array(spec)
        if not array and model is None:
            raise UsageError(
                f"--concept-images {spec}: images need a model, and features come from an array",
                "give arrays of features here too, or --model and --layer",
            )
        found = resolve_representation(
            spec if array else str(model),
            layer=None if array else source.layer,
            pool=pool,
            selection=None if array else SelectionOptions(dataset=spec, seed=seed, root=root),
            outputs=outputs,
            device=device,
            spatial=True,
        )
        if found.d != source.d:
            raise InputError(
                f"{spec} has {human_count(found.d, 'channel')}, {source.name} has {source.d}", "use the same layer"
            )
        return found

    concepts: dict[str, np.ndarray] = {}
    sources = []
    for spec in given:
        found = at_layer(spec)
        sources.append(found)
        names = list(_counts(spec, root))
        if found.labels is None or is_array(spec):
            concepts[names[0]] = np.asarray(found.values)
        else:
            labels = np.array([str(label) for label in found.labels])
            concepts |= {name: np.asarray(found.values[labels == name]) for name in names}
    others = source if random is None else at_layer(random)
    return GivenImages(concepts, np.asarray(others.values), [*sources, others])
