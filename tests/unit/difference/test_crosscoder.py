"""Crosscoder: planted shared and exclusive concepts, a model against its copy, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference.baselines.crosscoder import Crosscoder


def pair(seed: int, own: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models of six shared concepts, and presence (n, 2) of one that only a, and one that only b has."""
    rng = np.random.default_rng(seed)
    n = 600
    present = rng.random((n, 8)) < 0.2
    strength = present * rng.uniform(2, 4, (n, 8))
    bases = [np.linalg.qr(rng.standard_normal((12, 12)))[0][:8] for _ in range(2)]
    if own:
        bases[0][7] = bases[1][6] = 0
    A, B = (strength @ base + 0.05 * rng.standard_normal((n, 12)) for base in bases)
    return A, B, present[:, 6:]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_concept_of_one_model_is_found_where_it_is(seed: int) -> None:
    A, B, present = pair(seed)
    found = Crosscoder(1, latents=12, k=3, steps=600, batch_size=200, random_state=seed).fit(A, B)
    for side, direction in enumerate(("01", "10")):
        shown = found.directions_[direction].samples[1]
        assert present[shown, side].mean() > 0.8
    assert found.counts_["a"] >= 1
    assert found.counts_["b"] >= 1
    assert min(found.explained_) > 0.8
    assert sum(found.counts_.values()) == 12


def test_models_with_the_same_concepts_have_only_shared_latents() -> None:
    A, B, _ = pair(2, own=False)
    found = Crosscoder(1, latents=12, k=3, steps=600, batch_size=200).fit(A, B)
    assert found.counts_["a"] + found.counts_["b"] == 0
    assert sum("no latent is only in" in note for note in found.notes_) == 2
    assert np.nanmax(np.abs(found.lean_ - 0.5)) < 0.3


def test_bad_input() -> None:
    A, B, _ = pair(3)
    with pytest.raises(ValueError, match="4 latents, expected at least 6"):
        Crosscoder(3, latents=4).fit(A, B)
    with pytest.raises(ValueError, match="rows that differ"):
        Crosscoder(3).fit(A, np.ones_like(B))
