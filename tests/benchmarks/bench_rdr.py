"""Relaxed decision regions against two straightforward NumPy versions, in the same run.

``float64``: the states as the published code holds them, zeros and ones in float64. ``bool``: one byte per state.
Seconds are those of the process (best of several); memory is what NumPy allocates at its peak.

    python tests/benchmarks/bench_rdr.py [--samples 20000] [--neurons 4096]
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.rdr import RDR
from rdxcli.numerics import hamming

K, T, TARGET = 8, 10, 17


def activations(n: int, m: int) -> np.ndarray:
    """Forty overlapping groups: (n, m) float32."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(40, m)).astype(np.float32)
    z = rng.standard_normal((n, m), dtype=np.float32)
    z += centre[rng.integers(40, size=n)]
    return z


def straightforward(C: np.ndarray) -> np.ndarray:
    """Members of the region of one target, as one would write it down."""
    if C.dtype == bool:
        distance = (C[TARGET] != C).sum(axis=1)
    else:
        distance = np.abs(C - C[TARGET]).sum(axis=1)
    nearest = np.argsort(distance, kind="stable")[:K]
    p, q = C[nearest].mean(axis=0), C.mean(axis=0)
    unanimous = np.flatnonzero((p == 0) | (p == 1))
    score = np.abs(p - q)[unanimous]
    neurons = unanimous[np.argsort(score, kind="stable")[::-1][:T]]
    states = p[neurons] > 0.5
    return np.flatnonzero((C[:, neurons] == states).all(axis=1))


def ours(configurations: Configurations) -> np.ndarray:
    """The same through the estimator, with scores, ties and everything else it reports."""
    return np.sort(RDR(K, T).fit(configurations, targets=TARGET).regions_[0].members)


def measure(function: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """Result, best seconds of the process, peak bytes on top of what was there."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, min(seconds), peak


def prepare(name: str, z: np.ndarray) -> Any:
    """Everything that is done once per layer."""
    if name == "packed":
        configurations = Configurations.from_activations(z)
        _ = configurations.counts
        return configurations
    return (z > 0).astype(np.float64 if name == "float64" else bool)


def one_target(z: np.ndarray) -> None:
    rows = {}
    members = {}
    for name in ("float64", "bool", "packed"):
        C, once, _ = measure(lambda name=name: prepare(name, z), 1)
        held = C.words.nbytes if name == "packed" else C.nbytes
        run = (lambda C=C: ours(C)) if name == "packed" else (lambda C=C: straightforward(C))
        members[name], seconds, peak = measure(run, 9 if name == "packed" else 2)
        rows[name] = (once, seconds, held, peak)
        del C
    assert all(np.array_equal(members[name], members["packed"]) for name in members)
    print(f"one target, n = {len(z):,}, m = {z.shape[1]:,}, k = {K}, t = {T}, {len(members['packed'])} members")
    print("             once per layer   per target   states held   extra per target")
    for name, (once, seconds, held, peak) in rows.items():
        print(f"  {name:9} {once:12.3f} s {1e3 * seconds:10.2f} ms {held / 1e6:10.1f} MB {peak / 1e6:14.2f} MB")
    for name in ("float64", "bool"):
        _, seconds, held, peak = rows[name]
        _, mine, my_held, my_peak = rows["packed"]
        print(
            f"  packed / {name}: time {mine / seconds:.4f}, memory {(my_held + my_peak) / (held + peak):.4f}, "
            f"extra memory {my_peak / peak:.4f}"
        )


def all_targets(z: np.ndarray) -> None:
    n, m = z.shape
    configurations = prepare("packed", z)
    rows = np.arange(512)
    print(f"neighbours of {len(rows)} targets, n = {n:,}, m = {m:,}")
    found = {}
    for strategy in ("xor", "product"):
        found[strategy], seconds, peak = measure(
            lambda strategy=strategy: hamming.nearest(configurations.words, m, rows, K, strategy=strategy), 2
        )
        print(f"  {strategy:8} {seconds:8.3f} s of the process, {peak / 1e6:6.1f} MB")
    assert all(np.array_equal(a, b) for a, b in zip(found["xor"], found["product"], strict=True))
    rdr = RDR(K, T)
    _, seconds, peak = measure(lambda: rdr.fit(configurations, targets="all"), 1)
    C = prepare("float64", z[: min(n, 5000)])
    _, naive, _ = measure(lambda: straightforward(C), 1)
    naive *= n * n / len(C)
    print(
        f"all {n:,} targets and the catalogue ({len(rdr.concepts_)} concepts): {seconds:.1f} s, {peak / 1e6:.0f} MB; "
        f"straightforward, extrapolated: {naive:.0f} s, ratio {seconds / naive:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--neurons", type=int, default=4_096)
    arguments = parser.parse_args()
    one_target(activations(arguments.samples, arguments.neurons))
    all_targets(activations(min(arguments.samples, 5_000), min(arguments.neurons, 512)))


if __name__ == "__main__":
    main()
