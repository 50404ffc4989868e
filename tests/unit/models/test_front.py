"""The recorded front of a network: the same logits and slopes as the whole network, from fewer modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rdxcli.models import load
from rdxcli.models.front import record_front
from rdxcli.models.replacing import HookedLosses, preprocessed

K = 12


class Bypass(nn.Module):
    """Two connections around the middle, one module that runs twice, one that returns a tuple and writes in place."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, (x * 2).relu_()

    def __init__(self, reads_images: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.pair, self.head = nn.ReLU(inplace=True), self.Pair(), nn.Linear(4, 6)
        self.unread = nn.Conv2d(3, 2, 1)
        self.reads_images = reads_images

    def forward(self, x: Tensor) -> Tensor:
        self.unread(x)
        a = self.act(self.first(x))
        b, c = self.pair(a)
        d = self.act(self.second(b))
        e = (d.relu_() + c).mean((2, 3))
        return self.head(e + x.mean((1, 2, 3))[:, None] if self.reads_images else e)


def moved(network: nn.Module, layer: nn.Module, run) -> tuple[Tensor, Tensor]:
    """Logits, and the slope of the first one, when a unit of the layer is moved by another amount in each image."""
    change = torch.linspace(0.1, 1.0, K).requires_grad_()

    def hook(module, inputs, output):
        new = output.clone()
        new.select(-1 if output.ndim == 3 else 1, 0).add_(change.reshape(-1, *[1] * (output.ndim - 2)))
        return new

    handle = layer.register_forward_hook(hook)
    logits = run()
    handle.remove()
    return logits.detach(), torch.autograd.grad(logits.square().sum(), change)[0]


def count_runs(network: nn.Module, run) -> int:
    ran = []
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    before = nn.Conv2d._conv_forward

    def counted(self, *args):
        ran.append(self)
        return before(self, *args)

    assert convolutions
    nn.Conv2d._conv_forward = counted
    try:
        run()
    finally:
        nn.Conv2d._conv_forward = before
    return len(ran)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision:resnet18?num_classes=7", "layer2"),
        ("torchvision:resnet18?num_classes=7", "layer2.1.conv1"),
        ("torchvision:densenet121?num_classes=7", "features.denseblock3.denselayer4.conv2"),
        ("timm:vit_tiny_patch16_224?img_size=32&depth=3&num_classes=7", "blocks.1.mlp.act"),
        ("timm:swin_tiny_patch4_window7_224?img_size=64&window_size=4&num_classes=7", "layers.1.blocks.0.mlp.act"),
    ],
)
def test_real_architectures(name: str, layer: str) -> None:
    model = load(name, "cpu", untrained=True)
    size = 32 if "vit" in name else 64
    images = torch.randn(K, 3, size, size, generator=torch.Generator().manual_seed(0))
    place = dict(model.module.named_modules())[layer]
    like = torch.empty(0)
    front = record_front(model.module, place, images, like, most_bytes=2**28, batch_size=5)
    assert front is not None
    ours = moved(model.module, place, lambda: front.logits(range(K), like))
    whole = moved(model.module, place, lambda: model.module(images))
    torch.testing.assert_close(ours[0], whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], whole[1], rtol=1e-3, atol=1e-5)
    some = [7, 2, 2]
    torch.testing.assert_close(front.logits(some, like), model.module(images[some]), rtol=1e-4, atol=1e-5)
    assert place.forward.__func__ is type(place).forward  # nothing is left behind


@pytest.mark.parametrize("layer", ["pair", "second"])
@pytest.mark.parametrize("reads_images", [False, True])
def test_what_bypasses_the_layer_is_kept_and_the_rest_is_not(layer: str, reads_images: bool) -> None:
    torch.manual_seed(0)
    network = Bypass(reads_images).eval().requires_grad_(False)
    images, like = torch.randn(K, 3, 8, 8), torch.empty(0)
    place = getattr(network, layer)
    front = record_front(network, place, images, like, most_bytes=2**20, batch_size=5)
    assert front is not None
    wanted = network(images)
    torch.testing.assert_close(front.logits(range(K), like), wanted)
    torch.testing.assert_close(front.logits(range(K), like), wanted)  # in-place operations left the records alone
    # of the maps of 4 channels: both results of `pair`, and for `second` its own
    maps = {"pair": 2, "second": 3}[layer]
    assert front.nbytes == 4 * K * 64 * (4 * maps + 3 * reads_images)
    runs = count_runs(network, lambda: front.logits(range(K), like))
    assert runs == {"pair": 1, "second": 0}[layer]


def test_where_it_does_not_work_there_is_none() -> None:
    torch.manual_seed(0)
    network = Bypass().eval()
    images, like = torch.randn(K, 3, 8, 8), torch.empty(0)
    assert record_front(network, network.act, images, like, most_bytes=2**20) is None  # runs twice
    assert record_front(network, network.second, images, like, most_bytes=1000) is None  # too large
    spare = nn.Conv2d(1, 1, 1)
    network.add_module("spare", spare)
    assert record_front(network, spare, images, like, most_bytes=2**20) is None  # never runs


@pytest.mark.parametrize(("layer", "pool"), [("conv1", "avg"), ("conv1", "max"), ("conv2", "avg")])
def test_losses_are_those_of_the_whole_network(layer: str, pool: str) -> None:
    model = load("digits-cnn", "cpu", untrained=True)
    rng = np.random.default_rng(0)
    pictures = preprocessed(model, [Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)) for _ in range(K)])
    with model.tap([layer], pool) as tap:
        values = tap(pictures)[model.layer(layer)].float().numpy()
    common = (model, model.layer(layer), pool, pictures, np.arange(K), np.arange(K) % 7, values)
    whole, quick = HookedLosses(*common), HookedLosses(*common, front_bytes=2**20, batch_size=5)
    assert whole.front is None
    assert quick.front is not None
    rows = np.array([3, 1, 8])
    results = []
    for losses in (whole, quick):
        new = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
        loss = losses(2, new, rows)
        loss.sum().backward()
        results.append((loss.detach(), new.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)
