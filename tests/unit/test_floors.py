"""Imports go down the floors of the house only, and the command line starts without heavy libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from rdxcli.cli.group import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    *("torch", "torchvision", "timm", "open_clip", "transformers", "sklearn", "scipy", "pandas", "pyarrow"),
    *("hdbscan", "matplotlib", "umap", "ray", "datasets"),
}

# room -> rooms it may import besides itself; root modules (errors, records, progress) and numerics are open to all
LOWER = {"methods", "numerics", "models", "datasets", "engines", "report", "artifacts", "download"}
ALLOWED = {
    "cli": {"services", "concepts", "representations", *LOWER},
    "services": {"concepts", "representations", *LOWER},
    "concepts": {"representations", *LOWER},
    "representations": LOWER,
    "methods": {"numerics"},
    "models": {"numerics", "datasets", "artifacts", "download"},
    "datasets": {"numerics", "artifacts", "download"},
    "engines": {"numerics", "artifacts", "datasets"},
    "report": {"numerics"},
    "artifacts": {"numerics"},
    "download": {"numerics", "artifacts"},
    "numerics": set(),
}
DOORS = {"api", "doctor", "listing"}  # root modules that open on all rooms: only `cli` comes in by them
ROOM_FOLDERS = {
    "cli": ROOT / "cli",
    "download": ROOT / "download",
    **{room: ROOT / "rdxcli" / room for room in ALLOWED if room not in {"cli", "download"}},
}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _imports(tree: ast.AST, package: str) -> list[tuple[str, bool]]:
    """(module, at module level) of every import of a file; relative ones are made absolute."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    typing_only = {id(node) for guard in guards for node in ast.walk(guard)}
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            found += [
                (f"{base}.{alias.name}" if base == "rdxcli" else base, id(node) not in inside) for alias in node.names
            ]
    return found


def _files() -> list[tuple[str, Path]]:
    return [(room, path) for room, folder in ROOM_FOLDERS.items() for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize(("room", "path"), _files(), ids=lambda value: value.name if isinstance(value, Path) else value)
def test_imports_go_down(room: str, path: Path) -> None:
    relative = path.relative_to(ROOM_FOLDERS[room]).parent.parts
    package = ".".join(["rdxcli", room, *relative])
    for module, at_top in _imports(_tree(path), package):
        if at_top and (room in {"cli", "services"} or path.name == "__init__.py" or path.name == "registry.py"):
            assert module.split(".")[0] not in HEAVY, f"{path} imports {module} when it is loaded"
        parts = module.split(".")
        assert room == "cli" or parts[:1] != ["rdxcli"] or parts[1:2] not in [[door] for door in DOORS], (
            f"{path}: {module}"
        )
        if parts[0] != "rdxcli" or len(parts) < 2 or parts[1] not in ALLOWED or parts[1] == room:
            continue
        assert parts[1] in ALLOWED[room], f"{path}: {room} must not import {module}"


def test_the_check_sees_a_wrong_import() -> None:
    tree = ast.parse("from ..artifacts import create\ndef f():\n    import torch\nfrom rdxcli import services\n")
    assert ("rdxcli.artifacts", True) in _imports(tree, "rdxcli.methods")
    assert ("torch", False) in _imports(tree, "rdxcli.methods")
    assert ("rdxcli.services", True) in _imports(tree, "rdxcli.methods")


def _modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for prefix, folder in (
        ("rdxcli", ROOT / "rdxcli"),
        *((f"rdxcli.{room}", ROOT / room) for room in ("cli", "download")),
    ):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([prefix, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


def _circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of modules that import each other, directly or around a corner, also inside functions."""
    reach = {name: set(others) for name, others in graph.items()}
    for middle in graph:
        for others in reach.values():
            if middle in others:
                others |= reach[middle]
    return sorted({tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]})


def test_no_two_modules_import_each_other() -> None:
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        used: set[str] = set()
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
                used |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
            elif isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
        graph[name] = (used & set(modules)) - {name}
    assert _circles(graph) == []


def test_a_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for module, path in _modules().items():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_check_sees_a_circle_around_a_corner() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b", "c")]
    assert _circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


# one door each: the library and the function that opens it, with why it is not `rdxcli.lazy`
OWN_DOORS = {
    ("datasets/libraries.py", "torchvision", "torchvision"),  # the function bears the name of the library
    ("datasets/libraries.py", "hugging_face", "datasets"),  # an extra: its absence is a sentence
    ("datasets/arrayfiles.py", "_hdf5", "h5py"),
    ("datasets/arrayfiles.py", "_zarr", "zarr"),
    ("datasets/addresses.py", "_system", "fsspec"),
    ("engines/ray.py", "_ray", "ray"),
    ("methods/difference/baselines/nlmcd.py", "soft_clusters", "hdbscan"),  # warns when it is loaded
    ("numerics/umap_axes.py", "umap_axes", "umap"),
    ("methods/surrogate/hanta.py", "load", "HanTa"),  # the caption tools, extras
    ("methods/surrogate/languages.py", "detect", "simplemma"),
    ("methods/surrogate/lexicon.py", "__init__", "simplemma"),
    ("methods/surrogate/lexicon.py", "__init__", "lemminflect"),
    ("methods/surrogate/lexicon.py", "__init__", "textblob"),
    ("methods/surrogate/nltk_data.py", "find", "nltk"),
    ("methods/surrogate/tokenising.py", "_treebank", "nltk"),
    ("methods/surrogate/tokenising.py", "__init__", "textblob"),
    ("services/train_surrogate.py", "_tensorboard", "torch"),  # needs the extra
    ("hub.py", "_reporting", "tqdm"),
}
DEFINES_NETWORKS = {"torch", "torchvision", "sklearn"}  # what a module that subclasses needs when it is loaded


def _inside_functions(path: Path) -> list[tuple[str, ast.Import | ast.ImportFrom]]:
    """(function, import) of every import below the top of a file."""
    found: dict[int, tuple[str, ast.Import | ast.ImportFrom]] = {}
    for function in ast.walk(_tree(path)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    found[id(node)] = (function.name, node)
    return list(found.values())


def _loaded_with(modules: dict[str, Path]) -> dict[str, set[str]]:
    """The foreign libraries that are loaded with each module, by itself or by what it imports at its top."""
    own: dict[str, set[str]] = {}
    foreign: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        top = {module for module, at_top in _imports(_tree(path), package) if at_top}
        own[name] = {module for module in top if module in modules}
        foreign[name] = {module.split(".")[0] for module in top if module not in modules}
    reach = {name: set(others) for name, others in own.items()}
    for middle in modules:
        for others in reach.values():
            if middle in others:
                others |= reach[middle]
    return {name: foreign[name].union(*(foreign[other] for other in reach[name])) for name in modules}


def test_imports_stand_at_the_top_but_for_named_doors() -> None:
    """`cli` is the lazy border. Below it a library has its door in `rdxcli.lazy` or in one function that is named here,
    and a module of our own is imported inside a function only where it cannot be loaded without torch."""
    modules = _modules()
    loads = _loaded_with(modules)
    doors = set()
    for name, path in modules.items():
        if name.startswith("rdxcli.cli") or name in {"rdxcli.__main__", "rdxcli.doctor"}:
            continue  # the border; and the doctor, which also works where something does not load
        where = path.relative_to(ROOT / "rdxcli" if (ROOT / "rdxcli") in path.parents else ROOT / "download").as_posix()
        for function, node in _inside_functions(path):
            base = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
            if base.split(".")[0] != "rdxcli":
                doors.add((where, function, base.split(".")[0]))
                continue
            if path.name == "__init__.py" and function == "__getattr__":
                continue  # what a package offers is loaded at its first use
            targets = {f"{base}.{alias.name}" for alias in node.names} & set(modules) or {base}
            heavy = set().union(*(loads[target] for target in targets)) & DEFINES_NETWORKS
            assert heavy - loads[name], f"{where}: {ast.unparse(node)} in `{function}` can stand at the top of the file"
    assert doors == OWN_DOORS


def test_a_door_opens_at_its_first_use() -> None:
    code = (
        "import sys\nfrom rdxcli.lazy import scipy, sklearn, torch\n"
        "assert not {'scipy', 'sklearn', 'torch'} & set(sys.modules)\n"
        "assert scipy.stats.norm.cdf(0) == 0.5 and 'scipy.stats' in sys.modules\n"
        "assert len(sklearn.datasets.load_digits().target) == 1797\n"
        "assert not hasattr(scipy, 'no_such_name') and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda c: c[0] if c else "rdx")
def test_help_is_light(command: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['rdx', *sys.argv[1:]]\n"
        "from rdxcli.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"heavy = sorted(set(sys.modules) & {HEAVY!r})\n"
        "print('HEAVY', heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    text = re.sub(r"\s+", " ", done.stdout)
    if command:
        assert "Examples" in text
        assert f"rdx {command[0]}" in text.split("Examples")[1]


def test_comparing_arrays_loads_nothing_heavy(tmp_path: Path) -> None:
    """What a person waits for before the first line, besides NumPy and SciPy's linear algebra."""
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 4)))
    slow = {
        "torch",
        "sklearn",
        "pandas",
        "matplotlib",
        "umap",
        "hdbscan",
        "httpx",
        "scipy.stats",
        "scipy.optimize",
        "scipy.fft",
    }
    code = (
        "import sys; sys.argv = ['rdx', 'compare', 'a.npy', 'b.npy', '--k', '2', '--no-test', '--device', 'cpu']\n"
        "from rdxcli.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('HEAVY', sorted(set(sys.modules) & {slow!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


def test_every_package_is_installed() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    found = {
        ".".join([prefix, *path.parent.relative_to(folder).parts])
        for prefix, folder in (
            ("rdxcli", ROOT / "rdxcli"),
            ("rdxcli.cli", ROOT / "cli"),
            ("rdxcli.download", ROOT / "download"),
        )
        for path in folder.rglob("__init__.py")
    } | {"rdxcli.docs"}
    assert sorted(listed) == sorted(found)
