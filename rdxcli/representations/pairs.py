"""Two representations side by side: names that tell them apart, columns that are left out, a yardstick for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from rdxcli.datasets.arrayfiles import split_key
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.difference.yardsticks import yardstick
from rdxcli.progress import human_count
from rdxcli.records import Representation
from rdxcli.representations.joining import Joined, join
from rdxcli.representations.units import parse_units


def built_in(name: str, joined: Joined, seed: int) -> Joined:
    """A yardstick made of the first model itself, see `rdxcli.methods.difference.yardsticks`.

    Raises `InputError` (halves of a single dimension).
    """
    side = joined.a
    pair = yardstick(name, side.values, seed)
    if pair is None:
        raise InputError(f"--yardstick {name}: {side.name} has one dimension", "give --yardstick jitter")
    a, b = (replace(side, values=values, name=f"{side.name}{what}") for values, what in pair)
    return replace(joined, a=a, b=b, notes=[])


def told_apart(*sides: tuple[Representation, str | Representation]) -> list[Representation]:
    """Representations under names that differ, when they are not the same thing.

    Layers of one model are told apart by the layer, files of one name by the folders that differ.

    Parameters
    ----------
    *sides : (Representation, str or Representation)
        Each with what was asked for.
    """
    names = [record.name for record, _ in sides]
    for name in {name for name in names if names.count(name) > 1}:
        places = [place for place, known in enumerate(names) if known == name]
        layers = [sides[place][0].layer for place in places]
        paths = [_parts(sides[place][1]) for place in places]
        if all(layers) and len(set(layers)) == len(layers):
            apart = [f"{name}.{layer}" for layer in layers]
        elif None in paths or len(set(paths)) < len(paths):
            continue
        else:
            known = [path for path in paths if path is not None]
            apart = ["/".join([*path[-_depth(path, known) : -1], name]) for path in known]
        for place, new in zip(places, apart, strict=True):
            names[place] = new
    return [replace(record, name=name) for (record, _), name in zip(sides, names, strict=True)]


def _depth(path: tuple[str, ...], known: Sequence[tuple[str, ...]]) -> int:
    """How many of its last parts, two or more, no other path ends with."""
    return next(d for d in range(2, 1000) if sum(other[-d:] == path[-d:] for other in known) == 1)


def _parts(text: str | Representation) -> tuple[str, ...] | None:
    """The parts of the path of a file of arrays, without its root."""
    found = split_key(text) if isinstance(text, str) else None
    if found is None:
        return None
    path = PurePath(Path(found[0]).expanduser().resolve())
    return path.relative_to(path.anchor).parts


def without(record: Representation, columns: str | None, option: str) -> Representation:
    """A representation without some of its columns; its name and its ``source`` say which.

    Raises `UsageError` (malformed or unknown columns, or nothing left).
    """
    if columns is None:
        return record
    dropped = sorted(parse_units(columns, record.d, option))
    if len(dropped) == record.d:
        raise UsageError(f"{option} {columns}: no column of {record.name} is left")
    return replace(
        record,
        values=np.delete(record.values, dropped, axis=1),
        name=f"{record.name}-without-{columns.replace(' ', '')}",
        source={**record.source, "dropped": dropped},
    )


def restricted(reference: Joined, joined: Joined) -> Joined:
    """The reference pair restricted to the images that are compared, in their order."""
    if reference.a.sample_ids is None or joined.a.sample_ids is None:
        if reference.a.n != joined.a.n:
            raise InputError(
                f"the reference pair has {human_count(reference.a.n, 'row')}, the comparison "
                f"{joined.a.n}, and no ids to match",
                "give the ids with --sample-ids, or a reference on the same rows",
            )
        return reference
    first, second = join(joined.a, reference.a), join(joined.a, reference.b)
    if first.a.n < joined.a.n:
        raise InputError(
            f"the reference pair lacks {joined.a.n - first.a.n} of the "
            f"{human_count(joined.a.n, 'image', 'that are')} compared",
            "read it on the same data set",
        )
    return replace(reference, a=first.b, b=second.b)


def check_rows_differ(*sides: Representation) -> None:
    """Refuse a side of which all rows are equal, by its name and before the work. Raises `InputError`."""
    for side in sides:
        if (side.values[:2] == side.values[0]).all() and (side.values == side.values[0]).all():
            raise InputError(
                f"{side.name}: all {human_count(side.n, 'row', 'are')} equal, expected rows that differ",
                "a layer that says the same of every image has nothing to compare",
            )
