"""Pooling and hooks against plain tensor arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rdxcli.errors import InputError, UsageError
from rdxcli.models import load
from rdxcli.models.architectures import CifarResNet, PooledCNN
from rdxcli.models.taps import OUTPUT, POOLS, LayerTap, Tokens, pool, standard_form

VIT = Tokens(prefix=1, has_class=True, grid=(2, 3))
REGISTERS = Tokens(prefix=5, has_class=True, grid=(2, 2))
PLAIN = Tokens()


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_pooling_of_maps():
    x = torch.randn(4, 5, 3, 2)
    for how in ("auto", "avg", "mean"):
        torch.testing.assert_close(pool(x, how, PLAIN), x.sum((2, 3)) / 6)
    torch.testing.assert_close(pool(x, "max", PLAIN), x.flatten(2).max(2).values)
    torch.testing.assert_close(pool(x, "none", PLAIN), x)
    for how in ("first", "cls"):
        with pytest.raises(UsageError, match="feature map"):
            pool(x, how, PLAIN, "layer4")


def test_pooling_of_tokens():
    x = torch.randn(4, 7, 5)
    torch.testing.assert_close(pool(x, "auto", VIT), x[:, 0])
    torch.testing.assert_close(pool(x, "cls", VIT), x[:, 0])
    torch.testing.assert_close(pool(x, "first", VIT), x[:, 0])
    torch.testing.assert_close(pool(x, "avg", VIT), x.mean(1))
    torch.testing.assert_close(pool(x, "mean", VIT), x[:, 1:].mean(1))
    torch.testing.assert_close(pool(x, "max", VIT), x.max(1).values)
    maps = pool(x, "none", VIT)
    assert maps.shape == (4, 5, 2, 3)
    torch.testing.assert_close(maps[:, :, 1, 2], x[:, 6])
    torch.testing.assert_close(maps.mean((2, 3)), pool(x, "mean", VIT))


def test_register_tokens_are_neither_patches_nor_class():
    x = torch.randn(2, 9, 3)
    torch.testing.assert_close(pool(x, "mean", REGISTERS), x[:, 5:].mean(1))
    torch.testing.assert_close(pool(x, "none", REGISTERS), x[:, 5:].transpose(1, 2).reshape(2, 3, 2, 2))


def test_layers_in_front_of_the_prefix_hold_patches_only():
    patches = torch.randn(2, 6, 3)  # grid 2 x 3, no class token yet
    torch.testing.assert_close(pool(patches, "mean", VIT), patches.mean(1))
    torch.testing.assert_close(pool(patches, "auto", VIT), patches.mean(1))
    with pytest.raises(UsageError, match="class token"):
        pool(patches, "cls", VIT, "patch_embed")


def test_tokens_without_a_class():
    x = torch.randn(2, 16, 3)
    torch.testing.assert_close(pool(x, "auto", PLAIN), x.mean(1))
    assert pool(x, "none", PLAIN).shape == (2, 3, 4, 4)
    with pytest.raises(UsageError, match="needs a class token"):
        pool(x, "cls", PLAIN)
    with pytest.raises(UsageError, match="form no grid"):
        pool(torch.randn(2, 15, 3), "none", PLAIN)


def test_vectors_stay_as_they_are_under_every_pooling():
    x = torch.randn(3, 8)
    for how in POOLS:
        torch.testing.assert_close(pool(x, how, PLAIN), x)


def test_unknown_pooling():
    with pytest.raises(UsageError, match="unknown pooling"):
        pool(torch.zeros(1, 2), "median", PLAIN)


@pytest.mark.parametrize("how", ["auto", "avg", "max", "none"])
def test_pooling_gives_no_view(how):
    x = torch.randn(2, 3, 4, 4)
    kept = pool(x, how, PLAIN)
    before = kept.clone()
    x.zero_()
    torch.testing.assert_close(kept, before)


def test_channels_last_is_seen_from_the_side_ratio():
    first = torch.randn(2, 12, 7, 7)
    torch.testing.assert_close(standard_form(first, 2, (224, 224), PLAIN, "l"), first)
    torch.testing.assert_close(standard_form(first.permute(0, 2, 3, 1), 2, (224, 224), PLAIN, "l"), first)
    wide = torch.randn(2, 12, 5, 10)
    torch.testing.assert_close(standard_form(wide.permute(0, 2, 3, 1), 2, (64, 128), PLAIN, "l"), wide)
    cube = torch.randn(2, 7, 7, 7)
    torch.testing.assert_close(standard_form(cube, 2, (64, 64), PLAIN, "l"), cube)
    last = Tokens(channels_last=True)
    torch.testing.assert_close(standard_form(cube, 2, (64, 64), last, "l"), cube.permute(0, 3, 1, 2))


def test_sequence_first_tokens_and_wrapped_outputs():
    x = torch.randn(9, 2, 4)
    torch.testing.assert_close(standard_form(x, 2, (8, 8), PLAIN, "l"), x.transpose(0, 1))
    y = torch.randn(2, 4)
    for wrapped in ((y, None), [y], {"logits": y}, (("text", y), 3), {"last_hidden_state": x, "pooler_output": y}):
        torch.testing.assert_close(standard_form(wrapped, 2, (8, 8), PLAIN, "l"), y)


@pytest.mark.parametrize(
    "output", [None, 3, "text", torch.zeros(2, 3, dtype=torch.long), torch.zeros(5, 3), torch.zeros(2)]
)
def test_unreadable_outputs(output):
    with pytest.raises(InputError, match="`odd`"):
        standard_form(output, 2, (8, 8), PLAIN, "odd")


def test_hints_name_the_model(monkeypatch):
    model = load("digits-cnn", device="cpu", untrained=True)
    images = torch.zeros(2, *model.input_size)
    monkeypatch.setattr(model.module, "forward", lambda x: x)
    with pytest.raises(InputError) as caught, model.tap(["conv2"]) as tap:
        tap(images)
    assert caught.value.hint == "`rdx list layers digits-cnn` lists those that run"
    monkeypatch.setattr(model.module.conv1, "forward", lambda x: x.long())
    monkeypatch.setattr(model.module, "forward", lambda x: model.module.conv1(x))
    with pytest.raises(InputError) as caught, model.tap(["conv1"]) as tap:
        tap(images)
    assert caught.value.hint == "`rdx list layers digits-cnn` shows what can be read"


def test_values_equal_a_plain_forward_pass():
    net = CifarResNet(20).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        one = torch.relu(net.bn1(net.conv1(x)))
        first = net.layer1(one)
        second = net.layer2(first)
    with LayerTap(net, ["layer2", "layer1", "layer2"], {"layer1": "none", "layer2": "avg"}) as tap:
        for _ in range(2):  # the second pass may end early
            values = tap(x)
            assert list(values) == ["layer2", "layer1"]
            torch.testing.assert_close(values["layer1"], first)
            torch.testing.assert_close(values["layer2"], second.mean((2, 3)))


def test_later_passes_end_behind_the_last_layer_and_hooks_go_away():
    net = PooledCNN().eval()
    runs = []
    handle = net.fc.register_forward_hook(lambda *_: runs.append(1))
    x = torch.randn(2, 1, 28, 28)
    with LayerTap(net, ["conv1"]) as tap:
        for _ in range(4):
            tap(x)
    assert len(runs) == 1
    net(x)
    assert len(runs) == 2
    handle.remove()
    assert not any(module._forward_hooks for module in net.modules())
    with LayerTap(net, ["conv1", OUTPUT]) as tap:
        torch.testing.assert_close(tap(x)[OUTPUT], net(x))
        torch.testing.assert_close(tap(x)[OUTPUT], net(x))


class Reused(nn.Module):
    """One activation module used three times, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.idle = nn.Linear(4, 4)

    def forward(self, x):
        x = x.flatten(1)
        return self.act(self.c(self.act(self.b(self.act(self.a(x))))))


def test_a_module_that_runs_several_times_gives_its_last_output_every_time():
    net = Reused().eval()
    x = torch.randn(5, 1, 2, 2)
    with LayerTap(net, ["act"]) as tap:
        for _ in range(3):
            torch.testing.assert_close(tap(x)["act"], net(x))


def test_in_place_activations_do_not_reach_back():
    net = Reused().eval()
    x = torch.randn(5, 1, 2, 2)
    with LayerTap(net, ["a"], early_stop=False) as tap:
        torch.testing.assert_close(tap(x)["a"], net.a(x.flatten(1)))


def test_idle_layers_are_an_error():
    with (
        LayerTap(Reused().eval(), ["a", "idle"]) as tap,
        pytest.raises(InputError, match="`idle` exists but takes no part"),
    ):
        tap(torch.randn(2, 1, 2, 2))


def test_rows_do_not_depend_on_the_batch():
    net = PooledCNN().eval()
    x = torch.randn(7, 1, 28, 28)
    with LayerTap(net, ["conv1", "conv2"]) as tap:
        whole = tap(x)
        parts = [tap(x[rows]) for rows in torch.arange(7).split(3)]
    for layer, values in whole.items():
        torch.testing.assert_close(torch.cat([part[layer] for part in parts]), values, rtol=1e-5, atol=1e-6)


def test_no_gradients_and_no_use_outside_the_block():
    net = PooledCNN().eval()
    tap = LayerTap(net, ["conv2"])
    with pytest.raises(RuntimeError, match="context manager"):
        tap(torch.zeros(1, 1, 28, 28))
    with tap:
        assert not tap(torch.zeros(1, 1, 28, 28, dtype=torch.float64))["conv2"].requires_grad


def test_an_error_in_the_network_takes_the_hooks_away():
    net = PooledCNN().eval()
    with pytest.raises(RuntimeError), LayerTap(net, ["conv2"]) as tap:
        tap(torch.zeros(1, 5, 28, 28))
    assert not any(module._forward_hooks for module in net.modules())
