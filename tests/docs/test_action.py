"""The GitHub action for users: its script runs as written, hands on the exit code, and names the comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "code"), [("1", 0), ("0.01", 3), ("nonsense", 2)])
def test_the_gate(limit: str, code: int, tmp_path: Path) -> None:
    """Exit code 3 is the gate; a check that failed itself is another one, and leaves no summary."""
    rng = np.random.default_rng(0)
    for name in ("old", "new"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 8)).astype(np.float32))
    action = yaml.safe_load((ROOT / ".github/actions/compare/action.yml").read_text("utf-8"))
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "compare")
    (tmp_path / "rdx").write_text(f'#!/bin/sh\nexec {sys.executable} -m rdxcli "$@"\n', "utf-8")
    (tmp_path / "rdx").chmod(0o755)
    said = tmp_path / "said"
    given = {"A": "old.npy", "B": "new.npy", "LIMIT": limit, "OPTIONS": "--k 2 --bootstraps 2", "JUNIT": "my gates.xml"}
    summary = tmp_path / "summary.md"
    paths = {
        "GITHUB_STEP_SUMMARY": str(summary),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(said),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env={**os.environ, **paths, **given}, check=False, timeout=300
    )
    assert done.returncode == code
    if code == 2:
        assert not said.exists()
        assert not summary.exists()
        return
    folder = said.read_text("utf-8").strip().removeprefix("artifact=")
    assert (tmp_path / folder / "manifest.json").exists()
    assert "old" in summary.read_text("utf-8")
    assert "difference" in summary.read_text("utf-8").lower()
    assert f'failures="{int(code == 3)}"' in (tmp_path / "my gates.xml").read_text("utf-8")
