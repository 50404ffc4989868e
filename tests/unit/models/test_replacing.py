"""Replacing one unit of a layer by a forward hook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rdxcli.concepts.labels import class_numbers
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.neurons.ablation import LinearHead, ablation_scores
from rdxcli.models import load
from rdxcli.models.replacing import HookedLosses, linear_head, preprocessed


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)) for _ in range(24)]


def hooked(model, layer, pool, images):
    pictures = preprocessed(model, images)
    with model.tap([layer], pool) as tap:
        values = tap(pictures)[model.layer(layer)].float().numpy()
    labels = np.arange(len(images)) % 7
    return HookedLosses(model, model.layer(layer), pool, pictures, np.arange(len(images)), labels, values), values


@pytest.mark.parametrize("pool", ["auto", "avg"])
def test_a_layer_before_the_classifier_agrees_with_its_closed_form(images, pool):
    model = load("digits-cnn", "cpu", untrained=True)
    losses, values = hooked(model, "conv2", pool, images)
    head = linear_head(model, "conv2", preprocessed(model, images[:1]))
    assert head is not None
    direct = LinearHead(values, *head, losses.labels.numpy(), temperature=1.1)
    rows = np.array([3, 5, 11, 20])
    new = torch.tensor([0.1, -0.4, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    other = new.detach().clone().requires_grad_(True)
    one, two = losses(4, new, rows), direct(4, other, rows)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    one.sum().backward()
    two.sum().backward()
    torch.testing.assert_close(new.grad, other.grad, rtol=1e-4, atol=1e-6)
    predictions = np.random.default_rng(1).normal(size=(24, 2))
    parts = {"val": np.arange(12), "test": np.arange(12, 24), "variant": "norm"}
    np.testing.assert_allclose(
        ablation_scores(predictions, values, losses, **parts).scores,
        ablation_scores(predictions, values, direct, **parts).scores,
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize(("layer", "pool"), [("conv1", "avg"), ("conv1", "max")])
def test_the_pooled_value_becomes_the_new_one_and_the_old_one_changes_nothing(images, layer, pool):
    model = load("digits-cnn", "cpu", untrained=True)
    losses, values = hooked(model, layer, pool, images)
    rows = np.arange(6)
    with torch.no_grad():
        same = losses.logits(2, torch.as_tensor(values[rows, 2]), rows)
        torch.testing.assert_close(same, model.module(losses.images[:6]), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        moved = losses.logits(2, torch.as_tensor(values[rows, 2] + 0.25), rows)
        first = losses.place.register_forward_hook(
            lambda module, inputs, output: output + 0.25 * torch.eye(output.shape[1])[2][:, None, None]
        )
        seen = model.module(losses.images[:6])
        first.remove()
    torch.testing.assert_close(moved, seen, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moved, same)


@pytest.mark.parametrize("pool", ["auto", "avg", "mean", "first"])
def test_tokens_of_a_transformer(pool):
    model = load("timm:vit_tiny_patch16_224?img_size=32&depth=2&num_classes=7", "cpu", untrained=True)
    rng = np.random.default_rng(2)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(4)]
    losses, values = hooked(model, "blocks.0", pool, pictures)
    rows, new = np.arange(4), torch.tensor([0.5, -1.0, 2.0, 0.0])
    kept = []
    with torch.no_grad():
        same = losses.logits(3, torch.as_tensor(values[:, 3]), rows)
        torch.testing.assert_close(same, model.module(losses.images), rtol=1e-4, atol=1e-5)
        probe = model.module.blocks[1].register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
        losses.logits(3, new, rows)
        probe.remove()
    tokens = kept[0][..., 3]
    read = {"auto": tokens[:, 0], "first": tokens[:, 0], "avg": tokens.mean(1), "mean": tokens[:, 1:].mean(1)}[pool]
    torch.testing.assert_close(read, new, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_replaced(images):
    model = load("digits-cnn", "cpu", untrained=True)
    pictures = preprocessed(model, images)
    common = (pictures, np.arange(24), np.full(24, 30), np.zeros((24, 3)))
    with pytest.raises(UsageError, match="behind"):
        HookedLosses(model, "output", "avg", *common)
    losses = HookedLosses(model, "conv1", "avg", *common)
    with pytest.raises(InputError, match="30"):
        losses(0, torch.zeros(2), np.arange(2))
    assert linear_head(model, "conv1", pictures[:1]) is None
    assert class_numbers(["b", "a"], ["a", "b", "a"]).tolist() == [1, 0]
    with pytest.raises(InputError, match="`c`"):
        class_numbers(["c"], ["a", "b"])
