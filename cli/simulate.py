"""``rdx simulate``: how far an explanation of a unit can be trusted."""

from rdxcli.services.simulate.options import SimulateOptions

from .options import LogOption, Session, command


@command(
    "simulate",
    examples=[
        "rdx simulate --method le-label --model digits-cnn --layer conv2",
        "rdx simulate --explanations e.csv --activations acts.npy --concepts c.npy --concept-names names.txt",
        "rdx simulate --method all --model digits-cnn --layer conv2 --scoring ablation --json",
    ],
    options=SimulateOptions,
)
def simulate(session: Session, options: SimulateOptions, log: LogOption = None) -> None:
    """Score explanations of units by how well they predict the units' activations on held-out images."""
    from rdxcli.report.trackers import tracker
    from rdxcli.services.simulate import simulate as service

    log_to = tracker(log)
    if session.dry_run:
        session.plan("simulate", service.plan(options))
        return
    outcome = service.run(options)
    session.sink.summary(outcome)
    session.sink.result(str(outcome.artifact.path), outcome.document)
    log_to(outcome.artifact.path, outcome.document)
