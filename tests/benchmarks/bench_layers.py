"""Seconds and memory of a matrix of layers: `python tests/benchmarks/bench_layers.py LAYERS N D`.

Prints the seconds of every phase for LAYERS x LAYERS layers of N images and D dimensions, and the peak of the process
above what the layers take.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from rdxcli.methods.difference.matrices import similarity_matrices
from rdxcli.progress import Advance, set_tracker


@contextmanager
def _timed(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    started = time.process_time()
    yield lambda steps: None
    print(f"{description}: {time.process_time() - started:.1f} CPU s")


def main(layers: int, n: int, d: int) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(n, 20)).astype(np.float32)

    def layer() -> np.ndarray:
        seen = base @ rng.normal(size=(20, d)).astype(np.float32)
        return seen + rng.normal(size=(n, d)).astype(np.float32)

    sides = [[layer() for _ in range(layers)] for _ in range(2)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    set_tracker(_timed)
    started = time.process_time()
    similarity_matrices(*sides)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{layers} x {layers} layers, n = {n}, d = {d}: {time.process_time() - started:.1f} CPU s")
    print(f"peak above the layers: {(after - before) / 1024:.0f} MiB")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:4] or ("5", "2000", "256")))
