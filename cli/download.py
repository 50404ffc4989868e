"""``rdx download``: data sets, checkpoints and concept sets of the papers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rdxcli.errors import RdxError

from .options import FAILED, Session, command


def complete_downloads(incomplete: str) -> list[str]:
    """Shell completion of recipes."""
    from rdxcli.download.catalogue import names

    return [name for name in names() if name.startswith(incomplete)]


@command(
    "download",
    examples=[
        "rdx download --list",
        "rdx download mnist cub",
        "rdx download imagenet --from /data/ILSVRC2012",
        "rdx download --check",
    ],
    without=("outputs", "seed", "device", "run", "wait"),
)
def download(
    session: Session,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="What to fetch; see --list.", autocompletion=complete_downloads, show_default=False),
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List everything there is, with size and licence.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read what is here and say whether it is intact.")] = False,
    root: Annotated[
        Path | None, typer.Option("--root", envvar="RDX_DATA", help="Data root.  [default: data]", show_default=False)
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror", help="Ask this address instead: MIRROR/NAME/FILE, then MIRROR/FILE; a hub for weights."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this part (val, train); may be repeated.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--from", help="Check a copy that is on this machine and use it in place.", file_okay=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept terms and sizes without a question.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=32, help="Files at once.")] = 4,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds without a byte after which a line counts as cut.")
    ] = 30.0,
) -> None:
    """Fetch data sets, checkpoints and concept sets: resumed, verified, unpacked safely, visible only when complete.

    What is finished is recognised; what is damaged is fetched again. Sets that need a request say where to ask; --from
    then uses your copy.
    """
    if list_them:
        from rdxcli.listing import downloads

        listing = downloads(root)
        if session.sink.as_json:
            session.sink.result(None, listing.document())
        else:
            # titles are for machines: they would make the table too wide
            rows = [row[:-1] for row in listing.rows]
            session.sink.table(listing.title, listing.columns[:-1], rows, to_stdout=True)
        return
    if check:
        _check(session, names or [], root)
        return
    from rdxcli.services import download as service

    options = service.DownloadOptions(
        names=names or [],
        root=root,
        mirror=mirror,
        parts=only or [],
        folder=folder,
        yes=yes,
        force=session.force,
        jobs=jobs,
        timeout=timeout,
    )
    if session.dry_run:
        session.plan("download", service.plan(options))
        return
    outcome = service.download(options, _ask if sys.stdin.isatty() and sys.stderr.isatty() else None)
    session.sink.result("\n".join(outcome.folders) or None, outcome.document())
    for name, error in outcome.failures:
        session.sink.error(error.message if error.message.startswith(name) else f"{name}: {error.message}", error.hint)
    if outcome.failures:
        session.exit(FAILED)


def _ask(question: str) -> bool:
    return typer.confirm(question, default=False, err=True)


def _check(session: Session, names: list[str], root: Path | None) -> None:
    from rdxcli.services import download as service

    document = service.check(names, root)
    rows = [
        (entry["name"], entry["status"], entry["folder"], "; ".join(entry["problems"]) or None)
        for entry in document["checked"]
    ]
    if session.sink.as_json:
        session.sink.result(None, document)
    elif rows:
        session.sink.table("downloads here", ("name", "state", "folder", "problems"), rows, to_stdout=True)
    else:
        session.sink.message(f"nothing is downloaded into {document['root']} yet")
    if not document["intact"]:
        bad = [entry["name"] for entry in document["checked"] if entry["status"] in {"damaged", "missing"}]
        raise RdxError(f"not intact: {', '.join(bad)}", f"rdx download {' '.join(bad)}")
