"""Labels by masks: unlabelled pixels, masks read one by one, and what chance reaches."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.influence import random_filters
from rdxcli.methods.directions.labelling import OUTSIDE, claims, label_by_masks, mask_chance, overlaps

N, D, SIDE, SCALE = 60, 16, 6, 4


def scene(seed: int = 0, layout: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D, 6, 6) and label masks (N, 24, 24): ground below sky with a varying horizon, and a patch.

    Concept k adds to channels of its own; channels 6 and up are smooth texture that knows no concept.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(SIDE)[:, None] * np.ones(SIDE)
    features = np.empty((N, D, SIDE, SIDE), np.float32)
    masks = np.zeros((N, SIDE, SIDE), int)
    for n in range(N):
        masks[n] = rows >= (rng.integers(2, 5) if layout else rng.integers(0, 6))
        r, c = rng.integers(0, SIDE - 1, 2)
        masks[n, r : r + 2, c : c + 2] = 2
    texture = rng.standard_normal((N, D, SIDE + 2, SIDE + 2))
    smooth = sum(texture[:, :, a : a + SIDE, b : b + SIDE] for a in range(3) for b in range(3)) / 3
    features[:] = smooth
    for k in range(3):
        features[:, 2 * k : 2 * k + 2] += 3.0 * (masks == k)[:, None]
    return features, masks.repeat(SCALE, 1).repeat(SCALE, 2)


def readers(features: np.ndarray) -> Directions:
    """One detector per concept, on the first of its channels."""
    W = np.zeros((3, D))
    for k in range(3):
        W[k, [2 * k, 2 * k + 1]] = 1
    return Directions.of(W, W, np.full(3, 3.0), mean=features.mean((0, 2, 3)))


IS_TRAIN = np.arange(N) % 2 == 0


@pytest.mark.parametrize("unlabelled", [255, 11, -1])
@pytest.mark.parametrize("streamed", [False, True])
def test_unlabelled_pixels_count_for_nothing(unlabelled: int, streamed: bool) -> None:
    features, masks = scene()
    responses = readers(features).responses(features)
    whole = overlaps(responses, masks, 3)
    holes = np.random.default_rng(0).random(masks.shape) < 0.3
    torn = np.where(holes, unlabelled, masks)
    found = overlaps(responses, torn.__getitem__ if streamed else torn, 3, ignore=OUTSIDE)
    assert (found.there < whole.there).all()
    np.testing.assert_allclose(found.iou, whole.iou, atol=0.03)
    with pytest.raises(ValueError, match="Got labels from"):
        overlaps(responses, torn, 3)


def test_masks_are_read_one_by_one() -> None:
    features, masks = scene()
    read: list[int] = []

    def one(row: int) -> np.ndarray:
        read.append(row)
        return masks[row]

    responses = readers(features).responses(features)
    streamed, stacked = (label_by_masks(responses, source, IS_TRAIN, 3) for source in (one, masks))
    assert max(read.count(row) for row in range(N)) <= 2
    for name in ("label", "iou_train", "iou", "precision", "recall", "f1", "average_precision", "best_f1"):
        np.testing.assert_array_equal(getattr(streamed, name), getattr(stacked, name), err_msg=name)
    np.testing.assert_array_equal(streamed.label, [0, 1, 2])


def test_thresholds_and_average_precision_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, f1_score

    features, masks = scene()
    small = masks[:, ::SCALE, ::SCALE]
    responses = readers(features).responses(features)
    found = label_by_masks(responses, small, IS_TRAIN, 3)
    for i in range(3):
        truth, score = (small[~IS_TRAIN] == i).ravel(), responses[~IS_TRAIN, i].ravel()
        assert found.average_precision[i] == pytest.approx(average_precision_score(truth, score), abs=2e-3)
        assert found.best_f1[i] == pytest.approx(f1_score(truth, score >= found.best_threshold[i]), abs=2e-3)


def test_true_detectors_are_above_chance() -> None:
    features, masks = scene()
    found = mask_chance(readers(features), features, masks, IS_TRAIN, 3)
    assert found.above.all()
    assert found.p_value.max() <= 0.02


def test_random_filters_are_above_chance_as_often_as_stated() -> None:
    called, p = 0, []
    for seed in range(12):
        features, masks = scene(100 + seed)
        random = random_filters(features, np.full(10, 0.2), random_state=900 + seed)
        found = mask_chance(random, features, masks, IS_TRAIN, 3, n_random=99, n_permutations=19)
        called += bool(claims(found.p_random[:, None], 0.05).any())
        p.append(found.p_random)
    assert called <= 3  # binomial(12, 0.05)
    assert 0.01 < (np.concatenate(p) < 0.25).mean() < 0.45


def test_maps_on_the_wrong_images_are_chance() -> None:
    """True detectors, but the masks belong to other images: a fixed layout alone gives large IoUs."""
    features, masks = scene()
    order = np.concatenate([np.roll(np.arange(0, N, 2), 1), np.roll(np.arange(1, N, 2), 1)])
    wrong = np.empty_like(masks)
    wrong[np.concatenate([np.arange(0, N, 2), np.arange(1, N, 2)])] = masks[order]
    detectors = readers(features)
    labels = label_by_masks(detectors.responses(features), wrong, IS_TRAIN, 3)
    assert labels.interpretable.sum() >= 2  # by the published bar alone
    chance = mask_chance(detectors, features, wrong, IS_TRAIN, 3)
    assert not (labels.interpretable & chance.above).any()
    assert chance.permuted_iou.max() > 0.2


def test_bad_masks_are_refused() -> None:
    features, masks = scene()
    responses = readers(features).responses(features)
    with pytest.raises(ValueError, match="no n_concepts"):
        overlaps(responses, masks.__getitem__)
    with pytest.raises(ValueError, match="expected integers"):
        overlaps(responses, masks.astype(float))
    with pytest.raises(ValueError, match="some of each kind"):
        label_by_masks(responses, masks, np.ones(N, bool), 3)
    with pytest.raises(ValueError, match="expected 3"):
        overlaps(responses, lambda row: np.ones((2, 24, 24), bool), 3)
