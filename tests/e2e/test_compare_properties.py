"""A shortcut that one model uses is named: of the pictures themselves, or of a table about them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here
from PIL import Image

N = 150


@pytest.fixture(scope="module")
def shortcut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which some have a border and others are bright; model a sees that, model b does not."""
    folder = tmp_path_factory.mktemp("shortcut")
    rng = np.random.default_rng(5)
    (folder / "pictures").mkdir()
    marked = rng.permutation(N)
    border, bright = np.isin(np.arange(N), marked[:30]), np.isin(np.arange(N), marked[30:60])
    for i in range(N):
        pixels = rng.integers(60, 140, (24, 24, 3)).astype(np.uint8)
        if bright[i]:
            pixels += 70
        if border[i]:
            pixels[:3] = pixels[-3:] = pixels[:, :3] = pixels[:, -3:] = 100
        Image.fromarray(pixels).save(folder / "pictures" / f"i{i:03d}.png")
    content = rng.normal(size=(N, 8))
    np.save(folder / "a.npy", np.column_stack([content, 25.0 * border, 25.0 * bright]))
    np.save(folder / "b.npy", np.column_stack([content, rng.normal(size=(N, 2))]))
    with open(folder / "about.csv", "w") as stream:
        stream.write("file,scanner,age,empty\n")
        for i in rng.permutation(N):
            stream.write(f"i{i:03d},{'old' if border[i] else 'new'},{rng.normal(50, 5):.1f},\n")
    np.save(folder / "ids.npy", np.array([f"i{i:03d}.png" for i in range(N)]))
    return folder


def _compare(folder: Path, run: str, *options: str) -> tuple[dict, str]:
    arguments = ("compare", "a.npy", "b.npy", "--k", "2", "--bootstraps", "0", "--no-test", "--json", "--run", run)
    done = rdx_here(*arguments, "--outputs", "outputs", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), " ".join(done.stderr.split())


def test_a_border_and_brightness_are_found_in_the_pictures(shortcut: Path) -> None:
    document, said = _compare(shortcut, "pictures", "--images", "pictures")
    shared = [one for one in document["properties"]["shared"] if one["group"].startswith("a")]
    clear = {one["property"]: one["group"] for one in shared if one["difference"] > 0.9}
    assert {"border", "brightness"} <= set(clear)
    assert clear["border"] != clear["brightness"]
    assert "with a larger border than" in said
    assert "brighter than" in said
    with open(shortcut / document["artifact"] / "properties.csv") as stream:
        assert len(list(csv.DictReader(stream))) == document["properties"]["tests"]
    page = Path(rdx_here("visualize", document["artifact"], "--outputs", "outputs", cwd=shortcut).stdout.strip())
    assert "with a larger border than" in (shortcut / page).read_text("utf-8")


def test_a_table_is_joined_by_id(shortcut: Path) -> None:
    given = ("--images", "pictures", "--metadata", "about.csv")
    document, said = _compare(shortcut, "table", *given, "--no-properties")
    found = [one for one in document["properties"]["shared"] if one["property"] == "scanner" and one["value"] == "old"]
    assert max(one["inside"] for one in found) > 0.9
    assert "scanner is old in" in said
    assert not [one for one in document["properties"]["shared"] if one["property"] in ("age", "empty", "border")]
    again = (shortcut / "about.csv").read_text()
    (shortcut / "about.csv").write_text(again.replace("old", "worn"))
    try:
        arguments = ("compare", "a.npy", "b.npy", "--k", "2", "--bootstraps", "0", "--no-test", "--run", "table")
        done = rdx_here(*arguments, "--outputs", "outputs", *given, "--no-properties", cwd=shortcut)
        assert done.returncode == 1
        assert "other parameters or inputs" in done.stderr
    finally:
        (shortcut / "about.csv").write_text(again)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 2, "no such file"),
        ("who,age\nx,1\ny,2\n", 1, "2 rows for 150 samples"),
        ("file,age\nx,1\ny,2\n", 1, "ids look like `x` and `i000.png`"),
    ],
)
def test_tables_that_do_not_fit_are_refused(shortcut: Path, content: str | None, code: int, words: str) -> None:
    if content is not None:
        (shortcut / "bad.csv").write_text(content)
    done = rdx_here(
        *("compare", "a.npy", "b.npy", "--images", "pictures", "--metadata", "bad.csv" if content else "gone.csv"),
        *("--outputs", "outputs", "--run", "bad"),
        cwd=shortcut,
    )
    assert done.returncode == code, done.stderr
    assert words in " ".join(done.stderr.split())
