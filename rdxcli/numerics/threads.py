"""Keep small matrix steps off the thread pools.

Factorising a tall thin matrix or clustering a few thousand points takes microseconds per call; waking the threads of
BLAS and OpenMP for each takes milliseconds, and far more when other processes use the same cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from rdxcli.lazy import torch

T = TypeVar("T")
R = TypeVar("R")

_lock = threading.Lock()
_depth = 0
_controller: ThreadpoolController | None = None
_limiter: Any = None


@contextmanager
def single_thread() -> Iterator[None]:
    """Context in which BLAS and OpenMP use one thread. Entering takes about 10 microseconds after the first time.

    The limit belongs to the process. It is lifted when the last of all contexts, nested or in other threads, ends.
    """
    global _depth, _controller, _limiter
    with _lock:
        _depth += 1
        if _depth == 1:
            if _controller is None:
                _controller = ThreadpoolController()
            _limiter = _controller.limit(limits=1)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _limiter.restore_original_limits()


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Context in which torch's own pool has one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers() -> int:
    """Number of threads worth starting: the CPUs this process may use, at most 8, or ``OMP_NUM_THREADS``."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, int(given) if given.isdigit() else usable))


def map_in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map(function, items)``, several items at once, each on one thread; results come in the order of the items.

    For independent pieces of work that spend their time in NumPy, which lets other Python threads run meanwhile.
    """
    with single_thread():
        if workers() == 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(workers()) as pool:
            yield from pool.map(function, items)
