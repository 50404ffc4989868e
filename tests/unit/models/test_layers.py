"""Layer names, blocks, the table of layers, and the penultimate representation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rdxcli.errors import UnknownNameError, UsageError
from rdxcli.models import load
from rdxcli.models.architectures import CifarResNet, FlatVGG19, PooledCNN, SmallCNN
from rdxcli.models.layers import blocks, normal_path, penultimate_layer, resolve_layer, trace
from rdxcli.models.taps import OUTPUT, Tokens

TINY_VIT = "timm:vit_tiny_patch16_224?depth=2&embed_dim=32&num_heads=2&img_size=32&patch_size=8&num_classes=5"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("mlp[1]", "mlp.1"),
        ("encoder.layers.encoder_layer_11.mlp[1]", "encoder.layers.encoder_layer_11.mlp.1"),
        ("encoder.layers[3].mlp", "encoder.layers.3.mlp"),
        ("a[0][2]", "a.0.2"),
        ("layers['block-1'].x", "layers.block-1.x"),
        (" layer4 ", "layer4"),
    ],
)
def test_brackets_and_dots_are_the_same(given, wanted):
    assert normal_path(given) == wanted


def test_resolving():
    net = CifarResNet(20)
    assert resolve_layer(net, "layer1[2].conv1", "layer3") == "layer1.2.conv1"
    assert resolve_layer(net, "penultimate", "layer3") == "layer3"
    assert resolve_layer(net, "last", "layer3") == OUTPUT
    assert resolve_layer(net, "block:0", "layer3") == "layer1.0"
    assert resolve_layer(net, "block:-1", "layer3") == "layer3.2"
    with pytest.raises(UnknownNameError, match="`layre3`") as caught:
        resolve_layer(net, "layre3", "layer3")
    assert "`layer3`" in caught.value.hint
    with pytest.raises(UnknownNameError) as caught:
        resolve_layer(net, "layre3", "layer3", "file:my net.pt")
    assert caught.value.hint.endswith("? `rdx list layers 'file:my net.pt'` lists them")
    for name in ("block:9", "block:-10", "block:x", "block:"):
        with pytest.raises(UsageError, match="`block:0` to `block:8`"):
            resolve_layer(net, name, "layer3")
    with pytest.raises(UsageError, match="no repeated blocks"):
        resolve_layer(SmallCNN(), "block:0", "6")
    with pytest.raises(UnknownNameError):
        resolve_layer(net, "", "layer3")


def test_blocks_of_stages_are_found_inside_them():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    class Stage(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2))
            self.blocks = nn.ModuleList([Block() for _ in range(depth)])

    net = nn.Module()
    net.stages = nn.Sequential(Stage(1), Stage(2))
    assert blocks(net) == ["stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1"]


def test_table_of_a_vision_transformer():
    model = load(TINY_VIT, "cpu", untrained=True)
    table = {layer.path: layer for layer in model.layers()}
    assert table["patch_embed.proj"].shape == (32, 4, 4)
    assert table["patch_embed.proj"].kind == "map"
    assert (table["blocks.1"].shape, table["blocks.1"].kind, table["blocks.1"].channels) == ((17, 32), "tokens", 32)
    assert table["blocks.0.mlp.act"].shape == (17, 128)
    assert table["head"].shape == (5,)
    assert table[OUTPUT].type == "VisionTransformer"
    assert table["blocks.1"].pooled == 128
    assert [layer.path for layer in model.layers()][-1] == OUTPUT
    assert model.blocks() == ["blocks.0", "blocks.1"]
    assert set(table) - {OUTPUT} <= {path for path, _ in model.module.named_modules()}


def test_every_layer_of_the_table_can_be_read():
    model = load(TINY_VIT, "cpu", untrained=True)
    table = model.layers()
    with model.tap([layer.path for layer in table]) as tap:
        values = tap(torch.randn(3, *model.input_size))
    assert {path: value.shape[1] for path, value in values.items()} == {layer.path: layer.channels for layer in table}


def test_repeated_calls_are_counted():
    net = CifarResNet(20).eval()
    assert all(layer.calls == 1 for layer in trace(net, torch.randn(1, 3, 32, 32), Tokens()))
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared)
    net = nn.Sequential(nn.Flatten(), twice).eval()
    table = {layer.path: layer for layer in trace(net, torch.randn(1, 1, 2, 2), Tokens())}
    assert table["1.1"].calls == 2


@pytest.mark.parametrize(
    ("net", "size", "wanted"),
    [
        (PooledCNN(), (1, 28, 28), "conv2"),
        (SmallCNN(), (1, 28, 28), "6"),
        (CifarResNet(20), (3, 32, 32), "layer3"),
        (FlatVGG19(), (3, 84, 84), "layers_list.41"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 8, 8), OUTPUT),
    ],
)
def test_penultimate_of_small_networks(net, size, wanted):
    net = net.eval()
    assert penultimate_layer(net, torch.randn(1, *size), Tokens(), None) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (TINY_VIT, "norm"),
        (TINY_VIT.replace("num_classes=5", "num_classes=0"), "norm"),
        (TINY_VIT + "&global_pool=avg", "fc_norm"),
        ("timm:resnet10t?num_classes=4", "global_pool"),
        ("timm:convnext_atto?depths=1,1,1,1&num_classes=4", "head.norm"),
        ("torchvision:shufflenet_v2_x0_5?num_classes=4", "conv5"),
        ("torchvision:mobilenet_v3_small?num_classes=4", "classifier.1"),
    ],
)
def test_penultimate_is_what_the_classifier_reads(name, wanted):
    model = load(name, "cpu", untrained=True)
    assert model.default_layer == wanted
    x = torch.randn(2, *model.input_size)
    with model.tap() as tap:
        values = tap(x)[wanted]
    linear = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)][-1]
    if "num_classes=0" not in name:
        torch.testing.assert_close(linear(values), model.module(x), rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(values, model.module(x), rtol=1e-4, atol=1e-5)


def test_channels_last_networks_give_their_channels():
    name = "timm:swin_tiny_patch4_window7_224?depths=1,1&num_heads=2,2&embed_dim=16&img_size=56&num_classes=3"
    model = load(name, "cpu", untrained=True)
    table = {layer.path: layer for layer in model.layers()}
    assert table["layers.0"].shape == (16, 14, 14)
    assert table["layers.1.blocks.0"].shape == (32, 7, 7)
    assert model.blocks() == ["layers.0.blocks.0", "layers.1.blocks.0"]
    x = torch.randn(2, 3, 56, 56)
    with model.tap(["norm"]) as tap:
        torch.testing.assert_close(tap(x)["norm"], model.module.forward_features(x).mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_layer_names_of_a_loaded_model():
    model = load(TINY_VIT, "cpu", untrained=True)
    assert model.layer() == model.layer("penultimate") == "norm"
    assert model.layer("blocks[1].mlp") == "blocks.1.mlp"
    with model.tap(["block:-1", "blocks[1]", "last"], {"block:-1": "none", "blocks[1]": "none", "last": "auto"}) as tap:
        values = tap(torch.zeros(2, 3, 32, 32))
    assert {path: tuple(value.shape) for path, value in values.items()} == {"blocks.1": (2, 32, 4, 4), OUTPUT: (2, 5)}
    with pytest.raises(UnknownNameError):
        model.tap(["blocks.7"])


def test_patterns_find_each_layer_that_makes_something_once():
    model = load("resnet20_cifar10", "cpu", untrained=True)
    every = model.layers_like("*")
    assert "layer1" not in every  # hands on the output of its last block
    assert {"conv1", "layer1.2", "linear"} < set(every)
    assert model.layers_like("layer?.0") == ["layer1.0", "layer2.0", "layer3.0"]
    assert model.layers_like("block:*") == model.blocks()
    assert model.layers_like(None) == [model.default_layer]
    with pytest.raises(UnknownNameError):
        model.layers_like("layer9.*")
    table = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout()).eval(), torch.randn(1, 1, 2, 2), Tokens())
    assert [layer.path for layer in table if layer.own] == ["1"]
