"""Levels and power of what directions claim: influence and labels beyond
chance. Prints the tables of docs/methods/directions.md.

Sets without influence of their own: random filters that fire on 1 / I of the positions or on shares from 1 % to 30 %,
sets of k-means in randomly rotated features, and filters fitted to permuted cluster labels. Planted: the true signals
of synthetic cases, a mark that a network learned, and concepts that the network ignores, which must not be found.
Found: what k-means and UIBE find.

    python tests/benchmarks/levels_directions.py [--data FOLDER] [--seeds 3] [--first 0]
        [--part significance|planted|found|shown|masks]

``--data`` holds the CIFAR-10 and MobileNetV2 files; without it only the embedded digits and made-up data are used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from drawn_shapes import poisoned

from rdxcli.concepts.masks import read_mask
from rdxcli.datasets.registry import open_dataset
from rdxcli.methods.directions.alignment import Head, PooledLinearHead, pooled_linear
from rdxcli.methods.directions.base import Directions, closed_form_signals
from rdxcli.methods.directions.baselines import KMeansDirections
from rdxcli.methods.directions.features import as_maps, positions
from rdxcli.methods.directions.influence import Influence, claims, influence, random_filters
from rdxcli.methods.directions.labelling import OUTSIDE, label_by_masks, mask_chance
from rdxcli.methods.directions.signals import cav
from rdxcli.methods.directions.synthetic import SyntheticCase, generate, named
from rdxcli.methods.directions.tcav import TCAV
from rdxcli.methods.directions.uibe import UIBE
from rdxcli.models import load
from rdxcli.models.preprocessing import cut_labels
from rdxcli.models.rest import RestOfNetwork

SET = 10
SETS = 20


def network(name: str, layer: str, dataset: str, limit: int) -> tuple[np.ndarray, Head]:
    """Features of a layer and the network above it."""
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


def gaussian() -> tuple[np.ndarray, Head]:
    """Correlated noise and a random head."""
    rng = np.random.default_rng(7)
    mixing = rng.standard_normal((48, 48)) * np.linspace(2, 0.1, 48)
    X = (rng.standard_normal((3000, 48)) @ mixing.T).astype(np.float32)
    return X, PooledLinearHead(rng.standard_normal((48, 10)), np.zeros(10))


def synthetic() -> tuple[np.ndarray, Head]:
    """A case whose truth is not used."""
    case = generate(named("four_concepts"))
    return case.X, case.head


Loaders = dict[str, Callable[[], tuple[np.ndarray, Head]]]


def data(folder: Path | None) -> Loaders:
    """Features and heads by name."""
    found: Loaders = {
        "digits conv2": lambda: network("digits-cnn", "conv2", "digits", 1797),
        "Gaussian, 48 channels": gaussian,
        "synthetic `four_concepts`": synthetic,
    }
    if folder is not None:
        cifar = f"file:{folder / 'weights' / 'cifar10_resnet20.th'}?arch=cifar_resnet20"
        mobile = f"file:{folder / 'weights' / 'mobilenet_v2_imagenet1k.safetensors'}?arch=torchvision:mobilenet_v2"
        test, photographs = f"folder:{folder / 'cifar10_test'}", f"images:{folder / 'imagenet_sample'}"
        found |= {
            "CIFAR ResNet-20 layer3": lambda: network(cifar, "layer3", test, 500),
            "CIFAR ResNet-20 layer2": lambda: network(cifar, "layer2", test, 300),
            "MobileNetV2 features.17": lambda: network(mobile, "features.17", photographs, 150),
        }
    return found


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


def significance(loaders: Loaders, seeds: range) -> None:
    """Share of sets of ten with any significant pair, and of directions with p below 0.05."""
    print("| data | sets of ten | sets with a claim | directions with p < 0.05 |\n|---|---|---|---|", flush=True)
    for name, load_data in loaders.items():
        X, head = load_data()
        for kind, draw in KINDS.items():
            called, small, total = 0, [], 0
            for seed in seeds:
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


SMALL = ("paper_table", "normal_distractor", "hard_shared_distractor", "noisy", "four_concepts", "gap")
HARDER = ("correlated", "tight", "many", "wide")


def drawn_case(name: str, seed: int, **changes: Any) -> SyntheticCase:
    """A case drawn anew; `paper_table` has fixed directions and draws values alone."""
    return generate(named(name, seed=1000 * seed + 7, **changes))


def ignored(case: SyntheticCase) -> Head:
    """A head that makes nothing of the first concept: its weights are turned away from its signal vector."""
    weight, s = case.head.weight.double().numpy(), case.S[:, 0]
    return PooledLinearHead(weight - np.outer(s, s @ weight), case.head.bias.double().numpy())


def mark(seed: int) -> tuple[Directions, np.ndarray, Head]:
    """The direction of a mark that a small network learned to take for a class: a classifier of marked places."""
    poisoned_case = poisoned(seed)
    X, marked = as_maps(poisoned_case.features), poisoned_case.crosses.reshape(-1, 1).astype(bool)
    filters = cav(positions(X).double().numpy(), marked, 0.01)[0]
    return with_signals(X, filters / np.linalg.norm(filters), marked.mean(0)), X.numpy(), poisoned_case.head


def power(seeds: range) -> None:
    """Planted directions that are found, and those that a network ignores."""
    print("| planted | directions found | largest p |\n|---|---|---|", flush=True)

    def row(name: str, results: list[Influence], only: slice = slice(None)) -> None:
        hits = sum(int(one.significant.any(1)[only].sum()) for one in results)
        p = np.concatenate([one.p_value.min(1)[only] for one in results])
        print(f"| {name} | {hits} of {len(p)} | {p.max():.3f} |", flush=True)

    for name in (*SMALL, *HARDER):
        cases = [drawn_case(name, seed) for seed in seeds]
        row(f"`{name}`", [influence(planted(case), case.head, case.X) for case in cases])
    for count in (2, 8, 16, 30):
        cases = [drawn_case("noisy", seed, **MANY, n_distractors=count) for seed in seeds]
        row(f"4 concepts, {count} distractors, 64 channels", [influence(planted(c), c.head, c.X) for c in cases])
    cases = [drawn_case(name, seed) for name in ("four_concepts", "gap", "tight") for seed in seeds]
    row("a concept that the network ignores", [influence(planted(c), ignored(c), c.X) for c in cases], slice(1))
    marks = [mark(seed) for seed in seeds]
    row("a mark that a network learned", [influence(found, head, X) for found, X, head in marks])


def found(loaders: Loaders) -> None:
    """What methods find, in the same data."""
    print("| data | method | directions with influence | pairs |\n|---|---|---|---|", flush=True)
    for name, load_data in loaders.items():
        X, head = load_data()
        for method, fitted in (
            ("kmeans", KMeansDirections(SET)),
            ("uibe", UIBE(SET, n_starts=2, search_images=500)),
        ):
            what = influence(fitted.fit(X), head, X).summary()
            print(f"| {name} | {method} | {what['directions']} of {SET} | {what['pairs']} |", flush=True)


def masks(folder: Path, seeds: range) -> None:
    """Street scenes: what is called interpretable among random filters, with masks of other images, and found."""
    frames = folder / "camvid40"
    mobile = f"file:{folder / 'weights' / 'mobilenet_v2_imagenet1k.safetensors'}?arch=torchvision:mobilenet_v2"
    X, _ = network(mobile, "features.13", f"images:{frames / 'images'}", 40)
    transform = load(mobile, "cpu").transform
    stack = [cut_labels(transform, read_mask(path)) for path in sorted((frames / "masks").iterdir())]
    half = np.arange(len(X)) % 2 == 0
    order = np.arange(len(X))
    for part in (np.flatnonzero(half), np.flatnonzero(~half)):
        order[part] = np.roll(part, 1)
    print("| directions | masks | IoU of 0.04 | interpretable | mean IoU | random | other images |")
    print("|---|---|---|---|---|---|---|", flush=True)

    def row(name: str, found: Directions, own: bool, seed: int) -> np.ndarray:
        def read(n: int) -> np.ndarray:
            return stack[n if own else order[n]]

        labels = label_by_masks(found.responses(X), read, half, 11, ignore=OUTSIDE)
        chance = mask_chance(found, X, read, half, 11, ignore=OUTSIDE, random_state=seed)
        good = labels.interpretable & chance.above
        means = labels.label_iou.mean(), chance.random_iou.mean(), chance.permuted_iou.mean()
        return np.array([labels.interpretable.sum(), good.sum(), *means, bool(good.any())])

    uibe, kmeans = UIBE(16, n_starts=2).fit(X), KMeansDirections(16).fit(X)
    for name, own, draw in (
        ("uibe", True, lambda seed: uibe),
        ("kmeans", True, lambda seed: kmeans),
        ("kmeans", False, lambda seed: kmeans),
        ("random filters", True, lambda seed: random_filters(X, np.full(16, 1 / 16), random_state=300 + seed)),
    ):
        count = 5 * len(seeds) if name == "random filters" else 1
        rows = np.array([row(name, draw(seed), own, seed) for seed in range(5 * seeds.start, 5 * seeds.start + count)])
        some = f" (some in {int(rows[:, 5].sum())} of {count} sets)" if count > 1 else ""
        mean = rows.mean(0)
        ious = " | ".join(f"{value:.2f}" for value in mean[2:5])
        whose = "own" if own else "other images"
        print(f"| {name} | {whose} | {mean[0]:.1f} of 16 | {mean[1]:.1f}{some} | {ious} |", flush=True)


def _shown_p(X: np.ndarray, weight: np.ndarray, order: np.ndarray, count: int, seed: int) -> np.ndarray:
    """p values of five random sets behind a linear end, where places and strength do not matter.

    What `influence` gives, without the classifiers of `TCAV.fit`, which say only where the concept is.
    """
    tcav, p = TCAV(random_state=seed), []
    by_image = X.reshape(*X.shape[:2], -1).transpose(0, 2, 1).astype(float)
    others = by_image[order[5 * count : 15 * count]]
    for j in range(5):
        own = by_image[order[j * count : (j + 1) * count]]
        mine = own.mean((0, 1)) - others.mean((0, 1))
        random = tcav._stand_ins(str(j), own, others).astype(float)
        moved = np.abs(np.concatenate([mine[None] / np.linalg.norm(mine), random]) @ weight)
        largest = (moved / np.sqrt((moved[1:] ** 2).mean(0))).max(1)
        p.append((largest >= largest[0]).sum() / len(largest))
    return np.array(p)


def shown(loaders: Loaders, seeds: range) -> None:
    """Concepts that are shown (TCAV): sets of random images, and images that the network takes for one class."""
    print("| data | random sets of five with a claim | with p < 0.05 | classes found |\n|---|---|---|---|", flush=True)
    for name, load_data in loaders.items():
        X, head = load_data()
        linear = pooled_linear(head, as_maps(X))
        if not isinstance(linear, PooledLinearHead):
            continue
        weight, p = linear.weight.double().numpy(), []
        for seed in range(100 * seeds.start, 100 * seeds.stop):
            order = np.random.default_rng(30_000 + seed).permutation(len(X))
            p.append(_shown_p(X, weight, order, min(30, len(X) // 12), seed))
        called = sum(bool(claims(one[:, None], 0.05).any()) for one in p)
        said = head(as_maps(X)).argmax(1).numpy()
        hits, total = 0, 0
        for k in np.unique(said):
            mine = np.flatnonzero(said == k)[:30]
            if len(mine) >= 20:
                tcav = TCAV().fit(X, concepts={"class": X[mine]}, random=X[order[: 10 * min(30, len(X) // 12)]])
                found = influence(tcav, head, X)
                hits += bool(found.significant[0, found.classes == k].any())
                total += 1
        print(f"| {name} | {called} of {len(p)} | {(np.array(p) < 0.05).mean():.3f} | {hits} of {total} |", flush=True)


PARTS = ("significance", "planted", "found", "shown", "masks")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--only", default="", help="data whose names contain this")
    given = parser.parse_args()
    parts, seeds = given.part or PARTS, range(given.first, given.first + given.seeds)
    loaders = {name: loader for name, loader in data(given.data).items() if given.only in name}
    if "significance" in parts:
        significance(loaders, seeds)
    if "planted" in parts:
        power(seeds)
    if "found" in parts:
        found(loaders)
    if "shown" in parts:
        shown(loaders, seeds)
    if "masks" in parts and given.data is not None:
        masks(given.data, seeds)


if __name__ == "__main__":
    main()
