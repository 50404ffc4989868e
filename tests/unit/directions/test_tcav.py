"""Concepts from given images: what they are, what random images get, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.directions.alignment import PooledLinearHead
from rdxcli.methods.directions.influence import claims, influence
from rdxcli.methods.directions.tcav import TCAV

D = 24


def features(rng: np.random.Generator, n: int, shift: np.ndarray | None = None, share: float = 1.0) -> np.ndarray:
    """Maps (n, D, 2, 2) of correlated noise, some of them with something added."""
    x = rng.standard_normal((n, 2, 2, D)) * np.linspace(2, 0.3, D)
    if shift is not None:
        x += (rng.random((n, 1, 1, 1)) < share) * shift
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2).astype(np.float32))


def head(direction: np.ndarray) -> PooledLinearHead:
    """Class 0 reads the direction, the others anything."""
    weight = np.random.default_rng(0).standard_normal((D, 5)) * 0.3
    weight[:, 0] = direction
    return PooledLinearHead(weight, np.zeros(5))


@pytest.mark.parametrize("axis", [3, 20])
def test_a_planted_concept_is_found_and_moves_its_class(axis: int) -> None:
    rng = np.random.default_rng(axis)
    mark = np.zeros(D)
    mark[axis] = 4.0
    X = features(rng, 200, mark, 0.3)
    found = TCAV(random_sets=199).fit(X, concepts={"mark": features(rng, 30, mark)}, random=features(rng, 60))
    assert found.encoding_[0, axis] > 0.8
    assert found.known_[0]["accuracy"] > found.known_[0]["accuracy_chance"]
    assert found.known_[0]["recall"] > 0.7 > 0.2 > found.known_[0]["recall_chance"]
    what = influence(found, head(mark), X)
    assert what.null == "images"
    assert what.significant[0, 0]
    assert what.effect[0, 0] > 0
    fires = found.detect(X)[:, 0].any((1, 2))
    assert fires[X[:, axis].mean((1, 2)) > 3].mean() > 0.7


def test_random_images_are_no_concepts() -> None:
    rng = np.random.default_rng(0)
    X = features(rng, 150)
    small, called, notes = [], 0, 0
    for seed in range(6):
        sets = {f"set {j}": features(rng, 16) for j in range(4)}
        found = TCAV(random_sets=99, random_state=seed).fit(X, concepts=sets, random=features(rng, 40))
        notes += any("better than chance" in note for note in found.notes_)
        p = influence(found, head(rng.standard_normal(D)), X).p_value
        small += (p.min(1) < 0.05).tolist()
        called += bool(claims(p, 0.05).any())
    assert np.mean(small) < 0.15
    assert called <= 2
    assert notes >= 4


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    X, few = features(rng, 20), features(rng, 4)
    with pytest.raises(ValueError, match="expected `concepts`"):
        TCAV().fit(X)
    with pytest.raises(ValueError, match=r"4 images: concept `dots`, expected at least 8"):
        TCAV().fit(X, concepts={"dots": few}, random=X)
    with pytest.raises(ValueError, match="3 channels, expected 24"):
        TCAV().fit(X, concepts={"dots": X[:, :3]}, random=X)
    with pytest.raises(ValueError, match="random_share"):
        TCAV(random_share=1.0).fit(X, concepts={"dots": X}, random=X)
