"""Batches that are prepared ahead by threads.

Threads, not processes: Pillow and torch let go of the interpreter lock while they decode, resize and convert, nothing
is copied between processes, nothing has to be picklable, and a killed run leaves no orphans.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rdxcli.engines.shards import Failure
from rdxcli.engines.tasks import ShardTask
from rdxcli.errors import RdxError

PREFETCH = 2
"""Collated batches that may wait; as many more are being decoded."""

_Prepared = list[tuple[int, Any, str | None]]  # row, item, error
_Waiting = tuple[int, range, list[Future[Any]]]


@dataclass(frozen=True)
class Batch:
    """A prepared batch.

    Attributes
    ----------
    rows : list of int
        Of the samples in ``data``.
    rows_end : int
        One past the last row that the batch stands for.
    data : object
        What `ShardTask.collate` gave; None when every sample failed.
    failures : list of Failure
        Samples that could not be prepared.
    """

    shard: int
    rows: list[int]
    rows_end: int
    data: Any
    failures: list[Failure]


class Feed:
    """Iterate over prepared batches, in order; a context manager that stops its threads at the end.

    Parameters
    ----------
    schedule : iterable of (shard, rows)
    sample_ids : sequence of str
        Of all rows.
    workers : int
        Threads that prepare; at least one is used.
    """

    def __init__(
        self, task: ShardTask, schedule: Iterable[tuple[int, range]], sample_ids: Sequence[str], workers: int
    ) -> None:
        self.task, self.schedule, self.sample_ids = task, schedule, sample_ids
        self.workers = max(1, workers)
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=PREFETCH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rdx-feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():  # it may be waiting for room in the queue
            with suppress(queue.Empty):
                self._ready.get(timeout=0.02)
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _work(self) -> None:
        pool = ThreadPoolExecutor(self.workers, "rdx-decode", initializer=self.task.start_thread)
        try:
            waiting: deque[_Waiting] = deque()
            for shard, rows in self.schedule:
                waiting.append((shard, rows, self._submit(pool, rows)))
                if len(waiting) > PREFETCH and not self._deliver(waiting.popleft()):
                    return
            while waiting:
                if not self._deliver(waiting.popleft()):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, rows: range) -> list[Future[Any]]:
        if self.task.whole_batches:
            return [pool.submit(self.task.prepare_batch, rows)]
        # pieces, because a future for every sample would cost more than decoding a small one
        step = max(1, -(-len(rows) // (4 * self.workers)))
        return [pool.submit(self._prepare, rows[start : start + step]) for start in range(0, len(rows), step)]

    def _prepare(self, rows: range) -> _Prepared:
        prepared: _Prepared = []
        for row in rows:
            if self._stop.is_set():
                break
            try:
                prepared.append((row, self.task.prepare(row), None))
            except MemoryError:
                raise
            except Exception as error:  # whatever a decoder throws is this sample's failure, not the run's
                prepared.append((row, None, explain(error)))
        return prepared

    def _deliver(self, waiting: _Waiting) -> bool:
        shard, rows, futures = waiting
        if self.task.whole_batches:
            return self._put(Batch(shard, list(rows), rows.stop, futures[0].result(), []))
        prepared: _Prepared = [entry for future in futures for entry in future.result()]
        good = [(row, item) for row, item, error in prepared if error is None]
        failures = [Failure(row, self.sample_ids[row], error) for row, _, error in prepared if error is not None]
        data = self.task.collate([item for _, item in good]) if good else None
        return self._put(Batch(shard, [row for row, _ in good], rows.stop, data, failures))

    def _put(self, item: Batch | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


def explain(error: BaseException) -> str:
    """An exception in one line, as it is recorded for a sample."""
    if isinstance(error, RdxError):
        return error.message
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
