"""Setting neurons: effects that are known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.methods.regions.ablation import ablate, as_head
from rdxcli.methods.regions.rdr import RDR


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that differ in 10 of 60 neurons; the others vary between samples only."""
    rng = np.random.default_rng(seed)
    y = np.arange(120) % 2
    z = 0.5 * rng.normal(size=(120, 60))
    z[:, :10] += np.where(y == 1, 2.0, -2.0)[:, None]
    return z.astype(np.float32), y


Z, Y = data()
WEIGHT = np.zeros((2, 60))
WEIGHT[1, :10], WEIGHT[0, :10] = 0.2, -0.2
HEAD = (WEIGHT, np.zeros(2))
FITTED = RDR(8, 10).fit(Z, targets=[1, 2], labels=Y)


def test_the_rule_is_what_the_head_reads() -> None:
    region = FITTED.regions_[0]
    assert set(region.neurons.tolist()) == set(range(10))
    effect = ablate(region, FITTED.configurations_, Z, HEAD, value="flip")
    assert (effect.before, effect.after) == (1, 0)
    assert effect.changed == 1.0
    assert effect.drop > 0.9
    assert effect.random_changed == 0.0
    assert effect.random_drop == pytest.approx(0.0, abs=1e-12)
    assert effect.p_value == pytest.approx(1 / 21)
    assert effect.samples == min(64, len(region.members))


@pytest.mark.parametrize("value", ["mean", "zero", "flip"])
def test_against_setting_by_hand(value: str) -> None:
    region = FITTED.regions_[0]
    effect = ablate(region, FITTED.configurations_, Z, HEAD, value=value, max_members=5)
    rows = region.members[:5]
    changed = Z[rows].astype(float)
    for neuron, state in zip(region.neurons, region.states, strict=True):
        column = Z[:, neuron].astype(float)
        opposite = column[(column > 0) != state].mean()
        changed[:, neuron] = {"mean": column.mean(), "zero": 0.0, "flip": opposite}[value]

    def probability(z: np.ndarray) -> np.ndarray:
        logits = z @ WEIGHT.T
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    before = probability(Z[rows].astype(float))
    own = np.arange(5), before.argmax(axis=1)
    drop = before[own] - probability(changed)[own]
    assert effect.drop == pytest.approx(drop.mean(), abs=1e-6)
    assert effect.target_drop == pytest.approx(drop[0], abs=1e-6)
    fall = (Z[rows] @ WEIGHT.T)[own] - (changed @ WEIGHT.T)[own]
    assert effect.logit_drop == pytest.approx(fall.mean(), abs=1e-5)


def test_heads_of_every_kind_agree() -> None:
    module = torch.nn.Linear(60, 2)
    module.load_state_dict({"weight": torch.from_numpy(WEIGHT).float(), "bias": torch.zeros(2)})
    heads = (HEAD, module, lambda batch: batch @ WEIGHT.T, lambda batch: torch.from_numpy(batch @ WEIGHT.T))
    found = [ablate(FITTED.regions_[0], FITTED.configurations_, Z, head, batch_size=7) for head in heads]
    for effect in found[1:]:
        assert effect.document() == pytest.approx(found[0].document(), abs=1e-5)


def test_a_head_of_maps_gets_maps_and_pooled_neurons_are_channels() -> None:
    maps = np.repeat(Z, 6, axis=1).reshape(120, 60, 2, 3)
    fitted = RDR(8, 10, pool="avg").fit(maps, targets=[1])

    def head(batch: np.ndarray) -> np.ndarray:
        assert batch.shape[1:] == (60, 2, 3)
        return batch.mean(axis=(2, 3)) @ WEIGHT.T

    pooled = ablate(fitted.regions_[0], fitted.configurations_, maps, head, value="flip")
    flat = ablate(FITTED.regions_[0], FITTED.configurations_, Z, HEAD, value="flip")
    assert pooled.document() == pytest.approx(flat.document(), abs=1e-5)


def test_draws_depend_on_the_target_and_seed_only() -> None:
    """Not on which other regions are tested, nor on the batch size."""
    weight = np.random.default_rng(0).normal(size=(3, 60))
    head = (weight, np.zeros(3))
    first, second = FITTED.regions_
    a = ablate(first, FITTED.configurations_, Z, head)
    ablate(second, FITTED.configurations_, Z, head)
    b = ablate(first, FITTED.configurations_, Z, head, batch_size=3)
    assert b.document() == pytest.approx(a.document(), abs=1e-6)
    c = ablate(first, FITTED.configurations_, Z, head, random_state=1)
    assert c.random_drop != a.random_drop
    assert c.drop == a.drop


def test_no_other_neurons_to_draw() -> None:
    fitted = RDR(4, None).fit(Z[:, :10], targets=1)
    assert len(fitted.regions_[0].neurons) == 10
    effect = ablate(fitted.regions_[0], fitted.configurations_, Z[:, :10], (WEIGHT[:, :10], np.zeros(2)))
    assert effect.random_drop == 0.0
    assert effect.random_changed == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "noise"}, "value='noise'"),
        ({"draws": 0}, "draws=0"),
        ({"head": lambda batch: batch[:, 0]}, "Got logits of shape"),
        ({"head": lambda batch: batch[:, :1]}, "Got logits of shape"),
        ({"head": lambda batch: batch[:, :2] * np.nan}, "NaN or infinite logits"),
        ({"head": (WEIGHT,)}, "Got a head of 1 part"),
        ({"head": (WEIGHT, np.zeros(3))}, r"Got weight \(2, 60\) and bias \(3,\)"),
        ({"head": (WEIGHT[:, :5], np.zeros(2))}, "Got a weight"),
        ({"activations": Z[:5]}, "Got activations of 5 samples, expected 120"),
        ({"activations": Z[:, :7]}, "Got samples of shape"),
    ],
)
def test_refused(options: dict, message: str) -> None:
    given = {"activations": Z, "head": HEAD} | options
    with pytest.raises(ValueError, match=message):
        ablate(FITTED.regions_[0], FITTED.configurations_, **given)


def test_unbounded_regions_are_refused() -> None:
    fitted = RDR(120, 5).fit(Z, targets=0)
    assert not fitted.regions_[0].bounded
    with pytest.raises(ValueError, match="Got the unbounded region of target 0"):
        ablate(fitted.regions_[0], fitted.configurations_, Z, HEAD)


def test_a_module_without_parameters() -> None:
    assert as_head(torch.nn.Identity())(np.ones((2, 3), dtype=np.float32)).shape == (2, 3)
