"""Merging regions: against plain sets, and what a catalogue guarantees."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.regions import catalogue as module
from rdxcli.methods.regions.catalogue import jaccard, merge_regions
from rdxcli.methods.regions.region import Region
from rdxcli.methods.regions.selection import Rule

NO_RULE = Rule(np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool), np.ones(1))


def region(target: int, members: list[int], status: str = "bounded") -> Region:
    rows = np.array(members, dtype=np.int64)
    return Region(target, rows[:1], rows[:1] * 0, NO_RULE, status, rows, rows * 0)


def some_regions(n: int, count: int, size: int, seed: int = 0) -> list[Region]:
    """Windows of a circle, so that neighbours overlap."""
    rng = np.random.default_rng(seed)
    starts, widths = rng.integers(n, size=count), rng.integers(1, size, size=count)
    return [
        region(int(start), sorted({int((start + i) % n) for i in range(width)}))
        for start, width in zip(starts, widths, strict=True)
    ]


def test_jaccard() -> None:
    assert jaccard(np.array([1, 2, 3]), np.array([2, 3, 4])) == 0.5
    assert jaccard(np.array([]), np.array([])) == 0.0


def test_by_hand() -> None:
    regions = [region(0, [0, 1, 2, 3]), region(1, [0, 1, 2, 4]), region(2, [3, 2, 1, 0]), region(7, [7, 8])]
    first, second = merge_regions(regions, 10, overlap=0.6)
    assert first.targets.tolist() == [0, 1, 2]
    assert first.region is regions[0]
    assert first.overlap == pytest.approx((1 + 1 + 0.6) / 3)
    assert first.core.tolist() == [0, 1, 2, 3]
    assert second.targets.tolist() == [7]
    assert (first.index, second.index) == (0, 1)


def naive(regions: list[Region], overlap: float) -> list[list[int]]:
    """Stars among all regions, duplicates counted; positions in the list."""
    sets = [set(one.members.tolist()) for one in regions]
    share = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])
    near = share >= overlap
    order = sorted(range(len(sets)), key=lambda i: (-near[i].sum(), -len(sets[i]), regions[i].target, i))
    free, stars = set(range(len(sets))), []
    for i in order:
        if i in free:
            taken = sorted(j for j in free if near[i, j])
            free -= set(taken)
            stars.append([i, *(j for j in taken if j != i)])
    return sorted(stars, key=lambda star: -len(star))


@pytest.mark.parametrize("sparse_cost", [0.0, 1e12])
@pytest.mark.parametrize("overlap", [0.2, 0.5, 1.0])
def test_against_plain_sets(overlap: float, sparse_cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sparse products and with packed bits."""
    monkeypatch.setattr(module, "SPARSE_COST", sparse_cost)
    regions = [
        Region(i, one.neighbours, one.distances, NO_RULE, one.status, one.members, one.member_distances)
        for i, one in enumerate(some_regions(50, 80, 12))
    ]
    found = merge_regions(regions, 50, overlap=overlap)
    assert [concept.targets.tolist() for concept in found] == [
        [star[0], *sorted(star[1:])] for star in naive(regions, overlap)
    ]
    assert sorted(row for concept in found for row in concept.targets) == list(range(80))
    for concept in found:
        merged = [regions[row].members for row in concept.targets]
        assert concept.overlap == pytest.approx(np.mean([jaccard(concept.region.members, one) for one in merged]))
        votes = np.bincount(np.concatenate(merged), minlength=50)
        assert concept.core.tolist() == np.flatnonzero(2 * votes >= len(merged)).tolist()


def test_leaders_overlap_less_than_the_limit() -> None:
    found = merge_regions(some_regions(200, 150, 30), 200, overlap=0.4)
    leaders = [concept.region.members for concept in found]
    assert all(jaccard(a, b) < 0.4 for i, a in enumerate(leaders) for b in leaders[:i])


def test_order_of_regions_does_not_matter() -> None:
    regions = [region(i, one.members.tolist()) for i, one in enumerate(some_regions(60, 40, 15))]
    one, two = merge_regions(regions, 60), merge_regions(regions[::-1], 60)
    assert [c.targets.tolist() for c in one] == [c.targets.tolist() for c in two]


def test_within_counts_some_samples_only() -> None:
    regions = [region(0, [0, 1, 5, 6, 7]), region(1, [0, 1, 8, 9]), region(2, [8, 9])]
    assert [c.targets.tolist() for c in merge_regions(regions, 10, within=np.array([0, 1, 2]))] == [[0, 1]]
    assert len(merge_regions(regions, 10)) == 2


def test_unbounded_and_weak_ones_are_left_out() -> None:
    regions = [region(0, [], "unbounded"), region(1, [], "empty"), region(2, [2, 3]), region(3, [3, 2]), region(4, [4])]
    assert [c.targets.tolist() for c in merge_regions(regions, 5, min_support=2)] == [[2, 3]]
    assert merge_regions(regions[:2], 5) == []


@pytest.mark.parametrize("options", [{"overlap": 0}, {"overlap": 1.5}, {"min_support": 0}])
def test_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="Got"):
        merge_regions([], 5, **options)
