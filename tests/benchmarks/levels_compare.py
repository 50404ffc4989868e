"""Level and power of the difference test: how often it speaks where it must not, and where it should.

    python tests/benchmarks/levels_compare.py [--pairs 70] [--first 0] [--data all] [--resume FILE]

Three data sets: the digits of scikit-learn behind random ReLU layers, clustered Gaussians, and the last layer of a
CIFAR-10 ResNet-20 on 1,000 photographs (needs RDX_SHARED; left out without it). Null pairs, for each question:

runs        two runs of one model that differ by rounding: noise of 0.014 (float16 or bfloat16 throughout), or exactly
            as large as the test allows for (0.02)
readouts    two sets of random read-outs of one representation
reference   four sets of random read-outs of one representation: the first two against the other two

*networks*: digit networks trained under seeds of their own, each once on its pictures in float32 and in bfloat16, two
seeds (which may differ by more than read-outs), two seeds against two others as reference, and pairs in which one
network was taught that 5 is 3.

Edits: noise of 0.05 and 0.1, 5 and 4 bits per feature, 10 % of the features removed, two classes shuffled in 2 to 16 of
64 dimensions, 5 % of the images swapped, two classes merged. For the ResNet also weights of 8, 6 and 5 bits, 10 % and
30 % of the weights removed, JPEG at 98 and 90.

Some pairs are also tested with all null pairs drawn, on the same random numbers, to compare both answers.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from rdxcli.methods.difference import significance
from rdxcli.methods.difference.significance import difference_test

DIMENSIONS = 64

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]
Case: TypeAlias = tuple[str, int, np.ndarray, np.ndarray, bool | None, Pair | None]
"""Name, seed, both representations, whether dimensions are known to correspond, and a reference pair."""


def digits(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Real digits behind a random layer with a ReLU."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    data = load_digits()
    rows = rng.permutation(len(data.data))[:n]
    hidden = data.data[rows] / 16 @ rng.normal(size=(64, DIMENSIONS)) / 8
    return np.maximum(hidden - hidden.mean(0), 0), data.target[rows]


def clusters(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Ten Gaussian classes in 64 dimensions of unequal spread."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 10, n)
    centre = 2 * rng.normal(size=(10, DIMENSIONS))
    return (centre[label] + rng.normal(size=(n, DIMENSIONS))) * np.geomspace(1, 3, DIMENSIONS), label


_photographs: list[tuple[np.ndarray, np.ndarray]] = []


def photographs(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """A ResNet-20 on some of the photographs."""
    if not _photographs:
        _photographs.append(resnet_features(lambda model: model, lambda image: image))
    values, label = _photographs[0]
    rows = np.random.default_rng(seed).permutation(len(values))[:n]
    return values[rows], label[rows]


DATA: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "digits": digits,
    "clusters": clusters,
    "photographs": photographs,
}


def network(seed: int, rows: np.ndarray, variant: str = "", half: bool = False) -> np.ndarray:
    """Features of a digit network, trained under this seed (once: weights are kept in the cache)."""
    import torch

    from rdxcli.models.architectures import PooledCNN
    from rdxcli.models.digits import WIDTHS, digit_arrays, obtain

    trained = obtain(variant, seed)
    model = PooledCNN(WIDTHS, trained.classes)
    model.load_state_dict(trained.state)
    images = ((torch.from_numpy(digit_arrays()[0][rows]).float() / 255 - 0.5) / 0.5)[:, None]
    found: list[torch.Tensor] = []
    [*model.eval().modules()][-1].register_forward_hook(lambda module, given, out: found.append(given[0]))
    kind = torch.bfloat16 if half else torch.float32
    with torch.no_grad():
        model.to(kind)(images.to(kind))
    return found[0].float().numpy().astype(np.float64)


def networks(pairs: int, first: int) -> Iterator[Case]:
    """Digit networks, four to a pair of pairs; no network takes part in two cases of one kind."""
    for pair in range(pairs // 2):
        seeds = [first + 4 * pair + place for place in range(4)]
        rows = np.random.default_rng(seeds).permutation(1797)[:300]
        four = [network(seed, rows) for seed in seeds]
        for seed, X in zip(seeds, four, strict=True):
            yield "bfloat16", seed, X, network(seed, rows, half=True), True, None
        for place in (0, 2):
            yield "two seeds", seeds[place], four[place], four[place + 1], None, None
        yield "reference", seeds[0], four[0], four[1], None, (four[2], four[3])
        if pair % 5 == 0:
            other = network(seeds[0], rows, "m35")
            yield "5 is 3", seeds[0], four[0], other, None, None
            yield "5 is 3, reference", seeds[0], four[0], other, None, (four[2], four[3])


def noisy(X: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    return X + amount * X.std(0) * rng.normal(size=X.shape)


def shuffled(X: np.ndarray, label: np.ndarray, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Two classes exchange their images in some dimensions."""
    rows = np.flatnonzero(np.isin(label, rng.permutation(np.unique(label))[:2]))
    columns = rng.permutation(X.shape[1])[:dimensions]
    out = X.copy()
    out[np.ix_(rows, columns)] = X[np.ix_(rng.permutation(rows), columns)]
    return out


def swapped(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows = rng.permutation(len(X))[: round(0.05 * len(X))]
    out = X.copy()
    out[rows] = X[np.roll(rows, 1)]
    return out


def merged(X: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, second = rng.permutation(np.unique(label))[:2]
    out = X.copy()
    out[label == second] += X[label == first].mean(0) - X[label == second].mean(0)
    return out


def rounded(X: np.ndarray, bits: int) -> np.ndarray:
    step = np.abs(X).max() / (2 ** (bits - 1) - 1)
    return np.round(X / step) * step


def cases(data: str, pairs: int, first: int) -> Iterator[Case]:
    for seed in range(first, first + pairs):
        rng = np.random.default_rng(10_000 + seed)
        X, label = DATA[data](seed)
        yield "run 0.014", seed, noisy(X, 0.014 / 2**0.5, rng), noisy(X, 0.014 / 2**0.5, rng), True, None
        yield "run 0.02", seed, noisy(X, 0.02, rng), noisy(X, 0.02, rng), True, None
        four = [X @ rng.normal(size=(DIMENSIONS, DIMENSIONS)) for _ in range(4)]
        yield "readouts", seed, four[0], four[1], None, None
        yield "reference", seed, four[0], four[1], None, (four[2], four[3])
    for seed in range(first + pairs, first + pairs + max(5, pairs // 7)):
        rng = np.random.default_rng(10_000 + seed)
        X, label = DATA[data](seed)
        edits = {
            "noise 0.05": noisy(X, 0.05, rng),
            "noise 0.1": noisy(X, 0.1, rng),
            "5 bits": rounded(X, 5),
            "4 bits": rounded(X, 4),
            "features 10 %": X * (rng.random(X.shape[1]) > 0.1),
            **{f"shuffled {count}": shuffled(X, label, count, rng) for count in (2, 4, 8, 16)},
            "swapped 5 %": swapped(X, rng),
            "merged": merged(X, label, rng),
        }
        for name, Y in edits.items():
            yield name, seed, X, Y, None, None


def weight_edits() -> Iterator[Case]:
    """Edits of the weights and of the images of the ResNet-20, on all photographs."""
    X, _ = resnet_features(lambda model: model, lambda image: image)
    for bits in (8, 6, 5):
        yield f"weights of {bits} bits", 0, X, resnet_features(lambda model, b=bits: quantised(model, b))[0], None, None
    for share in (0.1, 0.3):
        yield f"pruned {share:.0%}", 0, X, resnet_features(lambda model, s=share: pruned(model, s))[0], None, None
    for quality in (98, 90):
        yield (
            f"JPEG {quality}",
            0,
            X,
            resnet_features(image_change=lambda image, q=quality: jpeg(image, q))[0],
            None,
            None,
        )


def resnet_features(
    change: Callable = lambda model: model, image_change: Callable = lambda image: image
) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from PIL import Image

    from rdxcli.models.architectures import CifarResNet

    shared = Path(os.environ["RDX_SHARED"])
    files = sorted((shared / "cifar10_test").glob("*/*.jpg"))
    pixels = np.stack([np.asarray(image_change(Image.open(file).convert("RGB"))) for file in files])
    mean, spread = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = (torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / spread
    model = CifarResNet(20)
    state = torch.load(shared / "weights/cifar10_resnet20.th", map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    model = change(model.eval())
    found: list[torch.Tensor] = []
    model.linear.register_forward_hook(lambda module, given, out: found.append(given[0]))
    with torch.no_grad():
        for part in images.split(200):
            model(part)
    return torch.cat(found).numpy(), np.array([file.parent.name for file in files])


def quantised(model: object, bits: int) -> object:
    out = copy.deepcopy(model)
    for weights in out.parameters():  # type: ignore[attr-defined]
        if weights.ndim > 1:
            step = weights.abs().amax() / (2 ** (bits - 1) - 1)
            weights.data = (weights.data / step).round() * step
    return out


def pruned(model: object, share: float) -> object:
    out = copy.deepcopy(model)
    for weights in out.parameters():  # type: ignore[attr-defined]
        if weights.ndim > 1:
            limit = weights.abs().flatten().kthvalue(max(1, int(share * weights.numel()))).values
            weights.data = weights.data * (weights.abs() > limit)
    return out


def jpeg(image: object, quality: int) -> object:
    from PIL import Image

    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)  # type: ignore[attr-defined]
    return Image.open(stream).convert("RGB")


def tested(
    X: np.ndarray, Y: np.ndarray, paired: bool | None, reference: Pair | None, seed: int, full: bool
) -> dict[str, bool | int | float | None]:
    clear, enough = significance.CLEAR_AFTER, significance.ENOUGH_ABOVE
    if full:
        significance.CLEAR_AFTER = significance.ENOUGH_ABOVE = 10**9
    started = time.process_time()
    try:
        test = difference_test(X, Y, paired=paired, reference=reference, random_state=seed, device="cpu")
    finally:
        significance.CLEAR_AFTER, significance.ENOUGH_ABOVE = clear, enough
    answers = {str(one.question): one for one in test.answers}
    changed = answers.get("changed at all")
    return {
        "changed": None if changed is None else changed.yes,
        "readouts": answers["more than two read-outs"].yes,
        "reference": None if test.reference is None else test.reference.exceeded,
        "draws": sum(len(one.score.null) for one in test.answers),
        "seconds": time.process_time() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=70, help="null pairs of each kind and data set")
    parser.add_argument("--first", type=int, default=0, help="the first seed; others than those that chose a setting")
    parser.add_argument("--cases", default="all", help="only these, separated by commas")
    parser.add_argument("--data", default="all", help=f"{', '.join(DATA)}, networks, weights, or all")
    parser.add_argument("--full", type=int, default=10, help="every so many pairs all null pairs are drawn as well")
    parser.add_argument("--resume", type=Path, default=Path("levels_compare.jsonl"), help="finished pairs, one a line")
    given = parser.parse_args()
    names = [*DATA, "networks", "weights"] if given.data == "all" else given.data.split(",")
    if "RDX_SHARED" not in os.environ:
        names = [name for name in names if name not in ("photographs", "weights")]
    done = [json.loads(line) for line in given.resume.read_text().splitlines()] if given.resume.exists() else []
    known = {(one["data"], one["case"], one["seed"]) for one in done}
    with given.resume.open("a") as stream:
        for data in names:
            source: Iterator[Case]
            if data in DATA:
                source = cases(data, given.pairs, given.first)
            else:
                source = networks(given.pairs, given.first) if data == "networks" else weight_edits()
            for case, seed, X, Y, paired, pair in source:
                if (data, case, seed) in known or (given.cases != "all" and case not in given.cases.split(",")):
                    continue
                found = {"data": data, "case": case, "seed": seed, **tested(X, Y, paired, pair, seed, full=False)}
                if given.full and seed % given.full == 0 and pair is None:
                    found["full"] = tested(X, Y, paired, pair, seed, full=True)
                done.append(found)
                stream.write(json.dumps(found) + "\n")
                stream.flush()
    report(done)


def report(done: list[dict]) -> None:
    """Shares of pairs with the answer yes, by case and data set."""
    groups = defaultdict(list)
    for one in done:
        groups[one["case"], one["data"]].append(one)
    print("| case | data | pairs | changed | more than read-outs | than the reference | null pairs | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for (case, data), found in sorted(groups.items()):
        shares = []
        for question in ("changed", "readouts", "reference"):
            part = [one[question] for one in found if one.get(question) is not None]
            shares.append(f"{sum(part)} of {len(part)}" if part else "")
        drawn, seconds = (np.mean([one[key] for one in found]) for key in ("draws", "seconds"))
        print(f"| {case} | {data} | {len(found)} | {' | '.join(shares)} | {drawn:.0f} | {seconds:.2f} |")
    both = [one for one in done if "full" in one]
    same = sum(all(one[key] == one["full"][key] for key in ("changed", "readouts")) for one in both)
    ratio = sum(one["full"]["seconds"] for one in both) / max(1e-9, sum(one["seconds"] for one in both))
    print(f"\nall null pairs drawn: the same answers in {same} of {len(both)} pairs, in {ratio:.1f} times the CPU time")


if __name__ == "__main__":
    main()
