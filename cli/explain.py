"""``rdx explain``: what units, directions, regions or words of a representation mean."""

from rdxcli.services.explain.options import ExplainOptions

from .options import LogOption, Session, YesOption, command


@command(
    "explain",
    examples=[
        "rdx explain --method rdr --model digits-cnn --target class:3",
        "rdx explain --method rdr --activations acts.npy --target 17",
        "rdx explain --method surrogate --surrogate outputs/coco@train/surrogates/surrogate --dataset coco",
        "rdx list methods",
    ],
    options=ExplainOptions,
    own=("per_class",),
)
def explain(session: Session, options: ExplainOptions, log: LogOption = None, yes: YesOption = False) -> None:
    """Say what a unit, a direction, a region or an embedding responds to, and how far that can be trusted."""
    from rdxcli.report.trackers import tracker
    from rdxcli.services.explain import dispatch as service

    log_to = tracker(log)
    session.ask(yes)
    if session.dry_run:
        session.plan(f"explain with {options.method}", service.plan(options))
        return
    outcome = service.explain(options)
    session.show(outcome)
    log_to(outcome.artifact.path, outcome.document)
