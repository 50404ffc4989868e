"""``rdx compare``: what two models see differently."""

from pathlib import Path
from typing import Annotated

import typer

from rdxcli.errors import UsageError
from rdxcli.services.compare.options import CompareOptions

from .options import COMMON, SAMPLES_FAILED, LogOption, Session, YesOption, command


@command(
    "compare",
    examples=[
        "rdx compare digits-cnn-m35 digits-cnn --k 3",
        "rdx compare a.npy b.npy --k 3 --labels y.npy --json",
        "rdx compare digits-cnn-m35 digits-cnn --method all",
        "rdx compare old.npy new.npy --fail-on verdict --fail-on 'score>0.2' --format md",
        "rdx compare digits-cnn-m35 digits-cnn --layers all",
        "rdx compare digits-cnn --layers consecutive",
        "rdx compare digits-cnn-m35 digits-cnn-m49 digits-cnn --pairs 1",
        "rdx compare dino dinov2 --dataset folder:photos --name-concepts siglip --concept-set words.txt",
    ],
    options=CompareOptions,
)
def compare(
    session: Session,
    options: CompareOptions,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit", help="Write the gates as a JUnit file, for test viewers.", dir_okay=False, rich_help_panel=COMMON
        ),
    ] = None,
    log: LogOption = None,
    yes: YesOption = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="md prints the summary as Markdown, for a comment.", show_default=False),
    ] = None,
) -> None:
    """Show what two models see differently: groups of images that one holds together and the other keeps apart.

    Each side is a model, an array of shape (n, d) or the artifact of `rdx extract`. Says whether there is a difference
    at all before it explains one. With --layers, or with more than two models, it says how alike each of them is to
    each other one.
    """
    from rdxcli.report.markdown import markdown
    from rdxcli.report.trackers import tracker
    from rdxcli.services.compare import compare as service

    if form not in (None, "md"):
        raise UsageError(f"unknown format `{form}`", "choose md, or use `rdx visualize` for the others")
    log_to = tracker(log)
    session.ask(yes)
    if session.dry_run:
        session.plan("compare", service.analysis(options).plan())
        return
    outcome = service.compare(options)
    session.show(outcome, markdown(outcome.summary) if form == "md" else None)
    if junit is not None:
        junit.write_text(service.as_junit(outcome, options), "utf-8")
    log_to(outcome.artifact.path, outcome.document)
    service.check_gates(outcome, options)
    if outcome.failed is not None:
        raise outcome.failed
    if outcome.document["samples"].get("failed"):
        session.exit(SAMPLES_FAILED)
