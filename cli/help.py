"""``rdx help``: the pages of the documentation in the terminal."""

from pathlib import Path
from typing import Annotated

import typer

from rdxcli.errors import UnknownNameError

from .options import Session, command

DOCS = Path(__file__).parents[1] / "docs"
"""Beside this room, in the repository as in an installed package."""


def topics() -> dict[str, Path]:
    """The pages by name, those of the methods with hyphens."""
    pages = sorted(DOCS.rglob("*.md"), key=lambda path: (len(path.relative_to(DOCS).parts), path.name))
    found: dict[str, Path] = {}
    for path in pages:
        found.setdefault(path.stem.replace("_", "-"), path)
    return found


def complete_topics(incomplete: str) -> list[str]:
    """Shell completion of topics."""
    return [name for name in topics() if name.startswith(incomplete)]


@command(
    "help",
    examples=["rdx help", "rdx help significance", "rdx help outputs | less"],
    without=("outputs", "seed", "device", "config", "run", "force", "dry_run", "wait"),
)
def help_(
    session: Session,
    topic: Annotated[
        str | None,
        typer.Argument(help="A page, for example `models`; left out, the pages.", autocompletion=complete_topics),
    ] = None,
) -> None:
    """Show a page of the documentation, which comes with the program."""
    known = topics()
    if topic is None:
        rows = [(name, _title(path)) for name, path in known.items()]
        document = [{"topic": name, "title": title} for name, title in rows]
        if session.sink.as_json:
            session.sink.result(None, document)
        else:
            session.sink.table("rdx help TOPIC", ("topic", "about"), rows, to_stdout=True)
        return
    if topic.replace("_", "-") not in known:
        raise UnknownNameError("topic", topic, known, "rdx help")
    path = known[topic.replace("_", "-")]
    text = path.read_text("utf-8")
    session.sink.page(text, {"topic": path.stem.replace("_", "-"), "title": _title(path), "text": text})


def _title(path: Path) -> str:
    return path.read_text("utf-8").partition("\n")[0].lstrip("# ").strip()
