"""Every `rdx` command of README and docs is understood; those that need nothing run, small, in the order of the page.

The pages that people begin with (README, start page, how-to) are run; of the others the plan is made (``--dry-run``).
What names weights, data sets, other files, stored results or a placeholder (`M`) is only parsed; so is what stands
after ``<!-- needs: ... -->``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here
from PIL import Image

from rdxcli.cli.group import COMMANDS, loaded

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if page.name != "cli.md")]
N = 60
SMALL = {"compare": ("--bootstraps", "2"), "explain": (), "simulate": ()}
BETWEEN = {"|", "||", "&&", ";", ">"}
NEEDED = re.compile(
    r"(timm|hf|file|openai|folder|images|tar|s3|https?|mlflow|wandb|trackio):|dino|clip|siglip|resnet|imagenet|coco|mnist"
    r"|cub|blip|outputs/|surrogate|/data|^[A-Z]$|^S\d$|^--reference|^--apply$|^concept_images=|what-if"
)
COMMAND = re.compile(r"\s*(\$ )?rdx [a-z]")
FILES = re.compile(r"[\w/-]+\.(npy|npz|csv|txt|json|safetensors)")


@dataclass(frozen=True)
class Typed:
    """A command as it stands on a page: its words, and whether it is marked as needing something."""

    page: str
    words: tuple[str, ...]
    marked: bool

    @property
    def needs(self) -> bool:
        others = [word for word in self.words if FILES.fullmatch(word) and word not in GIVEN]
        return self.marked or bool(others) or any(NEEDED.search(word) for word in self.words) or "-" in self.words


def commands(page: Path) -> Iterator[Typed]:
    """In code blocks and indented lines."""
    lines = re.sub(r"\\\n\s*", " ", page.read_text("utf-8")).splitlines()
    fence: str | None = None
    marked = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            fence, marked = (line[3:], "<!-- needs" in lines[number - 1]) if fence is None else (None, False)
            continue
        if ((fence is None and line.startswith("    ")) or fence in ("", "console", "bash")) and COMMAND.match(line):
            lexer = shlex.shlex(line.replace("$ ", ""), posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word not in BETWEEN:
                    words.append(word)
                    continue
                if words and words[0] == "rdx":
                    yield Typed(page.name, tuple(words[1:]), marked)
                words = []


FOUND = [typed for page in PAGES for typed in commands(page)]
GIVEN = {*(f"{name}.npy" for name in ("before", "after", "old", "new", "a", "b", "acts")), "labels.txt", "ids.txt"}
GIVEN |= {"before.csv", "after.csv", "photos"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    ids = [f"p{row:02d}.png" for row in range(N)]
    (folder / "photos").mkdir()
    for name in ids:
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / "photos" / name)
    for name in GIVEN:
        values = rng.normal(size=(N, 6)).astype(np.float32)
        if name.endswith(".npy"):
            np.save(folder / name, values)
        elif name.endswith(".csv"):
            rows = [f"{ids[row]},{row % 3}," + ",".join(map(str, values[row])) for row in range(N)]
            (folder / name).write_text("\n".join(["path,class,f0,f1,f2,f3,f4,f5", *rows]), "utf-8")
    (folder / "labels.txt").write_text("\n".join("abc"[row % 3] for row in range(N)), "utf-8")
    (folder / "ids.txt").write_text("\n".join(ids), "utf-8")
    return folder


def test_there_are_commands() -> None:
    assert len(FOUND) > 100
    assert sum(not typed.needs for typed in FOUND) > 40
    assert {typed.words[0] for typed in FOUND} <= set(COMMANDS)


@pytest.mark.parametrize("typed", FOUND, ids=lambda typed: f"{typed.page} {' '.join(typed.words)}"[:100])
def test_a_command_is_understood(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # configurations are named from there
    name, *words = typed.words
    loaded(name).make_context(name, words)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if not all(typed.needs for typed in commands(page))], ids=str)
def test_what_needs_nothing_runs(page: Path, place: Path) -> None:
    runs = page.parent.name == "how-to" or page.name in ("README.md", "index.md")
    done = set()
    for typed in commands(page):
        name, words = typed.words[0], list(typed.words[1:])
        if typed.needs or typed.words in done:
            continue
        done.add(typed.words)
        if not runs and "--dry-run" not in loaded_options(name):
            continue
        if any(word.startswith("digits") for word in words) and name in SMALL:
            words += ["--sample", "150"]
        words += (*SMALL.get(name, ()), "--force") if runs and name in SMALL else ()
        words += [] if runs else ["--dry-run"]
        result = rdx_here(name, *words, cwd=place)
        allowed = {0, 3} if any(word.startswith("--fail") for word in words) else {0}
        assert result.returncode in allowed, f"{page.name}: rdx {name} {' '.join(words)}\n{result.stderr}"


def loaded_options(name: str) -> set[str]:
    """Spellings of a command's options."""
    return {spelling for param in loaded(name).params for spelling in param.opts}
