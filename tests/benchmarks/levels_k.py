"""How many concepts does `--k auto` claim where there is nothing, and how many of 1, 2, 4, 8 does it find?

    python tests/benchmarks/levels_k.py [--n 400] [--first 200] [--pairs 10] [--resume FILE]

Both models are random read-outs of one representation (see planted_differences.py). Null pairs differ in nothing
else. The second model of the others has m features more, each of which holds a twentieth of the images together. Every
number of concepts is tried, so that each limit of stability can be judged on the same fits: claimed concepts of both
directions, and how many of the m groups are one of them (Jaccard above one half).

The limit was chosen on seeds 100 to 105 with n = 300; the table of docs/methods/rdx.md is of seeds 200 to 207.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from levels_compare import DATA, DIMENSIONS

from rdxcli.methods.difference import selection
from rdxcli.methods.difference.resampling import Versions
from rdxcli.methods.difference.selection import choose_k
from rdxcli.methods.registry import get

COUNTS = (0, 1, 2, 4, 8)
LIMITS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FIXED = 3


def pair(data: str, seed: int, n: int, count: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Two read-outs, and the groups that a feature of the second holds together."""
    X, _ = DATA[data](100 + seed, n)
    rng = np.random.default_rng([seed, count])
    spread = float(np.sqrt(np.square(X - X.mean(axis=0)).sum(axis=1).mean()))
    groups = [np.sort(rows) for rows in rng.permutation(n)[: count * (n // 20)].reshape(count, n // 20)]
    second = X.copy()
    for rows in groups:
        direction = rng.normal(size=X.shape[1])
        second[rows] += spread * direction / np.linalg.norm(direction)
    A, B = (Versions(R, 0.05, rng).draw(2 * DIMENSIONS, rng) for R in (X, second))
    return A, B, groups


def found(A: np.ndarray, B: np.ndarray, groups: list[np.ndarray], k: int) -> tuple[int, int]:
    """Concepts of both directions, and planted groups that are one of them."""
    registered = get("compare", "rdx")
    fitted = registered.load()(n_clusters=k, **registered.parameters).fit(A, B)
    concepts, held = 0, set()
    for result in fitted.directions_.values():
        for concept in result.concepts:
            concepts += 1
            members = set(np.flatnonzero(result.labels == concept.label).tolist())
            for place, rows in enumerate(groups):
                both = len(members & set(rows.tolist()))
                if both > 0.5 * (len(members) + len(rows) - both):
                    held.add(place)
    return concepts, len(held)


def judged(data: str, seed: int, n: int, count: int) -> dict[str, object]:
    A, B, groups = pair(data, seed, n, count)
    registered = get("compare", "rdx")
    started = time.process_time()
    limit, selection.STABLE = selection.STABLE, np.inf  # every number is tried
    try:
        chosen = choose_k(registered.load()(**registered.parameters), A, B, random_state=seed)
    finally:
        selection.STABLE = limit
    fits = {k: found(A, B, groups, k) for k in {1, FIXED, *chosen.stability}}
    return {
        "beyond": max(chosen.beyond.values()),
        "stability": {str(k): value for k, value in chosen.stability.items()},
        "fits": {str(k): fit for k, fit in fits.items()},
        "seconds": time.process_time() - started,
    }


def at(one: dict, limit: float) -> int:
    """The number that would have been chosen."""
    return max((int(k) for k, value in one["stability"].items() if value >= limit), default=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--data", default="digits,clusters")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--resume", type=Path, default=Path("levels_k.jsonl"))
    given = parser.parse_args()
    done = [json.loads(line) for line in given.resume.read_text().splitlines()] if given.resume.exists() else []
    known = {(one["data"], one["seed"], one["count"], one["n"]) for one in done}
    with given.resume.open("a") as stream:
        for seed in range(given.first, given.first + given.pairs):
            for data in given.data.split(","):
                for count in map(int, given.counts.split(",")):
                    if (data, seed, count, given.n) in known:
                        continue
                    row = {"data": data, "seed": seed, "count": count, "n": given.n}
                    done.append(row | judged(data, seed, given.n, count))
                    stream.write(json.dumps(done[-1]) + "\n")
                    stream.flush()
    print("| planted | pairs | number | asked per direction | groups found | claimed beside them |")
    print("|---|---|---|---|---|---|")
    for count in sorted({one["count"] for one in done}):
        part = [one for one in done if one["count"] == count]
        ways = [(f"k = {FIXED}", [FIXED] * len(part))]
        ways += [(f"stability of {limit}", [at(one, limit) for one in part]) for limit in LIMITS]
        for name, numbers in ways:
            fits = [one["fits"][str(k)] for one, k in zip(part, numbers, strict=True)]
            concepts, held = np.mean(fits, axis=0)
            print(f"| {count} | {len(part)} | {name} | {np.mean(numbers):.1f} | {held:.1f} | {concepts - held:.1f} |")


if __name__ == "__main__":
    main()
