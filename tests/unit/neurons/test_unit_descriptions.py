"""Free text for units: what captions share, and which proposal fits."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.neurons.descriptions import UnitDescriptions, shared_phrases
from rdxcli.methods.neurons.preparation import random_split


def test_phrases_that_several_images_share() -> None:
    captions = [["A red car on the road.", "the red car"], ["Two boats and a red car"], ["a blue car"], ["water"]]
    assert shared_phrases(captions) == ["car", "red car"]
    assert shared_phrases([["a red car", "a red car"]]) == []  # of one image
    assert shared_phrases([]) == []
    assert shared_phrases([["l'été au bord de la mer"], ["bord de mer, l'été"]]) == ["bord de", "l'été", "mer"]


def planted(seed: int, planted: int = 6, noise: int = 24, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of 60 overlapping texts to images; units that follow one text each, then units of noise."""
    rng = np.random.default_rng(seed)
    likeness = 0.2 + 0.05 * (rng.normal(size=(n, 60)) + rng.normal(size=(n, 1)))
    A = np.exp(0.5 * rng.normal(size=(n, planted + noise)))
    A[:, :planted] += 20 * (likeness[:, :planted] - 0.2)
    return likeness, A


def proposed(likeness: np.ndarray, A: np.ndarray, train: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As captions are: for each of a unit's five strongest training images the texts that fit that image best."""
    shown = [train[np.argsort(-A[train, u])[:5]] for u in range(A.shape[1])]
    return [np.unique(np.argsort(-likeness[rows], axis=1)[:, :4]) for rows in shown], shown


def test_the_right_text_is_chosen_and_noise_is_not_better_than_chance() -> None:
    better, found, right = [], [], []
    for seed in range(4):
        likeness, A = planted(seed)
        split = random_split(len(A), seed)
        proposals, shown = proposed(likeness, A, np.asarray(split.train))
        model = UnitDescriptions(random_state=seed).fit(
            likeness, A, train=split.train, val=split.val, proposals=proposals, shown=shown
        )
        chance = model.chance(likeness, A, split.test)
        found.append(chance.better[:6].mean())
        better.append(chance.better[6:].mean())
        right.append((model.best_[:6] == np.arange(6)).mean())
    assert np.mean(right) >= 0.8
    assert np.mean(found) >= 0.8
    assert np.mean(better) <= 0.05


def test_correlations_leave_out_the_images_that_were_captioned() -> None:
    likeness, A = planted(1)
    split = random_split(len(A), 0)
    proposals, shown = proposed(likeness, A, np.asarray(split.train))
    model = UnitDescriptions(n_shuffled=0).fit(
        likeness, A, train=split.train, val=split.val, proposals=proposals, shown=shown, units=range(A.shape[1])
    )
    rows = np.setdiff1d(np.concatenate([split.train, split.val]), shown[2])
    by_hand = [np.corrcoef(likeness[rows, column], A[rows, 2])[0, 1] for column in proposals[2]]
    assert model.best_[2] == proposals[2][int(np.argmax(by_hand))]
    assert model.val_correlation_[2] == pytest.approx(max(by_hand))
    scores, interval = model.score_rows(likeness, A, split.test)
    assert scores[2] == pytest.approx(np.corrcoef(likeness[split.test, model.best_[2]], A[split.test, 2])[0, 1])
    assert interval.low[2] < scores[2] < interval.high[2]
    with pytest.raises(ValueError, match="n_shuffled"):
        model.chance(likeness, A, split.test)


def test_units_without_proposals_or_variation() -> None:
    likeness, A = planted(2, 2, 2)
    A[:, 3] = 1.0
    split = random_split(len(A), 0)
    nothing = np.zeros(0, dtype=np.int64)
    proposals = [np.array([0, 1]), nothing, np.array([5]), np.array([7])]
    model = UnitDescriptions().fit(
        *(likeness, A),
        **{"train": split.train, "val": split.val, "proposals": proposals, "shown": [nothing] * 4},
        concept_names=[f"t{i}" for i in range(60)],
    )
    assert [row.status for row in model.explanations_][1] == "no proposal"
    assert model.explanations_[3].status == "no concept"
    assert np.isnan(model.score_rows(likeness, A, split.test)[0][[1, 3]]).all()
    assert model.table("l").rows[0].concepts == ("t0",)
    with pytest.raises(ValueError, match="proposals for 3"):
        UnitDescriptions().fit(
            likeness, A, train=split.train, val=split.val, proposals=proposals[:3], shown=[nothing] * 4
        )
