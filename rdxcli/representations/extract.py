"""``rdx extract``: activations of a model's layers for the images of a data set, as artifacts that are made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdxcli.artifacts import Artifact, Request, check_reuse, join
from rdxcli.engines.ranks import Rank
from rdxcli.engines.sharing import Engine, ShareDone, still_made
from rdxcli.errors import ArtifactError
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import human_bytes, human_count, human_seconds, log
from rdxcli.representations.extraction import (
    SAMPLES,
    check_repeatable,
    count_values,
    make_layers,
    measured,
    on_engine,
    output_shapes,
    peak_memory,
    prepare,
)
from rdxcli.representations.options import ExtractOptions

__all__ = ["Extracted", "ShareDone", "extract", "plan", "said"]


@dataclass(frozen=True)
class Extracted:
    """One layer's artifact.

    Attributes
    ----------
    layer : str
        Module path.
    folder : Path
        Its place.
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


def extract(
    options: ExtractOptions,
    before: Callable[[list[tuple[int, ...]]], object] | None = None,
    *,
    missing_only: bool = False,
) -> list[Extracted]:
    """Extract all layers in one pass, or find them in the outputs directory.

    Every process that is asked for the same artifact claims shards and does them, be it a rank, a Ray actor or a second
    command on another machine; the one that finds all finished joins them. Raises `ShareDone` (a rank waited long
    enough for shards that other ranks hold) or `RdxError` (unknown names, missing weights or images, an artifact in the
    same place that was made from something else (changed weights or images included), or failed images beyond what was
    allowed).

    Parameters
    ----------
    before : callable, optional
        Called with the shape of one image's activations in each layer when something is going to be extracted: what it
        raises comes before the work.
    missing_only : bool
        Where all layers are there already, return none of them: whoever reads them says that they are reused.

    Returns
    -------
    list of Extracted
        One per layer, in the order asked for.
    """
    options = on_engine(options)
    rank = Engine(options.engine or "auto", options.address).rank(auto=True)
    job = prepare(options, rank)
    if rank.count > 1:
        log.info("rank %d of %d (%s)", rank.index, rank.count, rank.source)
    made = zip(job.layers, job.folders, job.requests, strict=True)
    forced = {layer: options.force or (options.renew and _other(folder, request)) for layer, folder, request in made}
    made = zip(job.layers, job.folders, job.requests, strict=True)
    fresh = [layer for layer, folder, request in made if forced[layer] or check_reuse(folder, request) is None]
    if missing_only and not fresh:
        return []
    if fresh and before is not None:
        before(output_shapes(job))
    if fresh and rank.index == 0 and not options.allow_random:
        job = replace(job, pace=check_repeatable(job, fresh))  # before anything is claimed: others need not wait for it
    drafts = {
        layer: join(folder, request, force=forced[layer])
        for layer, folder, request in zip(job.layers, job.folders, job.requests, strict=True)
    }
    left = make_layers(job, {layer: draft for layer, draft in drafts.items() if not draft.reused}, rank)
    if left and rank.count > 1:
        raise ShareDone(left, rank, job.folders[0])
    if left:
        raise still_made(job.folders[0], left)
    return [
        _opened(layer, drafts[layer].result, folder, drafts[layer].reused, job.options.strict)
        for layer, folder in zip(job.layers, job.folders, strict=True)
    ]


def _other(folder: Path, request: Request) -> bool:
    """Whether an artifact is there that was made from something else."""
    try:
        check_reuse(folder, request)
    except ArtifactError:
        log.info("replacing %s, which was made from something else", folder)
        return True
    return False


def plan(options: ExtractOptions) -> dict[str, Any]:
    """What `extract` would do: images, rows, bytes on disk, peak memory, what would be reused. Writes nothing.

    Weights are loaded, because layers and their sizes are known only then.
    """
    job = prepare(on_engine(options), Rank())
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
    todo = [layer for layer, state in zip(job.layers, states, strict=True) if state != "reused"]
    pace = measured(job, todo) if todo else None
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
        "estimated_seconds": max(0.1, round(pace.seconds(len(job.dataset), job.workers, job.batch_size), 1))
        if pace is not None
        else None,
        "peak_memory_bytes": peak_memory(job, sum(item * count_values(shape) for shape in widths)) if made else None,
        "device": job.device,
        "dtype": options.dtype,
        "batch_size": job.batch_size,
        "workers": job.workers,
    }


def said(planned: Mapping[str, Any]) -> str:
    """What `plan` found of its first layer, in words."""
    layer, seconds = planned["layers"][0], planned["estimated_seconds"]
    words = f"{layer['state']}, {human_bytes(layer['bytes'])}"
    if layer["state"] != "reused":
        words += f", {human_bytes(planned['peak_memory_bytes'])} of memory at the peak"
    return words if seconds is None else f"{words}, about {human_seconds(seconds)}"


def _opened(layer: str, artifact: Artifact, folder: Path, reused: bool, strict: bool) -> Extracted:
    details = artifact.manifest.details
    failures: list[dict[str, str]] = []
    if details["failed"]:
        table = pa.parquet.read_table(folder / SAMPLES, columns=["sample_id", "error"]).slice(details["shape"][0])
        failures = table.to_pylist()
        if strict:
            first = failures[0]
            raise ArtifactError(
                f"{folder} lacks {human_count(len(failures), 'image')}; the first, {first['sample_id']}: "
                f"{first['error']}"
            )
    return Extracted(layer, folder, artifact, reused, tuple(details["shape"]), failures)
