"""Layer numbers of the published code on torchvision's models."""

from __future__ import annotations

import pytest
import torch
import torchvision

from rdxcli.methods.regions.published_layers import (
    configuration_module,
    layer_numbers,
    layer_shapes,
    layer_status,
    published_list,
)


def meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None)


def test_vgg19() -> None:
    """The example of the paper: layer 27 is the fourth pool, thresholded is the convolution behind it."""
    model = meta("vgg19")
    modules = published_list(model, "vgg")
    assert configuration_module(modules, 27, "vgg") is model.features[28]
    assert layer_shapes(modules, 27, "vgg", (3, 84, 84)) == ((512, 5, 5), (512, 5, 5))
    assert [L for L in range(-1, 36) if layer_status(modules, L, "vgg") == "ok"] == [
        -1, 1, 4, 6, 9, 11, 13, 15, 18, 20, 22, 24, 27, 29, 31, 33,
    ]  # fmt: skip
    assert len(layer_numbers(modules)) == 3
    assert layer_numbers(modules, after=30, types=("Conv2d",)) == [32, 34]


def test_resnet50() -> None:
    model = meta("resnet50")
    modules = published_list(model, "resnet")
    assert configuration_module(modules, 5, "resnet") is model.layer3[0]
    assert layer_status(modules, 0, "resnet") == "TypeError"
    assert layer_status(modules, 1, "resnet") == "rejected"


def test_shapes_leave_the_model_alone() -> None:
    model = torchvision.models.mobilenet_v2(weights=None).train()
    modules = published_list(model, "mobilenet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert layer_shapes(modules, 2, "mobilenet", (3, 64, 64)) == ((24, 16, 16), (24, 16, 16))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_refused() -> None:
    modules = published_list(meta("vgg19"), "vgg")
    with pytest.raises(ValueError, match="Got tar_layer=0, which the published code does not accept"):
        configuration_module(modules, 0, "vgg")
    with pytest.raises(ValueError, match="family='vit'"):
        published_list(meta("vgg19"), "vit")
