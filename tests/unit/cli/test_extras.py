"""Optional packages: the program works without them, and the command that needs one names the extra."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here

ROOT = Path(__file__).resolve().parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
FOR_USERS = {name: packages for name, packages in EXTRAS.items() if name not in ("dev", "site")}
MODULES = {"umap-learn": "umap", "mlflow-skinny": "mlflow"}
"""Where the module is not called like the package."""


def _modules(extra: str) -> list[str]:
    packages = [re.split(r"[<>=\[ ]", package)[0] for package in FOR_USERS[extra]]
    return [MODULES.get(package, package) for package in packages]


def _sources() -> list[Path]:
    return [path for room in ("rdxcli", "cli", "download") for path in sorted((ROOT / room).rglob("*.py"))]


def test_no_module_opens_an_optional_package_when_it_is_imported() -> None:
    optional = {module for extra in FOR_USERS for module in _modules(extra)}
    for path in _sources():
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not optional & {name.partition(".")[0] for name in names}, path


def test_every_extra_that_is_named_exists() -> None:
    text = "\n".join(path.read_text("utf-8") for path in [*_sources(), *(ROOT / "docs").rglob("*.md")])
    named = set(re.findall(r"rdx-vision\[([a-z,]+)\]", text)) | set(
        re.findall(r'DependencyError\([^)]*, "(\w+)"\)', text)
    )
    assert named
    assert {extra for group in named for extra in group.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize("module", _modules("captions"))
def test_captions(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "captions.txt").write_text("a red car\na blue car\n", "utf-8")
    monkeypatch.setitem(sys.modules, module, None)
    done = rdx_here("encode-concepts", "--captions", "captions.txt", cwd=tmp_path)
    assert done.returncode == 1
    assert f"`{module}`" in done.stderr
    assert "pip install 'rdx-vision[captions]'" in done.stderr


@pytest.mark.parametrize("module", _modules("umap"))
def test_umap(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(120, 5)).astype(np.float32))
    monkeypatch.setitem(sys.modules, module, None)
    done = rdx_here("compare", "a.npy", "b.npy", "--method", "nlmcd", "--bootstraps", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'rdx-vision[umap]'" in done.stderr


def test_doctor_knows_every_extra(tmp_path: Path) -> None:
    said = rdx_here("doctor", "--json", cwd=tmp_path).stdout
    for extra in FOR_USERS:
        assert any(f"{name}:" in said for name in (extra, *_modules(extra))), extra


def test_doctor_names_the_extras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "HanTa", None)
    assert "'rdx-vision[captions]'" in " ".join(rdx_here("doctor", "--json", cwd=tmp_path).stdout.split())
