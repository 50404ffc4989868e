"""``rdx doctor``: the state of this machine, what is wrong with it, and the command that repairs that.

A library may be missing or broken, so every other module is opened behind the function that asks it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from rdxcli import __version__
from rdxcli.errors import ArtifactError, RdxError, installed, without_passwords
from rdxcli.progress import human_count

PACKAGE = "rdx-vision"
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
LOADED = ("numpy", "scipy", "sklearn", "PIL", "pyarrow", "torch", "torchvision")
"""Compiled libraries: whether they fit this Python and each other is seen only when they are imported."""

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_PROBE = 1 << 20  # bytes that a folder must take to count as writable: a full disk often takes the first few

# (what it is for, module, package, what pip takes)
_OPTIONAL = (
    ("umap: `compare --method nlmcd`", "umap", "umap-learn", "umap"),
    ("hdbscan: `compare --method nlmcd`", "hdbscan", "hdbscan", "umap"),
    ("captions: `encode-concepts`", "HanTa", "HanTa", "captions"),
    ("tensorboard: `train-surrogate --tensorboard`", "tensorboard", "tensorboard", "tensorboard"),
    ("datasets: `--dataset hf:NAME`", "datasets", "datasets", "hf"),
    ("ray: `--engine ray`", "ray", "ray", "ray"),
    ("h5py: HDF5 files", "h5py", "h5py", "arrays"),
    ("zarr: Zarr files", "zarr", "zarr", "arrays"),
    ("s3fs: `s3://`", "s3fs", "s3fs", "s3"),
    ("gcsfs: `gs://`", "gcsfs", "gcsfs", "gs"),
    ("mlflow: `--log mlflow:`", "mlflow", "mlflow-skinny", "mlflow"),
    ("wandb: `--log wandb:`", "wandb", "wandb", "wandb"),
    ("trackio: `--log trackio:`", "trackio", "trackio", "trackio"),
)


@dataclass
class _Findings:
    """What is wrong, and what repairs it: one line about one thing."""

    problems: list[dict[str, str]] = field(default_factory=list)
    about: set[str] = field(default_factory=set)

    def add(self, about: str, problem: str, repair: str) -> None:
        if about not in self.about:
            self.about.add(about)
            self.problems.append({"problem": without_passwords(problem), "repair": repair})


def doctor(outputs: Path) -> dict[str, Any]:
    """State of this machine as sections of ``{entry: value}``, and ``problems``: what is wrong and what repairs it."""
    found = _Findings()
    versions = _packages(found)
    machine = _machine(found)
    return {
        "versions": {"rdx": __version__, "python": platform.python_version(), **versions},
        "machine": machine,
        "places": _places(outputs, found),
        "artifacts": _artifacts(outputs, found),
        "data_sets": _data_sets(),
        "optional_packages": _optional(found),
        "problems": found.problems,
    }


def pip_install(*arguments: str) -> str:
    """The command that installs into the environment of this process, whichever one is active."""
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *arguments])


def _required() -> Iterator[tuple[str, str, str]]:
    """Package, lowest version and the extra it belongs to, as the installed rdx declares them."""
    try:
        declared = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return
    for line in declared:
        name, _, rest = re.match(r"([\w.-]+)(\[[^]]*\])?(.*)", line).groups()  # type: ignore[union-attr]
        lowest = re.search(r">=\s*([\w.]+)", rest)
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)""", rest)
        yield name, lowest[1] if lowest else "0", extra[1] if extra else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _whole(name: str, lowest: str) -> tuple[str | None, str | None]:
    """Version of an installed package, and what is wrong with it."""
    try:
        found = metadata.distribution(name)
        version = str(found.version)
        missing = sum(
            not Path(str(found.locate_file(file))).exists() for file in found.files or () if file.suffix != ".pyc"
        )
    except metadata.PackageNotFoundError:
        return None, "is not installed"
    except (KeyError, TypeError, OSError, ValueError):
        return None, "is half installed: its description cannot be read"
    if found.metadata["Name"] is None:
        return None, "is half installed: its description cannot be read"
    if missing:
        return (
            version,
            f"is half installed: {missing:,} of its {human_count(len(found.files or ()), 'file', 'are')} missing",
        )
    if _number(version) < _number(lowest):
        return version, f"is too old: {version}, expected {lowest} or newer"
    return version, None


def _packages(found: _Findings) -> dict[str, str]:
    """Versions of the packages that rdx needs."""
    versions = {}
    required = [(name, lowest) for name, lowest, extra in _required() if not extra]
    if not required:
        found.add("rdx", f"rdx runs from {Path(__file__).parents[1]} and is not installed", pip_install("-e", "."))
    for name, lowest in required:
        version, wrong = _whole(name, lowest)
        if version is not None:
            versions[name] = version
        if wrong is not None:
            found.add(name, f"the package {name} {wrong}", _again(name, lowest, wrong))
    return versions


def _again(name: str, lowest: str, wrong: str) -> str:
    if name in ("torch", "torchvision"):
        return _both()
    how = ("--force-reinstall", "--no-deps") if "half" in wrong else ()
    return pip_install(*how, f"{name}>={lowest}")


def _both() -> str:
    """The two libraries of PyTorch fit together when they come from one index, at once."""
    try:
        cpu = metadata.version("torch").endswith("+cpu")
    except (metadata.PackageNotFoundError, AttributeError):
        cpu = False
    return pip_install("--force-reinstall", "torch", "torchvision", *(("--index-url", TORCH_CPU) if cpu else ()))


def _optional(found: _Findings) -> dict[str, str]:
    states = {}
    lowest = {name: version for name, version, extra in _required() if extra}
    for label, module, package, extra in _OPTIONAL:
        target = f"{PACKAGE}[{extra}]"
        version, wrong = _whole(package, lowest.get(package, "0"))
        if version is not None and wrong is not None:
            states[label] = wrong
            repair = pip_install("--force-reinstall", "--no-deps", package)
            found.add(package, f"the package {package} {wrong}", repair)
        elif not installed(module):
            states[label] = f"missing: pip install '{target}'"
        else:
            states[label] = "installed"
    return states


def _loads(name: str) -> tuple[str, str]:
    """Whether a library loads, and the module to blame; builds of PyTorch that do not fit together raise only here."""
    try:
        import_module(name)
    except Exception as error:  # an ImportError, or whatever a mixture of two builds raises
        blamed = (getattr(error, "name", None) or name).partition(".")[0]
        return f"does NOT load: {' '.join(str(error).split())[:200]}", blamed
    return "loads", name


def _machine(found: _Findings) -> dict[str, Any]:
    states = {}
    for name in LOADED:
        states[name], blamed = _loads(name)
        if states[name] == "loads" or (blamed != name and blamed in LOADED):  # the other one is said
            continue
        package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(name, name)
        repair = _both() if name.startswith("torch") else pip_install("--force-reinstall", package)
        found.add(package, f"{package} {states[name]}", repair)
    shown = {name: state for name, state in states.items() if name in ("torch", "torchvision") or state != "loads"}
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory": _memory(),
        "devices": ", ".join(_devices(found)),
        "proxy": _proxies(found) or "none",
        "bytecode": _bytecode(),
        **shown,
    }


def _bytecode() -> str:
    """Whether Python keeps what it compiles; where it does not, every command compiles PyTorch anew."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None or Path(importlib.util.cache_from_source(spec.origin)).exists():
        return "kept"
    packages = Path(spec.origin).parents[1]
    once = shlex.join([sys.executable or "python", "-m", "compileall", "-q", str(packages)])
    why = "PYTHONDONTWRITEBYTECODE is set" if sys.dont_write_bytecode else f"{packages} takes none"
    return f"not kept ({why}): commands that load PyTorch start seconds later; once and for all: {once}"


def _memory() -> str:
    try:
        import psutil

        from rdxcli.progress import human_bytes
    except ImportError:  # `_packages` says so
        return "unknown"
    memory = psutil.virtual_memory()
    return f"{human_bytes(memory.total)}, {human_bytes(memory.available)} free"


def _devices(found: _Findings) -> list[str]:
    try:
        import torch

        from rdxcli.models.devices import pick_device
    except Exception:  # `_loads` says why
        return ["none"]

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    elif Path("/dev/nvidiactl").exists() and not torch.version.cuda:
        repair = pip_install("--force-reinstall", "torch", "torchvision")
        found.add("gpu", f"there is an NVIDIA GPU, and torch {torch.__version__} is a build without CUDA", repair)
    elif Path("/dev/nvidiactl").exists() and torch.version.cuda:
        found.add(
            "gpu",
            f"there is an NVIDIA GPU that torch {torch.__version__} cannot use: a driver too old for CUDA "
            f"{torch.version.cuda}, or a GPU hidden by CUDA_VISIBLE_DEVICES",
            "nvidia-smi   # says which CUDA the driver knows",
        )
    if torch.backends.mps.is_available():
        devices.append("mps")
    if asked := os.environ.get("RDX_DEVICE"):
        try:
            pick_device(asked)
        except RdxError as error:
            found.add("RDX_DEVICE", f"RDX_DEVICE: {error.message}", "unset RDX_DEVICE")
    return devices


def _proxies(found: _Findings) -> str:
    """The proxies that downloads go through, without their passwords."""
    shown = []
    for scheme, value in sorted(getproxies_environment().items()):
        if scheme == "no" or not value:
            continue
        name = f"{scheme.upper()}_PROXY" if f"{scheme.upper()}_PROXY" in os.environ else f"{scheme}_proxy"
        shown.append(f"{scheme} {without_passwords(value)}")
        parts = urlsplit(value if "://" in value else f"http://{value}")
        try:
            usable = parts.scheme in PROXY_SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:  # a port that is no number
            usable = False
        if not usable:
            expected = f"expected {', '.join(PROXY_SCHEMES)}://HOST:PORT"
            found.add(name, f"{name} is no proxy that downloads can use: {value}, {expected}", f"unset {name}")
    return ", ".join(shown)


def _places(outputs: Path, found: _Findings) -> dict[str, str]:
    from rdxcli.places import cache_root, data_root, is_temporary

    cache = cache_root()
    states = {
        "outputs": _place("outputs", Path(outputs), "RDX_OUTPUTS", True, found),
        "data": _place("data", Path(data_root()), "RDX_DATA", False, found),
        "cache": _place("cache", Path(cache), "RDX_CACHE", True, found),
    }
    if is_temporary(cache):
        problem = f"there is no home directory: what rdx keeps goes to {cache} and may be lost"
        found.add("home", problem, "export RDX_CACHE=FOLDER")
    for name, variable, folder in _weights():
        states[name] = _place(f"weights of {name}", folder, variable, False, found)
    return states


def _weights() -> Iterator[tuple[str, str, Path]]:
    """Where the hubs' libraries keep weights."""
    try:
        from huggingface_hub.constants import HF_HOME

        yield "Hugging Face", "HF_HOME", Path(HF_HOME)
        import torch

        yield "torch", "TORCH_HOME", Path(torch.hub.get_dir()).parent
    except Exception:  # `_packages` and `_loads` say why
        return


def _place(name: str, path: Path, variable: str, must_write: bool, found: _Findings) -> str:
    """State of a folder that may not be there yet. Whether it can be written to is tried: permissions do not tell."""
    from rdxcli.progress import human_bytes

    try:
        existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        there = path.exists()
        # `rdx doctor > FILE` makes it; what stands beside it tells whether it can be
        if there and _is_the_report(path):
            existing, there = existing.parent, False
    except OSError as error:
        found.add(name, f"{name}: {path} cannot be looked at: {error.strerror}", f"export {variable}=FOLDER")
        return f"{path}, {error.strerror}"
    wrong = _refusal(existing, min(free, _PROBE) if free else 1)
    if not there or must_write or not existing.is_dir():
        repair = f"export {variable}=FOLDER   # one that you may write to"
        if wrong is not None and "space" in wrong:
            repair = f"df -h {shlex.quote(str(existing))}   # free some space, or export {variable}=FOLDER"
        if wrong is not None:
            found.add(name, f"{name}: cannot write to {path}: {wrong}", repair)
    state = "writable" if wrong is None else f"NOT writable ({wrong})"
    shown = without_passwords(str(path))
    return f"{shown}, {'exists' if there else 'not there yet'}, {state}, {human_bytes(free)} free"


def _is_the_report(path: Path) -> bool:
    """Whether a path is the file that the report is written to."""
    try:
        return path.is_file() and os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    except (OSError, ValueError, AttributeError):  # no stream of the system
        return False


def _refusal(folder: Path, size: int) -> str | None:
    """Why a file of ``size`` bytes cannot be written into a folder; None when it can. Nothing is left there."""
    if not folder.is_dir():
        return f"{folder} is a file, expected a folder"
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(size))
            stream.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _artifacts(outputs: Path, found: _Findings) -> dict[str, Any]:
    """How many artifacts there are; manifests are read; all files are read by `rdxcli.artifacts.verifying.verify`."""
    try:
        from rdxcli.artifacts.manifest import Manifest
        from rdxcli.artifacts.store import look_through
    except ImportError:  # `_packages` says so
        return {}
    folders, partials, refused = look_through(outputs) if outputs.is_dir() else ([], [], [])
    for entry in refused:
        found.add(entry["artifact"], entry["problem"], entry["repair"])
    older = 0
    for folder in folders:
        try:
            manifest = Manifest.read(folder)
            older += bool(manifest.files) and not manifest.hashes
        except ArtifactError as error:
            found.add(folder.as_posix(), error.message, error.hint or "rdx doctor --verify")
    return {"finished": len(folders), "unfinished": len(partials), "made by an older version, without hashes": older}


def _data_sets() -> dict[str, str]:
    try:
        from rdxcli.datasets.registry import describe_datasets

        known = describe_datasets()
    except ImportError:  # `_packages` says so
        return {}
    return {entry["name"]: "ready" if entry["ready"] else f"missing: {entry['fetch']}" for entry in known}
