"""What ``rdx list`` and ``rdx doctor`` say."""

from __future__ import annotations

import inspect
import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from rdxcli import __version__
from rdxcli.artifacts import Artifact, find_artifacts
from rdxcli.artifacts.manifest import MANIFEST, package_versions
from rdxcli.artifacts.store import PARTIAL, unfinished_state
from rdxcli.datasets.registry import SCHEMES as DATASET_SCHEMES
from rdxcli.datasets.registry import data_root, describe_datasets
from rdxcli.errors import ArtifactError, UnknownNameError, installed
from rdxcli.methods.registry import Method
from rdxcli.methods.registry import methods as registered
from rdxcli.models import load
from rdxcli.models.registry import SCHEMES as MODEL_SCHEMES
from rdxcli.models.registry import list_models, resolve
from rdxcli.parameters import REQUIRED, Parameter, declared
from rdxcli.places import cache_root
from rdxcli.progress import human_bytes, track
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

    Raises
    ------
    UnknownNameError
        No method has this name.
    """
    found = [method for method in registered().values() if method.name == name]
    if not found:
        raise UnknownNameError("method", name, {method.name for method in registered().values()}, "rdx list methods")
    columns = ("command", "name", "default", "expected", "help")
    rows = []
    for method in found:
        for parameter in _parameters(method):
            shown = parameter.document()
            default = "required" if parameter.default is REQUIRED else json.dumps(plain(shown["default"]))
            rows.append((method.family, parameter.name, default, shown["expected"], shown["help"]))
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


def doctor(outputs: Path) -> dict[str, dict[str, Any]]:
    """State of this machine as sections of ``{entry: value}``."""
    memory = psutil.virtual_memory()
    report: dict[str, dict[str, Any]] = {
        "versions": {"rdx": __version__, "python": platform.python_version(), **package_versions()},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "memory": f"{human_bytes(memory.total)}, {human_bytes(memory.available)} free",
            "devices": ", ".join(_devices()),
            **{name: _loads(name) for name in ("torch", "torchvision")},
        },
        "places": {},
        "data_sets": {
            entry["name"]: "ready" if entry["ready"] else f"missing: {entry['fetch']}" for entry in describe_datasets()
        },
        "optional_packages": {
            name: ("installed" if installed(module) else f"missing: pip install {target}")
            for name, module, target in _OPTIONAL
        },
    }
    for name, path in (("outputs", outputs), ("data", data_root()), ("cache", cache_root())):
        report["places"][name] = _place(Path(path))
    return report


# (what it is for, module, what pip takes)
_OPTIONAL = (
    ("umap: `compare --method nlmcd`", "umap", "'rdx-vision[umap]'"),
    ("hdbscan: `compare --method nlmcd`", "hdbscan", "'rdx-vision[umap]'"),
    ("captions: `encode-concepts`", "HanTa", "'rdx-vision[captions]'"),
    ("tensorboard: `train-surrogate --tensorboard`", "tensorboard", "'rdx-vision[tensorboard]'"),
    ("datasets: `--dataset hf:NAME`", "datasets", "'rdx-vision[hf]'"),
    ("ray: `--engine ray`", "ray", "'rdx-vision[ray]'"),
    ("h5py: HDF5 files", "h5py", "'rdx-vision[arrays]'"),
    ("zarr: Zarr files", "zarr", "'rdx-vision[arrays]'"),
    ("s3fs: `s3://`", "s3fs", "'rdx-vision[s3]'"),
    ("gcsfs: `gs://`", "gcsfs", "'rdx-vision[gs]'"),
    ("mlflow: `--log mlflow:`", "mlflow", "'rdx-vision[mlflow]'"),
    ("wandb: `--log wandb:`", "wandb", "'rdx-vision[wandb]'"),
    ("trackio: `--log trackio:`", "trackio", "'rdx-vision[trackio]'"),
)


def _loads(name: str) -> str:
    """Whether a library loads; builds of PyTorch that do not fit together say so only when they are imported."""
    try:
        import_module(name)
    except Exception as error:  # an ImportError, or whatever a mixture of two builds raises
        why = " ".join(str(error).split())[:200]
        return f"does NOT load: {why}; install torch and torchvision together, from one index"
    return "loads"


def _devices() -> list[str]:
    try:
        import torch
    except Exception:  # `_loads` says why
        return ["none"]

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _place(path: Path) -> str:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    writable = "writable" if os.access(existing, os.W_OK) else "NOT writable"
    return f"{path}, {'exists' if path.exists() else 'not there yet'}, {writable}, {human_bytes(free)} free"


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes
    ----------
    intact : int
        Artifacts of which every file is what was written.
    without_hashes : list of str
        Artifacts of older versions: only the sizes of their files could be compared.
    damaged : list of mapping
        ``artifact`` and ``problem``.
    unfinished : list of mapping
        ``artifact`` and who began it or works on it.
    """

    intact: int
    without_hashes: list[str]
    damaged: list[dict[str, str]]
    unfinished: list[dict[str, str]]

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"intact": self.intact, **{name: getattr(self, name) for name in list(vars(self))[1:]}}


def verify(outputs: Path) -> Verified:
    """Read every file of every artifact below ``outputs`` and compare it with its hash."""
    found = Verified(0, [], [], [])
    intact = 0
    folders = sorted(path.parent for path in outputs.rglob(MANIFEST)) if outputs.is_dir() else []
    partials = sorted(outputs.rglob(f"*{PARTIAL}")) if outputs.is_dir() else []
    with track("verify", len(folders), "artifacts") as advance:
        for folder in folders:
            try:
                manifest = Artifact.open(folder, full=True).manifest
            except ArtifactError as error:
                found.damaged.append({"artifact": folder.as_posix(), "problem": error.message})
            else:
                if manifest.hashes or not manifest.files:
                    intact += 1
                else:
                    found.without_hashes.append(folder.as_posix())
            advance(1)
    found.unfinished.extend({"artifact": path.as_posix(), "state": unfinished_state(path)} for path in partials)
    return replace(found, intact=intact)
