"""The rest of a network behind a layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.errors import InputError
from rdxcli.models import load
from rdxcli.models.rest import RestOfNetwork


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("digits-cnn", "conv2"),
        ("digits-cnn", "conv1.0"),
        ("timm:resnet10t", "layer3"),
        ("torchvision:mobilenet_v2", "features.5"),
    ],
)
def test_rest_gives_the_networks_own_logits(name: str, layer: str) -> None:
    model = load(name, device="cpu", untrained=name != "digits-cnn")
    images = torch.rand(2, *model.input_size)
    with model.tap([layer, "output"], pool="none") as tap:
        values = tap(images)
    activations = values[layer].numpy()
    rest = RestOfNetwork(model, layer)
    logits = values["output"].numpy().reshape(2, -1)
    rest.check(activations, logits)
    with pytest.raises(InputError, match="does not determine"):
        rest.check(activations * 0.5 + 1.0, logits)


def test_a_bypassed_layer_is_refused() -> None:
    model = load("timm:resnet10t", device="cpu", untrained=True)
    layer = "layer3.0.conv1"  # the shortcut of the block goes past it
    with model.tap([layer, "output"], pool="none") as tap:
        values = tap(torch.rand(2, *model.input_size))
    with pytest.raises(InputError, match="bypasses"):
        RestOfNetwork(model, layer).check(values[layer].numpy(), values["output"].numpy().reshape(2, -1))


def test_gradients_flow_and_shapes_are_checked() -> None:
    rest = RestOfNetwork(load("digits-cnn", device="cpu"), "conv2")
    activations = torch.rand(3, 32, 2, 2, requires_grad=True)
    rest(activations).sum().backward()
    assert activations.grad is not None
    assert float(activations.grad.abs().sum()) > 0
    with pytest.raises(InputError, match="got activations"):
        rest(torch.rand(3, 31, 2, 2))
    with pytest.raises(InputError, match="own output"):
        RestOfNetwork(load("digits-cnn", device="cpu"), "output")
    assert np.isfinite(rest(torch.rand(1, 128)).detach().numpy()).all()  # flattened activations are put in shape
