"""Sentences for groups: chosen on one half, tested on the other; level and power."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.describing import auc, describe_groups, halve

N, WIDTH, SENTENCES = 80, 24, 60


def _tried(seed: int, planted: float) -> tuple[int, int]:
    """Sentences that hold for four groups of 12 drawn at random, and how many of them are the planted ones."""
    rng = np.random.default_rng(seed)
    groups = {f"g{k}": rng.choice(N, 12, replace=False) for k in range(4)}
    sentences = rng.normal(size=(SENTENCES, WIDTH))
    images = rng.normal(size=(N, WIDTH))
    for k, rows in enumerate(groups.values()):
        images[rows] += planted * sentences[k]
    halves = {key: halve(rows, N, key, seed) for key, rows in groups.items()}
    assert all(part is not None for part in halves.values())
    texts = {key: sentences for key in groups}
    names = {key: [f"s{j}" for j in range(SENTENCES)] for key in groups}
    found, tested = describe_groups(images, halves, names, texts)  # type: ignore[arg-type]
    assert tested == 20
    right = sum(one.sentence == f"s{k}" for k, held in enumerate(found.values()) for one in held)
    return sum(map(len, found.values())), right


def test_groups_of_nothing_get_no_sentence() -> None:
    """Some sentence holds in at most 5 % of 100 runs over four random groups, though the best of 60 are tested."""
    wrong = sum(_tried(seed, 0.0)[0] > 0 for seed in range(100))
    assert wrong <= 10  # a rate of 5 % gives more in 1 of 100 series


def test_what_sets_a_group_apart_is_found() -> None:
    right = [_tried(1000 + seed, 0.8)[1] for seed in range(20)]
    assert np.mean(right) > 3.5


def test_halves_share_nothing_and_small_groups_have_none() -> None:
    parts = halve(range(0, 40, 4), 40, "a1")
    assert parts is not None
    rows = np.concatenate([parts.proposing, parts.others, parts.held_out, parts.held_out_others])
    assert sorted(rows.tolist()) == list(range(40))
    assert set(parts.proposing.tolist()) | set(parts.held_out.tolist()) == set(range(0, 40, 4))
    assert halve(range(7), 40, "a1") is None
    assert halve(range(36), 40, "a1") is None


def test_auc_is_the_share_of_pairs() -> None:
    inside, outside = np.array([[1.0], [2.0], [2.0]]), np.array([[0.0], [2.0]])
    assert auc(inside, outside)[0] == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 0.5) / 6)
