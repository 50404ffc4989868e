"""``rdx compare``: what two models see differently."""

from typing import Any

from rdxcli.services.compare.options import CompareOptions

from .options import SAMPLES_FAILED, Session, command


@command(
    "compare",
    examples=[
        "rdx compare digits-cnn-m35 digits-cnn --k 3",
        "rdx compare a.npy b.npy --k 3 --labels y.npy --json",
        "rdx compare digits-cnn-m35 digits-cnn --method all",
        "rdx compare dino dinov2 --dataset folder:photos --fail-above 0.5",
        "rdx compare dino dinov2 --dataset folder:photos --name-concepts siglip --concept-set words.txt",
    ],
    options=CompareOptions,
)
def compare(session: Session, options: CompareOptions) -> None:
    """Show what two models see differently: groups of images that one holds together and the other keeps apart.

    Each side is a model, an array of shape (n, d) or the artifact of `rdx extract`. Says whether there is a difference
    at all before it explains one.
    """
    from rdxcli.services.compare import compare as service

    if session.dry_run:
        session.plan("compare", service.plan(options))
        return
    outcome = service.compare(options)
    _show(session, outcome)
    session.sink.result(str(outcome.artifact.path), outcome.document)
    service.check_gate(outcome.document, options.fail_above)
    if outcome.document["samples"].get("failed"):
        session.exit(SAMPLES_FAILED)


def _show(session: Session, outcome: Any) -> None:
    from rdxcli.report.comparison import shown_name, verdict_lines

    document = outcome.document
    a, b = document["a"]["name"], document["b"]["name"]
    if "methods" in document:
        from rdxcli.services.compare.scoreboard import table

        session.sink.table(f"scoreboard: {a} (a) and {b} (b), n = {document['n']:,}", *table(document))
    named = any(concept["words"] for concept in document["concepts"])
    rows = [
        (
            f"{concept['closer_in']}{concept['index']}",
            a if concept["closer_in"] == "a" else b,
            concept["size"],
            concept["affinity"],
            concept["stability"],
            concept["p_value"],
            ", ".join(f"{name} {share:.0%}" for name, share in list(concept["labels"].items())[:4]) or "-",
            *([shown_name(concept["words"]) or "-"] if named else []),
        )
        for concept in document["concepts"]
    ]
    columns = ("concept", "closer in", "size", "affinity", "stability", "p", "labels", *(["name"] if named else []))
    session.sink.table(f"what {a} (a) and {b} (b) see differently", columns, rows)
    for line in [f"verdict: {document['difference'].get('verdict', 'not tested')}", *verdict_lines(document)]:
        session.sink.message(line)
    for note in [*document["notes"], *document["difference"].get("notes", [])]:
        session.sink.message(f"note: {note}")
