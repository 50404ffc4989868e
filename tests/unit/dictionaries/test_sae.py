"""Sparse autoencoders: known dictionaries are found, learning resumes, memory maps are streamed, others import."""

from __future__ import annotations

import resource
import tracemalloc
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from rdxcli.methods.dictionaries import batches, sae
from rdxcli.methods.dictionaries.batches import Batches
from rdxcli.methods.dictionaries.sae import Kind, SparseAutoencoder
from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.health import matched_cosines
from rdxcli.methods.directions.influence import claims, effects, influence, random_filters
from rdxcli.methods.directions.steering import own_strength
from rdxcli.methods.directions.synthetic import generate, named
from rdxcli.progress import time_limit

KINDS = get_args(Kind)
D, COUNT = 24, 40


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    """Positions (4000, 24) that are sums of two of forty directions on average, and the directions."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((COUNT, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    active = (rng.random((4000, COUNT)) < 2 / COUNT) * rng.uniform(2, 5, (4000, COUNT))
    return (active @ directions + 0.03 * rng.standard_normal((4000, D)) + 1).astype("f4"), directions


def fitted(x: np.ndarray, kind: str, **changes: int) -> SparseAutoencoder:
    given = {"k": 2, "steps": 500, "batch": 256, "dead_after": 60, **changes}
    return SparseAutoencoder(COUNT, kind=kind, **given).fit(x)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_dictionary_is_found(kind: str, truth: tuple[np.ndarray, np.ndarray]) -> None:
    x, directions = truth
    found = fitted(x, kind)
    recovered = (matched_cosines(directions, found.encoding_) > 0.85).mean()
    chance = (
        matched_cosines(directions, np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0]) > 0.85
    ).mean()
    assert recovered > 0.4 > chance + 0.3
    assert found.quality_["explained_variance"] > 0.55
    assert found.quality_["l0"] == pytest.approx(2, abs=0.6)
    assert found.quality_["dead"] < 0.15
    assert found.curve_[0]["loss"] > found.curve_[-1]["loss"]
    assert found.detect(x).mean() * COUNT == pytest.approx(found.quality_["l0"], abs=0.1)
    np.testing.assert_allclose(np.linalg.norm(found.encoding_, axis=1), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(kind: str, truth: tuple[np.ndarray, np.ndarray]) -> None:
    x, _ = truth
    states: list[dict[str, np.ndarray]] = []
    whole = SparseAutoencoder(COUNT, kind=kind, k=2, steps=60, batch=128).fit(x, keep=states.append, every=25)  # type: ignore[arg-type]
    assert [int(state["counters"][0]) for state in states] == [25, 50]
    rest = SparseAutoencoder(COUNT, kind=kind, k=2, steps=60, batch=128).fit(x, state=states[0])  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole.encoding_, rest.encoding_)
    np.testing.assert_array_equal(whole.bias_, rest.bias_)
    assert whole.curve_ == rest.curve_
    with pytest.raises(ValueError, match="expected that of this fit"):
        SparseAutoencoder(COUNT + 1, kind=kind, k=2, steps=60).fit(x, state=states[0])  # type: ignore[arg-type]


def test_memory_maps_are_streamed(tmp_path: Path) -> None:
    """120 MB on disk, a few in memory; spatial maps and the same positions as rows give the same."""
    stored = np.lib.format.open_memmap(tmp_path / "acts.npy", "w+", "f4", (7500, 16, 16, 16))
    rng = np.random.default_rng(0)
    for part in range(0, 7500, 500):
        stored[part : part + 500] = rng.standard_normal((500, 16, 16, 16), dtype="f4")
    stored.flush()
    features = np.load(tmp_path / "acts.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        SparseAutoencoder(32, k=2, steps=5, batch=2048).fit(features)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6


def test_every_image_is_seen_once_in_an_epoch() -> None:
    x = np.arange(60, dtype="f4")[:, None].repeat(3, 1)
    data = Batches(x, 16, 0)
    seen = np.concatenate([data.batch(step)[:, 0].numpy() for step in range(data.per_epoch)])
    assert len(np.unique(seen)) == len(seen) == 48
    assert (data.batch(0) != data.batch(data.per_epoch)).any()
    maps = np.arange(2 * 3 * 2 * 2, dtype="f4").reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(Batches(maps, 8, 0).read(np.array([1]))[1].numpy(), maps[1, :, 0, 1])


def test_a_latent_is_taken_away_by_its_own_activation(truth: tuple[np.ndarray, np.ndarray]) -> None:
    """`decode` and `own_strength` speak of activation times decoder row, as the reconstruction does."""
    x, _ = truth
    found = fitted(x, "batchtopk", steps=200)
    activation = (x - found.mean_) @ found.encoder_.T + found.encoder_bias_
    fires = found.detect(x)
    made = (np.where(fires, activation, 0) @ found.decoder_) + found.mean_
    left = ((x - made) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert 1 - left == pytest.approx(found.quality_["explained_variance"], abs=0.02)
    size = np.linalg.norm(found.decoder_, axis=1)
    for i in np.flatnonzero(fires.any(0))[:5]:
        on, off = activation[fires[:, i], i].mean(), activation[~fires[:, i], i].mean()
        assert own_strength(found, x)[i] == pytest.approx(size[i] * (on - off), rel=1e-3)


def test_influence_of_latents_has_its_level() -> None:
    """Random filters with scales of their own are significant as often as stated."""
    case = generate(named("noisy", images_per_class=100, seed=9003))
    random = random_filters(case.X, np.full(200, 0.1), random_state=31)
    scale = np.random.default_rng(0).uniform(1, 5, 200)
    latents = Directions.of(
        random.encoding_, random.decoding_, random.bias_, mean=random.mean_, gain=random.gain_ * scale
    )
    np.testing.assert_allclose(
        effects(latents, case.head, case.X).values * scale[:, None],
        effects(random, case.head, case.X).values,
        rtol=1e-3,
    )
    p = influence(latents, case.head, case.X, n_null=499).p_value
    assert sum(bool(claims(p[start : start + 10], 0.05).any()) for start in range(0, 200, 10)) <= 4


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka", "archetypal"])
def test_gradients_of_few_active_latents_are_those_of_all(
    kind: str, truth: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many latents only active ones are looked at: the same reconstructions and gradients."""
    spec = SparseAutoencoder(COUNT, kind=kind, k=2, batch=256)  # type: ignore[arg-type]
    found = []
    for few in (1e9, 0):
        monkeypatch.setattr(sae, "FEW", few)
        learner = sae._Learner(spec, Batches(truth[0], 256, 0))
        x = (learner.data.batch(0) - learner.mean) / learner.unit
        made, fired, count = learner._made(x, learner.decoder())
        loss = torch.stack([(x - one).square().sum() for one in made]).mean()
        found.append([loss, fired.float(), count, *torch.autograd.grad(loss, list(learner.parameters.values()))])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-3 * float(one.detach().abs().max()))
    assert float(found[0][2]) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_of_runs_show_every_image_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small runs and pools: an epoch has no image twice, mixes what lies apart, and any step can be asked for first."""
    monkeypatch.setattr(batches, "RUN", 4 * 3 * 8)
    monkeypatch.setattr(batches, "POOL", 4 * 3 * 200)
    x = np.arange(1000, dtype="f2")[:, None].repeat(3, 1)
    data = Batches(x, size, 0)
    assert data.images % data.run == 0
    parts = [data.batch(step)[:, 0] for step in range(data.per_epoch)]
    seen = torch.cat(parts).numpy()
    assert len(np.unique(seen)) == len(seen) > 1000 - size - 8
    if size == 64:
        assert np.mean([np.ptp(part.numpy()) for part in parts]) > 700
    assert torch.equal(Batches(x, size, 0).batch(data.per_epoch - 1)[:, 0], parts[-1])


def test_memory_does_not_grow_with_latents_times_positions() -> None:
    """12,000 positions and 8,192 latents: activations of all of them would take 375 MB, besides 340 of any number."""
    x = np.random.default_rng(0).standard_normal((12_000, 8), dtype="f4")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    SparseAutoencoder(8192, k=2, steps=2, batch=256).fit(x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024


def test_out_of_time_keeps_what_was_learned(truth: tuple[np.ndarray, np.ndarray]) -> None:
    with time_limit(1e-6):
        found = SparseAutoencoder(COUNT, k=2, steps=500, batch=128).fit(truth[0])
    assert any("of 500 steps: the time was over" in note for note in found.notes_)
    assert np.isfinite(found.encoding_).all()


def test_what_went_wrong_is_said(truth: tuple[np.ndarray, np.ndarray]) -> None:
    short = fitted(truth[0], "jumprelu", steps=200)
    assert any("2 were asked for" in note for note in short.notes_)
    assert not fitted(truth[0], "batchtopk", steps=60).notes_


@pytest.mark.parametrize("transposed", [False, True])
def test_published_dictionaries(transposed: bool, truth: tuple[np.ndarray, np.ndarray]) -> None:
    x, directions = truth
    W = directions.astype("f4")
    arrays = {
        "W_enc": W if transposed else W.T,
        "W_dec": W,
        "b_enc": np.full(COUNT, -0.5, "f4"),
        "b_dec": np.ones(D, "f4"),
    }
    found = SparseAutoencoder.published(arrays, x)
    pre = (x - 1) @ W.T - 0.5
    np.testing.assert_array_equal(found.detect(x)[np.abs(pre) > 1e-4], (pre > 0)[np.abs(pre) > 1e-4])
    with_k = SparseAutoencoder.published(arrays, x, k=2)
    assert with_k.detect(x).sum(1).mean() == pytest.approx(2, abs=0.05)
    jump = SparseAutoencoder.published({**arrays, "threshold": np.linspace(0.5, 3, COUNT)}, x)
    np.testing.assert_array_equal(jump.detect(x).sum(0), (pre > np.linspace(0.5, 3, COUNT)).sum(0))
    np.testing.assert_allclose(jump.encoding_, directions, atol=1e-6)
    with pytest.raises(ValueError, match="expected W_enc"):
        SparseAutoencoder.published({"W_enc": W})
    with pytest.raises(ValueError, match=r"expected \(D, I\)"):
        SparseAutoencoder.published({**arrays, "b_enc": np.zeros(3)})


@pytest.mark.parametrize(
    "bad", [{"kind": "vanilla"}, {"k": 0}, {"k": 40}, {"steps": 0}, {"rate": 0.0}, {"relaxation": -1.0}]
)
def test_bad_options(bad: dict, truth: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"Got .*expected"):
        SparseAutoencoder(COUNT, **{"k": 2, "steps": 5, **bad}).fit(truth[0])


@pytest.mark.parametrize("features", [np.ones((50, 4)), np.full((50, 4), np.nan), np.ones((3, 4, 5))])
def test_bad_features(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Got"):
        SparseAutoencoder(8, k=2, steps=5).fit(features)
