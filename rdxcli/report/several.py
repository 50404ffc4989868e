"""Several artifacts in one summary: what each says, and which of their concepts are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from rdxcli.lazy import scipy
from rdxcli.progress import human_count
from rdxcli.report.kinds import without_empty
from rdxcli.report.summary import Column, Item, Section, Summary, Table

MATCH = (
    Column("in the first"),
    Column("in the second", "The one that shares most images with it"),
    Column("overlap", "Shared images over all images of both (Jaccard)", better="higher"),
    Column("by chance", "The overlap of two groups of these sizes that know nothing of each other"),
    Column("shared", "Images that both have"),
    Column("first", "Images of the first, of those that both have"),
    Column("second", "Images of the second, of those that both have"),
    Column("p", "How often some group of the second shares as many by chance", better="lower"),
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
        sections.append(without_empty(Section("Matched by overlap", "matched", tables=tables)))
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
                    part=number,
                    folded=not section.printed,
                )
            )
    datasets = {one.dataset for one in summaries.values() if one.dataset}
    return Summary(
        kind="several",
        method=", ".join(dict.fromkeys(one.method for one in summaries.values())),
        kicker="Several artifacts",
        title=f"{human_count(len(summaries), 'artifact')} side by side",
        facts=" and ".join(summaries),
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
    """For every item of ``a`` the one of ``b`` that overlaps most, beyond what chance gives where that is known.

    Members count among the images that both have; items that share nothing are left out.
    """
    mine, theirs = _members(a), _members(b)
    n = 0
    if a.maps is not None and b.maps is not None:
        both = frozenset(map(str, a.maps.ids)) & frozenset(map(str, b.maps.ids))
        mine, theirs = ({name: ids & both for name, ids in found.items()} for found in (mine, theirs))
        n = len(both)
    rows = []
    for name, ids in mine.items():
        found = [(other, *_overlap(ids, members, n)) for other, members in theirs.items() if ids & members]
        if not found:
            continue
        best, overlap, chance = max(found, key=lambda one: one[1] - (one[2] or 0.0))
        shared, p_value = len(ids & theirs[best]), None
        if n:
            p_value = min(
                1.0, len(theirs) * float(scipy.stats.hypergeom.sf(shared - 1, n, len(ids), len(theirs[best])))
            )
        rows.append([name, best, overlap, chance, shared, len(ids), len(theirs[best]), p_value])
    return sorted(rows, key=lambda row: -row[2])


def _overlap(one: frozenset[str], other: frozenset[str], n: int) -> tuple[float, float | None]:
    """Jaccard index, and that of two groups of these sizes among ``n`` that know nothing of each other."""
    expected = len(one) * len(other) / n if n else None
    chance = None if expected is None else expected / (len(one) + len(other) - expected)
    return len(one & other) / len(one | other), chance
