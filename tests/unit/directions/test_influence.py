"""Influence of directions: the intervention by hand, significance of random and planted directions, bad input."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rdxcli.methods.directions.alignment import Head, PooledLinearHead, pooled_linear
from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.baselines import KMeansDirections
from rdxcli.methods.directions.features import as_maps
from rdxcli.methods.directions.influence import (
    Influence,
    claims,
    effects,
    influence,
    null_directions,
    random_filters,
)
from rdxcli.methods.directions.steering import clarity, explain_predictions, own_strength, steer
from rdxcli.methods.directions.synthetic import SyntheticCase, generate, named


@pytest.fixture(scope="module")
def case() -> SyntheticCase:
    return generate(named("paper_table", images_per_class=200))


@pytest.fixture(scope="module")
def crowded() -> SyntheticCase:
    """Four concepts among thirty distractors: there is room for a direction to stand out."""
    spec = named("noisy", images_per_class=100, seed=9001, dim=64, n_concepts=4, n_distractors=30, height=2, width=2)
    return generate(replace(spec, min_sv=0.05, filter_cos_max=1.0))


def planted(case: SyntheticCase, encoding: np.ndarray | None = None) -> Directions:
    """Directions (D, I) with the true filters of the case, which fire where their concept owns the position."""
    encoding = case.S if encoding is None else encoding
    W = case.W / np.linalg.norm(case.W, axis=0)
    mean = case.X.mean((0, 2, 3))
    x = case.X.transpose(0, 2, 3, 1).reshape(-1, case.X.shape[1])
    bias = np.quantile(x @ W, 1 - 1 / W.shape[1], axis=0)
    return Directions.of((encoding / np.linalg.norm(encoding, axis=0)).T, W.T, bias, np.full(W.shape[1], 0.1), mean)


def curved(K: int, D: int, seed: int = 0) -> nn.Module:
    """A small network that is neither linear nor indifferent to places."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(D, 8, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, K)
        ).eval()


def by_hand(directions: Directions, head: Head, X: np.ndarray, i: int, clamp: bool) -> np.ndarray:
    """Loss of the logits when concept i is taken away, written out for single images."""
    w, s, b = directions.decoding_[i], directions.encoding_[i], directions.bias_[i]
    x = X.astype(np.float64)
    fires = np.einsum("ndhw,d->nhw", x, w) > b
    signal = np.einsum("ndhw,d->nhw", x, w) / (w @ s)
    strength = signal[fires].mean() - signal[~fires].mean()
    lost = []
    for image, where in zip(x, fires, strict=True):
        if where.any():
            without = image - strength * s[:, None, None] * where
            pair = np.stack([image, np.maximum(without, 0) if clamp else without])
            with torch.no_grad():
                logits = head(torch.as_tensor(pair, dtype=torch.float32)).double().numpy()
            lost.append(logits[0] - logits[1])
    return np.mean(lost, axis=0)


@pytest.mark.parametrize("kind", ["linear", "curved"])
@pytest.mark.parametrize("ends_in_relu", [True, False])
def test_influence_is_the_intervention_by_hand(case: SyntheticCase, kind: str, ends_in_relu: bool) -> None:
    X = case.X[:120] if ends_in_relu else case.X[:120] - 10.0
    X = np.maximum(X, 0) if ends_in_relu else X
    D = X.shape[1]
    head: Head = PooledLinearHead(case.head.weight, case.head.bias) if kind == "linear" else curved(5, D)
    directions = KMeansDirections(4).fit(X)
    found = effects(directions, head, X)
    assert found.how == "intervention"
    for i in range(4):
        np.testing.assert_allclose(found.values[i], by_hand(directions, head, X, i, ends_in_relu), rtol=2e-3, atol=2e-4)


def test_influence_steering_and_single_images_are_one_thing(case: SyntheticCase) -> None:
    X, head = case.X[:150], curved(3, case.X.shape[1])
    directions = KMeansDirections(3).fit(X)
    found, strength = effects(directions, head, X), own_strength(directions, X)
    contributions, _ = explain_predictions(directions, head, X, clamp=True)
    for i in range(3):
        present = directions.detect(X)[:, i].reshape(len(X), -1).any(1)
        before, after = steer(directions, head, X, i, [0.0, -strength[i]], "present", clamp=True)
        np.testing.assert_allclose(found.values[i], (before - after)[present].mean(0), atol=1e-5)
        np.testing.assert_allclose(found.values[i], contributions[present, i].mean(0), atol=1e-5)
        assert found.images[i] == present.sum()


def test_the_derivative_agrees_where_the_network_is_nearly_linear(case: SyntheticCase) -> None:
    X = (case.X[:150] - 10.0) * 1e-2
    head = curved(3, X.shape[1])
    directions = KMeansDirections(3).fit(X)
    exact, first = effects(directions, head, X), effects(directions, head, X, how="derivative")
    assert first.how == "derivative"
    np.testing.assert_allclose(first.values, exact.values[:, first.classes], atol=0.02 * np.abs(exact.values).max())


def test_a_linear_end_is_recognised_and_nothing_else_is(case: SyntheticCase) -> None:
    X = as_maps(case.X)
    calls = []

    def disguised(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return case.head(batch)

    found = pooled_linear(disguised, X)
    assert isinstance(found, PooledLinearHead)
    np.testing.assert_allclose(found(X).numpy(), case.head(X).numpy(), atol=1e-3)
    weight = torch.randn(X.shape[1], 3, generator=torch.Generator().manual_seed(0))
    others: list[Head] = [
        lambda batch: batch.flatten(2).amax(2) @ weight,
        lambda batch: batch[:, :, 0, 0] @ weight,
        lambda batch: batch.flatten(2).mean(2).relu() @ weight,
        lambda batch: (batch.flatten(2).mean(2) - 5).relu() @ weight,
        curved(3, X.shape[1]),
    ]
    for other in others:
        assert pooled_linear(other, X) is other


@pytest.mark.parametrize(("name", "seed"), [("noisy", 3), ("gap", 5)])
def test_planted_influence_is_found(name: str, seed: int) -> None:
    """Also where three concepts and two distractors are all there is: random filters move the logits as much there."""
    case = generate(named(name, images_per_class=80, seed=seed))
    found = influence(planted(case), case.head, case.X, n_null=299)
    assert found.significant.any(1).all()
    assert (found.clarity > found.clarity_chance).all()
    # what the network makes nothing of is clear all the same, and moves nothing
    weight, s = case.head.weight.double().numpy(), case.S[:, 0]
    blind = PooledLinearHead(weight - np.outer(s, s @ weight), np.zeros(weight.shape[1]))
    missed = influence(planted(case), blind, case.X, n_null=299)
    assert not missed.significant[0].any()
    assert missed.p_value[0].min() > 0.3
    assert missed.significant[1:].any()


def test_planted_influence_is_found_among_filters_of_large_variance(crowded: SyntheticCase) -> None:
    covariance = influence(planted(crowded), crowded.head, crowded.X, null="covariance", n_null=299)
    assert covariance.significant.any(1).all()


def test_clusters_of_noise_are_not_found() -> None:
    """K-means follows the axes of largest variance, which move the logits of a random head most."""
    rng = np.random.default_rng(11)
    X = (rng.standard_normal((1200, 24)) * np.linspace(3, 0.1, 24)).astype(np.float32)
    head = PooledLinearHead(rng.standard_normal((24, 8)), np.zeros(8))
    found = influence(KMeansDirections(8).fit(X), head, X, n_null=299)
    assert not found.significant.any()


def test_clarity_by_hand(case: SyntheticCase) -> None:
    directions = planted(case)
    z = np.einsum("ndhw,d->nhw", case.X.astype(np.float64), directions.decoding_[1]) / directions.gain_[1]
    fires = directions.detect(case.X)[:, 1]
    inside = np.concatenate([z[fires] - z[fires].mean(), z[~fires] - z[~fires].mean()])
    assert clarity(directions, case.X)[1] == pytest.approx(
        (z[fires].mean() - z[~fires].mean()) / inside.std(), rel=1e-4
    )
    directions.bias_ = directions.bias_ + np.array([1e6, 0, -1e6])
    np.testing.assert_array_equal(clarity(directions, case.X)[[0, 2]], 0)


@pytest.mark.parametrize("which", ["synthetic", "gaussian"])
def test_random_filters_are_significant_as_often_as_stated(which: str, crowded: SyntheticCase) -> None:
    """Twenty sets of ten, seeds that nothing was chosen with; docs/methods/directions.md has more."""
    if which == "synthetic":
        X, head = crowded.X, crowded.head
    else:
        rng = np.random.default_rng(3)
        X = (rng.standard_normal((1500, 32)) * np.linspace(3, 0.1, 32)).astype(np.float32)
        head = PooledLinearHead(rng.standard_normal((32, 8)), np.zeros(8))
    random = random_filters(X, np.full(200, 0.1), random_state=77)
    p = influence(random, head, X, n_null=299).p_value
    called = sum(bool(claims(p[start : start + 10], 0.05).any()) for start in range(0, 200, 10))
    assert called <= 4  # binomial(20, 0.05) has more in one case of 400
    assert (p.min(1) < 0.05).mean() < 0.11
    assert (p.min(1) < 0.5).mean() > 0.3  # nor are they conservative


def test_rare_detectors_are_compared_with_rare_ones(crowded: SyntheticCase) -> None:
    shares = np.geomspace(0.01, 0.3, 10)[np.arange(200) % 10]
    p = influence(random_filters(crowded.X, shares, random_state=5), crowded.head, crowded.X, n_null=299).p_value.min(1)
    rare = p[shares < 0.05]
    assert (rare < 0.05).mean() < 0.15
    assert abs(np.median(rare) - np.median(p[shares > 0.1])) < 0.3


def test_claims_are_those_of_benjamini_and_hochberg() -> None:
    p = np.array([[0.004, 0.3], [0.019, 0.021], [0.2, 0.9], [0.6, 0.6], [0.04, 1.0]])
    # sorted 0.004 0.019 0.04 0.2 0.6 against 0.01 0.02 0.03 0.04 0.05
    np.testing.assert_array_equal(claims(p, 0.05), p <= 0.019)
    assert not claims(np.full((3, 2), 0.04), 0.01).any()


def test_the_batch_size_changes_nothing(case: SyntheticCase) -> None:
    directions, head = planted(case), curved(3, case.X.shape[1])
    one, other = (influence(directions, head, case.X[:200], n_null=19, batch=batch) for batch in (7, 256))
    for field in fields(Influence):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_allclose(left, right, atol=1e-5, err_msg=field.name)


def test_too_few_random_filters_are_said(case: SyntheticCase) -> None:
    found = influence(planted(case), case.head, case.X, n_null=19)
    assert any("must stand out" in note for note in found.notes)


def test_idle_detectors_are_not_tested(case: SyntheticCase) -> None:
    directions = planted(case)
    directions.bias_ = directions.bias_ + np.array([1e6, 0, -1e6])
    found = influence(directions, case.head, case.X, n_null=49)
    assert np.isnan(found.effect[[0, 2]]).all()
    assert (found.p_value[[0, 2]] == 1).all()
    assert any("[0, 2]" in note for note in found.notes)


def test_the_published_null(case: SyntheticCase) -> None:
    found = influence(planted(case), case.head, case.X, null="published", n_null=10)
    assert found.sensitivity is not None
    assert found.sensitivity.shape == found.p_value.shape == found.effect.shape
    assert found.null == "published"
    assert ((found.p_value * 10) % 1 == 0).all()


def test_permuted_labels_are_seeded_per_direction(case: SyntheticCase) -> None:
    x = case.X.transpose(0, 2, 3, 1).reshape(-1, case.X.shape[1])
    active = (case.owner == 0).reshape(-1)
    once = null_directions(x, active, 4, seed=0, name=1)
    np.testing.assert_array_equal(once, null_directions(x, active, 4, seed=0, name=1))
    assert np.abs(once - null_directions(x, active, 4, seed=0, name=2)).max() > 0.01
    assert np.abs(once - null_directions(x, active, 4, seed=1, name=1)).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(once, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("bad", [{"null": "rcav"}, {"n_null": 0}, {"level": 1.0}, {"alpha": 0.0}, {"how": "guess"}])
def test_bad_options(case: SyntheticCase, bad: dict) -> None:
    with pytest.raises(ValueError, match=r"Got .*expected"):
        influence(planted(case), case.head, case.X, case.y, **bad)


@pytest.mark.parametrize("y", [np.zeros(3, int), np.full(600, 99), np.zeros(600)])
def test_bad_classes(case: SyntheticCase, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Got classes"):
        influence(planted(case), case.head, case.X, y)


def test_a_detector_that_hardly_fires_has_no_null(case: SyntheticCase) -> None:
    with pytest.raises(ValueError, match="expected 8 or more"):
        null_directions(np.zeros((20, 4)), np.arange(20) < 3, 2, 0, 0)
