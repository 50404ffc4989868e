"""``rdx list`` and ``rdx doctor``: what there is, and what is missing for which command."""

import json
from typing import Annotated, Any

import typer

from rdxcli.errors import UnknownNameError, UsageError
from rdxcli.progress import human_count

from .options import FAILED, Session, command, complete_models

KINDS = ("models", "datasets", "methods", "layers", "artifacts")
_UNUSED = ("seed", "config", "run", "force", "dry_run", "wait")


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


@command(
    "list",
    examples=["rdx list models", "rdx list layers digits-cnn", "rdx list methods rdx", "rdx list artifacts --json"],
    without=_UNUSED,
)
def list_(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(
            help="models, datasets, methods, layers or artifacts.", autocompletion=_complete_kind, show_default=False
        ),
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            help="The model, for `layers`; for `methods`, the one whose parameters are listed.",
            autocompletion=complete_models,
        ),
    ] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="For `layers`: random weights will do.")] = False,
) -> None:
    """List models, data sets, methods, the layers of a model, or the artifacts in the outputs directory."""
    from rdxcli import listing as service

    if what not in KINDS:
        raise UnknownNameError("list", what, KINDS)
    if (model is not None) != (what == "layers") and what != "methods":
        if what == "layers":
            raise UsageError("`rdx list layers` needs a model", "rdx list layers MODEL; `rdx list models` shows them")
        raise UsageError(f"`rdx list {what}` takes no model, got `{model}`", f"rdx list {what}")
    if what == "layers":
        listing = service.layers(str(model), device=session.device, untrained=untrained)
    elif what == "methods" and model is not None:
        listing = service.parameters(model)
    elif what == "artifacts":
        listing = service.artifacts(session.outputs)
    else:
        listing = {"models": service.models, "datasets": service.datasets, "methods": service.methods}[what]()
    if session.sink.as_json:
        plain_methods = what == "methods" and model is None
        session.sink.result(None, service.described_methods() if plain_methods else listing.document())
    elif not listing.rows and what == "methods":
        session.sink.message(f"{model} has no parameters that --param sets by themselves; see its page in the docs")
    elif not listing.rows:
        session.sink.message(f"no {what} yet")
    else:
        session.sink.table(listing.title, listing.columns, listing.rows, to_stdout=True)


@command("doctor", examples=["rdx doctor", "rdx doctor --json", "rdx doctor --verify"], without=(*_UNUSED, "device"))
def doctor(
    session: Session,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all artifacts and compare every byte with its hash.")
    ] = False,
) -> None:
    """Check this machine: versions, devices, caches, free disk, and what is missing for which command.

    What is wrong stands at the end, each with the command that repairs it; exit code 1 when there is something. Missing
    extras and data sets are listed and are no faults.

    With --verify the outputs directory is checked instead: exit code 1 when an artifact is damaged or cannot be read.
    """
    if verify:
        from rdxcli.artifacts.verifying import verify as read_all

        _verify(session, read_all(session.outputs))
        return
    from rdxcli.doctor import doctor as state

    report = state(session.outputs)
    problems = report["problems"]
    if session.sink.as_json:
        session.sink.result(json.dumps(report, indent=2, ensure_ascii=False))  # works where NumPy does not
    else:
        for section, entries in report.items():
            if section != "problems":
                session.sink.table(section.replace("_", " "), ("", ""), list(entries.items()), to_stdout=True)
        for entry in problems:
            session.sink.error(entry["problem"], entry["repair"])
        session.sink.message(f"{len(problems)} to repair" if problems else "nothing to repair")
    if problems:
        session.exit(FAILED)


def _verify(session: Session, found: Any) -> None:
    damaged, unfinished = len(found.damaged), len(found.unfinished)
    if session.sink.as_json:
        session.sink.result(None, found.document())
    else:
        rows = [(entry["artifact"], entry["problem"], entry["repair"]) for entry in found.damaged]
        rows += [
            (entry["artifact"], f"unfinished, {entry['state']}", "its command goes on") for entry in found.unfinished
        ]
        rows += [
            (name, "has no hashes: an older version made it", "--force makes it anew") for name in found.without_hashes
        ]
        if rows:
            session.sink.table("", ("artifact", "state", "repair"), rows, to_stdout=True)
        session.sink.message(
            f"{human_count(found.intact, 'artifact', 'are')} intact, {damaged} damaged, {unfinished} unfinished"
        )
    if damaged:
        session.exit(FAILED)
