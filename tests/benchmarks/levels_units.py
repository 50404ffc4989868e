"""Levels and power of what is said of units: coverage of intervals, how often noise passes, how often a unit is found.

Tables of docs/methods, from seeds that were used for nothing else:

- coverage of the 95 % interval of a correlation, for units of several kinds, beside that of the percentile bootstrap;
- the same for ablation scores, of a linear classifier of ten classes;
- of layers of noise units among planted ones: how many are called better than chance, by the kind of their activations;
- the same for CLIP-Dissect's similarities;
- the same for free text, whose proposals are the texts that fit the strongest images best;
- the same for Network Dissection, with units that look at a place of the image and not at what is there.

    python tests/benchmarks/levels_units.py [--draws 200] [--only coverage|ablation|chance|dissect|describe|masks]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from rdxcli.methods.neurons.clip_dissect import ClipDissect
from rdxcli.methods.neurons.descriptions import UnitDescriptions
from rdxcli.methods.neurons.linear import LinearExplanation
from rdxcli.methods.neurons.network_dissection import NetworkDissection
from rdxcli.methods.neurons.preparation import random_split
from rdxcli.methods.neurons.scores import correlation_interval, pearson, ratio_interval

Pair = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, int, int], Pair]


def normal(rng: np.random.Generator, n: int, u: int) -> Pair:
    p = rng.normal(size=(n, u))
    return p, 0.6 * p + 0.8 * rng.normal(size=(n, u))


def rectified(rng: np.random.Generator, n: int, u: int) -> Pair:
    p = rng.normal(size=(n, u))
    return p, np.maximum(0.6 * p + 0.8 * rng.normal(size=(n, u)) - 1.0, 0.0)


def rare(rng: np.random.Generator, n: int, u: int) -> Pair:
    present = rng.random((n, u)) < 0.03
    noise = 0.15 * rng.normal(size=(n, u))
    return present * 1.0, np.maximum(present * rng.exponential(1.0, (n, u)) + noise, 0.0)


def lognormal(rng: np.random.Generator, n: int, u: int) -> Pair:
    p = rng.normal(size=(n, u))
    return np.exp(p), np.exp(0.84 * p + 0.86 * rng.normal(size=(n, u)))


def unrelated(rng: np.random.Generator, n: int, u: int) -> Pair:
    return (rng.random((n, u)) < 0.05) * 1.0, np.exp(rng.normal(size=(n, u)))


KINDS: dict[str, Draw] = {
    "normal": normal,
    "rectified": rectified,
    "rare concept": rare,
    "lognormal": lognormal,
    "unrelated": unrelated,
}


def percentile(p: np.ndarray, y: np.ndarray, rng: np.random.Generator, resamples: int = 200) -> Pair:
    """The bootstrap that this interval replaced."""
    n = len(p)
    r = np.stack([pearson(p[rows], y[rows]) for rows in rng.integers(0, n, (resamples, n))])
    low, high = np.nanpercentile(r, [2.5, 97.5], axis=0)
    return low, high


def coverage(draws: int) -> None:
    print("| kind of unit | true r | n | ours | mean width | percentile bootstrap | mean width |")
    print("|---|---|---|---|---|---|---|")
    for number, (name, draw) in enumerate(KINDS.items()):
        rng = np.random.default_rng(1000 + number)
        truth = float(np.mean([pearson(*draw(rng, 200_000, 1))[0] for _ in range(10)]))
        for n in (60, 200, 1000):
            p, y = draw(rng, n, draws)
            ours = correlation_interval(p, y)
            known = np.isfinite(ours.low)
            cells = []
            for low, high in ((ours.low, ours.high), percentile(p, y, rng)):
                low, high = low[known], high[known]
                cells += [f"{((low <= truth) & (truth <= high)).mean():.2f}", f"{(high - low).mean():.2f}"]
            print(f"| {name} | {truth:.2f} | {n} | " + " | ".join(cells) + " |", flush=True)


def changes(rng: np.random.Generator, kind: Draw, n: int, u: int) -> Pair:
    """|L_sim - L| and |L_mean - L| of u draws of n images: one unit of this kind among the inputs of a classifier."""
    p, a = kind(rng, n, u)
    scale = 1.0 / a.std()
    w = np.array([2.0, 1.0, 0.5, 0.0, 0.0, -0.5, -0.5, -1.0, -1.0, -2.0]) * scale
    rest = 2.0 * rng.normal(size=(n, u, 10))
    logits = rest + a[..., None] * w
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)[..., None]

    def loss(values: np.ndarray) -> np.ndarray:
        z = rest + values[..., None] * w
        own = np.take_along_axis(z, truth, axis=-1)[..., 0]
        return np.asarray(np.log(np.exp(z).sum(axis=-1)) - own)

    slope = (p * (a - a.mean())).mean() / max(p.var(), 1e-12)  # one line for all draws: c and d are fitted elsewhere
    simulated = slope * (p - p.mean()) + a.mean()
    base = loss(a)
    return np.abs(loss(simulated) - base), np.abs(loss(np.full_like(a, a.mean())) - base)


def resampled(found: np.ndarray, worst: np.ndarray, rng: np.random.Generator, count: int = 1000) -> Pair:
    """The bootstrap that `ratio_interval` replaced."""
    n = len(found)
    drawn = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(count)])
    low, high = np.nanpercentile(1.0 - (drawn @ found) / (drawn @ worst), [2.5, 97.5], axis=0)
    return low, high


def ablation(draws: int) -> None:
    print("| kind of unit | true score | n | ours | mean width | percentile bootstrap | mean width |")
    print("|---|---|---|---|---|---|---|")
    for number, (name, draw) in enumerate(KINDS.items()):
        rng = np.random.default_rng(4000 + number)
        found, worst = changes(rng, draw, 200_000, 1)
        truth = 1.0 - float(found.sum() / worst.sum())
        for n in (60, 200, 1000):
            found, worst = changes(rng, draw, n, draws)
            ours = ratio_interval(found, worst)
            cells = []
            for low, high in ((ours.low, ours.high), resampled(found, worst, rng)):
                known = np.isfinite(low)
                covers = ((low <= truth) & (truth <= high))[known].mean()
                cells += [f"{covers:.2f}", f"{np.median((high - low)[known]):.2f}"]
            print(f"| {name} | {truth:.2f} | {n} | " + " | ".join(cells) + " |", flush=True)


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda z: z,
    "rectified": lambda z: np.maximum(z - 1.0, 0.0),
    "lognormal": np.exp,
}


def layer(rng: np.random.Generator, n: int, planted: int, noise: int, strength: float, shape: str) -> Pair:
    """120 overlapping concepts; planted units follow one each with the given correlation before the shape."""
    factors = rng.normal(size=(n, 8))
    P = 1.0 / (1.0 + np.exp(-4.0 * (factors @ rng.normal(size=(8, 120)) / 2.0 + rng.normal(size=(n, 120)) - 1.5)))
    z = rng.normal(size=(n, planted + noise))
    own = P[:, rng.permutation(120)[:planted]]
    own = (own - own.mean(axis=0)) / own.std(axis=0)
    z[:, :planted] = strength * own + np.sqrt(1.0 - strength**2) * z[:, :planted]
    return P, SHAPES[shape](z)


def chance(draws: int) -> None:
    print("| activations | n | planted r | layers | noise units that pass | layers of noise alone with any | found |")
    print("|---|---|---|---|---|---|---|")
    for number, shape in enumerate(SHAPES):
        for n, strength in ((300, 0.5), (1000, 0.3), (1000, 0.6)):
            rng = np.random.default_rng(2000 + 10 * number + n)
            split = random_split(n, n)
            passed, found, alone = [], [], []
            for _ in range(draws):
                for planted in (8, 0):
                    P, A = layer(rng, n, planted, 24, strength, shape)
                    model = LinearExplanation(random_state=int(rng.integers(1 << 30)))
                    better = model.fit(P, A, train=split.train, val=split.val).chance(P, A, split.test).better
                    if planted:
                        found.append(better[:planted].mean())
                        passed.append(better[planted:].mean())
                    else:
                        alone.append(better.any())
            cells = f"{np.mean(passed):.3f} | {np.mean(alone):.2f} | {np.mean(found):.2f}"
            print(f"| {shape} | {n} | {strength} | {draws} | {cells} |", flush=True)


def dissect(draws: int) -> None:
    print("| similarity | n | layers | noise units that pass | layers of noise alone with any | found |")
    print("|---|---|---|---|---|---|")
    for similarity in ("soft-wpmi", "wpmi", "rank-reorder", "cos-cubed"):
        rng = np.random.default_rng(3000)
        passed, found, alone = [], [], []
        for _ in range(draws):
            for planted in (8, 0):
                P, A = layer(rng, 400, planted, 40, 0.6, "lognormal")
                cosines = 0.15 + 0.1 * P
                model = ClipDissect(similarity=similarity, random_state=int(rng.integers(1 << 30))).fit(cosines, A)
                better = model.chance_.better
                if planted:
                    found.append(better[:planted].mean())
                    passed.append(better[planted:].mean())
                else:
                    alone.append(better.any())
        cells = f"{np.mean(passed):.3f} | {np.mean(alone):.2f} | {np.mean(found):.2f}"
        print(f"| {similarity} | 400 | {draws} | {cells} |", flush=True)


def describe(draws: int) -> None:
    print("| activations | n | planted r | layers | noise units that pass | layers of noise alone with any | found |")
    print("|---|---|---|---|---|---|---|")
    for number, shape in enumerate(SHAPES):
        for n, strength in ((300, 0.5), (1000, 0.3)):
            rng = np.random.default_rng(6000 + 10 * number + n)
            split = random_split(n, n)
            train = np.asarray(split.train)
            passed, found, alone = [], [], []
            for _ in range(draws):
                for planted in (8, 0):
                    P, A = layer(rng, n, planted, 24, strength, shape)
                    shown = [train[np.argsort(-A[train, u])[:10]] for u in range(A.shape[1])]
                    proposals = [np.unique(np.argsort(-P[rows], axis=1)[:, :3]) for rows in shown]
                    model = UnitDescriptions(random_state=int(rng.integers(1 << 30))).fit(
                        P, A, train=split.train, val=split.val, proposals=proposals, shown=shown
                    )
                    better = model.chance(P, A, split.test).better
                    if planted:
                        found.append(better[:planted].mean())
                        passed.append(better[planted:].mean())
                    else:
                        alone.append(better.any())
            cells = f"{np.mean(passed):.3f} | {np.mean(alone):.2f} | {np.mean(found):.2f}"
            print(f"| {shape} | {n} | {strength} | {draws} | {cells} |", flush=True)


def drawn_scenes(rng: np.random.Generator, n: int, planted: int, strength: float) -> Pair:
    """Label maps (n, 56, 56) of sky, ground and up to six squares of four kinds; maps (n, planted + 24, 14, 14)."""
    labels = np.full((n, 56, 56), 5)
    labels[:, :16] = 0
    for one in labels:
        for k in range(1, 5):
            for _ in range(rng.binomial(2, 0.35)):
                y, x = rng.integers(0, 44, 2)
                one[y : y + 12, x : x + 12] = k
    shares = np.stack([labels == k for k in range(6)], axis=1).reshape(n, 6, 14, 4, 14, 4).mean(axis=(3, 5))
    maps = rng.normal(size=(n, planted + 24, 7, 7)).repeat(2, axis=2).repeat(2, axis=3)
    maps += 0.5 * rng.normal(size=maps.shape)
    for j in range(planted):
        maps[:, j] += strength * shares[:, 1 + j % 4]
    maps[:, planted : planted + 12] += 2.0 * (np.arange(14) < 4)[:, None]
    return labels, maps


def masks(draws: int) -> None:
    print(
        "| images | planted | layers | units of a place or noise that pass | layers of these alone with any | found |"
    )
    print("|---|---|---|---|---|---|")
    names = ["sky", "a", "b", "c", "d", "ground"]
    for n, strength in ((20, 1.0), (40, 1.0), (40, 2.0), (200, 0.5)):
        rng = np.random.default_rng(5000 + n)
        passed, found, alone = [], [], []
        for _ in range(draws):
            for planted in (8, 0):
                labels, maps = drawn_scenes(rng, n, planted, strength)
                chance = (
                    NetworkDissection(random_state=int(rng.integers(1 << 30)))
                    .fit(maps, labels, concept_names=names)
                    .chance_
                )
                assert chance is not None
                if planted:
                    found.append(chance.better[:planted].mean())
                    passed.append(chance.better[planted:].mean())
                else:
                    alone.append(chance.better.any())
        cells = f"{np.mean(passed):.3f} | {np.mean(alone):.2f} | {np.mean(found):.2f}"
        print(f"| {n} | {strength} | {draws} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="units per row of the first table; a tenth are layers")
    parser.add_argument("--only", choices=["coverage", "ablation", "chance", "dissect", "describe", "masks"])
    args = parser.parse_args()
    if args.only in (None, "coverage"):
        coverage(args.draws)
    if args.only in (None, "ablation"):
        ablation(args.draws)
    if args.only in (None, "chance"):
        chance(max(2, args.draws // 10))
    if args.only in (None, "dissect"):
        dissect(max(2, args.draws // 10))
    if args.only in (None, "describe"):
        describe(max(2, args.draws // 10))
    if args.only in (None, "masks"):
        masks(max(2, args.draws // 10))


if __name__ == "__main__":
    main()
