"""EDDP and UIBE against the baselines on synthetic cases with known directions, and on an input of real size.

First table: agreement with the known directions, seconds, and the figures of the specification (section 12, means of
two seeds of a prototype). Seed 0 throughout. Second table: features of the size of MobileNetV2's last stage,
(300, 320, 7, 7), in a fresh process each; the floor is PCA, which reads the data once and solves one eigenproblem.

    python tests/benchmarks/bench_eddp.py [--cases paper_table noisy] [--directions 16] [--no-large]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import Any

import numpy as np

from rdxcli.methods.directions import synthetic
from rdxcli.methods.directions.baselines import BASELINES
from rdxcli.methods.directions.eddp import EDDP
from rdxcli.methods.directions.recovery import recovery
from rdxcli.methods.directions.uibe import UIBE
from rdxcli.numerics.threads import single_thread

METHODS: dict[str, Any] = {"eddp": EDDP, "uibe": UIBE, **BASELINES}
SCORES = ("enc", "dec", "dec_span", "corr", "iou", "rmse")
NON_STRESS = [name for name in synthetic.names() if name != "hard_shared_distractor"]
# enc, dec in span, corr, IoU, RMSE
SPECIFIED = {
    "paper_table": (0.98, 1.00, 0.995, 0.95, 0.21),
    "paper_like": (0.99, 1.00, 0.997, 0.95, 0.15),
    "normal_distractor": (0.99, 0.99, 0.995, 0.95, 0.18),
    "noisy": (0.97, 1.00, 0.987, 0.93, 0.23),
    "four_concepts": (0.98, 1.00, 0.995, 0.90, 0.13),
}


def known(name: str) -> None:
    """Every method on one case."""
    case = synthetic.generate(synthetic.named(name))
    found = {}
    print(f"\n{name}: {len(case.X):,} images, {case.X.shape[1]} channels, {case.S.shape[1]} concepts")
    print(f"  {'':10}" + "".join(f"{score:>10}" for score in SCORES) + "   seconds")
    for method, kind in METHODS.items():
        start = time.perf_counter()
        with single_thread():
            directions = kind(case.S.shape[1], random_state=0).fit(case.X[~case.is_test], case.head)
        seconds = time.perf_counter() - start
        scores = recovery(directions, case.X, case.values, case.owner, case.S, case.B, case.W, case.is_test).as_dict()
        found[method] = scores
        print(f"  {method:10}" + "".join(f"{scores[score]:10.3f}" for score in SCORES) + f"{seconds:10.2f}")
    if name in SPECIFIED:
        enc, dec, corr, iou, rmse = SPECIFIED[name]
        print(f"  {'section 12':10}{enc:10.3f}{'':10}{dec:10.3f}{corr:10.3f}{iou:10.3f}{rmse:10.3f}")
    best = {score: max(found[name][score] for name in BASELINES) for score in ("enc", "dec", "corr", "iou")}
    print("  eddp minus the best baseline: " + ", ".join(f"{s} {found['eddp'][s] - best[s]:+.3f}" for s in best))


def features(n: int, channels: int, size: int) -> np.ndarray:
    """Non-negative maps: 40 sparse concepts that cover 2 x 2 patches, and noise."""
    rng = np.random.default_rng(0)
    S = np.abs(rng.standard_normal((40, channels))).astype(np.float32)
    half = (size + 1) // 2
    owner = rng.integers(40, size=(n, half, half)).repeat(2, 1).repeat(2, 2)[:, :size, :size]
    strength = rng.uniform(2, 5, owner.shape).astype(np.float32)
    X = S[owner] * strength[..., None] + rng.standard_normal((*owner.shape, channels)).astype(np.float32)
    return np.ascontiguousarray(np.maximum(X, 0).transpose(0, 3, 1, 2))


def _measured(method: str, shape: tuple[int, int, int], n_directions: int, answer: Any) -> None:
    X = features(*shape)
    METHODS["pca"](2, random_state=0).fit(X[:4])  # libraries loaded, threads started
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    METHODS[method](n_directions, random_state=0).fit(X)
    seconds = time.perf_counter() - start
    answer.send((X.nbytes, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))


def large(shape: tuple[int, int, int], n_directions: int) -> None:
    """Seconds and extra memory on an input of real size."""
    context = multiprocessing.get_context("spawn")
    rows = {}
    for method in ("pca", "ica", "kmeans", "uibe", "eddp"):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_measured, args=(method, shape, n_directions, send))
        process.start()
        rows[method] = receive.recv()
        process.join()
    n, channels, size = shape
    print(f"\nfeatures ({n}, {channels}, {size}, {size}), {rows['pca'][0] / 1e6:.0f} MB, {n_directions} directions")
    print("              seconds   times the floor   extra memory")
    for method, (_, seconds, peak) in rows.items():
        print(f"  {method:10}{seconds:9.2f}{seconds / rows['pca'][1]:18.1f}{peak / 1e6:12.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=NON_STRESS, choices=synthetic.names())
    parser.add_argument("--shape", nargs=3, type=int, default=(300, 320, 7), metavar=("N", "C", "SIZE"))
    parser.add_argument("--directions", type=int, default=16)
    parser.add_argument("--no-large", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.cases:
        known(name)
    if not arguments.no_large:
        large(tuple(arguments.shape), arguments.directions)


if __name__ == "__main__":
    main()
