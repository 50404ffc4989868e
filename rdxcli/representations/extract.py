"""``rdx extract``: activations of a model's layers for the images of a data set, as artifacts that are made once."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Draft, Request, check_reuse, create
from rdxcli.errors import ArtifactError, UsageError
from rdxcli.progress import log
from rdxcli.representations.extraction import (
    SAMPLES,
    ExtractOptions,
    Job,
    count_values,
    finish,
    open_stores,
    output_shapes,
    prepare,
    run_shards,
)

if TYPE_CHECKING:
    from rdxcli.engines.ranks import Rank

__all__ = ["ExtractOptions", "Extracted", "extract", "plan"]


@dataclass(frozen=True)
class Extracted:
    """One layer's artifact.

    Attributes
    ----------
    layer : str
        Module path.
    folder : Path
        Its place.
    artifact : Artifact
    reused : bool
    shape : tuple of int
        Of the array.
    failures : list of mapping
        ``sample_id`` and ``error`` of images that could not be read.
    """

    layer: str
    folder: Path
    artifact: Artifact
    reused: bool
    shape: tuple[int, ...]
    failures: list[dict[str, str]]

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        manifest = self.artifact.manifest
        return {
            "layer": self.layer,
            "artifact": str(self.folder),
            "reused": self.reused,
            "shape": list(self.shape),
            "dtype": manifest.details["dtype"],
            "parameters": manifest.request.parameters,
            "dataset": manifest.details["dataset"]["name"],
            "failed": self.failures,
        }


def extract(options: ExtractOptions) -> list[Extracted]:
    """Extract all layers in one pass, or find them in the outputs directory.

    Returns
    -------
    list of Extracted
        One per layer, in the order asked for. Empty for a rank whose share is done while other ranks still work.

    Raises
    ------
    RdxError
        Unknown names, missing weights or images, an artifact in the same place that was made from something else
        (changed weights or images included), or failed images beyond what was allowed.
    """
    from rdxcli.engines.ranks import Rank, detect_rank

    rank = detect_rank() if options.engine in ("auto", "ranks") else Rank()
    if options.engine == "ranks" and not rank.source:
        raise UsageError(
            "--engine ranks: the environment gives no rank",
            "start it with torchrun or as a SLURM array, or set RANK and WORLD_SIZE",
        )
    job = prepare(options, rank)
    if rank.count > 1:
        return _as_rank(job, rank)
    with ExitStack() as stack:
        drafts: dict[str, Draft] = {}
        for layer in sorted(job.layers, key=lambda name: job.folders[job.layers.index(name)]):
            # always in the order of the folders, so that two processes cannot wait for each other
            place = job.layers.index(layer)
            drafts[layer] = stack.enter_context(
                create(job.folders[place], job.requests[place], force=options.force, resume=True)
            )
        missing = [layer for layer in job.layers if not drafts[layer].reused]
        if missing:
            _make(job, missing, drafts)
    return [
        _opened(layer, drafts[layer].result, folder, drafts[layer].reused, job.options.strict)
        for layer, folder in zip(job.layers, job.folders, strict=True)
    ]


def plan(options: ExtractOptions) -> dict[str, Any]:
    """What `extract` would do: images, rows, bytes on disk, peak memory, what would be reused. Writes nothing.

    Weights are loaded, because layers and their sizes are known only then.
    """
    from rdxcli.engines.ranks import Rank

    job = prepare(options, Rank())
    widths = output_shapes(job)
    states = []
    for folder, request in zip(job.folders, job.requests, strict=True):
        try:
            found = None if options.force else check_reuse(folder, request)
            states.append("reused" if found else "replaced" if folder.is_dir() else "made")
        except ArtifactError as error:
            states.append(f"conflict: {error.message.splitlines()[0]}")
    item = 2 if options.dtype == "float16" else 4
    sizes = [len(job.dataset) * item * count_values(shape) for shape in widths]
    made = sum(size for size, state in zip(sizes, states, strict=True) if state != "reused")
    return {
        "model": job.model.name,
        "dataset": job.dataset.name,
        "images": len(job.dataset),
        "layers": [
            {
                "layer": layer,
                "shape": [len(job.dataset), *shape],
                "bytes": size,
                "artifact": str(folder),
                "state": state,
            }
            for layer, shape, size, folder, state in zip(job.layers, widths, sizes, job.folders, states, strict=True)
        ],
        "bytes_on_disk": made,
        "bytes_on_disk_while_running": 2 * made,
        "peak_memory_bytes": _peak_memory(job, sum(item * count_values(shape) for shape in widths)) if made else None,
        "device": job.device,
        "dtype": options.dtype,
        "batch_size": job.batch_size,
        "workers": job.workers,
    }


def _make(job: Job, layers: list[str], drafts: dict[str, Draft]) -> None:
    """Run the shards of ``layers`` and join them inside their drafts."""
    from rdxcli.engines.shards import FOLDER

    plan, stores = open_stores(job, {layer: drafts[layer].path for layer in layers})
    try:
        report = run_shards(job, layers, plan, stores)
        for layer in layers:
            finish(job, layer, plan, stores[layer], drafts[layer], report)
            drafts[layer].discard_at_end(FOLDER)
    except BaseException:
        for layer in layers:
            if not any(stores[layer].done(shard, retry_empty=True) for shard in range(len(plan))):
                shutil.rmtree(drafts[layer].path, ignore_errors=True)  # nothing in it is worth keeping
        raise


def _as_rank(job: Job, rank: Rank) -> list[Extracted]:
    """Do this rank's share; the rank that finds all shards finished joins them."""
    log.info("rank %d of %d (%s); --engine local does everything in one process", rank.index, rank.count, rank.source)
    from rdxcli.engines.local import all_done
    from rdxcli.engines.shards import FOLDER

    drafts = {}
    for layer, folder, request in zip(job.layers, job.folders, job.requests, strict=True):
        drafts[layer] = _begun(folder, request)
    missing = [layer for layer in job.layers if not drafts[layer].reused]
    if missing:
        plan, stores = open_stores(job, {layer: drafts[layer].path for layer in missing})
        report = run_shards(job, missing, plan, stores, rank.shards(len(plan)))
        if not all_done(plan, stores):
            log.info("rank %d of %d has done its share; the last one joins the shards", rank.index, rank.count)
            return []
        for layer in missing:
            place = job.layers.index(layer)
            with create(job.folders[place], job.requests[place], resume=True) as draft:
                if not draft.reused:
                    finish(job, layer, plan, stores[layer], draft, report)
                    draft.discard_at_end(FOLDER)
            drafts[layer] = draft
    return [
        _opened(layer, drafts[layer].result, folder, drafts[layer].reused, job.options.strict)
        for layer, folder in zip(job.layers, job.folders, strict=True)
    ]


class _Begun(Exception):  # noqa: N818  (leaves `create` with the partial folder in place)
    pass


def _begun(folder: Path, request: Request) -> Draft:
    """Make the partial folder of ``request`` if it is not there, without holding its lock any longer than that."""
    try:
        with create(folder, request, resume=True) as draft:
            if not draft.reused:
                raise _Begun
    except _Begun:
        pass
    return draft


def _opened(layer: str, artifact: Artifact, folder: Path, reused: bool, strict: bool) -> Extracted:
    import pyarrow.parquet as pq

    details = artifact.manifest.details
    failures: list[dict[str, str]] = []
    if details["failed"]:
        table = pq.read_table(folder / SAMPLES, columns=["sample_id", "error"]).slice(details["shape"][0])
        failures = table.to_pylist()
        if strict:
            first = failures[0]
            raise ArtifactError(
                f"{folder} lacks {len(failures)} images; the first, {first['sample_id']}: {first['error']}"
            )
    return Extracted(layer, folder, artifact, reused, tuple(details["shape"]), failures)


def _peak_memory(job: Job, row_bytes: int) -> int:
    """Bytes at the peak, roughly: this process with its weights, waiting batches, layer outputs, shards in memory."""
    import psutil

    from rdxcli.engines.feed import PREFETCH
    from rdxcli.engines.local import WRITES
    from rdxcli.engines.shards import ShardPlan

    batch = min(job.batch_size, len(job.dataset))
    inputs = (2 * PREFETCH + 2) * batch * 4 * count_values(job.model.input_size)
    largest = max(count_values(layer.shape) for layer in job.model.layers())
    outputs = 4 * batch * 4 * largest
    rows = min(ShardPlan.of(len(job.dataset), batch, row_bytes).shard_rows, len(job.dataset))
    return psutil.Process().memory_info().rss + inputs + outputs + (WRITES + 2) * rows * row_bytes
