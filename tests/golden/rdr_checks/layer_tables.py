"""``layer_tables.json``: which layer numbers the published models accept, and the shapes there."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import torch
import torchvision
from golden.rdr_checks import root
from torch import nn

from rdxcli.methods.regions.published_layers import OK, layer_shapes, layer_status, published_list, published_name

CHECKS: dict[str, Any] = {}
INPUTS: list[str] = []
WIDTHS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8  # convolutions of VGG19
CLASSES = 64


@cache
def _tables() -> dict[str, Any]:
    return json.loads((root() / "layer_tables.json").read_text())


def names() -> list[str]:
    return list(_tables())


def _number(name: str, what: str, default: int) -> int:
    found = re.search(rf"{what}=(\d+)", name)
    return int(found[1]) if found else default


def _sizes(name: str, linear: int) -> list[int]:
    """Hidden sizes of the classifier (default 4096 each) and the classes."""
    found = re.search(r"(?:head|linear_layers)=\[([\d,\s]*)\]", name)
    hidden = [int(size) for size in re.findall(r"\d+", found[1])] if found else [4096] * (linear - 1)
    return [*hidden, _number(name, "classes", CLASSES)]


def _classifier(layers: list[str], width: int, sizes: list[int]) -> list[nn.Module]:
    """Modules behind the average pool, by their names."""
    modules: list[nn.Module] = []
    left = list(sizes)
    for layer in layers:
        if layer == "Linear":
            modules.append(nn.Linear(width, left[0]))
            width = left.pop(0)
        else:
            modules.append({"ReLU": nn.ReLU, "Dropout": nn.Dropout}[layer]())
    assert not left, "the list has fewer linear modules than sizes"
    return modules


def build(name: str, layers: list[str]) -> tuple[str, list[nn.Module]]:
    """A model of the published code as a list of modules, from the name of its table."""
    architecture = name.split()[0].rstrip(",")
    sizes = _sizes(name, layers.count("Linear"))
    if architecture.startswith("vgg"):
        assert architecture == "vgg19"
        size, modules, width = _number(name, "feature_size", 5), [], 3
        pool = layers.index("AdaptiveAvgPool2d")
        widths = iter(WIDTHS)
        for layer in layers[:pool]:
            if layer == "Conv2d":
                out = next(widths)
                modules.append(nn.Conv2d(width, out, 3, padding=1))
                width = out
            else:
                modules.append({"ReLU": nn.ReLU, "MaxPool2d": lambda: nn.MaxPool2d(2, 2)}[layer]())
        modules.append(nn.AdaptiveAvgPool2d(size))
        return "vgg", [*modules, *_classifier(layers[pool + 1 :], width * size**2, sizes)]
    model = getattr(torchvision.models, architecture)(weights=None)
    if architecture.startswith("mobilenet"):
        model.classifier[-1] = nn.Linear(model.last_channel, sizes[-1])
        return "mobilenet", published_list(model, "mobilenet")
    modules = published_list(model, "resnet")
    stages = 4 + layers.count("Sequential")
    assert stages == 4 + _number(name, "cutBlock", 4)
    pool = layers.index("AdaptiveAvgPool2d")
    width = 256 * 2 ** (stages - 5)
    return "resnet", [*modules[:stages], modules[8], *_classifier(layers[pool + 1 :], width, sizes)]


def check(name: str) -> None:
    table = _tables()[name]
    image = (3, *[_number(name, "input", 84)] * 2)
    with torch.device("meta"):
        family, modules = build(name, table["layers"])
    assert [published_name(module) for module in modules] == table["layers"]
    if "params" in table:
        assert sum(value.numel() for module in modules for value in module.parameters()) == table["params"]
    for number, entry in table["tar_layer"].items():
        status = layer_status(modules, int(number), family)
        assert entry["status"].split()[0] == status, number
        if status == OK:
            feature, configuration = layer_shapes(modules, int(number), family, image)
            assert (list(feature), list(configuration)) == (entry["feature"], entry["config"]), number
            assert entry["neurons"] == torch.Size(configuration).numel()
