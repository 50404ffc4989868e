"""``rdx extract``: activations of a model's layers on a data set."""

from typing import Any

from rdxcli import SCHEMA_VERSION
from rdxcli.progress import human_bytes, human_count, human_seconds
from rdxcli.representations.options import ExtractOptions

from .options import SAMPLES_FAILED, Session, command

SHARE_DONE = 5
_SHOWN = 10


@command(
    "extract",
    examples=[
        "rdx extract --model digits-cnn",
        "rdx extract --model timm:resnet18.a1_in1k --layer layer3 --layer layer4 --dataset folder:photos",
        "rdx extract --model digits-cnn --dataset digits --limit 100 --dry-run",
    ],
    options=ExtractOptions,
)
def extract(session: Session, options: list[ExtractOptions]) -> None:
    """Run images through a model and store what its layers make of them.

    An interrupted run continues where it stopped. Images that cannot be read are recorded, skipped and listed (exit
    code 4). Started by torchrun or as a SLURM array, every process claims images and does them until none is left.
    """
    from rdxcli.models.registry import resolve
    from rdxcli.representations import extract as service

    for job in options:
        resolve(job.model)  # a misspelt second name must not come out after the work for the first
    if session.dry_run:
        plans = [service.plan(job) for job in options]
        session.sink.result("\n".join(map(_lines, plans)), {"plan": "extract", "jobs": plans})
        return
    done: list[service.Extracted] = []
    shares = []
    for job in options:
        try:
            done += service.extract(job)
        except service.ShareDone as share:
            shares.append(share)
            session.sink.warning(share.message)
    if shares:
        _say_share(session, shares, options[0].strict)
        return
    documents = [extracted.document() for extracted in done]
    paths = "\n".join(str(extracted.folder) for extracted in done)
    session.sink.result(
        paths,
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "activations",
            "artifact": documents[0]["artifact"],
            "artifacts": documents,
        },
    )
    _report_failures(session, documents)


def _say_share(session: Session, shares: list[Any], strict: bool) -> None:
    """A rank that ends before the artifact is there prints no path, so that nobody takes it for done."""
    rank = shares[0].rank
    left = sum(share.left for share in shares)
    session.sink.result(
        None,
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "share",
            "share": "done",
            "shards_left": left,
            "rank": rank.index,
            "ranks": rank.count,
        },
    )
    if strict:
        session.exit(SHARE_DONE)


def _lines(plan: dict[str, Any]) -> str:
    layers = [
        f"  {entry['layer']}: {' x '.join(map(str, entry['shape']))}, {human_bytes(entry['bytes'])}, {entry['state']}, "
        f"{entry['artifact']}"
        for entry in plan["layers"]
    ]
    memory = f", about {human_bytes(plan['peak_memory_bytes'])} of memory" if plan["peak_memory_bytes"] else ""
    seconds = plan["estimated_seconds"]
    expected = f", about {human_seconds(seconds)} here (from the first images)" if seconds is not None else ""
    return "\n".join(
        [
            f"extract {plan['model']} from {human_count(plan['images'], 'image')} of {plan['dataset']}",
            *layers,
            f"  {human_bytes(plan['bytes_on_disk'])} on disk, {human_bytes(plan['bytes_on_disk_while_running'])} while "
            f"running{memory}{expected}",
            f"  device {plan['device']}, dtype {plan['dtype']}, batch {plan['batch_size']}, workers {plan['workers']}",
        ]
    )


def _report_failures(session: Session, documents: list[dict[str, Any]]) -> None:
    failed = {entry["sample_id"]: entry["error"] for document in documents for entry in document["failed"]}
    if not failed:
        return
    session.sink.warning(f"{human_count(len(failed), 'image')} failed; samples.parquet lists them with their errors")
    for sample, error in list(failed.items())[:_SHOWN]:
        session.sink.warning(f"{sample}: {error}")
    if len(failed) > _SHOWN:
        session.sink.warning(f"and {len(failed) - _SHOWN} more")
    session.exit(SAMPLES_FAILED)
