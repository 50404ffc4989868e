"""The work of ``rdx extract``: what is asked for becomes a `Job`; a job's shards are run and joined."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from rdxcli.artifacts import Draft, Request, wait_time
from rdxcli.artifacts.layout import activations_folder
from rdxcli.artifacts.leases import Worker
from rdxcli.engines.activations import ActivationTask, default_batch_size, default_workers
from rdxcli.engines.feed import PREFETCH
from rdxcli.engines.local import WRITES, RunOptions, RunReport, run_local
from rdxcli.engines.ranks import RANK_WAIT, Rank
from rdxcli.engines.ray import count_workers, run_ray
from rdxcli.engines.shards import Assembled, ShardPlan, ShardStore, assemble
from rdxcli.engines.sharing import Making, engine_chosen, make
from rdxcli.engines.tasks import is_out_of_memory
from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import torch
from rdxcli.models import load
from rdxcli.models.devices import pick_dtype
from rdxcli.models.loading import check_layers
from rdxcli.models.registry import resolve
from rdxcli.models.taps import POOLS
from rdxcli.places import data_root
from rdxcli.progress import human_bytes, human_count, human_seconds, log
from rdxcli.representations.options import ExtractOptions

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset
    from rdxcli.models.loaded import LoadedModel

CODE = "1"
"""Raised whenever the numbers of an activation artifact change."""

DATA, SAMPLES = "activations.npy", "samples.parquet"
_REPEATED = 8  # images that are run twice
_WIDER, _QUICK = 4, 0.25  # times as many are timed too, where the few took fewer seconds than that


@dataclass(frozen=True)
class Pace:
    """How long an image takes, from a few of them.

    Parameters
    ----------
    decoding, computing : float
        Seconds for one image: on one thread, and in the model.
    starting : float
        Seconds that a pass through the model takes besides, however many images it holds.
    """

    decoding: float
    computing: float
    starting: float = 0.0

    def seconds(self, images: int, workers: int, batch_size: int) -> float:
        """For so many: threads decode while the model computes, so the slower of the two counts."""
        passes = math.ceil(images / batch_size)
        return max(images * self.computing + passes * self.starting, images * self.decoding / max(1, workers))


@dataclass(frozen=True)
class Job:
    """Everything that is known before the first image is read."""

    options: ExtractOptions
    model: LoadedModel
    dataset: Dataset
    layers: list[str]
    asked: list[str | None]  # the layers as they were written
    requests: list[Request]
    folders: list[Path]
    batch_size: int
    workers: int
    description: dict[str, Any]
    pace: Pace | None = None

    @property
    def device(self) -> str:
        return str(self.model.device)


def prepare(options: ExtractOptions, rank: Rank) -> Job:
    for name, number, least in (("batch-size", options.batch_size, 1), ("workers", options.workers, 0)):
        if number is not None and number < least:
            raise UsageError(f"--{name}: got {number}, expected at least {least}")
    if options.pool not in POOLS:
        raise UsageError(f"unknown pooling: `{options.pool}`", f"expected {', '.join(POOLS)}")
    if rank.count > 1 and options.force:
        raise UsageError(f"--force cannot be used with several ranks ({rank.source})", "remove the artifact first")
    pick_dtype(options.dtype)
    spec = resolve(options.model)
    check_layers(spec, options.layers)
    dataset = options.selection.open(spec.default_dataset)
    model = load(spec, device=_device_of(rank, options.device), dtype=options.dtype, untrained=options.untrained)
    asked: list[str | None] = list(options.layers) or [None]
    by_path: dict[str, str | None] = {}
    for given in asked:
        found = model.layers_like(given)
        for path in found:
            by_path.setdefault(path, given if found == [path] else path)
    description = dataset.description()
    kind = model.device.type
    return Job(
        options=options,
        model=model,
        dataset=dataset,
        layers=list(by_path),
        asked=list(by_path.values()),
        requests=[_request(options, model, layer, description) for layer in by_path],
        folders=[
            activations_folder(options.outputs, dataset.name, model.name, layer, options.run or options.pool)
            for layer in by_path
        ],
        batch_size=options.batch_size or default_batch_size(model.input_size, kind),
        workers=default_workers(kind, dataset.source.waits) if options.workers is None else options.workers,
        description=description,
    )


def on_engine(options: ExtractOptions) -> ExtractOptions:
    """The options with the engine that this process was told to use, where they name none."""
    if options.engine is not None:
        return options
    chosen = engine_chosen()
    return replace(options, engine=chosen.name, address=options.address or chosen.address)


def _device_of(rank: Rank, device: str) -> str:
    """Ranks on one machine take its GPUs in turn."""
    if rank.count == 1 or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    return f"cuda:{rank.local % torch.cuda.device_count()}"


def _request(options: ExtractOptions, model: LoadedModel, layer: str, dataset: dict[str, Any]) -> Request:
    known = model.description()
    return Request(
        kind="activations",
        parameters={
            "model": known["name"],
            "source": known["source"],
            "options": known["options"],
            "layer": layer,
            "pool": options.pool,
            "dtype": options.dtype,
            "preprocessing": known["preprocessing"],
            "untrained": known["untrained"],
        },
        inputs={
            "weights": known["weights_sha256"],
            "dataset": {key: dataset[key] for key in ("name", "n", "selection", "fingerprint")},
        },
        code=CODE,
    )


def make_layers(job: Job, drafts: Mapping[str, Draft], rank: Rank) -> int:
    """Make the artifacts of ``drafts`` together with whoever else makes them; returns the shards others still hold."""
    if not drafts:
        return 0
    options = job.options
    shapes = dict(zip(job.layers, output_shapes(job), strict=True))
    row_bytes = max(4 * count_values(shapes[layer]) for layer in drafts)
    workers = count_workers(options.address) if options.engine == "ray" else rank.count
    wanted = ShardPlan.of(len(job.dataset), job.batch_size, row_bytes, options.shard_rows, workers)

    def finish(layer: str, plan: ShardPlan, store: ShardStore, draft: Draft, report: RunReport) -> None:
        columns = {"label": job.dataset.labels, "split": job.dataset.splits}
        done = assemble(store, plan, draft.path / DATA, draft.path / SAMPLES, columns)
        draft.manifest.rows, draft.manifest.device = done.rows, job.device
        draft.manifest.details = _details(job, layer, done, report)

    outputs = {
        layer: Making(job.folders[job.layers.index(layer)], draft, partial(finish, layer))
        for layer, draft in drafts.items()
    }
    return make(outputs, wanted, job.dataset.sample_ids, partial(_do, job, rank))


def _do(job: Job, rank: Rank, plan: ShardPlan, stores: dict[str, ShardStore], worker: Worker) -> RunReport:
    options = job.options
    expected = (
        f", about {human_seconds(job.pace.seconds(plan.n, job.workers, job.batch_size))}"
        if job.pace is not None
        else ""
    )
    shapes = dict(zip(job.layers, output_shapes(job), strict=True))
    item = 2 if options.dtype == "float16" else 4
    size = sum(plan.n * item * count_values(shapes[layer]) for layer in stores)
    how = RunOptions(
        workers=job.workers,
        batch_size=options.batch_size,
        strict=options.strict,
        max_errors=options.max_errors,
        description=f"extract {job.model.name} on {job.dataset.name}",
        wait=wait_time(default=RANK_WAIT if rank.count > 1 else math.inf),
    )
    log.info(
        "extracting %s of %s from %s of %s: device %s, dtype %s, batch %d, workers %d, shards %d; %s, "
        "about %s of memory%s",
        ", ".join(stores),
        job.model.name,
        human_count(len(job.dataset), "image"),
        job.dataset.name,
        job.device,
        options.dtype,
        plan.batch_size if options.batch_size is None else options.batch_size,
        job.workers,
        len(plan),
        human_bytes(size),
        human_bytes(peak_memory(job, sum(item * count_values(shapes[layer]) for layer in stores))),
        expected,
    )
    if options.engine == "ray":
        return _run_on_ray(job, plan, stores, how)
    with ActivationTask(job.model, job.dataset, list(stores), options.pool) as task:
        report = run_local(task, plan, stores, how, rank.order(len(plan)), worker)
    if report.computed:
        log.info("%s in %.1f s, %.1f images/s", human_count(report.computed, "image"), report.seconds, report.rate)
    return report


def _run_on_ray(job: Job, plan: ShardPlan, stores: dict[str, ShardStore], how: RunOptions) -> RunReport:
    # a worker's current folder may be another one
    root = data_root(job.options.selection.root).absolute()
    options = replace(job.options, selection=replace(job.options.selection, dataset=job.dataset.spec, root=root))
    places = {name: ShardStore(store.folder.resolve(), (), store.request) for name, store in stores.items()}
    return run_ray(open_task, (options, tuple(stores)), plan, places, job.dataset.sample_ids, how, options.address)


def open_task(options: ExtractOptions, layers: Sequence[str]) -> ActivationTask:
    """The task of ``options``, opened anew: what a worker process of another engine starts with."""
    spec = resolve(options.model)
    dataset = options.selection.open(spec.default_dataset)
    model = load(spec, device=options.device, dtype=options.dtype, untrained=options.untrained)
    return ActivationTask(model, dataset, layers, options.pool)


def _details(job: Job, layer: str, done: Assembled, report: RunReport) -> dict[str, Any]:
    dtype = np.float16 if job.options.dtype == "float16" else np.float32
    return {
        "model": job.model.description(),
        "dataset": job.description,
        **({"classifier": job.model.has_head} if layer == "output" else {}),
        "asked_layer": job.asked[job.layers.index(layer)],
        "shape": list(done.shape),
        "dtype": np.dtype(dtype).name,
        "failed": len(done.failures),
        "pixels": job.dataset.source.ranges,
        "repeatable": "not checked" if job.options.allow_random else "the first images, run twice, agree",
        "run": {
            "batch_size": report.batch_size,
            "workers": job.workers,
            "engine": job.options.engine,
            "images_per_second": round(report.rate, 2),
            "seconds": {key: round(value, 3) for key, value in report.waits.items()},
        },
    }


def measured(job: Job, layers: Sequence[str]) -> Pace | None:
    """How long the first images take; None when none of them can be read."""
    with ActivationTask(job.model, job.dataset, layers, job.options.pool) as task:
        rows = _first_readable(task, min(_REPEATED, job.batch_size))
        if not rows:
            return None
        _activations(task, rows[:1])  # the first pass through a network prepares much
        return _timed(task, rows, job.batch_size)[1]


def _timed(task: ActivationTask, rows: list[int], batch_size: int) -> tuple[dict[str, np.ndarray], Pace]:
    begun = time.perf_counter()
    if task.whole_batches:
        rows = list(range(len(rows)))
        batch = task.prepare_batch(range(len(rows)))
    else:
        batch = task.collate([task.prepare(row) for row in rows])
    decoded = time.perf_counter()
    values = task.fetch(task.run(batch))
    took = time.perf_counter() - decoded
    wide = min(_WIDER * len(rows), batch_size)
    wider = _wider(task, batch, wide) if took < _QUICK and wide > len(rows) else None
    return values, pace_of((decoded - begun) / len(rows), {len(rows): took} | ({} if wider is None else {wide: wider}))


def _wider(task: ActivationTask, batch: torch.Tensor, images: int) -> float | None:
    """Seconds of the quicker of two passes through so many copies of a batch; None where they find no memory."""
    copies = torch.cat([batch] * math.ceil(images / len(batch)))[:images]
    took = []
    try:
        for _ in range(2):  # the first pass of another size prepares much
            begun = time.perf_counter()
            task.fetch(task.run(copies))
            took.append(time.perf_counter() - begun)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        task.recover()
        return None
    return min(took)


def pace_of(decoding: float, took: Mapping[int, float]) -> Pace:
    """What an image and what a pass takes, from the seconds of passes of one or two sizes.

    A few images through a small network on a busy machine take as long as hundreds: nearly all of it belongs to the
    pass. Taken for the images' own, it made an extraction of 2 s look like one of a minute.
    """
    few, many = min(took), max(took)
    each = took[few] / few
    if few < many:
        slope = (took[many] - took[few]) / (many - few)
        each = min(each, slope if slope > 0 else took[many] / many)
    return Pace(decoding, each, max(0.0, took[many] - many * each))


def peak_memory(job: Job, row_bytes: int) -> int:
    """Bytes at the peak, roughly: this process with its weights, waiting batches, layer outputs, shards in memory."""
    batch = min(job.batch_size, len(job.dataset))
    inputs = (2 * PREFETCH + 2) * batch * 4 * count_values(job.model.input_size)
    largest = max(count_values(layer.shape) for layer in job.model.layers())
    outputs = 4 * batch * 4 * largest
    rows = min(ShardPlan.of(len(job.dataset), batch, row_bytes).shard_rows, len(job.dataset))
    return psutil.Process().memory_info().rss + inputs + outputs + (WRITES + 2) * rows * row_bytes


def check_repeatable(job: Job, layers: Sequence[str]) -> Pace | None:
    """Run the first images twice, from the file to the layers; the second time says how long they take.

    Raises `InputError` (the second time gives other activations: a dropout that is on in evaluation, a random crop).
    """
    with ActivationTask(job.model, job.dataset, layers, job.options.pool) as task:
        rows = _first_readable(task, min(_REPEATED, job.batch_size))
        if not rows:
            return None
        try:
            once = _activations(task, rows)
            again, pace = _timed(task, rows, job.batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            task.recover()
            once = _activations(task, rows[:1])
            again, pace = _timed(task, rows[:1], 1)
    tolerance = 1e-3 if job.options.dtype == "float32" else 2e-2
    for layer in layers:
        first, second = once[layer].astype(np.float64), again[layer].astype(np.float64)
        gap, size = float(np.nanmax(np.abs(first - second), initial=0)), float(np.nanmax(np.abs(first), initial=0))
        if gap > tolerance * max(size, 1e-6):
            raise InputError(
                f"{job.model.name} is random: run twice, the first "
                f"{human_count(len(rows), 'image', 'give')} activations of {layer} that "
                f"differ by {gap:.3g} (they go up to {size:.3g})",
                "dropout that is on in evaluation, F.dropout without training=self.training? "
                "`rdx extract --allow-random` takes it as it is",
            )
    return pace


def _activations(task: ActivationTask, rows: list[int]) -> dict[str, np.ndarray]:
    return task.fetch(task.run(task.collate([task.prepare(row) for row in rows])))


def _first_readable(task: ActivationTask, count: int) -> list[int]:
    rows: list[int] = []
    for row in range(min(4 * count, len(task.dataset))):
        try:
            task.prepare(row)
        except MemoryError:
            raise
        except Exception:  # (a broken image is recorded when its turn comes)
            continue
        rows.append(row)
        if len(rows) == count:
            break
    return rows


def output_shapes(job: Job) -> list[tuple[int, ...]]:
    """Shape of one image's activations, per layer, from a pass over one blank input."""
    with job.model.tap(job.layers, job.options.pool, early_stop=False) as tap:
        example = torch.zeros(1, *job.model.input_size, device=job.model.device, dtype=job.model.dtype)
        values = tap(example)
    return [tuple(values[layer].shape[1:]) for layer in job.layers]


def count_values(shape: Sequence[int]) -> int:
    return math.prod(shape)
