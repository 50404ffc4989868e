"""A few of the faults of ``make chaos``, one of each kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parents[1] / "chaos.py"


@pytest.mark.slow
def test_a_short_form(tmp_path: Path) -> None:
    command = [sys.executable, CHAOS, "--faults", "11", "--command", "extract", "--seed", "5", "--work", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[2:] == ["0"] * 8
