"""RDX against a straightforward dense implementation of its specification: time and peak memory.

Run ``python tests/benchmarks/bench_rdx.py [--full]``. Every measurement runs in a process of its own, so that peak
memory is that of the whole process, libraries included. ``--full`` adds n = 10,000 and 20,000, ours only.

The straightforward form does what the specification says, with the usual library calls: full distance matrices, two
argsorts per row, four n x n matrices for differences and affinities, all eigenvectors of the normalised Laplacian, one
Python step per cluster member for the choice of images.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np

K = 5


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

    rdx = RDX(K).fit(R0, R1)
    return {direction: result.labels for direction, result in rdx.directions_.items()}


def _child(name: str, n: int, d: int, queue: multiprocessing.Queue) -> None:
    import rdxcli.methods.difference.rdx  # noqa: F401  (imports are not part of the time)

    data = pair(n, d)
    ours(*[R[:500] for R in data])
    # The peak of this process so far belongs to imports; both ways pay for it alike.
    start, cpu = time.perf_counter(), time.process_time()
    labels = {"straightforward": straightforward, "ours": ours}[name](*data)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    queue.put((seconds, cpu, peak, labels))


def measure(name: str, n: int, d: int) -> tuple[float, float, float, dict[str, np.ndarray]]:
    """Seconds, CPU seconds (which other processes disturb less), peak resident memory in MiB, and labels."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(name, n, d, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def main() -> None:
    from sklearn.metrics import adjusted_rand_score

    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="also n = 10,000 and 20,000, ours only")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    rows = []
    print(f"RDX, k = {K}, both directions, neighbour ranks, locally biased, spectral; peak memory of the process")
    head = f"{'seconds':>8} {'CPU':>7} {'MiB':>5}"
    print(f"{'':>6} {'':>4} | ours {'':>17} | straightforward {'':>6} | times faster")
    print(f"{'n':>6} {'d':>4} | {head} | {head} | {'wall':>5} {'CPU':>5} | agreement (ARI)")
    for n, d in [(1000, 512), (2000, 512), (5000, 768)]:
        seconds, cpu, peak, mine = measure("ours", n, d)
        dense, dense_cpu, dense_peak, theirs = measure("straightforward", n, d)
        agreement = [float(adjusted_rand_score(theirs[direction], mine[direction])) for direction in ("01", "10")]
        rows.append([n, d, seconds, cpu, peak, dense, dense_cpu, dense_peak, *agreement])
        mine_text = f"{seconds:>8.2f} {cpu:>7.2f} {peak:>5.0f}"
        dense_text = f"{dense:>8.2f} {dense_cpu:>7.2f} {dense_peak:>5.0f}"
        faster = f"{dense / seconds:>5.1f} {dense_cpu / cpu:>5.1f}"
        text = f"{agreement[0]:.2f}, {agreement[1]:.2f}"
        print(f"{n:>6} {d:>4} | {mine_text} | {dense_text} | {faster} | {text}", flush=True)
    for n, d in [(10_000, 768), (20_000, 768)] if options.full else []:
        seconds, cpu, peak, _ = measure("ours", n, d)
        rows.append([n, d, seconds, cpu, peak])
        print(f"{n:>6} {d:>4} | {seconds:>8.2f} {cpu:>7.2f} {peak:>5.0f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    sys.exit(main())
