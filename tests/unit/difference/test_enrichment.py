"""What the images of a group share: right by chance as often as promised, and found when it is there."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.enrichment import auc_interval, enrich, midranks
from rdxcli.report.properties import said


def _properties(rng: np.random.Generator, n: int, label: np.ndarray) -> dict[str, np.ndarray]:
    day = np.datetime64("2024-01-01", "s") + rng.integers(0, 300, n).astype("timedelta64[D]")
    return {
        "skewed": rng.exponential(size=n) + label,
        "tied": np.where(rng.random(n) < 0.1, np.nan, rng.poisson(0.3, n)),
        "place": rng.choice(["north", "south", "east", ""], n),
        "rare": (rng.random(n) < 0.05).astype(str),
        "date": day,
    }


def test_random_groups_share_nothing_more_often_than_promised() -> None:
    rng = np.random.default_rng(11)
    wrong, within, held = 0, 0, []
    for _ in range(100):
        label = rng.integers(0, 4, 200)
        groups = {str(size): np.isin(np.arange(200), rng.permutation(200)[:size]) for size in (4, 15, 60)}
        found = enrich(groups, _properties(rng, 200, label), label)
        wrong += any(one.p_corrected <= 0.05 for one in found)
        within += any(one.within_labels is not None and one.within_labels <= 0.05 for one in found)
        held += [one.low <= 0.0 <= one.high for one in found]
    assert wrong <= 10  # 99.6 % of binomials of 100 at .05
    assert within <= 10
    assert 0.93 <= np.mean(held) <= 1.0


def test_what_is_planted_is_found_and_comes_first() -> None:
    rng = np.random.default_rng(12)
    label = rng.integers(0, 4, 200)
    group = np.isin(np.arange(200), rng.permutation(200)[:30])
    properties = _properties(rng, 200, label)
    properties["skewed"] = properties["skewed"] + 3.0 * group
    properties["place"] = np.where(group & (rng.random(200) < 0.7), "west", properties["place"])
    found = [one for one in enrich({"g": group}, properties, label) if one.p_corrected <= 0.05]
    assert {(one.property, one.value) for one in found[:2]} == {("skewed", None), ("place", "west")}
    assert all(one.within_labels is not None and one.within_labels <= 0.05 for one in found[:2])
    assert all(0.0 < one.low <= one.difference <= one.high for one in found[:2])


def test_what_only_the_label_explains_is_said_so() -> None:
    rng = np.random.default_rng(13)
    label = np.repeat(np.arange(4), 50)
    group = (label == 3) & (rng.random(200) < 0.8)
    bright = label + 0.5 * rng.normal(size=200)
    place = np.where(rng.random(200) < 0.9, label, 9).astype(str)
    found = enrich({"g": group}, {"bright": bright, "place": place}, label)
    shown = {one.property: one for one in found if one.property == "bright" or one.value == "3"}
    for one in shown.values():
        assert one.p_corrected < 1e-6
        assert one.within_labels is not None
        assert one.within_labels > 0.05


def test_what_cannot_be_asked_among_images_of_one_label_is_not_denied() -> None:
    """Every image of a label of its own, and a group of whole labels: nothing is said of images of one label."""
    group = np.arange(60) < 20
    columns = {"size": np.arange(60.0), "place": np.where(group, "in", "out")}
    for labels in (np.arange(60), np.where(group, "cat", "dog")):
        found = enrich({"g": group}, columns, labels)
        assert len(found) == 2
        assert all(one.p_corrected < 1e-6 and one.within_labels is None for one in found)
        assert not any("images of one label" in said(one.to_dict()) for one in found)


def test_small_and_odd_input() -> None:
    n = 20
    groups = {"two": np.arange(n) < 2, "all": np.arange(n) < n, "five": np.arange(n) < 5}
    properties = {
        "constant": np.ones(n),
        "ids": np.arange(n).astype(str),
        "x": np.r_[np.full(10, np.nan), np.arange(10)],
    }
    assert enrich(groups, properties) == []  # nothing that can be asked
    [one] = enrich({"five": groups["five"]}, {"x": np.arange(n)[::-1]})
    assert one.difference == 1.0
    assert one.low < 1.0 == one.high
    with pytest.raises(ValueError, match="one number"):
        enrich(groups, {"x": np.arange(3)})


def test_ranks_and_interval() -> None:
    np.testing.assert_array_equal(midranks(np.array([3.0, 1.0, 3.0, 2.0])), [3.5, 1.0, 3.5, 2.0])
    low, high = auc_interval(0.8, 20, 80)
    assert low == pytest.approx(0.668, abs=1e-3)
    assert high == pytest.approx(0.884, abs=1e-3)
    assert auc_interval(0.2, 20, 80) == pytest.approx((1 - high, 1 - low), abs=1e-9)
