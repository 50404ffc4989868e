"""Cost before the start: the first line and ``--dry-run`` of every family, the question before hours, what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import rdx_here

from rdxcli import progress
from rdxcli.services.compare import scoreboard

SAID = ("rows", "bytes_on_disk", "peak_memory_bytes", "estimated_seconds")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("costs"), np.random.default_rng(0)
    labels = rng.integers(0, 4, 80)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.normal(size=(4, 6))[labels] + rng.normal(size=(80, 6)))
    np.save(folder / "y.npy", labels)
    (folder / "captions.json").write_text(json.dumps({f"i{i}": [f"a red dog near a cat {i}"] for i in range(8)}))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "a.npy", "b.npy"),
        ("compare", "a.npy", "b.npy", "--method", "all"),
        ("compare", "a.npy", "b.npy", "a.npy"),
        ("explain", "--method", "le-label", "--activations", "a.npy", "--labels", "y.npy"),
        ("explain", "--method", "rdr", "--activations", "a.npy", "--target", "3"),
        ("explain", "--method", "pca", "--activations", "a.npy"),
        ("explain", "--method", "uibe", "--activations", "a.npy", "--num-directions", "3"),
        ("explain", "--method", "eddp", "--activations", "a.npy", "--num-directions", "3"),
        ("explain", "--method", "logical", "--activations", "a.npy", "--labels", "y.npy"),
        ("explain", "--method", "find-units", "--activations", "a.npy", "--labels", "y.npy", "--param", "query=3"),
        ("simulate", "--method", "le-label", "--activations", "a.npy", "--labels", "y.npy"),
        ("encode-concepts", "--captions", "captions.json", "--tagger", "packaged"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_a_dry_run_says_rows_bytes_memory_and_time(arguments: tuple[str, ...], files: Path, tmp_path: Path) -> None:
    done = rdx_here(*arguments, "--dry-run", "--json", "--outputs", tmp_path, cwd=files)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert all(plan[name] > 0 for name in SAID), plan
    assert not list(tmp_path.iterdir())


def test_the_first_line_says_it_too(files: Path, tmp_path: Path) -> None:
    arguments = ("explain", "--method", "pca", "--num-directions", "3", "--activations", "a.npy")
    done = rdx_here(*arguments, "--outputs", tmp_path, cwd=files)
    assert done.returncode == 0, done.stderr
    first = " ".join(done.stderr.split())[:200]
    assert "n = 80" in first
    assert "on disk" in first
    assert re.search(r"of memory, \d+ s", first)


def test_hours_are_asked_for(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked it is an error that says what goes on; nothing stays behind."""
    monkeypatch.setattr(progress, "ASK_ABOVE", 0.01)
    quick = ("compare", "a.npy", "b.npy", "--no-test", "--bootstraps", "0", "--outputs", tmp_path)
    refused = rdx_here(*quick, "--method", "kmeans,pca", cwd=files)
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert "--method kmeans,pca takes about" in said
    for way in ("nobody to ask", "--yes", "--budget"):
        assert way in said
    assert not list(tmp_path.rglob("*.json"))
    for more in (("--yes",), ("--budget", "60s", "--run", "limited")):
        done = rdx_here(*quick, "--method", "kmeans,pca", *more, cwd=files)
        assert done.returncode == 0, done.stderr
    monkeypatch.setattr(progress, "ASK_ABOVE", 0.001)
    units = ("explain", "--activations", "a.npy", "--labels", "y.npy", "--outputs", tmp_path)
    refused = rdx_here(*units, "--method", "all", cwd=files)
    assert refused.returncode == 2
    assert "--method all takes about" in " ".join(refused.stderr.split())
    assert rdx_here(*units, "--method", "le-label", cwd=files).returncode == 0  # one method is not asked for


def without_time(document: dict[str, Any]) -> dict[str, Any]:
    methods = [{key: value for key, value in one.items() if key != "seconds"} for one in document["methods"]]
    return {**document, "methods": methods, "artifact": None}


@pytest.mark.parametrize("damaged", [False, True])
def test_methods_that_are_done_are_kept(
    damaged: bool, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the third method: the next run takes up the first two, and gives what an unbroken one gives."""
    quick = ("compare", "a.npy", "b.npy", "--labels", "y.npy", "--no-test", "--bootstraps", "2", "--json")
    chosen = ("--method", "rdx,kmeans,pca")
    whole = rdx_here(*quick, *chosen, "--outputs", tmp_path / "whole", cwd=files)
    assert whole.returncode == 0, whole.stderr
    fitted: list[str] = []
    real = scoreboard.fit

    def fit(estimator: Any, name: str, *rest: Any) -> None:
        fitted.append(name)
        if name == "pca" and fitted.count("pca") == 1:
            raise KeyboardInterrupt
        real(estimator, name, *rest)

    monkeypatch.setattr(scoreboard, "fit", fit)
    stopped = rdx_here(*quick, *chosen, "--outputs", tmp_path / "again", cwd=files)
    assert stopped.returncode == 130
    kept = sorted((tmp_path / "again").rglob("methods/*.npz"))
    assert [path.stem for path in kept] == ["kmeans", "rdx"]
    if damaged:
        content = bytearray(kept[0].read_bytes())
        content[len(content) // 2] ^= 1
        kept[0].write_bytes(content)
    again = rdx_here(*quick, *chosen, "--outputs", tmp_path / "again", cwd=files)
    assert again.returncode == 0, again.stderr
    assert fitted == ["rdx", "kmeans", "pca", *(["kmeans"] if damaged else []), "pca"]
    assert without_time(json.loads(again.stdout)) == without_time(json.loads(whole.stdout))
    (first,), (second,) = (list((tmp_path / where).rglob("arrays.npz")) for where in ("whole", "again"))
    with np.load(first) as one, np.load(second) as other:
        assert set(one.files) == set(other.files)
        assert all(np.array_equal(one[name], other[name]) for name in one.files)
    assert not list((tmp_path / "again").rglob("methods"))
