"""``rdx visualize``: the report of an artifact."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import SAMPLES_FAILED, Session, command


@command(
    "visualize",
    examples=[
        "rdx visualize",
        "rdx compare digits-cnn-m35 digits-cnn -q | rdx visualize - --open",
        "rdx visualize --all --open",
        "rdx visualize digits/comparisons/digits-cnn-m35--digits-cnn/rdx --format pdf --width column",
        "rdx visualize --format md --to -",
    ],
    without=("seed", "device", "run", "dry_run", "wait"),
)
def visualize(
    session: Session,
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARTIFACT]...",
            help="Artifacts: their folders, the ends of their paths, or - for standard input (default: the newest).",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="html, md, csv, json, parquet, png, pdf or svg (default: what --to ends in, or html).",
            show_default=False,
        ),
    ] = None,
    width: Annotated[str, typer.Option("--width", help="Of a figure: column (3.3 inches) or page (6.9).")] = "page",
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the report here; - is the standard output.", dir_okay=False)
    ] = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="Of Parquet: the values of every sample too.")] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Of Parquet: a small picture of every sample too.")
    ] = False,
    layout: Annotated[
        str,
        typer.Option("--map", help="axes, or umap: of comparisons also where UMAP places the images (kept)."),
    ] = "axes",
    everything: Annotated[
        bool, typer.Option("--all", help="All artifacts: missing reports are made, and a page links them.")
    ] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Make a report that opens without a network: images, maps, numbers, and how they were made.

    Several artifacts become one page. Markdown is for a comment on a pull request, CSV and Parquet are for other tools.
    """
    from rdxcli.errors import UsageError
    from rdxcli.report.formats import target
    from rdxcli.services import visualize as service

    if everything:
        if artifacts or form or to:
            raise UsageError("--all takes no artifact, --format or --to", "leave them out")
        path, made = service.index(session.outputs)
        session.sink.result(str(path), {"report": str(path), "made": [str(one.path) for one in made]})
        if open_it:
            typer.launch(path.resolve().as_uri())
        return
    piped = to is not None and str(to) == "-"
    if piped and session.sink.as_json:
        raise UsageError("--to - and --json both want the standard output", "leave one of them out")
    form = target(None if piped else to, form, session.force)
    names = [name for given in artifacts or [] for name in (_lines() if given == "-" else [given])]
    chosen = [service.choose(name, session.outputs) for name in dict.fromkeys(names)]
    chosen = chosen or [service.choose(None, session.outputs)]
    if piped:
        content, unread = service.content(chosen, session.outputs, form, width, vectors, layout, pictures)
        session.sink.raw(content)
        if unread:
            session.exit(SAMPLES_FAILED)
        return
    report = service.render(chosen, session.outputs, form, to, width, vectors, layout, pictures)
    paths = [str(one.path) for one in report.artifacts]
    document = {
        "report": str(report.path),
        "artifact": paths[0] if len(paths) == 1 else paths,
        "format": form,
        "unread": list(report.unread),
        "beside": list(map(str, report.beside)),
    }
    session.sink.result(str(report.path), document)
    if open_it:
        typer.launch(report.path.resolve().as_uri())
    if report.unread:
        session.exit(SAMPLES_FAILED)


def _lines() -> list[str]:
    """Every path on standard input."""
    from rdxcli.errors import UsageError

    lines = [line.strip() for line in sys.stdin if line.strip()]
    if not lines:
        raise UsageError("`-` reads a path from standard input, which is empty")
    return lines
