"""How many concepts: as many as were planted, one where nothing differs."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.resampling import Versions
from rdxcli.methods.difference.selection import choose_k


def _pair(groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Versions of one representation; in the first one some groups of 20 images lie together."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(150, 20))
    first = X.copy()
    for group in range(groups):
        rows = slice(20 * group, 20 * group + 20)
        first[rows] = 0.15 * X[rows] + 3.0 * rng.normal(size=20)
    sides = (Versions(R, 0.05, rng).draw(40, rng) for R in (first, X))
    return tuple(sides)  # type: ignore[return-value]


@pytest.mark.parametrize("groups", [2, 4])
def test_the_number_of_planted_groups_is_found(groups: int) -> None:
    chosen = choose_k(RDX(random_state=0, device="cpu"), *_pair(groups, groups))
    assert chosen.beyond["01"] == groups
    assert groups <= chosen.k <= max(chosen.beyond.values())  # what left its old place shows in the other direction
    assert "--k auto" in chosen.sentence()


def test_one_is_shown_where_nothing_differs() -> None:
    chosen = choose_k(RDX(random_state=0, device="cpu"), *_pair(0, 5))
    assert chosen.k == 1
    assert sum(chosen.beyond.values()) <= 1
