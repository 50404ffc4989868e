r"""Learning a dictionary from activations on disk, against a bare loop of the same steps in memory, in one run.

Prints positions per second of process time of both (one thread; wall time on a busy machine says little), their ratio,
and how much the memory of the process grew beside the size of the file. The bare loop has the forward and backward
pass and Adam, and nothing else: no reading, no shuffling, no care of dead latents, no curve. The large case:

    python tests/benchmarks/bench_dictionary.py [--positions 200000] [--channels 96] [--latents 512] [--steps 60]
    python tests/benchmarks/bench_dictionary.py --positions 1000000 --channels 768 --latents 16384 --steps 3 \
        --half --pairs 1
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize, relu

from rdxcli.methods.dictionaries.sae import SparseAutoencoder


def store(folder: Path, positions: int, channels: int, kind: type) -> np.ndarray:
    """A memory-mapped file of activations (n, d), written in parts."""
    made = np.lib.format.open_memmap(folder / "activations.npy", "w+", kind, (positions, channels))
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((4 * channels, channels)).astype(np.float32)
    for start in range(0, positions, 20_000):
        count = min(20_000, positions - start)
        active = rng.integers(len(basis), size=(count, 4))
        made[start : start + count] = basis[active].sum(1) + 0.1 * rng.standard_normal((count, channels))
    made.flush()
    return np.load(folder / "activations.npy", mmap_mode="r")


def bare(x: torch.Tensor, latents: int, k: int, steps: int, batch: int) -> float:
    """Seconds of process time of the steps of a batch-wise Top-K autoencoder on data in memory."""
    W = normalize(torch.randn(latents, x.shape[1]), dim=1).requires_grad_()
    D = W.detach().clone().requires_grad_()
    b = torch.zeros(latents, requires_grad=True)
    optimiser = torch.optim.Adam([W, D, b], lr=1e-3)
    start = time.process_time()
    for step in range(steps):
        part = x[(step * batch) % (len(x) - batch) :][:batch]
        flat = relu(part @ W.T + b).flatten()
        top = flat.topk(k * batch, sorted=False)
        active = torch.zeros_like(flat).scatter(0, top.indices, top.values).view(batch, -1)
        loss = (part - active @ normalize(D, dim=1)).square().sum() / part.square().sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return time.process_time() - start


def main() -> None:
    """Pairs of both, one after the other; the first pair warms up and does not count."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=200_000)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--half", action="store_true", help="activations in float16")
    given = parser.parse_args()
    made = given.steps * given.batch
    with tempfile.TemporaryDirectory() as folder:
        data = store(Path(folder), given.positions, given.channels, np.float16 if given.half else np.float32)
        memory = torch.from_numpy(np.array(data[: 8 * given.batch], np.float32))
        spec = SparseAutoencoder(given.latents, k=8, steps=given.steps, batch=given.batch)
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        spec.fit(data)  # warms up, and before the bare loop has taken memory
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pairs = []
        for _ in range(given.pairs):
            plain = bare(memory, given.latents, 8, given.steps, given.batch)
            spec.fit(data)
            pairs.append((plain, spec.seconds_))
        plain, mine = np.median(np.array(pairs), axis=0)
        ratios = ", ".join(f"{one / other:.2f}" for one, other in pairs)
        print(
            f"{given.positions:,} positions x {given.channels}, {given.latents:,} latents, {data.nbytes / 1e6:.0f} MB"
        )
        print(f"bare loop in memory  {made / plain:10,.0f} positions/s")
        print(f"from the file        {made / mine:10,.0f} positions/s, ratios {ratios}")
        print(f"memory               {start / 1024:10.0f} MiB before, {peak / 1024:.0f} MiB at most")


if __name__ == "__main__":
    main()
