"""Every file that a method reads: when its content changes, the same command refuses or computes, and never reuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here

N = 40


def _activations(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((N, 6)).astype(np.float32)


def _labels(rng: np.random.Generator) -> str:
    return "\n".join(f"class {k}" for k in rng.permutation(np.arange(N) % 2))


FILES: dict[str, Callable[[np.random.Generator], np.ndarray | str]] = {
    "acts.npy": _activations,
    "other.npy": _activations,
    "labels.txt": _labels,
    "finer.txt": _labels,
    "predictions.txt": _labels,
    "concepts.npy": lambda rng: rng.standard_normal((N, 3)),
    "words.txt": lambda rng: "\n".join(rng.permutation(["wheel", "leaf", "cloud", "sand"])[:3]),
    "ids.txt": lambda rng: "\n".join(f"s{k:02d}" for k in rng.permutation(N)),
}


@dataclass(frozen=True)
class Case:
    """A command line, and the files of it that change one at a time."""

    name: str
    command: str
    files: tuple[str, ...]


CASES = [
    Case(
        "rdr",
        "explain --method rdr --activations acts.npy --labels labels.txt --sample-ids ids.txt --target all"
        " --file predictions=predictions.txt --file against=other.npy",
        ("acts.npy", "labels.txt", "ids.txt", "predictions.txt", "other.npy"),
    ),
    Case(
        "rdr-subclasses",
        "explain --method rdr --activations acts.npy --labels labels.txt --param use=subclasses"
        " --file finer=finer.txt --target",
        ("labels.txt", "finer.txt"),
    ),
    Case(
        "directions",
        "explain --method pca --activations acts.npy --labels labels.txt --sample-ids ids.txt --num-directions 2"
        " --concepts concepts.npy --concept-names words.txt",
        ("acts.npy", "labels.txt", "ids.txt", "concepts.npy", "words.txt"),
    ),
]


def _write(folder: Path, name: str, seed: int) -> None:
    content = FILES[name](np.random.default_rng(seed))
    if isinstance(content, str):
        (folder / name).write_text(content, "utf-8")
    else:
        np.save(folder / name, content)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_changed_file_is_never_answered_from_before(case: Case, tmp_path: Path) -> None:
    for name in FILES:
        _write(tmp_path, name, seed=0)
    command = case.command.split()
    if command[-1] == "--target":
        command.append("class:class 1")
    done = rdx_here(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = rdx_here(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "reusing" in again.stderr
    for name in case.files:
        _write(tmp_path, name, seed=1)
        changed = rdx_here(*command, cwd=tmp_path)
        assert changed.returncode == 1, f"{name}: {changed.stderr}"
        assert "was made with other parameters or inputs" in changed.stderr, name
        forced = rdx_here(*command, "--force", cwd=tmp_path)
        assert forced.returncode == 0, forced.stderr
        assert "reusing" not in forced.stderr, name
