"""RDX against a straightforward dense implementation of its specification, and approximate RDX: time and peak memory.

Run ``python tests/benchmarks/bench_rdx.py [--exact 1000,2000] [--approximate 20000] [--full]``. Every measurement runs
in a process of its own, so that peak memory is that of the whole process, libraries included. The straightforward form
runs up to n = 5,000. ``--full`` goes up to n = 20,000 exact and 200,000 approximate, which takes about an hour.

The straightforward form does what the specification says, with the usual library calls: full distance matrices, two
argsorts per row, four n x n matrices for differences and affinities, all eigenvectors of the normalised Laplacian, one
Python step per cluster member for the choice of images.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue as queues
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

K = 5
STRAIGHTFORWARD_UP_TO = 5000


def pair(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten groups of images; model a merges two of them, model b two others."""
    rng = np.random.default_rng(0)
    group, centre = rng.integers(0, 10, n), rng.normal(size=(10, d))
    a = centre[np.where(group == 3, 2, group)] + rng.normal(size=(n, d))
    b = centre[np.where(group == 1, 0, group)] + rng.normal(size=(n, d))
    return a.astype(np.float32), b.astype(np.float32)


def straightforward(R0: np.ndarray, R1: np.ndarray) -> dict[str, np.ndarray]:
    """The specification, line by line; returns the labels of both directions."""
    from sklearn.cluster import KMeans

    ranks, distances = [], []
    for R in (R0, R1):
        squared = (R**2).sum(1)[:, None] + (R**2).sum(1) - 2 * R @ R.T
        distance = np.sqrt(np.maximum(squared, 0))
        distances.append(distance)
        ranks.append(np.argsort(np.argsort(distance, axis=1), axis=1).astype(np.float32))
    difference = np.tanh(0.1 * (ranks[1] - ranks[0]) / (1 + np.minimum(*ranks)))
    labels = {}
    for direction, diff, distance in (("10", difference, distances[1]), ("01", -difference, distances[0])):
        affinity = np.exp(-5 * diff)
        weights = (affinity + affinity.T) / 2
        np.fill_diagonal(weights, 0)
        root = np.sqrt(weights.sum(1))
        _, vectors = np.linalg.eigh(np.eye(len(weights)) - weights / root[:, None] / root)
        found = KMeans(K + 1, n_init=10, random_state=0).fit_predict(vectors[:, : K + 1] / root[:, None])
        members = [np.flatnonzero(found == c) for c in range(K + 1)]
        order = np.argsort([affinity[np.ix_(m, m)].mean() for m in members])
        labels[direction] = np.argsort(order)[found]
        for m in members:
            best = -np.inf
            for i in m:
                near = m[np.argsort(distance[i, m])[:9]]
                best = max(best, affinity[np.ix_(near, near)].sum())
    return labels


def ours(R0: np.ndarray, R1: np.ndarray) -> dict[str, np.ndarray]:
    from rdxcli.methods.difference.rdx import RDX

    rdx = RDX(K, approximate="never").fit(R0, R1)
    return {direction: result.labels for direction, result in rdx.directions_.items()}


def approximate(R0: np.ndarray, R1: np.ndarray) -> dict[str, float]:
    """Adjusted Rand index with the exact method, as the result itself reports it."""
    from rdxcli.methods.difference.rdx import RDX

    rdx = RDX(K, approximate="always").fit(R0, R1)
    return {direction: one.rand for direction, one in rdx.agreement_.items()}


def _child(name: str, n: int, d: int, queue: multiprocessing.Queue) -> None:
    import rdxcli.methods.difference.rdx  # noqa: F401  (imports are not part of the time)

    data = pair(n, d)
    ours(*[R[:500] for R in data])
    # The peak of this process so far belongs to imports; both ways pay for it alike.
    start, cpu = time.perf_counter(), time.process_time()
    labels = {"straightforward": straightforward, "ours": ours, "approximate": approximate}[name](*data)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    queue.put((seconds, cpu, peak, labels))


def measure(name: str, n: int, d: int) -> tuple[float, float, float, dict[str, Any]]:
    """Seconds, CPU seconds (which other processes disturb less), peak resident memory in MiB, and what was found."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(name, n, d, queue))
    process.start()
    while True:
        try:
            result = queue.get(timeout=1.0)
            break
        except queues.Empty:
            if not process.is_alive():
                raise SystemExit(f"n = {n}: the measuring process ended with {process.exitcode}") from None
    process.join()
    return result


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    from sklearn.metrics import adjusted_rand_score

    parser = argparse.ArgumentParser()
    parser.add_argument("--exact", type=_sizes, default="1000,2000,5000", help="numbers of images, with commas")
    parser.add_argument("--approximate", type=_sizes, default="20000", help="the same for landmarks, d = 128")
    parser.add_argument("--full", action="store_true", help="n up to 20,000 exact and 200,000 approximate")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.full:
        options.exact = [1000, 2000, 5000, 10_000, 20_000]
        options.approximate = [20_000, 50_000, 100_000, 200_000]
    rows: list[list[Any]] = []
    print(f"RDX, k = {K}, both directions, neighbour ranks, locally biased, spectral; peak memory of the process")
    head = f"{'seconds':>8} {'CPU':>7} {'MiB':>5}"
    print(f"{'':>7} {'':>4} | ours {'':>17} | straightforward {'':>6} | times faster")
    print(f"{'n':>7} {'d':>4} | {head} | {head} | {'wall':>5} {'CPU':>5} | agreement (ARI)")
    for n in options.exact:
        d = 512 if n < STRAIGHTFORWARD_UP_TO else 768
        seconds, cpu, peak, mine = measure("ours", n, d)
        rows.append(["exact", n, d, seconds, cpu, peak])
        line = f"{n:>7} {d:>4} | {seconds:>8.2f} {cpu:>7.2f} {peak:>5.0f} |"
        if n <= STRAIGHTFORWARD_UP_TO:
            dense, dense_cpu, dense_peak, theirs = measure("straightforward", n, d)
            agreement = [float(adjusted_rand_score(theirs[direction], mine[direction])) for direction in ("01", "10")]
            rows[-1] += [dense, dense_cpu, dense_peak, *agreement]
            line += f" {dense:>8.2f} {dense_cpu:>7.2f} {dense_peak:>5.0f} |"
            line += f" {dense / seconds:>5.1f} {dense_cpu / cpu:>5.1f} | {agreement[0]:.2f}, {agreement[1]:.2f}"
        print(line, flush=True)
    if options.approximate:
        print("approximate; agreement with exact RDX on 4,000 of the images")
    for n in options.approximate:
        seconds, cpu, peak, found = measure("approximate", n, 128)
        rows.append(["approximate", n, 128, seconds, cpu, peak, *found.values()])
        text = ", ".join(f"{rand:.2f}" for rand in found.values())
        print(f"{n:>7} {128:>4} | {seconds:>8.2f} {cpu:>7.2f} {peak:>5.0f} | {text}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    sys.exit(main())
