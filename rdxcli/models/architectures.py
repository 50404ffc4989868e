"""Small networks that no model library carries, written from their published descriptions.

Every class takes ``(b, c, h, w)`` float images and returns ``(b, classes)`` logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rdxcli.errors import InputError
from rdxcli.progress import human_count

IMAGENET_MEAN, IMAGENET_STD = "0.485,0.456,0.406", "0.229,0.224,0.225"


class PooledCNN(nn.Module):
    """Two blocks of 5x5 convolution, batch norm, ReLU and 2x2 max pooling; spatial mean; linear.

    The network of the published MNIST comparisons (RDX, SPEC section 6.2): widths (32, 64), or (8, 8) for its tiny
    version. ``digits-cnn`` uses widths (16, 32). The representation is the spatial mean of ``conv2``.

    Parameters
    ----------
    widths : tuple of int
        Channels of the two blocks.
    """

    def __init__(self, widths: tuple[int, int] = (32, 64), num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = self._block(1, widths[0])
        self.conv2 = self._block(widths[0], widths[1])
        self.fc = nn.Linear(widths[1], num_classes)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 5, padding=2), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.conv1(x)).mean((2, 3)))


class SmallCNN(nn.Sequential):
    """Two strided 4x4 convolutions and two linear layers: the small network of robustness papers.

    Parameters
    ----------
    in_channels : int
        1 for MNIST, 3 for CIFAR-10.
    size : int
        Side of the square input; 28 or 32.
    """

    def __init__(self, in_channels: int = 1, size: int = 28, num_classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (size // 4) ** 2, 100),
            nn.ReLU(),
            nn.Linear(100, num_classes),
        )


class _CifarBlock(nn.Module):
    """Two 3x3 convolutions with an option-A shortcut (He et al. 2016, section 4.2): no parameters in the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            before = self.extra // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))
        return functional.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet for 32x32 images with 6n + 2 layers (He et al. 2016, section 4.2).

    Parameters
    ----------
    depth : int
        20, 32, 44, 56 or 110.
    """

    def __init__(self, depth: int = 20, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"Got depth={depth}, expected 6n + 2")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = _CifarBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(_CifarBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
_VGG19 = (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4)


def _vgg_layers(plan: tuple[int | str, ...], batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, step, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(step))
        layers.append(nn.ReLU(inplace=True))
        channels = step
    return layers


class CifarVGG16(nn.Module):
    """VGG-16 with batch norm for 32x32 images and a 512-512 head; ``classifier.4`` is its second hidden ReLU."""

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.features = nn.Sequential(*_vgg_layers(_VGG16, batch_norm=True))
        head: list[nn.Module] = []
        for _ in range(2):
            head += [nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Dropout()]
        self.classifier = nn.Sequential(*head, nn.Linear(512, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class FlatVGG19(nn.Module):
    """VGG-19 as one flat list of modules (relaxed decision regions, SPEC section 8): pooled to 2x2, 1024-1024 head."""

    def __init__(self, num_classes: int = 64, feature_size: int = 2, hidden: int = 1024) -> None:
        super().__init__()
        layers = [*_vgg_layers(_VGG19, batch_norm=False), nn.AdaptiveAvgPool2d(feature_size)]
        self.flatten_before = len(layers)
        width = 512 * feature_size**2
        for _ in range(2):
            layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Dropout()]
            width = hidden
        self.layers_list = nn.ModuleList([*layers, nn.Linear(width, num_classes)])

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers_list):
            x = layer(torch.flatten(x, 1) if index == self.flatten_before else x)
        return x


State = Mapping[str, Tensor]


def _rows(state: State, key: str) -> int:
    if key not in state:
        raise InputError(f"the checkpoint has no tensor `{key}`", hint="is it a checkpoint of another architecture?")
    return int(state[key].shape[0])


def _small_cnn_options(state: State) -> dict[str, Any]:
    classes, channels = _rows(state, "7.weight"), 1
    _rows(state, "0.weight"), _rows(state, "5.weight")
    channels = int(state["0.weight"].shape[1])
    return {
        "in_channels": channels,
        "size": 4 * round((state["5.weight"].shape[1] / 32) ** 0.5),
        "num_classes": classes,
    }


def _pooled_cnn_options(state: State) -> dict[str, Any]:
    # published checkpoints name their modules otherwise: read widths from the shapes, in order
    kernels = [tensor for tensor in state.values() if tensor.ndim == 4]
    heads = [tensor for tensor in state.values() if tensor.ndim == 2]
    if len(kernels) != 2 or len(heads) != 1:
        raise InputError(
            f"got {human_count(len(kernels), 'convolution')} and "
            f"{human_count(len(heads), 'linear layer')} in the checkpoint, expected 2 and 1"
        )
    return {"widths": (int(kernels[0].shape[0]), int(kernels[1].shape[0])), "num_classes": int(heads[0].shape[0])}


@dataclass(frozen=True)
class Architecture:
    """How to build one of the networks above for a checkpoint.

    Parameters
    ----------
    build : callable
        Constructor; takes the inferred keywords.
    infer : callable
        Constructor keywords from a state dict; raises `InputError` when the tensors cannot be this network's.
    default_layer : str
        Its penultimate representation.
    preprocessing : mapping of str to str
        Preprocessing options, as in a model's name.
    by_order : bool
        Whether tensors may be matched by position when the names differ but all shapes agree.
    """

    build: Callable[..., nn.Module]
    infer: Callable[[State], dict[str, Any]]
    default_layer: str
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    by_order: bool = False


_CIFAR = {"input_size": "32", "crop_pct": "1", "interpolation": "bilinear"}


def _cifar_resnet(depth: int) -> Architecture:
    def build(num_classes: int = 10) -> nn.Module:
        return CifarResNet(depth, num_classes)

    def infer(state: State) -> dict[str, Any]:
        return {"num_classes": _rows(state, "linear.weight")}

    return Architecture(build, infer, "layer3", {**_CIFAR, "mean": IMAGENET_MEAN, "std": IMAGENET_STD})


ARCHITECTURES: dict[str, Architecture] = {
    **{f"cifar_resnet{depth}": _cifar_resnet(depth) for depth in (20, 32, 44, 56, 110)},
    "cifar_vgg16_bn": Architecture(
        CifarVGG16,
        lambda state: {"num_classes": _rows(state, "classifier.6.weight")},
        "classifier.4",
        {**_CIFAR, "mean": "0.5070,0.4865,0.4409", "std": "0.2673,0.2564,0.2761"},
    ),
    "flat_vgg19": Architecture(
        FlatVGG19,
        lambda state: {"num_classes": _rows(state, "layers_list.43.weight")},
        "layers_list.41",
        {"input_size": "84", "crop_pct": "1", "interpolation": "bilinear", "mean": "0", "std": "1"},
    ),
    "small_cnn": Architecture(SmallCNN, _small_cnn_options, "6", {"crop_pct": "1", "mean": "0", "std": "1"}),
    # the published checkpoints were trained on grey values 0..255 normalised as if they were 0..1 (RDX SPEC, trap T12)
    "mnist_cnn": Architecture(
        PooledCNN,
        _pooled_cnn_options,
        "conv2",
        {"input_size": "28", "crop_pct": "1", "mode": "L", "scale": "1", "mean": "0.5", "std": "0.5"},
        by_order=True,
    ),
}
