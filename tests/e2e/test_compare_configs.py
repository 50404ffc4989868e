"""The configurations of the published comparisons are understood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers import rdx_here

from rdxcli.models.digits import RECIPES
from rdxcli.models.registry import resolve
from rdxcli.representations.resolve import PUBLISHED_ARRAYS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COMPARISONS = sorted(p for p in CONFIGS.glob("*.yaml") if yaml.safe_load(p.read_text())["command"] == "compare")


def test_there_are_configurations() -> None:
    assert len(COMPARISONS) >= 31


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_configuration(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variant, recipe in RECIPES.items():  # what is asked for is read here, not what the networks have learned
        monkeypatch.setitem(RECIPES, variant, replace(recipe, stop=2))
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    content = yaml.safe_load(path.read_text())
    if content["a"] in PUBLISHED_ARRAYS:  # one array against itself without some of its columns
        assert content["a"] == content["b"]
        assert content["drop-a"].isdigit()
    else:
        assert resolve(content["a"]).name != resolve(content["b"]).name
    done = rdx_here("compare", "--config", path, "--dry-run", "--outputs", tmp_path / "outputs")
    if path.stem.startswith("digits"):
        assert done.returncode == 0, done.stderr
        assert "method: rdx" in done.stdout
    else:  # the images may not be there, but every key is an option
        assert done.returncode in (0, 1), done.stderr
        assert "No such option" not in done.stderr
    assert {one.name for one in tmp_path.iterdir()} <= {"cache"}
