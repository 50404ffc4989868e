"""``kill -9`` while regions or directions are being made: nothing half-written, and the next run makes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here
from processes import Forked

from rdxcli.artifacts import find_artifacts

REGIONS = ["explain", "--method", "rdr", "--activations", "acts.npy", "--target", "all"]
DIRECTIONS = [
    *("explain", "--method", "uibe", "--dataset", "synthetic:four_concepts", "--num-directions", "4"),
    *("--param", "n_starts=2", "--param", "steps=20", "--param", "stability=false"),
]
MOMENTS = ("store._commit", "store._place")  # all computed, all but in its place
HELD = """
import time
from pathlib import Path
from rdxcli.artifacts import store

def hold(*arguments, **options):
    Path("held").touch()
    time.sleep(600)

{moment} = hold
"""


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "kind"), [(REGIONS, "regions"), (DIRECTIONS, "directions")])
def test_killed_runs_leave_nothing_behind(tmp_path: Path, arguments: list[str], kind: str) -> None:
    rng = np.random.default_rng(len(arguments))
    np.save(tmp_path / "acts.npy", rng.normal(size=(200, 48)).astype(np.float32))
    command = [*arguments, "--outputs", "out", "--run", "killed"]
    for moment in MOMENTS:
        process = Forked(*command, cwd=tmp_path, code=HELD.format(moment=moment))
        process.until(lambda: (tmp_path / "held").exists())
        process.kill()
        (tmp_path / "held").unlink()
        assert list(tmp_path.rglob("*.partial"))  # it was at work
        assert not find_artifacts(tmp_path / "out", kind)
        shown = rdx_here("visualize", "killed", "--outputs", "out", cwd=tmp_path)
        assert shown.returncode == 1
        assert "no artifact" in shown.stderr
    done = rdx_here(*command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.partial"))
    other = rdx_here(*command, "--json", "--outputs", "elsewhere", cwd=tmp_path)
    assert json.loads(done.stdout)[kind] == json.loads(other.stdout)[kind]
