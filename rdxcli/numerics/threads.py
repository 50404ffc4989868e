"""Keep small matrix steps off the thread pools.

Factorising a tall thin matrix or clustering a few thousand points takes microseconds per call; waking the threads of
BLAS and OpenMP for each takes milliseconds, and far more when other processes use the same cores.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def single_thread() -> AbstractContextManager[object]:
    """Context in which BLAS and OpenMP use one thread. Entering takes about 10 microseconds after the first time."""
    return _controller().limit(limits=1)
