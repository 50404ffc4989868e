"""What the program says to people, in all of its messages at once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rdxcli.progress import human_count

ROOT = Path(__file__).parents[2]
NOUNS = (
    "images|rows|units|concepts|samples|classes|labels|names|words|captions|columns|channels|dimensions|positions|"
    "directions|regions|groups|files|layers|models|pictures|steps|epochs|neighbours|neurons|patches|encodings|entries"
)
COUNTED = re.compile(rf" (?:(?!and |or |of )[a-z-]+ )?(?:{NOUNS})\b")
A_COUNT = re.compile(r"\blen\(|\.sum\(|\.shape\[|\.n\b|\.d\b|^(?:n|count|number|missing|left)$")


def _bare(path: Path) -> Iterator[str]:
    """Counts with a noun that would be wrong for one: not through `human_count`, which knows the singular."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in pairwise(node.values):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                said = ast.unparse(value.value)
                if A_COUNT.search(said) and "human_" not in said and COUNTED.match(text.value):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {{{said}}}{text.value[:30]}"


def test_every_count_has_its_noun() -> None:
    files = [path for room in ("cli", "rdxcli", "download") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    assert [line for path in files for line in _bare(path)] == []


def test_the_check_sees_a_bare_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "x.py").write_text('f"{len(a)} test rows of {human_count(len(b), 1)}"\nf"{n} images"\nf"{n} of"\n')
    assert len(list(_bare(tmp_path / "x.py"))) == 2


@pytest.mark.parametrize(
    ("count", "noun", "verb", "said"),
    [
        (1, "image", "", "1 image"),
        (0, "epoch", "", "0 epochs"),
        (2000, "class", "", "2,000 classes"),
        (3, "category", "are", "3 categories are"),
        (1, "image", "have", "1 image has"),
        (1, "unit", "that do", "1 unit that does"),
        (2, "array", "vary", "2 arrays vary"),
        (1, "batch", "vary", "1 batch varies"),
    ],
)
def test_a_count_with_its_noun_and_verb(count: int, noun: str, verb: str, said: str) -> None:
    assert human_count(count, noun, verb) == said
