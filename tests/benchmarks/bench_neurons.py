"""Linear explanations against a straightforward SAGA + Adam implementation of the published description, in one run.

The reference does what the description says: minibatch SAGA that forms the gradient of every sample
(batch x units x concepts numbers), then a greedy search in which every candidate is refitted by 100 full-batch Adam
steps on the training rows and scored on the validation rows. All of it would take hours, so its parts are timed where
they are and multiplied up: a few epochs with all units, and the search of a few units. What is extrapolated is said.

The quality of the reference is not extrapolated: its weights for all units come from the same SAGA with matrix
products (`rdxcli.methods.neurons.saga`; the iterates are compared with the straightforward ones in this run), and its
searches from the same Adam steps on moments (compared likewise).

The difference of two mean test correlations over 64 units is mostly chance: which of several equally good concepts is
chosen. So it is given with its paired standard error, and ``--draws`` repeats the fits (not the timing of the
straightforward parts) on other data.

    python tests/benchmarks/bench_neurons.py [--rows 20000] [--concepts 1000] [--units 64] [--draws 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rdxcli.methods.neurons.linear import LinearExplanation
from rdxcli.methods.neurons.preparation import Split, random_split, standardise
from rdxcli.methods.neurons.saga import effective_lambda, saga_epochs

LAM, ALPHA, STEP, BATCH = 0.05, 0.99, 5e-4, 512

OURS: dict[str, dict[str, Any]] = {
    "matched (default)": {},
    "matched, float32": {"dtype": "float32"},
    "exact": {"solver": "exact"},
}
REFERENCE: dict[str, Any] = {"solver": "saga", "refit": "adam"}


def correlated(n: int, c: int, u: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Concept probabilities with shared factors, and rectified units that depend on the factors."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 40))
    scores = factors @ rng.normal(size=(40, c)) / np.sqrt(40) + 0.6 * rng.normal(size=(n, c))
    mixing = rng.normal(size=(40, u)) * (rng.random((40, u)) < 0.2)
    activations = np.maximum(factors @ mixing + 0.8 * rng.normal(size=(n, u)), 0.0)
    return 1.0 / (1.0 + np.exp(-4.0 * (scores - 1.0))), activations


def straightforward_epoch(
    X: torch.Tensor, Y: torch.Tensor, order: torch.Tensor, state: dict[str, torch.Tensor]
) -> None:
    """One epoch of minibatch proximal SAGA, the gradient of each sample formed and then averaged."""
    n = len(X)
    lam = effective_lambda(LAM, ALPHA)
    for rows in order.split(BATCH):
        x, y = X[rows], Y[rows]
        residual = x @ state["W"].T + state["b"] - y
        new = residual[:, :, None] * x[:, None, :]
        old = state["table"][rows][:, :, None] * x[:, None, :]
        dW = (new - old).mean(dim=0)
        db = (residual - state["table"][rows]).mean(dim=0)
        W = state["W"] - STEP * (dW + state["mean_W"])
        W = torch.sign(W) * torch.clamp(W.abs() - STEP * lam * ALPHA, min=0.0)
        state["W"] = W / (1.0 + STEP * lam * (1.0 - ALPHA))
        state["b"] = state["b"] - STEP * (db + state["mean_b"])
        state["table"][rows] = residual
        state["mean_W"] = state["mean_W"] + dW * (len(rows) / n)
        state["mean_b"] = state["mean_b"] + db * (len(rows) / n)


def straightforward_refit(P: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """100 full-batch Adam steps from zero."""
    w = torch.zeros(P.shape[1], dtype=P.dtype, requires_grad=True)
    b = torch.zeros((), dtype=P.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([w, b], lr=0.3)
    for _ in range(100):
        optimiser.zero_grad()
        ((P @ w + b - a) ** 2).mean().backward()
        optimiser.step()
    return w.detach(), b.detach()


def straightforward_search(P: torch.Tensor, a: torch.Tensor, split: Split, order: np.ndarray) -> list[int]:
    """Greedy search of one unit, as described."""
    train, val = torch.as_tensor(split.train), torch.as_tensor(split.val)
    selected: list[int] = []
    bad: set[int] = set()
    best = 0.0
    while len(selected) < 10:
        top, choice = best, None
        for concept in [int(k) for k in order if k not in selected and k not in bad][:10]:
            columns = [*selected, concept]
            w, b = straightforward_refit(P[train][:, columns], a[train])
            prediction = P[val][:, columns] @ w + b
            r = float(torch.corrcoef(torch.stack([prediction, a[val]]))[0, 1])
            if selected and r - best < 0.02:
                bad.add(concept)
            elif r > top:
                top, choice = r, concept
        if choice is None:
            break
        selected.append(choice)
        best = top
    return selected


@dataclass
class Timed:
    """What a function returned and how long it took."""

    value: Any
    wall: float
    cpu: float


def timed(function: Callable[[], Any]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return Timed(value, time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--concepts", type=int, default=1000)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=500, help="epochs of the published budget")
    parser.add_argument("--draws", type=int, default=3, help="data sets over which test correlations are compared")
    parser.add_argument("--timed-epochs", type=int, default=2)
    parser.add_argument("--timed-units", type=int, default=1)
    args = parser.parse_args()
    n, c, u = args.rows, args.concepts, args.units
    P, A = correlated(n, c, u)
    split = random_split(n, 0)
    print(f"{n} rows (70/10/20), {c} concepts, {u} units, {torch.get_num_threads()} threads; wall and CPU seconds")

    def run(**options: Any) -> LinearExplanation:
        return LinearExplanation(epochs=args.epochs, min_top=None, **options).fit(
            P, A, train=split.train, val=split.val
        )

    ours = {name: timed(lambda o=options: run(**o)) for name, options in OURS.items()}
    reference = timed(lambda: run(**REFERENCE))

    data = standardise(P, A, split.train, split.val)
    X, Y = torch.as_tensor(data.train_x), torch.as_tensor(data.train_y)
    state = {
        "W": torch.zeros(u, c, dtype=X.dtype),
        "b": torch.zeros(u, dtype=X.dtype),
        "table": torch.zeros(len(X), u, dtype=X.dtype),
        "mean_W": torch.zeros(u, c, dtype=X.dtype),
        "mean_b": torch.zeros(u, dtype=X.dtype),
    }
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(X)) for _ in range(args.timed_epochs)]

    def epochs() -> None:
        for order in orders:
            straightforward_epoch(X, Y, torch.as_tensor(order), state)

    sparse = timed(epochs)
    same = list(saga_epochs(data.train_x, data.train_y, orders, lam=effective_lambda(LAM, ALPHA), alpha=ALPHA))
    difference = float(np.abs(same[-1][0] - state["W"].numpy()).max())
    tensors = torch.as_tensor(P), torch.as_tensor(A)
    units = range(args.timed_units)
    ranking = reference.value.ranking_
    search = timed(lambda: [straightforward_search(tensors[0], tensors[1][:, k], split, ranking[k]) for k in units])
    by_weight = [set(reference.value.selected_[k].tolist()) for k in units]
    agree = sum(set(found) == want for found, want in zip(search.value, by_weight, strict=True))

    scale_e, scale_u = args.epochs / args.timed_epochs, u / args.timed_units
    wall = sparse.wall * scale_e + search.wall * scale_u
    cpu = sparse.cpu * scale_e + search.cpu * scale_u
    print(f"straightforward sparse fit: {sparse.wall:.2f} wall, {sparse.cpu:.2f} CPU for {args.timed_epochs} epochs")
    print(f"  extrapolated to {args.epochs} epochs: {sparse.wall * scale_e:.0f} wall, {sparse.cpu * scale_e:.0f} CPU")
    print(f"straightforward search: {search.wall:.2f} wall, {search.cpu:.2f} CPU for {args.timed_units} of {u} units")
    print(f"  extrapolated to {u} units: {search.wall * scale_u:.0f} wall, {search.cpu * scale_u:.0f} CPU")
    print(f"  same iterates as SAGA with matrix products to {difference:.1e}; same choice in {agree} of {len(units)}")
    print(f"SAGA with matrix products + Adam on moments: {reference.wall:.2f} wall, {reference.cpu:.2f} CPU")
    rows = {"reference": reference, **ours}
    for name, one in rows.items():
        model = one.value
        scores, _ = model.score_rows(P, A, split.test)
        ratio = "" if name == "reference" else f"; {wall / one.wall:.0f} x wall, {cpu / one.cpu:.0f} x CPU"
        seconds = (
            f"{wall:.0f} wall, {cpu:.0f} CPU (extrapolated)"
            if name == "reference"
            else f"{one.wall:.2f} wall, {one.cpu:.2f} CPU"
        )
        print(
            f"{name}: {seconds}{ratio}; objective {model.objective_.mean():.6f}, gap {model.duality_gap_.max():.1e}, "
            f"test correlation {np.nanmean(scores):.4f}, {np.mean([len(s) for s in model.selected_]):.1f} concepts"
        )
    compare_draws(args)


def compare_draws(args: argparse.Namespace) -> None:
    """Objectives and test correlations against the reference on several data sets."""
    results: dict[str, list[np.ndarray]] = {name: [] for name in ("reference", *OURS)}
    objectives: dict[str, list[float]] = {name: [] for name in results}
    for seed in range(args.draws):
        P, A = correlated(args.rows, args.concepts, args.units, seed)
        split = random_split(args.rows, seed)
        for name, options in {"reference": REFERENCE, **OURS}.items():
            model = LinearExplanation(epochs=args.epochs, min_top=None, **options)
            model.fit(P, A, train=split.train, val=split.val)
            results[name].append(model.score_rows(P, A, split.test)[0])
            objectives[name].append(float(model.objective_.mean()))
    print(f"against the reference, {args.draws} draws of {args.units} units:")
    for name in OURS:
        difference = np.concatenate(results[name]) - np.concatenate(results["reference"])
        error = np.nanstd(difference, ddof=1) / np.sqrt(np.isfinite(difference).sum())
        lower = max(a - b for a, b in zip(objectives[name], objectives["reference"], strict=True))
        print(
            f"{name}: test correlation {np.nanmean(difference):+.5f} +- {error:.5f}; "
            f"objective lower by at least {-lower:.6f} in each draw"
        )


if __name__ == "__main__":
    main()
