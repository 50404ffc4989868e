"""The layer numbers of the published code, for repeating its runs.

It numbers the modules of a flat list. ``tar_layer = L`` stands for two things: the *feature* is the output of module L
(the input image for L = -1), the *configuration* comes from the output of module L + 1. Which L are accepted differs
between its three families of models.

Reference: github.com/daheekwon/RDR, ``models/``, as described in the specification.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

FAMILIES = ("vgg", "resnet", "mobilenet")
OK, REFUSED, BEYOND, CRASHES = "ok", "rejected", "IndexError", "TypeError"


def published_list(model: nn.Module, family: str) -> list[nn.Module]:
    """Modules of a torchvision model in the order in which the published code numbers them.

    Parameters
    ----------
    model : torchvision VGG, ResNet or MobileNetV2
    family : {"vgg", "resnet", "mobilenet"}

    Returns
    -------
    list of modules
        VGG: features without their last max pool, the average pool, the classifier. ResNet: conv1, bn1, relu, maxpool,
        layer1 to layer4, avgpool, fc. MobileNetV2: the blocks, an average pool, the classifier.
    """
    if family == "vgg":
        features = list(model.get_submodule("features"))  # type: ignore[call-overload]
        if isinstance(features[-1], nn.MaxPool2d):
            features.pop()
        return [*features, model.get_submodule("avgpool"), *model.get_submodule("classifier")]  # type: ignore[misc]
    if family == "resnet":
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")
        return [model.get_submodule(name) for name in names]
    if family == "mobilenet":
        blocks = list(model.get_submodule("features"))  # type: ignore[call-overload]
        return [*blocks, nn.AdaptiveAvgPool2d((1, 1)), *model.get_submodule("classifier")]  # type: ignore[misc]
    raise ValueError(f"Got family={family!r}, expected one of {', '.join(map(repr, FAMILIES))}")


def layer_status(modules: Sequence[nn.Module], tar_layer: int, family: str) -> str:
    """What the published code does with a layer number.

    Returns
    -------
    {"ok", "rejected", "IndexError", "TypeError"}
        ``rejected``: it prints a message and returns nothing. The errors are those its user sees.
    """
    last = len(modules) - 1
    if tar_layer < -1 or tar_layer + 1 > last:
        return BEYOND
    if family == "mobilenet":
        return OK
    if family == "resnet" and isinstance(modules[tar_layer + 1], nn.Sequential):
        return OK
    if tar_layer + 2 > last:
        return BEYOND
    if not isinstance(modules[tar_layer + 2], nn.ReLU):
        return REFUSED
    return OK if family == "vgg" else CRASHES


def configuration_module(modules: Sequence[nn.Module], tar_layer: int, family: str) -> nn.Module:
    """The module whose output is thresholded: number L + 1, of a ResNet stage its first block only.

    Raises `ValueError` (a number that the published code does not accept).
    """
    status = layer_status(modules, tar_layer, family)
    if status != OK:
        raise ValueError(f"Got tar_layer={tar_layer}, which the published code does not accept ({status})")
    module = modules[tar_layer + 1]
    return module[0] if family == "resnet" and isinstance(module, nn.Sequential) else module


def layer_shapes(
    modules: Sequence[nn.Module], tar_layer: int, family: str, image: tuple[int, int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the feature and of the configuration of one image (channels, height, width).

    Linear modules flatten what they get. Nothing is computed: the shapes run through torch's meta device.
    """
    module = configuration_module(modules, tar_layer, family)
    x = torch.empty((2, *image), device="meta")  # two, because batch normalisation may be in training mode
    for earlier in modules[: tar_layer + 1]:
        x = _forward(earlier, x)
    return tuple(x.shape[1:]), tuple(_forward(module, x).shape[1:])


def layer_numbers(modules: Sequence[nn.Module], after: int = -1, types: Sequence[str] = ("Linear",)) -> list[int]:
    """Numbers above ``after`` of the modules of the given class names."""
    return [i for i, module in enumerate(modules) if i > after and type(module).__name__ in types]


def published_name(module: nn.Module) -> str:
    """Class name of a module as the published list gives it: MobileNetV2's first and last blocks have an older name."""
    return "ConvBNReLU" if isinstance(module, Conv2dNormActivation) else type(module).__name__


def _forward(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(module, nn.Linear) and x.ndim > 2:
        x = x.flatten(1)
    state = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
    with torch.no_grad():
        return torch.func.functional_call(module, state, (x,))
