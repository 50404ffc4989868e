"""Several artifacts in one summary: what each says, and which of their concepts are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.summary import Column, Item, Section, Summary, Table

MATCH = (
    Column("in the first"),
    Column("in the second", "The one that shares most images with it"),
    Column("overlap", "Shared images over all images of both (Jaccard)", better="higher"),
    Column("by chance", "The overlap of two groups of these sizes that know nothing of each other"),
    Column("shared", "Images that both have"),
    Column("first", "Images of the first"),
    Column("second", "Images of the second"),
)


def several(summaries: Mapping[str, Summary]) -> Summary:
    """One summary of several, by the name of each.

    Groups are matched by all their members where these are known (comparisons), else by the images that are shown.
    """
    rows = [
        [name, one.kind, one.method, str(one.verdict) if one.verdict else None, one.title, one.facts]
        for name, one in summaries.items()
    ]
    columns = [Column(name) for name in ("artifact", "kind", "method", "verdict", "about", "in numbers")]
    tables = []
    for (first, a), (second, b) in combinations(summaries.items(), 2):
        matched = _matched(a, b)
        if matched:
            known = a.maps is not None and b.maps is not None
            text = "" if known else "Of the images that are shown: their other members are not known."
            tables.append(Table(f"{first} and {second}", MATCH, matched, text))
    sections = [Section("Artifacts", "artifacts", tables=[Table("", columns, rows)], printed=True)]
    if tables:
        sections.append(Section("Matched by overlap", "matched", tables=tables))
    for number, (name, one) in enumerate(summaries.items(), start=1):
        for section in one.sections:
            items = [replace(item, group=None) for item in section.items]
            sections.append(
                replace(
                    section,
                    title=f"{name}: {section.title}",
                    key=f"{number}-{section.key}",
                    items=items,
                    noun=f"{number}-{section.noun}",
                    maps="",
                    folded=not section.printed,
                )
            )
    datasets = {one.dataset for one in summaries.values() if one.dataset}
    return Summary(
        kind="several",
        method=", ".join(dict.fromkeys(one.method for one in summaries.values())),
        kicker="Several artifacts",
        title=" and ".join(summaries),
        facts=f"{human_count(len(summaries), 'artifact')}",
        sections=sections,
        said=[f"{name}: {one.chip}" for name, one in summaries.items() if one.verdict],
        notes=[f"{name}: {note}" for name, one in summaries.items() for note in one.notes],
        provenance=[(f"{name}: {key}", value) for name, one in summaries.items() for key, value in one.provenance],
        dataset=next(iter(datasets)) if len(datasets) == 1 else None,
    )


def _members(summary: Summary) -> dict[str, frozenset[str]]:
    """Ids of the images of each item that is printed."""
    found = {}
    for section in summary.sections:
        for item in section.items if section.printed else ():
            name = str(item.key) if section.noun == "concept" else f"{section.noun} {item.key}"
            ids = _group(summary, item) if item.group and summary.maps is not None else None
            found[name] = frozenset(ids if ids is not None else (picture.sample_id for picture in item.pictures))
    return {name: ids for name, ids in found.items() if ids}


def _group(summary: Summary, item: Item) -> Sequence[str] | None:
    if summary.maps is None or item.group is None:
        return None
    side, number = item.group
    return [str(sample) for sample in summary.maps.ids[summary.maps.groups[side] == number]]


def _matched(a: Summary, b: Summary) -> list[list[Any]]:
    """For every item of ``a`` the one of ``b`` that overlaps most; those that share nothing are left out."""
    mine, theirs = _members(a), _members(b)
    n = len(set(map(str, a.maps.ids)) & set(map(str, b.maps.ids))) if a.maps and b.maps else 0
    rows = []
    for name, ids in mine.items():
        best = max(theirs, key=lambda other: len(ids & theirs[other]) / len(ids | theirs[other]), default=None)
        if best is None or not ids & theirs[best]:
            continue
        other = theirs[best]
        shared = len(ids & other)
        expected = len(ids) * len(other) / n if n else None
        chance = None if expected is None else expected / (len(ids) + len(other) - expected)
        rows.append([name, best, shared / len(ids | other), chance, shared, len(ids), len(other)])
    return sorted(rows, key=lambda row: -row[2])
