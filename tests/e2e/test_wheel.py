"""A wheel of a tagged tree in an environment of its own: the version of the tag, ways to start, pages, reports."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")


def run(*command: object, cwd: Path) -> str:
    # nothing of the checkout, whose folder pytest may stand in
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "SETUPTOOLS_SCM"))}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools_scm")
    tree, made = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    listed = run("git", "ls-files", "-z", "rdxcli", "cli", "download", "docs", "*.toml", "*.md", "LICENSE", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    for step in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"], ["tag", "v9.8.7"]):
        run(*GIT, *step, cwd=tree)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", build, made, cwd=tree)
    return next(made.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binaries of an environment that has the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    where = "import site; print(site.getsitepackages()[0])"
    packages = Path(run(folder / "bin/python", "-c", where, cwd=folder).strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    here = {sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))}
    (packages / "others.pth").write_text("\n".join(sorted(here)), "utf-8")
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.startswith("rdx_vision-9.8.7-")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry = archive.read("rdx_vision-9.8.7.dist-info/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"rdxcli", "rdx_vision-9.8.7.dist-info"}
    assert "rdx = rdxcli.__main__:main" in entry
    data = {Path(name).suffix for name in names if not name.startswith("rdx_vision-")}
    assert data <= {".py", ".md", ".yaml", ".html", ".css", ".js", ".svg", ".j2", ".typed", ".json", ".csv", ".npz"}


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_checkout(environment: Path, tmp_path: Path) -> None:
    python = environment / "python"
    where = run(python, "-c", "import rdxcli; print(rdxcli.__file__)", cwd=tmp_path)
    assert str(environment.parent) in where
    assert run(python, "-m", "rdxcli", "--version", cwd=tmp_path) == "rdx 9.8.7\n"
    assert run(python, "-m", "rdxcli", "help", "models", cwd=tmp_path).startswith("# Models")
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 6)).astype(np.float32))
    quick = ("--k", "2", "--bootstraps", "2", "--no-test")
    run(python, "-m", "rdxcli", "compare", "a.npy", "b.npy", *quick, cwd=tmp_path)
    page = tmp_path / run(python, "-m", "rdxcli", "visualize", cwd=tmp_path).strip()
    assert "<html" in page.read_text("utf-8")
