"""The local engine: one process, one device, decoding and writing beside computing.

Three stages run at once: threads decode and collate a few batches ahead (`rdxcli.engines.feed`); the caller's thread
computes; a writer thread stores finished shards.

This is also the loop of every rank and of every Ray actor: with a `Worker` it claims the next unfinished shard, does
it, and claims another, until none is left. Shards that other workers hold are waited for, and done here when they die.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.artifacts.leases import Worker
from rdxcli.engines.feed import Batch, Feed
from rdxcli.engines.shards import DamagedShardError, Failure, GoneError, ShardPlan, ShardResult, ShardStore
from rdxcli.engines.tasks import ShardTask, Values, batch_length, is_out_of_memory, join_outputs, split_batch
from rdxcli.errors import RdxError
from rdxcli.progress import Advance, human_count, human_seconds, log, track

WRITES = 2
REPORT_AFTER = 30.0  # seconds until the rate and the bottleneck are stated
LEAST_PAUSE, MOST_PAUSE = 0.1, 2.0  # seconds between looks at shards that others hold


@dataclass(frozen=True)
class RunOptions:
    """How to run; nothing here changes a result beyond rounding.

    Parameters
    ----------
    workers : int
        Threads that decode; 0 decodes in the feeder thread.
    batch_size : int, optional
        Instead of the plan's.
    strict : bool
        The first sample that fails ends the run.
    max_errors : int, optional
        More failed samples than this end the run.
    description : str
        For progress.
    wait : float
        Seconds to wait for shards that other workers hold, when nothing else is left to do.
    """

    workers: int = 1
    batch_size: int | None = None
    strict: bool = False
    max_errors: int | None = None
    description: str = "run"
    wait: float = math.inf


@dataclass
class RunReport:
    """What a run did.

    Attributes
    ----------
    computed, resumed : int
        Rows that were computed now, and rows of shards that were finished before.
    failures : list of Failure
        Of this run and of finished shards, in row order, each sample once.
    others : int
        Rows that other workers did in the meantime.
    left : int
        Shards that other workers still hold.
    batch_size : int
        At the end; smaller than asked for after an out-of-memory error.
    waits : mapping of str to float
        Seconds that the run spent ``decoding`` (waiting for samples), ``computing``, and ``writing`` (waiting for the
        disk).
    """

    computed: int = 0
    resumed: int = 0
    others: int = 0
    left: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    batch_size: int = 0
    waits: dict[str, float] = field(default_factory=lambda: {"decoding": 0.0, "computing": 0.0, "writing": 0.0})

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.computed / self.seconds if self.seconds > 0 else 0.0

    @property
    def bottleneck(self) -> str:
        """Where most of the time went: ``decoding``, ``computing`` or ``writing``."""
        return max(self.waits, key=lambda stage: self.waits[stage])


def run_local(
    task: ShardTask,
    plan: ShardPlan,
    stores: Mapping[str, ShardStore],
    options: RunOptions = RunOptions(),
    shards: Sequence[int] | None = None,
    worker: Worker | None = None,
) -> RunReport:
    """Do the shards that are not finished.

    Raises `RdxError` (a sample failed under ``strict``, more than ``max_errors`` failed, or one sample alone does not
    fit into memory. Finished shards stay; the next run goes on from there).

    Parameters
    ----------
    stores : mapping of str to ShardStore
        One for each of ``task.outputs``; they may have different shards finished.
    shards : sequence of int, optional
        Only these, in this order; by default all.
    worker : Worker, optional
        Under whose name shards are claimed, when others may be at work on the same stores.
    """
    return _Run(task, plan, stores, options, worker).run(list(range(len(plan)) if shards is None else shards))


def check_failures(failures: Sequence[Failure], options: RunOptions) -> None:
    """Raise `RdxError` when more samples failed than ``options`` allow; ``failures`` are in row order."""
    if failures and options.strict:
        first = failures[0]
        raise RdxError(f"{first.sample_id}: {first.error}", "without --strict such samples are recorded and skipped")
    if options.max_errors is not None and len(failures) > options.max_errors:
        last = failures[-1]
        raise RdxError(
            f"{human_count(len(failures), 'sample')} failed, --max-errors allows {options.max_errors}; "
            f"the last, {last.sample_id}: {last.error}"
        )


class _Run:
    def __init__(
        self,
        task: ShardTask,
        plan: ShardPlan,
        stores: Mapping[str, ShardStore],
        options: RunOptions,
        worker: Worker | None,
    ) -> None:
        self.task, self.plan, self.stores, self.options, self.worker = task, plan, stores, options, worker
        self.report = RunReport(batch_size=options.batch_size or plan.batch_size)
        self.ids = next(iter(stores.values())).sample_ids
        self.limit: int | None = None
        self.failed: dict[int, Failure] = {}
        self.missing: dict[int, list[str]] = {}
        self.finished: set[int] = set()
        self.written: set[tuple[int, str]] = set()  # shards and outputs, by this run
        self.results: dict[str, list[Values]] = {}
        self.shard_failures: dict[str, list[Failure]] = {}
        self.advance: Advance = lambda steps: None

    def run(self, shards: list[int]) -> RunReport:
        for store in self.stores.values():
            if self.worker is None:
                store.folder.mkdir(parents=True, exist_ok=True)
        for shard in shards:
            if not self._missing(shard):
                self.finished.add(shard)
                self.report.resumed += len(self.plan.rows(shard))
        if self.report.resumed:
            log.info("%d of %d %s were done before", self.report.resumed, self.plan.n, self.task.unit)
        todo = [shard for shard in shards if shard not in self.finished]
        total = sum(len(self.plan.rows(shard)) for shard in todo)
        start = time.monotonic()
        if total:
            with track(self.options.description, total, self.task.unit) as self.advance:
                self._share(todo, total, start)
        self.report.seconds = time.monotonic() - start
        self.report.failures = [self.failed[row] for row in sorted(self.failed)]
        if self.limit:
            self.report.batch_size = self.limit
        return self.report

    def _share(self, todo: list[int], total: int, start: float) -> None:
        """Claim shards and do them until all are finished, by whomever, or waiting for others takes too long."""
        idle: float | None = None  # since when there is nothing to claim
        while True:
            claims = self._claims(todo)
            first = next(claims, None)
            if first is not None:
                idle = None
                self._work(itertools.chain([first], claims), total, start)
            todo = [shard for shard in todo if shard not in self.finished]
            if not todo:
                return
            if first is None:
                idle = time.monotonic() if idle is None else idle
                waited = time.monotonic() - idle
                if waited >= self.options.wait:
                    self.report.left = len(todo)
                    return
                time.sleep(min(MOST_PAUSE, max(LEAST_PAUSE, waited / 10), self.options.wait - waited))

    def _claims(self, todo: Sequence[int]) -> Iterator[int]:
        """Of the shards ``todo`` those that this run may do, each claimed just before it is given."""
        for shard in todo:
            missing = self._missing(shard)
            if self.worker is not None and missing:
                claimed = [name for name in missing if self.worker.claim(self.stores[name].lease(shard))]
                # the worker that held it a moment ago may have finished it before it let go
                missing = [name for name in self._missing(shard) if name in claimed]
                for name in set(claimed) - set(missing):
                    self.worker.release(self.stores[name].lease(shard))
                if not missing and self._missing(shard):
                    continue
            if missing:
                self.missing[shard] = missing
                yield shard
            else:
                self.finished.add(shard)
                self.report.others += len(self.plan.rows(shard))
                self.advance(len(self.plan.rows(shard)))

    def _missing(self, shard: int) -> list[str]:
        """Outputs of which the shard is not finished; the failures in those that are finished are noted."""
        rows, missing = self.plan.rows(shard), []
        for name, store in self.stores.items():
            if (shard, name) in self.written:
                continue
            if not store.done(shard, retry_empty=True, rows=rows):
                # without its folder the output was finished by another process: there is nothing left to do
                if self.worker is None or store.folder.is_dir():
                    missing.append(name)
                continue
            try:
                self._note(store.failures(shard, rows))
            except DamagedShardError as error:
                log.warning("%s; it is done again", error.message)
                missing.append(name)
        return missing

    def _work(self, shards: Iterator[int], total: int, start: float) -> None:
        schedule = ((shard, rows) for shard in shards for rows in self.plan.batches(shard, self.options.batch_size))
        with self._writer() as write, Feed(self.task, schedule, self.ids, self.options.workers) as feed:
            pending: deque[tuple[Batch, Any]] = deque()
            stated = False
            for batch in self._timed(feed, "decoding"):
                self._note(batch.failures)
                with self._clock("computing"):
                    pending.append((batch, self._start(batch)))
                    ready = [pending.popleft() for _ in range(len(pending) - self.task.lookahead)]
                    self._collect(ready, write)
                size = len(batch.rows) + len(batch.failures)
                self.report.computed += size
                self.advance(size)
                elapsed = time.monotonic() - start
                if not stated and elapsed >= REPORT_AFTER:
                    stated = True
                    self._state(elapsed, total - self.report.others)
            with self._clock("computing"):
                self._collect(list(pending), write)

    # -- computing ----------------------------------------------------------------------------------------------

    def _start(self, batch: Batch) -> Any:
        """Start a batch: what `ShardTask.run` gives, or finished outputs when the batch had to be cut."""
        if batch.data is None:
            return None
        if self.limit is not None and batch_length(batch.data) > self.limit:
            return _Finished(self._in_pieces(batch.data))
        try:
            return self.task.run(batch.data)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # outside of the handler, whose traceback keeps the tensors of the failed attempt alive
        return _Finished(self._halved(batch.data))

    def _finish(self, batch: Batch, running: Any) -> Mapping[str, Values]:
        if isinstance(running, _Finished):
            return running.outputs
        try:
            return self.task.fetch(running)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return self._halved(batch.data)

    def _halved(self, data: Any) -> dict[str, Values]:
        size = batch_length(data)
        if size == 1:
            raise RdxError(
                f"out of memory with a single one of the {self.task.unit}",
                "use --device cpu, --dtype float16, or a smaller model",
            )
        half = -(-size // 2)
        if self.limit is None or half < self.limit:
            self.limit = half
            log.warning("out of memory with a batch of %d: going on with batches of %d", size, half)
        self.task.recover()
        return self._in_pieces(data)

    def _in_pieces(self, data: Any) -> dict[str, Values]:
        limit = self.limit or batch_length(data)
        parts = []
        for piece in split_batch(data, -(-batch_length(data) // limit)):
            outputs = None
            try:
                outputs = self.task.fetch(self.task.run(piece))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            parts.append(outputs if outputs is not None else self._halved(piece))
        return join_outputs(parts)

    def _collect(self, ready: Sequence[tuple[Batch, Any]], write: Any) -> None:
        for batch, running in ready:
            self._keep(batch, self._finish(batch, running) if batch.data is not None else {})
            if batch.rows_end == self.plan.rows(batch.shard).stop:
                results, failures = self.results, self.shard_failures
                self.results, self.shard_failures = {}, {}
                write(batch.shard, results, failures)

    def _keep(self, batch: Batch, outputs: Mapping[str, Values]) -> None:
        for name in self.missing[batch.shard]:
            failures = self.shard_failures.setdefault(name, [])
            failures += batch.failures
            if batch.data is None:
                continue
            values = outputs[name]
            if len(values) != len(batch.rows):
                raise RuntimeError(
                    f"{name}: {human_count(len(values), 'result')} for {human_count(len(batch.rows), 'sample')}"
                )
            if self.task.check_finite and isinstance(values, np.ndarray) and values.dtype.kind == "f":
                values, broken = self._finite(name, values, batch.rows)
                failures += broken
                self._note(broken)
            self.results.setdefault(name, []).append(values)

    def _finite(self, name: str, values: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, list[Failure]]:
        if np.isfinite(values).all():
            return values, []
        good = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        reason = f"the model gave NaN or infinity ({name})"
        lost = [row for row, fine in zip(rows, good, strict=True) if not fine]
        return values[good], [Failure(row, self.ids[row], reason) for row in lost]

    # -- failures, writing, words -------------------------------------------------------------------------------

    def _note(self, failures: Sequence[Failure]) -> None:
        for failure in failures:
            self.failed.setdefault(failure.row, failure)
        if failures:
            check_failures([self.failed[row] for row in sorted(self.failed)], self.options)

    @contextmanager
    def _writer(self) -> Iterator[Any]:
        """Give ``write(shard, results, failures)``, which hands a finished shard to the writer thread."""
        jobs: queue.Queue[Any] = queue.Queue(maxsize=WRITES)
        errors: list[BaseException] = []

        def work() -> None:
            while (job := jobs.get()) is not None:
                if errors:
                    continue
                shard, results, failures = job
                try:
                    for name in self.missing[shard]:
                        values = _joined(results.get(name, []))
                        result = ShardResult(values, failures.get(name, []))
                        try:
                            self.stores[name].write(shard, self.plan.rows(shard), result)
                        except GoneError:
                            if self.worker is None:
                                raise
                            log.info("shard %d of %s was done by another process as well", shard, name)
                        self.written.add((shard, name))
                        if self.worker is not None:
                            self.worker.release(self.stores[name].lease(shard))
                    # an output that another worker holds is waited for, however soon this one is done
                    if not self._missing(shard):
                        self.finished.add(shard)
                except BaseException as error:
                    errors.append(error)

        def write(shard: int, results: dict[str, list[Values]], failures: dict[str, list[Failure]]) -> None:
            if errors:
                raise errors[0]
            with self._clock("writing"):
                jobs.put((shard, results, failures))

        thread = threading.Thread(target=work, name="rdx-writer", daemon=True)
        thread.start()
        try:
            yield write
        finally:
            with self._clock("writing"):
                jobs.put(None)
                thread.join()
        if errors:
            raise errors[0]

    def _state(self, elapsed: float, total: int) -> None:
        rate = self.report.computed / elapsed
        stage, share = self.report.bottleneck, max(self.report.waits.values()) / elapsed
        advice = {
            "decoding": "more --workers may help",
            # half precision is several times slower on most CPUs
            "computing": f"{'--dtype float16' if getattr(self.task, 'on_cuda', False) else 'a GPU'} may help",
            "writing": "a faster disk for --outputs may help",
        }[stage]
        left = (total - self.report.computed) / rate
        log.info(
            "%.1f %s/s, %s left; %.0f %% of the time goes into %s (%s)",
            rate,
            self.task.unit,
            human_seconds(left),
            100 * share,
            stage,
            advice,
        )

    def _timed(self, feed: Iterable[Batch], stage: str) -> Iterator[Batch]:
        batches = iter(feed)
        while True:
            with self._clock(stage):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.report.waits[stage] += time.monotonic() - start


@dataclass(frozen=True)
class _Finished:
    outputs: dict[str, Values]


def _joined(parts: Sequence[Values]) -> Values:
    if parts and all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts) if len(parts) > 1 else parts[0]  # type: ignore[arg-type, return-value]
    return [row for part in parts for row in part]
