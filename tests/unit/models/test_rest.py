"""The rest of a network behind a layer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rdxcli.errors import InputError
from rdxcli.models import load
from rdxcli.models.front import rest_after
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
    model = load(name, device="cpu", untrained=True)
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
    with pytest.raises(InputError, match="bypasses") as caught:
        RestOfNetwork(model, layer).check(values[layer].numpy(), values["output"].numpy().reshape(2, -1))
    assert "`rdx list layers timm:resnet10t`" in str(caught.value.hint)


def test_gradients_flow_and_shapes_are_checked() -> None:
    rest = RestOfNetwork(load("digits-cnn", device="cpu", untrained=True), "conv2")
    activations = torch.rand(3, 32, 2, 2, requires_grad=True)
    rest(activations).sum().backward()
    assert activations.grad is not None
    assert float(activations.grad.abs().sum()) > 0
    with pytest.raises(InputError, match="got activations"):
        rest(torch.rand(3, 31, 2, 2))
    with pytest.raises(InputError, match="own output"):
        RestOfNetwork(load("digits-cnn", device="cpu", untrained=True), "output")
    assert np.isfinite(rest(torch.rand(1, 128)).detach().numpy()).all()  # flattened activations are put in shape


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("digits-cnn", "conv1.0"),
        ("torchvision:mobilenet_v2", "features.14"),
        ("timm:vit_tiny_patch16_224?img_size=32&depth=3&num_classes=7", "blocks.1"),
    ],
)
def test_only_what_follows_runs_and_gives_the_same(name: str, layer: str) -> None:
    model = load(name, device="cpu", untrained=True)
    rest = RestOfNetwork(model, layer)
    place = dict(model.module.named_modules())[layer]
    outputs: list[Tensor] = []
    seen = place.register_forward_hook(lambda _, inputs, output: outputs.append(output.detach().clone()))
    model.module(torch.rand(6, *model.input_size))
    seen.remove()
    given = (outputs[0] + 0.1 * torch.randn(outputs[0].shape)).requires_grad_()
    ran: list[nn.Module] = []
    inside = [m for m in place.modules() if not list(m.children())]
    handles = [m.register_forward_pre_hook(lambda which, _: ran.append(which)) for m in inside if m is not place]
    try:
        logits = rest(given)
        assert not ran
        whole = rest._whole(given)
        assert ran or inside == [place]
    finally:
        for handle in handles:
            handle.remove()
    assert (logits - logits[:1]).abs().max() > 0
    torch.testing.assert_close(logits, whole, rtol=1e-5, atol=1e-6)
    slopes = [torch.autograd.grad(one.square().sum(), given)[0] for one in (logits, whole)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)


class Net(nn.Module):
    """Writes into the output of `first`; `pair` returns two tensors, `act` runs twice, `last` is bypassed."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x * 2

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.pair = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), self.Pair()
        self.act = nn.Hardswish(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.pair(self.act(self.first(x)))
        return (self.act(self.last(a)) + b).mean((2, 3))


def test_layers_that_are_no_cut_and_networks_that_write_in_place() -> None:
    torch.manual_seed(0)
    network = Net().eval().requires_grad_(False)
    probe = torch.rand(5, 1, 8, 8)
    assert [rest_after(network, layer, probe) for layer in (network.last, network.pair, network.act)] == [None] * 3
    assert rest_after(network, network.first, probe) is not None
    model = SimpleNamespace(
        name="net", module=network, input_size=(1, 8, 8), device=torch.device("cpu"), dtype=torch.float32
    )
    rest = RestOfNetwork(model, "first")  # type: ignore[arg-type]
    given = network.first(probe).clone()
    before = given.clone()
    for run in (rest, rest._whole):
        torch.testing.assert_close(run(given.clone() if run != rest else given), network(probe))
    assert torch.equal(given, before)
    rest.check(given.numpy(), network(probe).numpy())
