"""Run a tutorial cell by cell and write it as a page of Markdown with what it printed and showed.

A tutorial is a Python file in the percent format that notebooks read: ``# %% [markdown]`` begins text, ``# %%`` code.
The last expression of a cell is shown as in a notebook.

    python docs/run_tutorial.py docs/tutorials/first.py site/
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).resolve().parent / "tutorials"


def cells(text: str) -> list[tuple[bool, str]]:
    """Whether it is text, and the text or code of every cell, in order."""
    found = []
    for part in re.split(r"^(?=# %%)", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        prose = "[markdown]" in head
        if prose:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
        found.append((prose, body.strip("\n")))
    return found


def run(path: Path, pictures: Path) -> tuple[str, dict[str, Any]]:
    """The page and the names that are left when all cells have run.

    Parameters
    ----------
    path : Path
        The tutorial.
    pictures : Path
        Folder for the pictures that cells show; the page names them without it.

    Raises
    ------
    Exception
        What a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__tutorial__"}
    parts: list[str] = []
    for number, (prose, body) in enumerate(cells(path.read_text("utf-8"))):
        if prose:
            parts.append(body)
            continue
        parts.append(f"```python\n{re.sub(r'  # noqa.*', '', body)}\n```")
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            shown = _execute(body, names, path)
        if out.getvalue().strip():
            parts.append(f"```{{.text .output}}\n{out.getvalue().rstrip()}\n```")
        parts += _look(shown, f"{path.stem}-{number}.png", pictures)
    return "\n\n".join(parts) + "\n", names


def _execute(code: str, names: dict[str, Any], path: Path) -> Any:
    """The value of the last expression, None when the last statement is none."""
    tree = ast.parse(code, str(path))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(path), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(path), "eval"), names) if last is not None else None  # noqa: S307


def _look(value: Any, name: str, pictures: Path) -> list[str]:
    if hasattr(value, "savefig"):
        value.savefig(pictures / name, dpi=120)
        return [f"![What the cell shows]({name})"]
    if hasattr(value, "_repr_html_"):
        return [f'<div class="shown">{value._repr_html_()}</div>']
    return [] if value is None else [f"```{{.text .output}}\n{value!r}\n```"]


def prepare() -> None:
    """What a page must not depend on: a window for figures, and colours of a terminal."""
    os.environ.update(MPLBACKEND="agg", NO_COLOR="1")


if __name__ == "__main__":
    prepare()
    page, _ = run(Path(sys.argv[1]), Path(sys.argv[2]))
    (Path(sys.argv[2]) / f"{Path(sys.argv[1]).stem}.md").write_text(page, "utf-8")
