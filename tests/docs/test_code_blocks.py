"""The Python blocks of README and docs run, in the order of the page and one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from docs_given import given_to

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = re.compile(r"<!-- needs: (.*?) -->\s*$")
"""A comment right before a block that says what it needs and the tests cannot have, for example weights."""


def blocks(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        if not NEEDS.search(text[: match.start()]):
            found.append("\n" * text[: match.start(1)].count("\n") + match[1])
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__docs__", **given_to(page.name)}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not re.match(r"[a-z]+:", target) and not _made(page.parent / target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def _made(target: Path) -> bool:
    """Pages that `make site` makes: of tutorials and of the schemas."""
    tutorial = target.parent.name == "tutorials" and target.with_suffix(".py").exists()
    return tutorial or (target.name == "schemas.md" and (target.parent / "schema").is_dir())


def test_every_page_is_in_the_navigation() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    listed = re.findall(r"[\w/-]+\.md", str(site["nav"]))
    assert len(listed) == len(set(listed))
    for name in listed:
        assert (ROOT / "docs" / name).exists() or _made(ROOT / "docs" / name), name
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}
    # the hooks add the methods that are not named
    assert {name for name in pages - set(listed) if not name.startswith("methods/")} == set()
