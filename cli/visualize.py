"""``rdx visualize``: the report of an artifact."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Session, command, read_stdin


@command(
    "visualize",
    examples=[
        "rdx visualize",
        "rdx compare digits-cnn-m35 digits-cnn -q | rdx visualize - --open",
        "rdx visualize digits/comparisons/digits-cnn-m35--digits-cnn/rdx --format pdf",
    ],
    without=("seed", "device", "run", "force", "dry_run", "wait"),
)
def visualize(
    session: Session,
    artifact: Annotated[
        str | None,
        typer.Argument(
            help="An artifact: its folder, the end of its path, or - for standard input (default: the newest)."
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="html, png or pdf.")] = "html",
    to: Annotated[Path | None, typer.Option("--to", help="Write the report here.", dir_okay=False)] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Make a report that opens without a network: images, maps, numbers, and how they were made."""
    from rdxcli.services import visualize as service

    chosen = service.choose(read_stdin(artifact) if artifact else None, session.outputs)
    path = service.visualize(chosen, session.outputs, form, to)
    session.sink.result(str(path), {"report": str(path), "artifact": str(chosen.path), "format": form})
    if open_it:
        typer.launch(path.resolve().as_uri())
