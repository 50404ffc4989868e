"""Several transfers at once, in threads that nobody has to wait for when the user has had enough."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .expected import Stopped

T = TypeVar("T")


class TooSlow(Exception):  # noqa: N818
    """No task ended within the given patience."""


class TaskError(Exception):
    """The task ``task`` failed with ``error``."""

    def __init__(self, task: str, error: BaseException) -> None:
        super().__init__(task)
        self.task, self.error = task, error


def gather(
    tasks: Mapping[str, Callable[[], T]], jobs: int, stop: threading.Event, patience: float | None = None
) -> dict[str, T]:
    """Run tasks in at most ``jobs`` threads; their results by name.

    After a failure ``stop`` is set and the others are waited for, so that none of them writes any more. After an
    interruption, or when no task ends for ``patience`` seconds, they are left alone: a look-up of a name can hang for
    long, and cannot be stopped. Raises `TaskError` (from the first exception of a task that is not `Stopped`) or
    `TooSlow`.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[str, T | None, BaseException | None]] = queue.SimpleQueue()
    for name in tasks:
        todo.put(name)

    def work() -> None:
        while True:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            try:
                if stop.is_set():
                    raise Stopped
                ended.put((name, tasks[name](), None))
            except BaseException as error:  # handed to the thread that waits
                ended.put((name, None, error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(jobs, len(tasks))))]
    for thread in threads:
        thread.start()
    results: dict[str, Any] = {}
    failure: tuple[str, BaseException] | None = None
    try:
        for _ in tasks:
            name, result, error = ended.get(timeout=patience)
            if error is None:
                results[name] = result
                continue
            stop.set()
            if failure is None or isinstance(failure[1], Stopped):
                failure = (name, error)
    except queue.Empty:
        stop.set()
        raise TooSlow from None
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join(0.5)
        raise
    if failure is not None:
        raise TaskError(*failure) from failure[1]
    return results
