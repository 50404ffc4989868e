"""Groups followed along a series: a planted one appears and comes apart where planted, random ones do nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.walk import Group, follow

N = 200


def _series(together_at: set[int], seed: int = 0, places: int = 6) -> tuple[list[np.ndarray], np.ndarray]:
    """Points in a cloud, of which 30 lie together at some places."""
    rng = np.random.default_rng(seed)
    members = np.zeros(N, dtype=bool)
    members[rng.permutation(N)[:30]] = True
    series = []
    for place in range(places):
        X = rng.normal(size=(N, 8))
        if place in together_at:
            X[members] = 6.0 + 0.1 * X[members]
        series.append(X)
    return series, members


def test_a_planted_group_appears_and_comes_apart_where_it_was_planted() -> None:
    series, members = _series({2, 3})
    [found] = follow(series, [Group(1, "b", 1, members, 1.0)])
    assert (found.appears, found.comes_apart) == (1, 3)
    assert found.chance == pytest.approx(29 / 199)
    assert found.curve[[2, 3]] == pytest.approx(1.0)
    assert abs(found.curve[[0, 1, 4, 5]] - found.chance).max() < 0.07
    assert found.meetings == []


def test_one_group_of_two_steps_is_one_concept_that_meets_itself() -> None:
    series, members = _series({2, 3, 4, 5})
    part = members & (np.arange(N) % 4 > 0)
    rng = np.random.default_rng(1)
    other = np.zeros(N, dtype=bool)
    other[rng.permutation(np.flatnonzero(~members))[:30]] = True
    groups = [Group(1, "b", 1, members, 2.0), Group(3, "b", 2, part, 1.0), Group(4, "a", 1, other, 0.5)]
    first, second = follow(series, groups)
    assert first.origin is groups[0]
    assert second.origin is groups[2]
    [meeting] = first.meetings
    assert (meeting.step, meeting.side, meeting.index) == (3, "b", 2)
    assert meeting.inside == 1.0
    assert meeting.expected == pytest.approx(30 / N)
    assert first.to_dict()["meetings"][0]["shared"] == part.sum()
    assert second.meetings == []
    assert second.appears is None


def test_random_groups_seldom_meet() -> None:
    series, _ = _series(set(), places=3)
    met = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = []
        for step in range(4):
            members = np.zeros(N, dtype=bool)
            members[rng.permutation(N)[: rng.integers(8, 80)]] = True
            groups.append(Group(step % 2, "ab"[step // 2], 1, members, rng.random()))
        met += any(found.meetings for found in follow(series, groups))
    assert met <= 7  # of 60 series at 5 %: the 99 % quantile
