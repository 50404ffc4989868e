"""``rdx doctor``: the state of this machine, and what is missing for which command."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from rdxcli import __version__
from rdxcli.artifacts.manifest import package_versions
from rdxcli.datasets.registry import describe_datasets
from rdxcli.errors import installed
from rdxcli.places import cache_root, data_root
from rdxcli.progress import human_bytes


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
