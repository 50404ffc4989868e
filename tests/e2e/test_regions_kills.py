"""``kill -9`` while regions or directions are being made: nothing half-written, and the next run makes them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here

from rdxcli.artifacts import find_artifacts

REGIONS = ["explain", "--method", "rdr", "--activations", "acts.npy", "--target", "all"]
DIRECTIONS = [
    *("explain", "--method", "uibe", "--dataset", "synthetic:four_concepts", "--num-directions", "4"),
    *("--param", "n_starts=2", "--param", "steps=200"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "kind"), [(REGIONS, "regions"), (DIRECTIONS, "directions")])
def test_killed_runs_leave_nothing_behind(tmp_path: Path, arguments: list[str], kind: str) -> None:
    rng = np.random.default_rng(len(arguments))
    np.save(tmp_path / "acts.npy", rng.normal(size=(3000, 256)).astype(np.float32))
    command = [*arguments, "--outputs", "out", "--run", "killed"]
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "rdxcli.cli.app", *command],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.partial")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.3)))
        running = process.poll() is None
        process.kill()
        process.wait()
        assert running  # it was killed at work, not after
        assert not find_artifacts(tmp_path / "out", kind)
        shown = rdx_here("visualize", "killed", "--outputs", "out", cwd=tmp_path)
        assert shown.returncode == 1
        assert "no artifact" in shown.stderr
    done = rdx_here(*command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.partial"))
    other = rdx_here(*command, "--json", "--outputs", "elsewhere", cwd=tmp_path)
    assert json.loads(done.stdout)[kind] == json.loads(other.stdout)[kind]
