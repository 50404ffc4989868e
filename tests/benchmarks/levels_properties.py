"""Level and power of "what do the images of a group share?" (docs/methods/enrichment.md).

    RDX_SHARED=... python tests/benchmarks/levels_properties.py

Properties measured from real pictures (the digits; with RDX_SHARED also CIFAR photographs) and made-up metadata. Null
groups are drawn at random, and at random within labels (which are unlike in many properties, but like their labels).
Planted groups prefer large values of one property, or one place, to a graded degree.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rdxcli.datasets.appearance import measure
from rdxcli.datasets.registry import open_dataset
from rdxcli.methods.difference.enrichment import enrich

ROUNDS = 200
SIZES = (5, 15, 50)


def known(spec: str, n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measured properties and made-up metadata of n images, and their labels."""
    dataset = open_dataset(spec).select(sample=n)
    rng = np.random.default_rng(0)
    label = np.asarray(dataset.labels)
    place = rng.choice(["north", "south", "east", "west", "sea"], n, p=[0.5, 0.3, 0.1, 0.06, 0.04])
    device = np.where(rng.random(n) < 0.7, np.char.add("device of ", label), "any")
    return {**measure(dataset, range(n)), "place": place, "device": device, "age": rng.poisson(3, n) * 1.0}, label


def main() -> None:
    specs = {"digits": "digits"}
    if "RDX_SHARED" in os.environ:
        specs["photographs"] = f"folder:{Path(os.environ['RDX_SHARED']) / 'cifar10_test'}"
    print("| images | groups | something found | found within labels | intervals that hold 0 |\n|---|---|---|---|---|")
    for name, spec in specs.items():
        properties, label = known(spec, 500)
        for kind in ("at random", "at random within two labels"):
            found_any, found_within, held = 0, 0, []
            for seed in range(ROUNDS):
                rng = np.random.default_rng(1000 + seed)
                pool = np.arange(500)
                if kind != "at random":
                    pool = np.flatnonzero(np.isin(label, rng.permutation(np.unique(label))[:2]))
                groups = {str(m): np.isin(np.arange(500), rng.permutation(pool)[:m]) for m in SIZES}
                found = enrich(groups, properties, label)
                found_any += any(one.p_corrected <= 0.05 for one in found)
                found_within += any((one.within_labels or 1.0) <= 0.05 for one in found)
                held += [one.low <= 0.0 <= one.high for one in found]
            shares = f"{found_any / ROUNDS:.3f} | {found_within / ROUNDS:.3f} | {np.mean(held):.3f}"
            print(f"| {name} | {kind} | {shares} |")
    print("\n| images | planted | group of 5 | of 15 | of 50 |\n|---|---|---|---|---|")
    for name, spec in specs.items():
        properties, label = known(spec, 500)
        for planted in ("brightness", "sharpness", "place"):
            for strength in (1.0, 2.0, 4.0):
                shares = []
                for m in SIZES:
                    hits = 0
                    for seed in range(50):
                        rng = np.random.default_rng(5000 + seed)
                        if planted == "place":
                            weight = np.where(properties["place"] == "west", np.exp(strength), 1.0)
                        else:
                            x = properties[planted]
                            weight = np.exp(strength * (np.argsort(np.argsort(x)) / len(x)))
                        rows = rng.choice(500, m, replace=False, p=weight / weight.sum())
                        found = enrich({"g": np.isin(np.arange(500), rows)}, properties, label)
                        hits += any(one.property == planted and one.p_corrected <= 0.05 for one in found)
                    shares.append(f"{hits} of 50")
                print(f"| {name} | {planted}, odds up to exp({strength:g}) | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
