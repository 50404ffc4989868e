"""Levels and power of what directions claim: influence beyond chance. Prints the tables of docs/methods/directions.md.

Sets without influence of their own: random filters that fire on 1 / I of the positions or on shares from 1 % to 30 %,
sets of k-means in randomly rotated features, and filters fitted to permuted cluster labels. Planted: the true signals
of synthetic cases with many distractors. Found: what k-means and UIBE find.

    python tests/benchmarks/levels_directions.py [--data FOLDER] [--part significance|planted|found] [--seeds 3]

``--data`` holds the CIFAR-10 and MobileNetV2 files; without it only the embedded digits and made-up data are used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdxcli.methods.directions.alignment import Head, PooledLinearHead
from rdxcli.methods.directions.base import Directions, closed_form_signals
from rdxcli.methods.directions.baselines import KMeansDirections
from rdxcli.methods.directions.features import as_maps, positions
from rdxcli.methods.directions.influence import claims, influence, random_filters
from rdxcli.methods.directions.synthetic import SyntheticCase, generate, named
from rdxcli.methods.directions.uibe import UIBE
from rdxcli.models import load
from rdxcli.models.rest import RestOfNetwork

SET = 10
SETS = 20


def network(name: str, layer: str, dataset: str, limit: int) -> tuple[np.ndarray, Head]:
    """Features of a layer and the network above it."""
    from rdxcli.datasets.registry import open_dataset

    model = load(name, "cpu")
    images = open_dataset(dataset)
    rows = np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int))
    found = []
    place = dict(model.module.named_modules())[layer]
    hook = place.register_forward_hook(lambda module, inputs, output: found.append(output.clone()))
    with torch.no_grad():
        for part in np.array_split(rows, max(1, len(rows) // 32)):
            model.module(torch.stack([model.transform(images.image(int(row))) for row in part]))
    hook.remove()
    rest = RestOfNetwork(model, layer)
    return torch.cat(found).numpy(), lambda batch: rest(batch).float()


def data(folder: Path | None) -> Iterator[tuple[str, np.ndarray, Head]]:
    """Features and heads; no truth about them is used."""
    yield ("digits conv2", *network("digits-cnn", "conv2", "digits", 1797))
    rng = np.random.default_rng(7)
    mixing = rng.standard_normal((48, 48)) * np.linspace(2, 0.1, 48)
    yield (
        "Gaussian, 48 channels",
        (rng.standard_normal((3000, 48)) @ mixing.T).astype(np.float32),
        PooledLinearHead(rng.standard_normal((48, 10)), np.zeros(10)),
    )
    case = generate(named("four_concepts"))
    yield "synthetic four_concepts", case.X, case.head
    if folder is not None:
        cifar = f"file:{folder / 'weights' / 'cifar10_resnet20.th'}?arch=cifar_resnet20"
        yield ("CIFAR ResNet-20 layer3", *network(cifar, "layer3", f"folder:{folder / 'cifar10_test'}", 500))
        yield ("CIFAR ResNet-20 layer2", *network(cifar, "layer2", f"folder:{folder / 'cifar10_test'}", 300))
        mobile = f"file:{folder / 'weights' / 'mobilenet_v2_imagenet1k.safetensors'}?arch=torchvision:mobilenet_v2"
        yield ("MobileNetV2 features.16", *network(mobile, "features.16", f"images:{folder / 'imagenet_sample'}", 150))


def with_signals(X: np.ndarray, filters: np.ndarray, shares: np.ndarray) -> Directions:
    """Filters that fire on given shares, with signal vectors in closed form."""
    x = positions(as_maps(X)).double().numpy()
    mean = x.mean(0)
    out = x @ filters.T
    bias = np.array([np.quantile(column, 1 - share) for column, share in zip(out.T, shares, strict=True)])
    return Directions.of(closed_form_signals(as_maps(X), filters, bias, mean), filters, bias, mean=mean)


def rotated(X: np.ndarray, seed: int, count: int) -> Directions:
    """Filters of k-means, each set of ten turned by a rotation of its own."""
    rng = np.random.default_rng(10_000 + seed)
    own = KMeansDirections(SET, random_state=seed).fit(X).decoding_
    turned = [own @ np.linalg.qr(rng.standard_normal((own.shape[1],) * 2))[0] for _ in range(count // SET)]
    return with_signals(X, np.concatenate(turned), np.full(count, 1 / SET))


def permuted(X: np.ndarray, seed: int, count: int) -> Directions:
    """Ridge regressions of permuted labels."""
    rng = np.random.default_rng(20_000 + seed)
    x = positions(as_maps(X)).double().numpy()
    x = x - x.mean(0)
    gram = x.T @ x / len(x)
    labels = np.stack([rng.permutation(len(x)) < len(x) / SET for _ in range(count)]).astype(float)
    W = np.linalg.solve(gram + 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ labels.T).T
    return with_signals(X, W, np.full(count, 1 / SET))


KINDS: dict[str, Callable[[np.ndarray, int, int], Directions]] = {
    "random, share 1/10": lambda X, seed, count: random_filters(X, np.full(count, 1 / SET), random_state=seed + 500),
    "random, share 1 to 30 %": lambda X, seed, count: random_filters(
        X, np.geomspace(0.01, 0.3, SET)[np.arange(count) % SET], random_state=seed + 600
    ),
    "rotated k-means": rotated,
    "permuted labels": permuted,
}


def significance(folder: Path | None, seeds: int) -> None:
    """Share of sets of ten with any significant pair, and of directions with p below 0.05."""
    print("| data | sets of ten | sets with a claim | directions with p < 0.05 |\n|---|---|---|---|", flush=True)
    for name, X, head in data(folder):
        for kind, draw in KINDS.items():
            called, small, total = 0, [], 0
            for seed in range(seeds):
                found = influence(draw(X, seed, SET * SETS), head, X, random_state=seed)
                for start in range(0, SET * SETS, SET):
                    p = found.p_value[start : start + SET]
                    called += bool(claims(p, 0.05).any())
                    small.append((p.min(1) < 0.05).mean())
                    total += 1
            print(f"| {name} | {kind} | {called} of {total} | {np.mean(small):.3f} |", flush=True)


def planted(case: SyntheticCase) -> Directions:
    """True signals and filters, which fire where their concept owns the position."""
    W = case.W / np.linalg.norm(case.W, axis=0)
    x = positions(as_maps(case.X)).double().numpy()
    shares = np.array([(case.owner == i).mean() for i in range(W.shape[1])])
    bias = np.array([np.quantile(x @ w, 1 - share) for w, share in zip(W.T, shares, strict=True)])
    return Directions.of(case.S.T, W.T, bias, mean=x.mean(0))


MANY: dict[str, Any] = {
    "dim": 64,
    "n_concepts": 4,
    "height": 2,
    "width": 2,
    "images_per_class": 200,
    "direction_law": "gaussian",
    "noise_std": 0.15,
    "min_sv": 0.05,
    "filter_cos_max": 1.0,
}


def power(seeds: int) -> None:
    """Planted directions that are found, by the number of distractors."""
    print("| distractors | directions found | largest p |\n|---|---|---|", flush=True)
    for count in (2, 8, 16, 30):
        hits, total, largest = 0, 0, 0.0
        for seed in range(seeds):
            case = generate(named("noisy", **MANY, n_distractors=count, seed=9000 + seed))
            found = influence(planted(case), case.head, case.X, random_state=seed)
            hits += int(found.significant.any(1).sum())
            total += len(found.effect)
            largest = max(largest, float(found.p_value.min(1).max()))
        print(f"| {count} of {MANY['dim']} channels | {hits} of {total} | {largest:.3f} |", flush=True)
    for name in ("paper_table", "normal_distractor", "hard_shared_distractor", "noisy", "four_concepts"):
        case = generate(named(name))
        found = influence(planted(case), case.head, case.X)
        smallest = ", ".join(f"{p:.3f}" for p in np.sort(found.p_value.min(1)))
        print(f"| `{name}` | {int(found.significant.any(1).sum())} of {len(found.effect)} | {smallest} |", flush=True)


def found(folder: Path | None) -> None:
    """What methods find, in the same data."""
    print("| data | method | directions with influence | pairs |\n|---|---|---|---|", flush=True)
    for name, X, head in data(folder):
        for method, fitted in (
            ("kmeans", KMeansDirections(SET)),
            ("uibe", UIBE(SET, n_starts=2, search_images=500)),
        ):
            what = influence(fitted.fit(X), head, X).summary()
            print(f"| {name} | {method} | {what['directions']} of {SET} | {what['pairs']} |", flush=True)


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", choices=("significance", "planted", "found"), action="append")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    parts = given.part or ["significance", "planted", "found"]
    if "significance" in parts:
        significance(given.data, given.seeds)
    if "planted" in parts:
        power(given.seeds)
    if "found" in parts:
        found(given.data)


if __name__ == "__main__":
    main()
