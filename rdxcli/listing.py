"""What there is: models, data sets, methods and their parameters, layers, artifacts, downloads."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdxcli.artifacts import find_artifacts
from rdxcli.datasets.registry import SCHEMES as DATASET_SCHEMES
from rdxcli.datasets.registry import describe_datasets
from rdxcli.download.catalogue import Recipe, catalogue
from rdxcli.download.hub import cached
from rdxcli.download.store import Home
from rdxcli.errors import UnknownNameError
from rdxcli.methods.registry import Method
from rdxcli.methods.registry import methods as registered
from rdxcli.models import load
from rdxcli.models.registry import SCHEMES as MODEL_SCHEMES
from rdxcli.models.registry import list_models, resolve
from rdxcli.parameters import REQUIRED, Parameter, declared
from rdxcli.places import data_root
from rdxcli.progress import human_bytes, human_count
from rdxcli.records import plain


@dataclass(frozen=True)
class Listing:
    """A table for people and, row by row, for machines."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def document(self) -> list[dict[str, Any]]:
        """One mapping per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def models() -> Listing:
    """The registered model names with default layer and data set, then the schemes for all others."""
    rows = []
    for name in list_models():
        spec = resolve(name)
        rows.append((name, spec.default_layer, spec.default_dataset, spec.description))
    rows += [(scheme, None, None, text) for scheme, text in MODEL_SCHEMES.items()]
    return Listing("models", ("name", "layer", "dataset", "description"), rows)


def datasets() -> Listing:
    """The registered data sets, then the schemes for all others."""
    rows = [(entry["name"], entry["ready"], entry["description"]) for entry in describe_datasets()]
    rows += [(scheme, None, text) for scheme, text in DATASET_SCHEMES.items()]
    return Listing("data sets", ("name", "ready", "description"), rows)


def methods() -> Listing:
    """Every method with the command it belongs to."""
    rows = [(method.name, method.family, method.summary) for method in registered().values()]
    return Listing("methods", ("name", "command", "summary"), rows)


def described_methods() -> list[dict[str, Any]]:
    """The rows of `methods`, each with the hyper-parameters of its estimator. Loads all of them: seconds."""
    rows = methods().document()
    return [
        {**row, "parameters": [parameter.document() for parameter in _parameters(method)]}
        for row, method in zip(rows, registered().values(), strict=True)
    ]


def parameters(name: str) -> Listing:
    """The hyper-parameters (``--param NAME=VALUE``) of the methods of that name, whatever their command.

    Raises `UnknownNameError` (no method has this name).
    """
    found = [method for method in registered().values() if method.name == name]
    if not found:
        raise UnknownNameError("method", name, {method.name for method in registered().values()}, "rdx list methods")
    columns = ("name", "command", "default", "expected", "help")
    rows = []
    for method in found:
        for parameter in _parameters(method):
            shown = parameter.document()
            default = "required" if parameter.default is REQUIRED else json.dumps(plain(shown["default"]))
            rows.append((parameter.name, method.family, default, shown["expected"], shown["help"]))
    return Listing(f"parameters of {name}: --param NAME=VALUE", columns, rows)


def _parameters(method: Method) -> list[Parameter]:
    """Those of the estimator with this method's defaults. What a method that is a function takes is data."""
    kind = method.load()
    if not inspect.isclass(kind):
        return []
    return [
        replace(parameter, default=method.parameters.get(parameter.name, parameter.default))
        for parameter in declared(kind).values()
    ]


def layers(model: str, device: str = "auto", untrained: bool = False) -> Listing:
    """Layers of a model: path, type and output shape of one image."""
    loaded = load(model, device=device, untrained=untrained)
    rows = [
        (layer.path, layer.type, "x".join(map(str, layer.shape)), layer.path == loaded.default_layer)
        for layer in loaded.layers()
    ]
    return Listing(f"layers of {model}", ("layer", "type", "output", "default"), rows)


def artifacts(outputs: Path) -> Listing:
    """The finished artifacts below ``outputs``."""
    rows = []
    for artifact in find_artifacts(outputs):
        manifest = artifact.manifest
        size = sum(manifest.files.values())
        rows.append((artifact.path.as_posix(), artifact.kind, manifest.rows, human_bytes(size), manifest.created))
    return Listing(f"artifacts in {outputs}", ("artifact", "kind", "rows", "size", "created"), rows)


def downloads(root: Path | None = None) -> Listing:
    """Every recipe: size, whether it is on this machine, licence."""
    place = data_root(root)
    rows: list[tuple[Any, ...]] = []
    for recipe in catalogue().values():
        here = cached(recipe) is not None if recipe.hub else Home(place, recipe).ready()
        known = sum(item.bytes or 0 for item in recipe.chosen())
        size = None if not known else human_bytes(known) + ("" if recipe.bytes is not None else " or more")
        kind = "gated" if recipe.gate else recipe.kind
        rows.append((recipe.name, kind, size, here, recipe.licence, _verified(recipe), recipe.title))
    order = {kind: i for i, kind in enumerate(("dataset", "gated", "checkpoint", "concepts", "hub"))}
    rows.sort(key=lambda row: (order[row[1]], row[0]))
    return Listing("downloads", ("name", "kind", "size", "here", "licence", "verified", "title"), rows)


def _verified(recipe: Recipe) -> str:
    """Whether a hash of what is fetched was known before: of all files, of some, of none; of weights by their hub."""
    if recipe.hub:
        return "by its hub"
    items = recipe.chosen()
    known = sum(item.expected.certain for item in items)
    return (
        "-"
        if not items
        else "yes"
        if known == len(items)
        else f"{known} of {human_count(len(items), 'file')}"
        if known
        else "no"
    )
