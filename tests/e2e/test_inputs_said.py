"""What was read, and as what, is said before the work and kept after it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from helpers import rdx_here
from PIL import Image
from processes import rdx_forked

from rdxcli.artifacts import find_artifacts


def test_the_dry_run_of_explain_says_which_columns_are_what(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{i},s{i},{rng.random()},{rng.random()},c{i % 2}" for i in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["row,id,f0,f1,label", *lines]))
    command = ("explain", "--method", "rdr", "--activations", "t.csv", "--target", "s3", "--dry-run", "--json")
    done = rdx_here(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["representation"]
    assert said == "t, 30 rows of 2 (features: f0, f1; ids from id; labels from label; left out: row)"
    assert not (tmp_path / "outputs").exists()


def test_the_range_of_deep_pixels_is_in_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        values = np.random.default_rng(i).integers(0, 4096, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(folder / f"{i}.png")
    command = ("extract", "--model", "digits-cnn", "--dataset", f"images:{folder}", "--outputs", tmp_path / "o")
    done = rdx_here(*command)
    assert done.returncode == 0, done.stderr
    [artifact] = find_artifacts(tmp_path / "o", "activations")
    [taken] = artifact.manifest.details["pixels"].values()
    assert taken == "0,4095"
    assert "4095" in done.stderr


def test_warnings_of_libraries_are_for_developers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.repeat(np.random.default_rng(0).standard_normal((3, 4)), 20, axis=0))
    done = rdx_forked(
        *("compare", "a.npy", "a.npy", "--method", "kmeans", "--k", "5", "--no-test", "--bootstraps", "0"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "site-packages" not in done.stderr
