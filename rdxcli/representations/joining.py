"""Rows of representations: choosing them, and bringing two representations to the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rdxcli.datasets.base import draw, fitting, named_classes
from rdxcli.datasets.seen import counted_ids
from rdxcli.datasets.words import apart, find, names_in, taken_as_one
from rdxcli.errors import InputError, UsageError
from rdxcli.progress import human_count
from rdxcli.records import Representation

_EXAMPLES = 5  # ids that are named when rows are missing


@dataclass(frozen=True)
class Joined:
    """Two representations of the same samples, row by row.

    Attributes
    ----------
    a, b : Representation
        Equally many rows; row i of both is the same sample. Labels are on ``a``, also those that only ``b`` had.
    by : str
        ``id`` or ``position``.
    missing_in_a, missing_in_b : list of str
        Ids that only the other side has.
    notes : list of str
        What a reader must know.
    """

    a: Representation
    b: Representation
    by: str
    missing_in_a: list[str]
    missing_in_b: list[str]
    notes: list[str]

    def describe(self) -> dict[str, Any]:
        """For result documents: data set, joined rows, ``by``, and how many ids each side lacks, with examples."""
        return {
            "dataset": self.a.dataset or self.b.dataset,
            "joined": self.a.n,
            "by": self.by,
            "missing_in_a": len(self.missing_in_a),
            "missing_in_b": len(self.missing_in_b),
            "examples_missing_in_a": self.missing_in_a[:_EXAMPLES],
            "examples_missing_in_b": self.missing_in_b[:_EXAMPLES],
        }


def join(a: Representation, b: Representation) -> Joined:
    """Bring two representations to the same samples in the same order.

    Both with ids: samples that both have, in the order of ``a``; what is missing on either side is noted. One or both
    without ids: by position, which needs equally many rows. Raises `InputError` (an id occurs twice on one side; no or
    one common sample; different numbers of rows and no ids).

    Returns
    -------
    Joined
        Nothing is copied for a side that is in order already.
    """
    notes: list[str] = []
    a, b = _numbered(a, b), _numbered(b, a)
    if a.sample_ids is None or b.sample_ids is None:
        return _by_position(a, b, notes)
    ids_a, ids_b = _unique(a), _unique(b)
    places, note = find(ids_a, ids_b)
    rows_a = np.flatnonzero(places >= 0)
    rows_b = places[rows_a]
    missing_in_b = [ids_a[row] for row in np.flatnonzero(places < 0)]
    found = set(rows_b.tolist())
    missing_in_a = [sample for row, sample in enumerate(ids_b) if row not in found]
    if len(rows_a) < 2:
        first, second = apart(ids_a[0], ids_b[0])
        raise InputError(
            f"{a.name} and {b.name} have {human_count(len(rows_a), 'sample')} in common: ids look like "
            f"`{first}` and `{second}`",
            "give both sides the same ids with --sample-ids, or arrays without ids in the same order",
        )
    if note:
        notes.append(taken_as_one(note, a.name, b.name))
    for side, other, missing in ((a, b, missing_in_b), (b, a, missing_in_a)):
        if missing:
            shown = ", ".join(apart(*missing[:_EXAMPLES])) + (" ..." if len(missing) > _EXAMPLES else "")
            notes.append(
                f"{len(missing)} of {human_count(side.n, 'sample')} of {side.name} are not in "
                f"{other.name} and are left out: {shown}"
            )
    if a.dataset and b.dataset and a.dataset != b.dataset:
        notes.append(
            f"{a.name} was read on {a.dataset}, {b.name} on {b.dataset}: samples are matched by their ids alone"
        )
    return _joined(take(a, rows_a), take(b, rows_b), "id", missing_in_a, missing_in_b, notes)


def _numbered(side: Representation, other: Representation) -> Representation:
    """Ids for a table that counts its rows, where the ids of the other are such numbers in another order."""
    if side.sample_ids is not None or other.sample_ids is None:
        return side
    own = counted_ids(side.source.get("seen"), side.n, list(map(str, other.sample_ids)))
    return side if own is None else replace(side, sample_ids=np.array(own))


def join_all(records: Sequence[Representation]) -> tuple[list[Representation], list[str]]:
    """Bring several representations to the samples that all of them have, in the order of the first.

    Raises `InputError` as `join`.

    Returns
    -------
    records : list of Representation
        Row i of each is the same sample. Labels are on the first.
    notes : list of str
        What a reader must know, each once.
    """
    first, notes = records[0], []
    for other in records[1:]:
        joined = join(first, other)
        first = joined.a
        notes += joined.notes
    return [first, *(join(first, other).b for other in records[1:])], list(dict.fromkeys(notes))


def take(representation: Representation, rows: np.ndarray) -> Representation:
    """The given rows, in that order; the representation itself when these are all rows as they stand."""
    if len(rows) == representation.n and np.array_equal(rows, np.arange(representation.n)):
        return representation
    return replace(
        representation,
        values=representation.values[rows],
        sample_ids=representation.sample_ids[rows] if representation.sample_ids is not None else None,
        labels=representation.labels[rows] if representation.labels is not None else None,
    )


def _joined(
    a: Representation, b: Representation, by: str, missing_in_a: list[str], missing_in_b: list[str], notes: list[str]
) -> Joined:
    if a.labels is None and b.labels is not None:
        a = replace(a, labels=b.labels)
    elif a.labels is not None and b.labels is not None:
        different = int(np.sum(np.asarray(a.labels) != np.asarray(b.labels)))
        if different:
            notes.append(
                f"the labels of {different} of {human_count(a.n, 'sample')} differ: those of {a.name} are used"
            )
    return Joined(a, b, by, missing_in_a, missing_in_b, notes)


def _by_position(a: Representation, b: Representation, notes: list[str]) -> Joined:
    if a.n != b.n:
        lacking = " and ".join(side.name for side in (a, b) if side.sample_ids is None)
        raise InputError(
            f"{a.name} has {human_count(a.n, 'row')} and {b.name} has {b.n}; without sample ids for "
            f"{lacking} they cannot be matched",
            "give the ids with --sample-ids FILE, or arrays with the same samples in the same order",
        )
    if (a.sample_ids is None) != (b.sample_ids is None):
        known, unknown = (a, b) if b.sample_ids is None else (b, a)
        notes.append(f"{unknown.name} has no sample ids: its rows are taken to be in the order of {known.name}")
        if a.sample_ids is None:
            a = replace(a, sample_ids=b.sample_ids, dataset=a.dataset or b.dataset)
        else:
            b = replace(b, sample_ids=a.sample_ids)
    return _joined(a, b, "position", [], [], notes)


def _unique(side: Representation) -> list[str]:
    assert side.sample_ids is not None
    places: dict[str, int] = {}
    for row, sample in enumerate(map(str, side.sample_ids)):
        if sample in places:
            raise InputError(f"{side.name}: the sample id `{sample}` occurs in rows {places[sample]} and {row}")
        places[sample] = row
    return list(places)


def select_rows(
    record: Representation,
    *,
    include: str | None = None,
    exclude: str | None = None,
    classes: str | Sequence[str] | None = None,
    per_class: int | None = None,
    sample: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Representation:
    """Some rows, in their own order; the same choice as `rdxcli.datasets.base.Dataset.select` makes for equal ids.

    Rows without ids are drawn by their numbers. Raises `UsageError` or `UnknownNameError` (classes are asked for and
    there are no labels, or no such class) or `InputError` (fewer than two rows are left).
    """
    rows = np.arange(record.n)
    ids = list(map(str, record.sample_ids)) if record.sample_ids is not None else [str(i) for i in range(record.n)]
    for what, patterns in (("include", include), ("exclude", exclude)):
        if patterns is not None:
            if record.sample_ids is None:
                raise UsageError(f"--{what}: {record.name} has no sample ids", "give them with --sample-ids FILE")
            fits = fitting([ids[i] for i in rows], patterns, f"--{what}", record.name)
            rows = rows[fits if what == "include" else ~fits]
    if classes is not None:
        rows = rows[
            _of_classes(
                record,
                names_in(classes, sorted(set(map(str, record.labels if record.labels is not None else ()))))
                if isinstance(classes, str)
                else [part.strip() for part in classes],
            )
        ]
    if per_class is not None:
        if record.labels is None:
            raise UsageError(f"--per-class: {record.name} has no labels", "give them with --labels FILE")
        members = [rows[record.labels[rows] == name] for name in np.unique(record.labels[rows])]
        rows = np.sort(np.concatenate([part[draw([ids[i] for i in part], per_class, seed)] for part in members]))
    if sample is not None:
        rows = rows[draw([ids[i] for i in rows], sample, seed)]
    if limit is not None:
        rows = rows[:limit]
    if len(rows) < 2:
        raise InputError(
            f"{record.name}: {human_count(len(rows), 'row', 'are')} left after the selection, expected at least 2"
        )
    return take(record, rows)


def _of_classes(record: Representation, names: Sequence[str]) -> np.ndarray:
    if record.labels is None:
        raise UsageError(f"--classes: {record.name} has no labels", "give them with --labels FILE")
    # 2 before 10: places are those of the numbers where classes are numbers
    known = sorted(set(map(str, record.labels)), key=lambda name: (int(name) if name.isdecimal() else np.inf, name))
    chosen = named_classes(names, known, record.name)
    return np.isin(np.asarray(record.labels), chosen)
