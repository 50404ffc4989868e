"""Every tutorial runs from its first to its last cell, shows pictures, and says what its text promises."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tutorial", ROOT / "docs" / "run_tutorial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# what a reader must find in the page, besides that it runs
PROMISED = {
    "arrays": ["difference found", "close together in `after`: west 9"],
    "first": ["difference found", "images closer in digits-cnn-m35: 5 ", "digits.html"],
    "gate": [
        "careful: no difference found (changed at all)",
        "careless exit code 3",
        "careful exit code 0",
        "went wrong",
    ],
    "mistake": ["taken for a", "times as many as by chance"],
    "sae": ["explained variance 0.8", "mean share of the top label"],
    "units": ["own unit 0.8"],
    "words": ["the strongest word is the digit for"],
}


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    page, _ = runner().run(path, tmp_path)
    assert page.startswith("# ")
    for words in PROMISED.get(path.stem, []):
        assert words in page


def test_cells_and_what_they_show(tmp_path: Path) -> None:
    code = "print('said')\na = 1\na + 1\n\n# %%\nfor _ in a, a:\n    pass\n"
    (tmp_path / "x.py").write_text(f"# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\n{code}", "utf-8")
    page, names = runner().run(tmp_path / "x.py", tmp_path)
    assert page.startswith("# Title\n\nText.\n\n```python\nprint('said')")
    assert "said\n```" in page
    assert "2\n```" in page
    assert names["a"] == 1
