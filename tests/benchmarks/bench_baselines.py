"""Every baseline of ``rdx compare`` on one input, against its straightforward form: time, peak memory, same answer.

Run ``python tests/benchmarks/bench_baselines.py [--images 2000] [--dimensions 64] [--usae-epochs 40]``. Every
measurement runs in a process of its own, so that peak memory is that of the whole process, libraries included.

Straightforward means the specification in the shape in which it is written down: n x n matrices for convex NMF, CKA and
the success rate, all pairs of images for the cluster difference of NLMCD, a graph object with one Python edge per pair
for PageRank, a torch module with a data loader for the autoencoders. k-means, PCA, NMF, UMAP, HDBSCAN and the
classifier are library calls in both: they are timed, but there is nothing to compare them with.
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue as queues
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

K = 5


def pair(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten groups of rectified features; model a merges two groups, model b two others. Also the groups."""
    rng = np.random.default_rng(0)
    group, centre = rng.integers(0, 10, n), rng.normal(size=(10, d)) * 1.5
    a = centre[np.where(group == 3, 2, group)] + rng.normal(size=(n, d))
    b = centre[np.where(group == 1, 0, group)] + rng.normal(size=(n, d))
    return np.maximum(a, 0), np.maximum(b, 0), group


# Each entry returns numbers that the other form must give too, or None where random numbers are drawn differently.


def method(name: str, **parameters: Any) -> Callable[..., Any]:
    """A whole baseline, both models, with its published settings."""

    def call(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> None:
        from rdxcli.methods.registry import get

        own = {key: getattr(options, value) if isinstance(value, str) else value for key, value in parameters.items()}
        get("compare", name).load()(n_clusters=K, **own).fit(a, b)

    return call


def _start(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same start for both forms of convex and semi-NMF."""
    rng = np.random.default_rng(1)
    return rng.integers(0, K, len(a)), rng.uniform(size=(len(a), K)) + 1e-4


def convex(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    from rdxcli.methods.difference.baselines.classic import convex_nmf

    return [float(convex_nmf(R, _start(R)[0], K)[3][-1]) for R in (a, b)]


def convex_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    errors = []
    for X in (a, b):
        assignment = _start(X)[0]
        gram = X @ X.T
        P, N = (np.abs(gram) + gram) / 2, (np.abs(gram) - gram) / 2
        onehot = np.eye(K)[assignment]
        U, G = onehot + 0.2, (onehot + 0.01) / onehot.sum(0)[assignment][:, None]
        for _ in range(100):
            PG, NG = P @ G, N @ G
            U = U * np.sqrt((PG + U @ (G.T @ NG)) / (NG + U @ (G.T @ PG) + 1e-9))
            G = G * np.sqrt((P @ U + NG @ (U.T @ U)) / (N @ U + PG @ (U.T @ U) + 1e-9))
            error = float(np.linalg.norm(X - U @ (G.T @ X)))
        errors.append(error)
    return errors


def semi(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    from rdxcli.methods.difference.baselines.classic import semi_nmf

    return [float(np.linalg.norm(R - np.matmul(*semi_nmf(R, _start(R)[1])))) for R in (a, b)]


def semi_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    errors = []
    for X in (a, b):
        U = _start(X)[1]
        for _ in range(100):
            V = np.linalg.lstsq(U, X, rcond=None)[0]
            cross, inner = X @ V.T, V @ V.T
            above = (np.abs(cross) + cross) / 2 + U @ ((np.abs(inner) - inner) / 2)
            below = (np.abs(cross) - cross) / 2 + U @ ((np.abs(inner) + inner) / 2)
            U = U * np.sqrt(above / (below + 1e-9))
        errors.append(float(np.linalg.norm(X - U @ V)))
    return errors


def _memberships(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.dirichlet(np.ones(8), n), rng.dirichlet(np.ones(9), n)


def clusters(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    from rdxcli.methods.difference.baselines.nlmcd import cluster_difference

    return cluster_difference(*_memberships(len(a))).ravel().tolist()


def clusters_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    first, second = _memberships(len(a))
    above = np.triu_indices(len(first), 1)
    out = []
    for column in first.T:
        gaps = np.abs(column[:, None] - column)
        for other in second.T:
            out.append(np.abs(gaps - np.abs(other[:, None] - other))[above].mean() / 2)
    return out


def cka(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    from rdxcli.methods.difference.scores import linear_cka

    return [linear_cka(a, b)]


def cka_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    kernels = []
    for R in (a, b):
        kernel = R @ R.T
        np.fill_diagonal(kernel, 0)
        means = kernel.sum(0) / (len(R) - 2)
        means -= means.sum() / (2 * (len(R) - 1))
        kernel = kernel - means - means[:, None]
        np.fill_diagonal(kernel, 0)
        kernels.append(kernel)
    first, second = kernels
    return [float((first * second).sum() / np.sqrt((first * first).sum() * (second * second).sum()))]


def _grids(n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(3)
    return tuple([rng.choice(n, 9, replace=False) for _ in range(K)] for _ in range(2))  # type: ignore[return-value]


def success(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    from rdxcli.methods.difference.scores import score_grids

    scores = score_grids(a, b, *_grids(len(a)), "silb")
    return [scores.first.bsr, scores.second.bsr]


def success_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    ranks = []
    for R in (a, b):
        squared = (R**2).sum(1)[:, None] + (R**2).sum(1) - 2 * R @ R.T
        np.fill_diagonal(squared, -1)
        ranks.append(np.argsort(np.argsort(squared, axis=1), axis=1))
    out = []
    for grids, own in zip(_grids(len(a)), (0, 1), strict=True):
        pairs = [(i, j) for grid in grids for i in grid for j in grid if i != j]
        out.append(sum(ranks[own][i, j] < ranks[1 - own][i, j] for i, j in pairs) / len(pairs))
    return out


def _graph(n: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    weights = np.exp(rng.normal(size=(n, n)))
    return (weights + weights.T) / 2


def central(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    from rdxcli.methods.difference.centrality import pagerank

    return pagerank(_graph(min(len(a), 600))).tolist()


def central_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> Any:
    import networkx

    found = networkx.pagerank(networkx.from_numpy_array(_graph(min(len(a), 600))))
    return [found[i] for i in range(len(found))]


def sae_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> None:
    import torch

    for R in (a, b):
        X = torch.as_tensor((R - R.mean(0)) / R.std(0, ddof=1), dtype=torch.float32)
        W_enc = torch.nn.init.kaiming_uniform_(torch.empty(X.shape[1], K)).requires_grad_()
        W_dec = torch.nn.init.kaiming_uniform_(torch.empty(K, X.shape[1])).requires_grad_()
        b_enc, b_dec = (torch.zeros(m, requires_grad=True) for m in (K, X.shape[1]))
        optimiser = torch.optim.Adam([W_enc, W_dec, b_enc, b_dec], lr=1e-3)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), batch_size=2000, shuffle=True)
        for _ in range(500):
            for (batch,) in loader:
                with torch.no_grad():
                    W_dec /= W_dec.norm(dim=1, keepdim=True)
                codes = torch.relu((batch - b_dec) @ W_enc + b_enc)
                loss = (codes @ W_dec + b_dec - batch).square().mean() + 4e-4 * codes.sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                with torch.no_grad():
                    W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
                optimiser.step()


def topk_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> None:
    import torch

    for R in (a, b):
        X = torch.as_tensor(R, dtype=torch.float32)
        encoder = torch.nn.Linear(X.shape[1], 50)
        torch.nn.init.xavier_uniform_(encoder.weight)
        dictionary = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(50, X.shape[1])))
        weights = [*encoder.parameters(), dictionary]
        optimiser = torch.optim.Adam(weights, lr=5e-4)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), batch_size=1024)
        for _ in range(200):
            for (batch,) in loader:
                with torch.no_grad():
                    dictionary /= dictionary.norm(dim=1, keepdim=True)
                codes = torch.relu(encoder(batch))
                top = codes.topk(K, dim=1)
                codes = torch.zeros_like(codes).scatter(1, top.indices, top.values)
                loss = (codes @ dictionary - batch).square().mean()
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()


def usae_plain(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> None:
    import torch

    latents = 8 * a.shape[1]
    data = [torch.as_tensor(R, dtype=torch.float32) for R in (a, b)]
    encoders = [
        torch.nn.Sequential(torch.nn.Linear(X.shape[1], latents), torch.nn.BatchNorm1d(latents), torch.nn.ReLU())
        for X in data
    ]
    dictionaries = [torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(latents, X.shape[1]))) for X in data]
    weights = [[*one.parameters(), rows] for one, rows in zip(encoders, dictionaries, strict=True)]
    optimisers = [torch.optim.AdamW(own, lr=5e-4, weight_decay=1e-5) for own in weights]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=500, shuffle=True)
    rng = np.random.default_rng(0)

    def keep(codes: torch.Tensor, k: int) -> torch.Tensor:
        top = codes.topk(k, dim=1)
        return torch.zeros_like(codes).scatter(1, top.indices, top.values)

    for _ in range(options.usae_epochs):
        for batch in loader:
            model = int(rng.integers(2))
            active = encoders[model](batch[model])
            codes = keep(active, min(32, latents))
            spare = keep(torch.relu(active - codes), latents // 2)
            loss = torch.zeros(())
            for x, rows in zip(batch, dictionaries, strict=True):
                rows = torch.nn.functional.normalize(rows)
                residual = x - codes @ rows
                loss = loss + residual.abs().mean() + 0.1 * (residual - spare @ rows).abs().mean()
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights[model], 1.0)
            optimisers[model].step()


def probe(a: np.ndarray, b: np.ndarray, group: np.ndarray, options: argparse.Namespace) -> None:
    from rdxcli.methods.difference.probe import classification_probe

    classification_probe(a, b, group)


Form = Callable[..., Any]
ROWS: dict[str, tuple[Form, Form | None]] = {
    "kmeans": (method("kmeans"), None),
    "pca": (method("pca"), None),
    "nmf": (method("nmf"), None),
    "cnmf, 100 iterations": (convex, convex_plain),
    "snmf, 100 iterations": (semi, semi_plain),
    "sae": (method("sae"), sae_plain),
    "topk-sae": (method("topk-sae"), topk_plain),
    "usae, --usae-epochs": (method("usae", epochs="usae_epochs"), usae_plain),
    "nlmcd": (method("nlmcd"), None),
    "nlmcd, cluster difference": (clusters, clusters_plain),
    "PageRank, n at most 600": (central, central_plain),
    "probe, 5 folds": (probe, None),
    "CKA": (cka, cka_plain),
    "success rate of ten grids": (success, success_plain),
}


def _child(name: str, which: int, options: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    import sklearn.cluster
    import sklearn.decomposition  # noqa: F401  (imports are not part of the time)
    import torch

    import rdxcli.methods.difference.rdx  # noqa: F401

    data = pair(options.images, options.dimensions)
    form = ROWS[name][which]
    assert form is not None
    if name.startswith("nlmcd") and not which:
        import hdbscan  # noqa: F401
        import umap  # noqa: F401
    torch.manual_seed(0)
    torch.ones(2, 2) @ torch.ones(2, 2)
    start, cpu = time.perf_counter(), time.process_time()
    answer = form(*data, options)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    queue.put((seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, answer))


def measure(name: str, which: int, options: argparse.Namespace) -> tuple[float, float, float, Any]:
    """Seconds, CPU seconds, peak resident memory in MiB, and the numbers that were found."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(name, which, options, queue))
    process.start()
    while True:
        try:
            result = queue.get(timeout=1.0)
            break
        except queues.Empty:
            if not process.is_alive():
                raise SystemExit(f"{name}: the measuring process ended with {process.exitcode}") from None
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--usae-epochs", type=int, default=40, help="of the 2,000 published ones")
    options = parser.parse_args()
    print(
        f"baselines, both models, n = {options.images}, d = {options.dimensions}, k = {K}; peak memory of the process"
    )
    head = f"{'seconds':>8} {'CPU':>7} {'MiB':>5}"
    print(f"{'':>26} | {'ours':>22} | {'straightforward':>22} | times faster")
    print(f"{'':>26} | {head} | {head} | {'wall':>6} {'CPU':>6} | largest deviation")
    for name, (_, plain) in ROWS.items():
        seconds, cpu, peak, mine = measure(name, 0, options)
        line = f"{name:>26} | {seconds:>8.3f} {cpu:>7.3f} {peak:>5.0f} |"
        if plain is not None:
            other, other_cpu, other_peak, theirs = measure(name, 1, options)
            line += f" {other:>8.3f} {other_cpu:>7.3f} {other_peak:>5.0f} |"
            line += f" {other / seconds:>6.1f} {other_cpu / max(cpu, 1e-6):>6.1f} |"
            if mine is not None:
                line += f" {max(abs(x - y) / max(abs(y), 1e-12) for x, y in zip(mine, theirs, strict=True)):.1e}"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
