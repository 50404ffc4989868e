"""Imports go down the floors of the house only, and the command line starts without heavy libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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
    for module, at_top in _imports(ast.parse(path.read_text("utf-8")), package):
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
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
                used |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
            elif isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
        graph[name] = (used & set(modules)) - {name}
    assert _circles(graph) == []


def test_the_check_sees_a_circle_around_a_corner() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b", "c")]
    assert _circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


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
