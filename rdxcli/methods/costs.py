"""What the work of each family takes: seconds of one core, memory and bytes, from the sizes of what is read.

Seconds are sums of terms such as ``1.2e-7 n n``: a rate times sizes. The rates (`RATES`) were fitted to CPU seconds of
one core, which docs/costs.md shows beside what was measured; `speed` says how much faster this core is. They are good
to a factor of two or three: enough to tell a minute from a night.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from rdxcli.progress import human_bytes, human_seconds

LIBRARIES = 700 * 2**20
"""Memory of the process before it reads anything, PyTorch and scikit-learn included."""

COPIES = 4
"""Copies of the representations in float64 that scoring and testing hold at one time."""

REFERENCE = 1.9e-3
"""Seconds that the core of `RATES` took for a product of two matrices of 512 x 512 in float32."""

START = {"comparison": 0.8, "similarities": 0.8, "encodings": 1.2}
STARTING = 2.0
"""Seconds that the program takes to start, by the kind of what it makes: most load PyTorch and scikit-learn."""

_RDX = {"1": 0.05, "n n": 1.1e-7, "n n d": 2e-11}
_LANDMARKS = {"m m": 1.1e-7, "n m": 1.9e-7}
_LINEAR = {"1": 0.1, "u": 5e-3, "n": 8e-5, "n u": 1e-7, "c": 7e-4, "n c c": 5.6e-11, "u c c": 1.2e-9}

RATES: Mapping[str, Mapping[str, float]] = {
    "rdx": _RDX,
    "rdx-pagerank": _RDX,
    "rdx-v2": {**_RDX, "n n": 1.3e-7},
    "rdx, approximate": _LANDMARKS,
    "rdx-pagerank, approximate": _LANDMARKS,
    "rdx-v2, approximate": _LANDMARKS,
    "test": {"1": 1.2, "n": 2.5e-4, "n d": 1.2e-6},
    "stability": {"e": 0.05},
    "scores": {"1": 0.3, "n d": 1e-6, "p d": 2e-10},
    "kmeans": {"1": 0.02, "n d": 5e-8},
    "pca": {"n d": 6e-8},
    "nmf": {"e n d": 4e-9},
    "cnmf": {"e n n": 3.5e-9, "n n d": 6.5e-10},
    "snmf": {"1": 0.02, "e n d": 2.3e-9},
    "sae": {"e": 2e-4, "e n d": 1.7e-8},
    "topk-sae": {"e s": 2.5e-3, "e n d": 1.5e-8},
    "usae": {"e n h": 3.5e-8, "e n d h": 6e-11},
    "crosscoder": {"e": 2.5e-3, "e d h": 4e-8},
    "nlmcd": {"1": 8.0, "n": 4e-3},
    "properties": {"1": 0.2, "i": 4e-3},
    "patches": {"1": 2.0, "i": 0.1},
    "similarities": {"1": 1.0, "t": 0.05, "k": 4.0},
    "explanations: le-label": _LINEAR,
    "explanations: le-siglip": _LINEAR,
    "explanations: logical": {"1": 0.1, "u": 5e-3, "c": 3e-3, "u c": 2e-4, "n u c": 3e-8},
    "explanations: describe": {"1": 0.05, "u": 5e-3, "n": 6e-5, "n u": 1e-7},
    "explanations: find-units": {"1": 0.05, "u": 2.5e-3, "n u": 3e-7},
    "explanations: network-dissection": {"1": 0.05, "u": 5e-3, "n": 2e-3, "n u": 1e-4, "p u": 2e-6},
    "explanations: clip-dissect": {"1": 0.05, "u": 5e-3, "n": 6e-5, "c": 5e-4, "n c u": 1e-10},
    "simulation: correlation": {"1": 0.05, "t u": 6e-4, "t n u": 1e-7, "t n u c": 1e-11},
    "directions: pca": {"1": 0.1, "n": 1e-5, "n d": 1.5e-7},
    "directions: nmf": {"1": 0.1, "n d": 8e-7},
    "directions: ica": {"1": 0.1, "n": 3e-5, "n d": 4e-7},
    "directions: kmeans": {"1": 0.05, "n": 7e-5, "n d": 7e-7},
    "directions: natural": {"1": 0.05, "n d": 3e-7},
    "directions: uibe": {"e": 2.7e-2, "e s b k": 1.3e-7, "e s b d k": 1.2e-10},
    "directions: eddp": {"e": 5.4e-2, "e s b k": 2.6e-7, "e s b d k": 2.4e-10},
    "directions: sae": {"e": 4e-3, "e b d k": 5e-10},
    "directions: tcav": {"1": 0.15, "n": 1e-5, "n d": 3e-8},
    "directions: ice": {"1": 0.2, "n d": 3e-7},
    "regions: rdr": {"1": 0.05, "n u": 2e-9, "t": 2e-3, "t n u": 3e-11},
    "attributions: surrogate": {"1": 0.05, "n": 1.7e-4},
    "attributions: splice": {"1": 0.3, "n c": 8e-7},
    "encodings": {"1": 2.5, "w": 4e-6},
    "surrogate": {"s": 5e-3, "s b": 2.5e-5, "s b b": 1e-8, "s c d": 5e-9},
}
"""Seconds by method, or by kind and method, and term.

``n`` samples (of directions: positions), ``d`` dimensions of all sides, ``k`` groups or directions, ``c`` concepts,
``u`` units, ``t`` targets, tables or cells, ``e`` epochs or steps, ``s`` batches or random starts, ``b`` rows of a
batch, ``h`` latents, ``m`` landmarks, ``w`` words, ``p`` positions or pairs of samples, ``i`` images looked at; ``1``
stands for itself.
"""


@dataclass(frozen=True)
class Cost:
    """What a piece of work takes, about.

    Parameters
    ----------
    rows : int
        Samples that are read.
    memory : int
        Bytes of the process at its peak, libraries included.
    disk : int
        Bytes of the artifact.
    parts : mapping of str to float
        Seconds of one core like this one, by what takes them; empty when that is not known.
    """

    rows: int
    memory: int
    disk: int
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """All of them."""
        return sum(self.parts.values()) if self.parts else None

    def __str__(self) -> str:
        """In words, for the first line of a run."""
        took = "" if self.seconds is None else f", {human_seconds(max(1.0, self.seconds))}"
        return f"about {human_bytes(self.disk)} on disk, {human_bytes(self.memory)} of memory{took}"

    def in_words(self) -> str:
        """The time, and the parts that take most of it."""
        order = sorted(self.parts, key=lambda name: -self.parts[name])[:3]
        longest = ", ".join(f"{name} {human_seconds(self.parts[name])}" for name in order)
        return f"{human_seconds(self.seconds or 0.0)} ({longest})"


def documented(cost: Cost | None) -> dict[str, Any]:
    """For ``--dry-run``, as `rdx extract` says it; nothing of what is not known."""
    if cost is None:
        return {}
    return {
        "rows": cost.rows,
        "bytes_on_disk": int(cost.disk),
        "peak_memory_bytes": int(cost.memory),
        "estimated_seconds": None if cost.seconds is None else max(0.1, round(cost.seconds, 1)),
        **({"estimated_seconds_by_method": cost.parts} if len(cost.parts) > 1 else {}),
    }


@cache
def speed() -> float:
    """How many times faster this core is than that of `RATES`: a few products of matrices."""
    matrix = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    matrix @ matrix
    best = math.inf
    for _ in range(3):
        begun = time.process_time()
        matrix @ matrix
        best = min(best, time.process_time() - begun)
    return min(4.0, max(0.25, REFERENCE / max(best, 1e-6)))


def seconds_of(name: str, **sizes: float) -> float | None:
    """Seconds of one core like this one; None for what was never measured, such as a method of another package."""
    if name not in RATES:
        return None
    return sum(rate * _product(term, sizes) for term, rate in RATES[name].items()) / speed()


def _product(term: str, sizes: Mapping[str, float]) -> float:
    return math.prod(1.0 if part == "1" else sizes[part] for part in term.split())


def expected(kind: str, method: str, sizes: Mapping[str, float]) -> Cost | None:
    """The cost of an artifact of some kind; None while a size is not known.

    Parameters
    ----------
    kind : str
        Of the artifact, see `FAMILIES`.
    method : str
        Whose seconds these are; empty where the kind has but one way.
    sizes : mapping of str to float
        As `RATES` calls them.
    """
    try:
        memory, disk = FAMILIES[kind](sizes)
    except KeyError:
        return None
    name = f"{kind}: {method}"
    try:
        took = seconds_of(name if name in RATES else kind, **sizes)
    except KeyError:  # the bytes are known, the steps are not
        took = None
    parts = {} if took is None else {"start": start(kind), method or kind: took}
    return Cost(int(sizes["n"]), int(LIBRARIES + memory), int(disk), _known(parts))


def start(kind: str) -> float:
    """Seconds until the program has loaded what it needs."""
    return START.get(kind, STARTING) / speed()


def comparison(
    estimators: Mapping[str, Any],
    n: int,
    d: int,
    *,
    tested: bool = True,
    bootstraps: int = 20,
    limit: float | None = None,
    pictures: int = 0,
    looking: float | None = None,
    patches: int = 0,
) -> Cost:
    """The cost of comparing two representations by one or several methods.

    Parameters
    ----------
    estimators : mapping of str to estimator
        By the name of the method.
    n, d : int
        Samples; dimensions of both sides together.
    tested : bool
        The difference is tested.
    bootstraps : int
        Resamplings for the stability of concepts.
    limit : float, optional
        Seconds that one method may take.
    pictures : int
        Images whose look is measured, for what the images of a concept share.
    looking : float, optional
        Seconds that one of them takes, where a few were tried.
    patches : int
        Images that each model looks into for ``--patches``.
    """
    found: dict[str, float | None] = {"start": start("comparison")}
    for name, estimator in estimators.items():
        own = estimator.get_params()
        wide = max(1, d // 2)
        sizes = {
            "n": n,
            "d": d,
            "k": own.get("n_clusters", 1),
            "e": own.get("epochs", own.get("steps", own.get("max_iter", 1))),
            "h": own.get("factor", 4) * wide if name == "usae" else (own.get("latents") or min(512, 4 * wide)),
            "m": own.get("landmarks", 1),
            "s": -(-n // own.get("batch_size", n)),
        }
        approximate = getattr(estimator, "approximate_on", lambda _: False)(n)
        took = seconds_of(f"{name}, approximate" if approximate else name, **sizes)
        found[name] = took if took is None or limit is None else min(took, limit)
    if tested:
        found["test"] = seconds_of("test", n=min(n, TESTED), d=d)
    if bootstraps and any(name.startswith("rdx") for name in estimators):
        found["stability"] = seconds_of("stability", e=bootstraps, n=min(n, TESTED), d=d)
    found["scores"] = seconds_of("scores", n=n, d=d, p=n * n if n <= PAIRS else 0)
    if pictures:
        known = seconds_of("properties", i=0 if looking is not None else pictures)
        found["properties"] = (known or 0.0) + pictures * (looking or 0.0)
    if patches:
        found["patches"] = seconds_of("patches", i=2 * patches)
    matrices = max(getattr(one, "matrix_bytes", lambda _: 0)(n) for one in estimators.values())
    given, copies = 4 * n * d, 8 * n * d * COPIES
    memory = LIBRARIES + given + max(matrices + given, copies)
    disk = 200_000 + sum(8 * n * (2 + len(estimators)) for _ in range(2)) + 40 * n
    return Cost(n, memory, disk, _known(found))


PAIRS = 20_000
"""Images above which scores that need all pairs are left out."""

TESTED = 2000
"""Images of the test and of the stability of concepts, at most."""


def _units(sizes: Mapping[str, float]) -> tuple[float, float]:
    n, u, c = sizes["n"], sizes["u"], sizes["c"]
    return 32 * c * (c + u + 100) + 6 * min(8 * n * max(c, u), 2**28), 8 * n + 400 * u + 10_000 * min(u, 40)


def _regions(sizes: Mapping[str, float]) -> tuple[float, float]:
    n, u, t = sizes["n"], sizes["u"], sizes["t"]
    return 9 * n * u + n * u / 8, n * u / 8 + 2000 * t


def _directions(sizes: Mapping[str, float]) -> tuple[float, float]:
    n, d, k = sizes["n"], sizes["d"], sizes["k"]
    return 16 * n * d + 8 * n * k, 16 * d * k + 20_000 * k


def _simulation(sizes: Mapping[str, float]) -> tuple[float, float]:
    return 8 * sizes["n"] * (sizes["c"] + 3 * sizes["u"]), 1000 * sizes["u"] * sizes["t"]


def _attributions(sizes: Mapping[str, float]) -> tuple[float, float]:
    n, c, d = sizes["n"], sizes["c"], sizes["d"]
    return 16 * n * d + 16 * c * d + 400 * n, 400 * n


def _encodings(sizes: Mapping[str, float]) -> tuple[float, float]:
    return 600 * sizes["w"], 150 * sizes["n"]


def _surrogate(sizes: Mapping[str, float]) -> tuple[float, float]:
    c, d, b = sizes["c"], sizes["d"], sizes["b"]
    # weights, gradients and three moments of the optimiser; similarities of a batch
    return 20 * d * c + 12 * b**2 + 8 * sizes["n"] * d, 4 * d * (c + 1)


def _similarities(sizes: Mapping[str, float]) -> tuple[float, float]:
    return sizes["r"] * (2 * 1000**2 + 40 * 2000) + 2**27 + 24 * 2000**2, 20_000 * sizes["k"] + 200 * sizes["t"]


def _captions(sizes: Mapping[str, float]) -> tuple[float, float]:
    return sizes["weights"], 60 * sizes["n"] * sizes["t"]


FAMILIES = {
    "explanations": _units,
    "regions": _regions,
    "directions": _directions,
    "simulation": _simulation,
    "attributions": _attributions,
    "encodings": _encodings,
    "surrogate": _surrogate,
    "captions": _captions,
    "similarities": _similarities,
}
"""Bytes of memory besides the libraries and bytes on the disk, by the kind of the artifact."""


def _known(found: Mapping[str, float | None]) -> dict[str, float]:
    """Seconds of the parts; none when one of them is not known."""
    return {} if None in found.values() else {name: round(value or 0.0, 2) for name, value in found.items()}


def table() -> list[str]:
    """The rows of docs/costs.md."""
    rows = []
    for name, terms in RATES.items():
        said = [f"{rate:g}" if term == "1" else f"{rate:g} {term}" for term, rate in terms.items()]
        rows.append(f"| `{name}` | {' + '.join(said)} |")
    return rows
