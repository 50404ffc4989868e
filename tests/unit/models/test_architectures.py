"""Own networks against published tables and independent formulas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from rdxcli.models.architectures import CifarResNet, CifarVGG16, FlatVGG19, PooledCNN, SmallCNN
from rdxcli.models.layers import trace
from rdxcli.models.taps import Tokens

TABLES = Path(__file__).resolve().parents[2] / "golden" / "data" / "rdr" / "layer_tables.json"


def test_flat_vgg19_has_the_published_modules_and_shapes():
    table = next(v for k, v in json.loads(TABLES.read_text()).items() if k.startswith("vgg19 blocks=5 feature_size=2"))
    net = FlatVGG19().eval()
    assert [type(layer).__name__ for layer in net.layers_list] == table["layers"]
    assert sum(parameter.numel() for parameter in net.parameters()) == table["params"]
    shapes = {layer.path: layer.shape for layer in trace(net, torch.randn(1, 3, 84, 84), Tokens())}
    accepted = {int(index): row for index, row in table["tar_layer"].items() if row["status"] == "ok"}
    assert len(accepted) > 10
    for index, row in accepted.items():
        assert shapes[f"layers_list.{index + 1}"] == tuple(row["config"])


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_published_size(depth, millions):
    # He et al. 2016, table 6
    count = sum(parameter.numel() for parameter in CifarResNet(depth).parameters()) / 1e6
    assert round(count, 1 if depth == 110 else 2) == millions


def test_option_a_shortcut_by_hand():
    block = CifarResNet(20).eval().layer2[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        inner = block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x)))))
        shortcut = torch.zeros(2, 32, 4, 4)
        shortcut[:, 8:24] = x[:, :, ::2, ::2]
        torch.testing.assert_close(block(x), functional.relu(inner + shortcut))


@pytest.mark.parametrize("depth", [7, 21, 2])
def test_impossible_depths(depth):
    with pytest.raises(ValueError, match="6n"):
        CifarResNet(depth)


def test_named_layers_of_linear_explanations():
    net = CifarVGG16().eval()
    shapes = {layer.path: layer.shape for layer in trace(net, torch.randn(1, 3, 32, 32), Tokens())}
    assert shapes["features.43"] == (512, 1, 1)
    assert shapes["classifier.4"] == (512,)
    assert shapes["output"] == (100,)


def test_small_networks():
    assert SmallCNN(3, 32)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    net = PooledCNN((32, 64), 20).eval()
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(net.fc(net.conv2(net.conv1(x)).flatten(2).mean(2)), net(x))
