"""``rdx extract``: activations of a model's layers on a data set."""

from typing import Annotated, Any

import typer

from rdxcli import SCHEMA_VERSION
from rdxcli.datasets.selection import SelectionOptions
from rdxcli.progress import human_bytes

from .options import SAMPLES_FAILED, PoolOption, Session, command, complete_layers, complete_models

RUN_PANEL = "How to run"
SHARE_DONE = 5
_SHOWN = 10


@command(
    "extract",
    examples=[
        "rdx extract --model digits-cnn",
        "rdx extract --model timm:resnet18.a1_in1k --layer layer3 --layer layer4 --dataset folder:photos",
        "rdx extract --model digits-cnn --dataset digits --limit 100 --dry-run",
    ],
    options=SelectionOptions,
)
def extract(
    session: Session,
    options: SelectionOptions,
    model: Annotated[
        list[str],
        typer.Option(
            "--model", "-m", help="Model; may be repeated.", autocompletion=complete_models, show_default=False
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            help="Layer; may be repeated: all are read in one pass (default: the penultimate one).",
            autocompletion=complete_layers,
        ),
    ] = None,
    pool: PoolOption = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, float16 or bfloat16.", rich_help_panel=RUN_PANEL)
    ] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images at once (default: by input size).", rich_help_panel=RUN_PANEL),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Threads that decode (default: by device).", rich_help_panel=RUN_PANEL),
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            "--shard-rows",
            min=1,
            help="Images that are stored at once: what a kill may cost (default: 256 or more).",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="auto, local, ranks or ray.", rich_help_panel=RUN_PANEL)
    ] = "auto",
    address: Annotated[
        str | None, typer.Option("--address", help="Of a running Ray cluster.", rich_help_panel=RUN_PANEL)
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first image that cannot be read; exit with 5 when other ranks still work.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    max_errors: Annotated[
        int | None, typer.Option("--max-errors", min=0, help="Stop when more images fail.", rich_help_panel=RUN_PANEL)
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Accept random weights.", rich_help_panel=RUN_PANEL)
    ] = False,
    allow_random: Annotated[
        bool,
        typer.Option(
            "--allow-random",
            help="Accept a network that gives other activations every time.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
) -> None:
    """Run images through a model and store what its layers make of them.

    An interrupted run continues where it stopped. Images that cannot be read are recorded, skipped and listed (exit
    code 4). Started by torchrun or as a SLURM array, every process claims images and does them until none is left.
    """
    from rdxcli.models.registry import resolve
    from rdxcli.representations import extract as service

    for name in model:
        resolve(name)  # a misspelt second name must not come out after the work for the first

    jobs = [
        service.ExtractOptions(
            model=name,
            layers=tuple(layer or ()),
            pool=pool,
            dtype=dtype,
            selection=options,
            batch_size=batch_size,
            workers=workers,
            device=session.device,
            shard_rows=shard_rows,
            engine=engine,
            address=address,
            strict=strict,
            max_errors=max_errors,
            outputs=session.outputs,
            run=session.run,
            force=session.force,
            untrained=untrained,
            allow_random=allow_random,
        )
        for name in model
    ]
    if session.dry_run:
        plans = [service.plan(job) for job in jobs]
        session.sink.result("\n".join(map(_lines, plans)), {"plan": "extract", "jobs": plans})
        return
    done: list[service.Extracted] = []
    shares = []
    for job in jobs:
        try:
            done += service.extract(job)
        except service.ShareDone as share:
            shares.append(share)
            session.sink.warning(share.message)
    if shares:
        _say_share(session, shares, strict)
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
    return "\n".join(
        [
            f"extract {plan['model']} from {plan['images']} images of {plan['dataset']}",
            *layers,
            f"  {human_bytes(plan['bytes_on_disk'])} on disk, {human_bytes(plan['bytes_on_disk_while_running'])} while "
            f"running{memory}",
            f"  device {plan['device']}, dtype {plan['dtype']}, batch {plan['batch_size']}, workers {plan['workers']}",
        ]
    )


def _report_failures(session: Session, documents: list[dict[str, Any]]) -> None:
    failed = {entry["sample_id"]: entry["error"] for document in documents for entry in document["failed"]}
    if not failed:
        return
    session.sink.warning(f"{len(failed)} images failed; samples.parquet lists them with their errors")
    for sample, error in list(failed.items())[:_SHOWN]:
        session.sink.warning(f"{sample}: {error}")
    if len(failed) > _SHOWN:
        session.sink.warning(f"and {len(failed) - _SHOWN} more")
    session.exit(SAMPLES_FAILED)
