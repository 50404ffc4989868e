"""States, networks and distances: ``binarise``, ``digits_*`` (models, data, activations) and ``metrics``."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import torch
from golden.rdr_checks import arrays, cases, manifest, unpacked
from torch import nn

from rdxcli.methods.regions.configurations import Configurations, binarise
from rdxcli.methods.regions.distances import distance_matrix
from rdxcli.methods.regions.published_layers import layer_numbers

MODELS, DATA, ACTIVATIONS = "digits_models.npz", "digits_data.npz", "digits_activations.npz"
NEAR_ZERO = 1e-5


@cache
def network(net: str) -> list[nn.Module]:
    """The modules of a small network, with the stored weights."""
    given = arrays(MODELS)
    modules: list[nn.Module] = []
    for i, name in enumerate(cases(MODELS)[net]):
        key = f"{net}/layers_list.{i}"
        if name == "Conv2d":
            out, inner, size, _ = given[f"{key}.weight"].shape
            module: nn.Module = nn.Conv2d(inner, out, size, padding=size // 2)
        elif name == "Linear":
            module = nn.Linear(*given[f"{key}.weight"].shape[::-1])
        else:
            module = {"ReLU": nn.ReLU, "MaxPool2d": lambda: nn.MaxPool2d(2, 2), "Dropout": nn.Dropout}[name]()
        if f"{key}.weight" in given:
            module.load_state_dict({part: torch.from_numpy(given[f"{key}.{part}"]) for part in ("weight", "bias")})
        modules.append(module.eval())
    return modules


@cache
def outputs(net: str) -> list[np.ndarray]:
    """The images, then the output of every module: entry L + 1 is that of module L."""
    x = torch.from_numpy(arrays(DATA)["images"])
    found = [x]
    with torch.no_grad():
        for module in network(net):
            x = module(x.flatten(1) if isinstance(module, nn.Linear) else x)
            found.append(x)
    return [value.numpy() for value in found]


def head(net: str, after: int) -> nn.Sequential:
    """The network behind module number ``after``."""
    modules: list[nn.Module] = []
    for module in network(net)[after + 1 :]:
        modules += [nn.Flatten(), module] if isinstance(module, nn.Linear) else [module]
    return nn.Sequential(*modules)


def _same_bits(actual: Configurations, expected: Configurations, z: np.ndarray) -> None:
    """Equal, save where the activation is within rounding of zero."""
    differs = actual.bits() != expected.bits()
    assert not (differs & (np.abs(z.reshape(len(z), -1)) >= NEAR_ZERO)).any()


def check_binarise(match: re.Match[str]) -> None:
    given = arrays("binarise.npz")
    actual = binarise(given["pre"])
    np.testing.assert_array_equal(actual, given["state"])
    numbers = ~np.isnan(given["pre"])
    packed = Configurations.from_activations(given["pre"][numbers][:, None])
    np.testing.assert_array_equal(packed.bits()[:, 0], given["state"][numbers])


def check_weights(match: re.Match[str]) -> None:
    """The weights fit the network that the manifest describes, and are all used."""
    module = network(match["net"])[int(match["index"])]
    np.testing.assert_array_equal(getattr(module, match["part"]).detach().numpy(), arrays(MODELS)[match[1]])


def check_data(match: re.Match[str]) -> None:
    net, field = match["net"], match["field"]
    expected = arrays(DATA)[f"{net}/{field}"]
    modules, found = network(net), outputs(net)
    if field == "logits":
        np.testing.assert_allclose(found[-1], expected, rtol=1e-4, atol=1e-4)
    elif field == "pred":
        np.testing.assert_array_equal(found[-1].argmax(axis=1), expected)
    elif field == "getConfiguration_keys":
        assert layer_numbers(modules) == expected.tolist()
    elif field.startswith("getConfiguration_"):
        z = found[int(field.rpartition("_")[2]) + 1]
        _same_bits(Configurations.from_activations(z), unpacked(expected, z[0].size), z)
    elif field == "getLayerNo_relu":
        assert layer_numbers(modules, types=("ReLU",)) == expected.tolist()
    elif after := re.fullmatch(r"getLayerNo_after(\d+)", field):
        assert layer_numbers(modules, after=int(after[1])) == expected.tolist()
    else:
        assert field == "getLayerNo_default"
        assert layer_numbers(modules) == expected.tolist()


def check_activations(match: re.Match[str]) -> None:
    net, layer, field = match["net"], int(match["layer"]), match["field"]
    key = f"{net}/L{layer}"
    given, case = arrays(ACTIVATIONS), cases(ACTIVATIONS)[key]
    feature, z = outputs(net)[layer + 1], outputs(net)[layer + 2]
    assert list(z.shape[1:]) == case["map_shape"]
    if field == "min_abs_pre":
        np.testing.assert_allclose(np.abs(z).min(), given[f"{key}/{field}"], atol=1e-5)
        return
    expected = given[f"{key}/{field}"]
    if field == "pre":
        np.testing.assert_allclose(z.reshape(len(z), -1), expected, rtol=1e-4, atol=1e-5)
        return
    if field == "features":
        np.testing.assert_allclose(feature.reshape(len(feature), -1), expected, rtol=1e-4, atol=1e-5)
        return
    bits = unpacked(expected, case["neurons"])
    _same_bits(Configurations.from_activations(z), bits, z)
    if f"{key}/pre" in given:
        np.testing.assert_array_equal(Configurations.from_activations(given[f"{key}/pre"]).words, bits.words)
    assert bits.counts.sum() / (bits.n * bits.m) == case["mean_on"]
    assert (bits.counts == 0).sum() == case["dead"]
    assert (bits.counts == bits.n).sum() == case["always"]


def _row(pattern: str) -> int:
    """A row number that only the manifest's prose gives."""
    found = re.search(pattern + r" (\d+)", manifest()["metrics.npz"]["compare"]["how"])
    assert found, f"the manifest no longer says {pattern!r}"
    return int(found[1])


def _index(word: str, given: dict[str, np.ndarray], second: bool) -> object:
    return {
        "target": lambda: _row(r"target_target = rows \d+ and") if second else int(given["target"]),
        "all": lambda: None,
        "list": lambda: given["idx2" if second else "idx1"],
        "scalar": lambda: _row("list_scalar = idx1 against row"),
        "mask": lambda: given["mask"].astype(bool),
        "zero": lambda: _row("zero_all = row"),
    }[word]()


def check_metrics(match: re.Match[str]) -> None:
    given = dict(arrays("metrics.npz"))
    expected = given[match[1]]
    metric = {"config": "configuration", "euc": "euclidean", "cos": "cosine"}[match["metric"]]
    values = Configurations.from_bits(given["configs"]) if metric == "configuration" else given["features"]
    first, second = (_index(match[name], given, name == "second") for name in ("first", "second"))
    actual = distance_matrix(values, first, second, metric=metric).squeeze()
    assert actual.shape == expected.shape
    if metric == "configuration":
        np.testing.assert_array_equal(actual, expected)
    elif metric == "euclidean":
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-6)
    else:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


INPUTS = [
    r"binarise\.npz:pre",
    r"digits_data\.npz:(images|digit|sklearn_row|\w+/train_label)",
    r"metrics\.npz:(features|configs|idx1|idx2|mask|target)",
]
CHECKS = {
    r"binarise\.npz:state": check_binarise,
    r"digits_models\.npz:((?P<net>\w+)/layers_list\.(?P<index>\d+)\.(?P<part>weight|bias))": check_weights,
    r"digits_data\.npz:(?P<net>\w+)/(?P<field>pred|logits|getConfiguration_\w+|getLayerNo_\w+)": check_data,
    r"digits_activations\.npz:(?P<net>\w+)/L(?P<layer>-?\d+)/(?P<field>configs|min_abs_pre|pre|features)": (
        check_activations
    ),
    r"metrics\.npz:((?P<metric>config|euc|cos)__(?P<first>target|all|list|zero)_"
    r"(?P<second>target|all|list|scalar|mask))": check_metrics,
}
