"""Synthetic feature maps with known encoding and decoding directions (EDDP, section 5.1 and appendix E).

Each position of a map holds ``x = S a + B c + mu + noise``. Symbols, with shapes:

=======  ============  ==============================================================================
``S``    (D, I)        unit encoding directions, one column per concept
``a``    (I,)          signal values: the concept that owns the position draws from ``on``, the others from ``off``
``B``    (D, F)        unit distractor directions
``c``    (F,)          distractor values, independent of the concepts
``mu``   (D,)          constant offset
``W``    (D, I)        decoding directions: the shortest with ``w_i . s_j = (i == j)`` and ``w_i . b_f = 0``
=======  ============  ==============================================================================

An image class is a set of concepts, each of which owns at least one position of every image of the class. The network
above the features is average pooling and one linear layer, fitted here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from rdxcli.errors import UnknownNameError
from rdxcli.progress import human_count

from .alignment import PooledLinearHead


@dataclass(frozen=True)
class SyntheticSpec:
    """What to generate.

    Attributes
    ----------
    dim : int
        D, channels.
    n_concepts, n_distractors : int
        I and F; ``I + F <= D``.
    height, width : int
        Size of the maps; at least ``concepts_per_image`` positions.
    concepts_per_image : int
        Concepts in a class.
    n_classes : int
        Classes, spread over all sets of concepts; 0 takes every set.
    off, on : (float, float)
        Intervals of the signal values.
    distractor_args : (float, float)
        Low and high, or mean and standard deviation.
    offset : float
        ``mu`` in every channel.
    noise_std : float
        Isotropic Gaussian noise.
    direction_law : "angles" or "gaussian"
        Random polar angles put most energy into the first channels, as in the paper's table 6; "gaussian" treats
        channels alike.
    cos_max, min_sv, filter_cos_max : float
        Largest |cos| between any two of ``[S | B]``, smallest singular value of it, largest |cos| between two filters.
    shared : float
        Length of a random direction that all concepts have in common, beside the unit length of their own.
    concept_prior : "uniform" or "geometric"
        "geometric" makes class k smaller by the factor 0.6^k.
    """

    name: str = "custom"
    seed: int = 0
    dim: int = 16
    n_concepts: int = 3
    n_distractors: int = 2
    height: int = 1
    width: int = 2
    concepts_per_image: int = 2
    n_classes: int = 0
    images_per_class: int = 1000
    off: tuple[float, float] = (0.0, 2.5)
    on: tuple[float, float] = (2.5, 5.0)
    distractor_law: str = "uniform"
    distractor_args: tuple[float, float] = (0.0, 5.0)
    offset: float = 10.0
    noise_std: float = 0.0
    direction_law: str = "angles"
    cos_max: float = 0.5
    min_sv: float = 0.3
    filter_cos_max: float = 0.6
    shared: float = 0.0
    concept_prior: str = "uniform"
    test_fraction: float = 0.25

    def __post_init__(self) -> None:
        if self.n_concepts < 2 or self.n_distractors < 0 or self.n_concepts + self.n_distractors > self.dim:
            raise ValueError(
                f"Got n_concepts={self.n_concepts}, n_distractors={self.n_distractors}, dim={self.dim}, "
                "expected at least 2 concepts and n_concepts + n_distractors <= dim"
            )
        if not 1 <= self.concepts_per_image <= min(self.n_concepts, self.height * self.width):
            raise ValueError(
                f"Got concepts_per_image={self.concepts_per_image}, "
                f"expected 1 to {min(self.n_concepts, self.height * self.width)}"
            )
        for name, allowed in (
            ("distractor_law", ("uniform", "normal")),
            ("direction_law", ("angles", "gaussian")),
            ("concept_prior", ("uniform", "geometric")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Got {name}={getattr(self, name)!r}, expected one of {allowed}")
        if self.images_per_class < 1 or not 0 <= self.test_fraction < 1:
            raise ValueError(
                f"Got images_per_class={self.images_per_class}, test_fraction={self.test_fraction}, "
                "expected at least 1 and in [0, 1)"
            )


@dataclass(frozen=True)
class SyntheticCase:
    """Features and the truth behind them.

    Attributes
    ----------
    X : ndarray, shape (N, D, H, W), float32
    y : ndarray of int, shape (N,)
        Image classes.
    owner : ndarray of int, shape (N, H, W)
        Concept that owns each position.
    values : ndarray, shape (N, I, H, W), float32
        Signal values.
    is_test : ndarray of bool, shape (N,)
    S, B, W : ndarray, shape (D, I), (D, F), (D, I), float64
    mu : ndarray, shape (D,)
    class_concepts : ndarray of int, shape (K, I)
        1 where a class has a concept.
    head : PooledLinearHead
        The network above the features.
    head_accuracy : (float, float)
        Of the head, on training and test images.
    """

    X: np.ndarray
    y: np.ndarray
    owner: np.ndarray
    values: np.ndarray
    is_test: np.ndarray
    S: np.ndarray
    B: np.ndarray
    W: np.ndarray
    mu: np.ndarray
    class_concepts: np.ndarray
    head: PooledLinearHead
    head_accuracy: tuple[float, float]


# Directions of the paper's table 6 (4 decimals), one row each, trailing zeros left out: D = 16, I = 3, F = 2.
_TABLE_S = (
    "0.5396 0.4415 -0.1283 -0.0093 0.59 -0.3718 0.1051 0.0003 0.0063 -0.0009 -0.0004 0.0024 0.0036 "
    "-0.0007 0.0002 -0.0001",
    "0.5914 0.5833 -0.1745 -0.4899 -0.193 -0.0051 0.0467 -0.0103 0.0037 0.0004 -0.0002 -0.0001 0.0001",
    "0.8122 0.2983 0.4681 0.17 -0.0005 0.0229 -0.0524 0.0056 -0.0021 0.001 0.0002 -0.0006 -0.0013 0.0002",
)
_TABLE_B = (
    "0.7693 -0.0396 -0.6216 0.1416 -0.0123 -0.007 0.0022 0.0014 -0.0004 0.0001",
    "0.7527 -0.6147 0.1661 -0.1293 0.1065 -0.0042 0.0003 0.0007 -0.0001 0.0001",
)

_NORMAL = {"distractor_law": "normal", "distractor_args": (2.5, 1.5)}
_FOUR = {"dim": 20, "n_concepts": 4, "height": 2, "width": 2, "images_per_class": 120, "direction_law": "gaussian"}
_LOOSE = {"min_sv": 0.15, "filter_cos_max": 0.9}
_NAMED: dict[str, dict[str, Any]] = {
    "paper_table": {"seed": 11, "images_per_class": 700},
    "paper_like": {"seed": 21, "images_per_class": 700},
    "normal_distractor": {"seed": 32, "images_per_class": 700, **_NORMAL},
    "noisy": {"seed": 41, "images_per_class": 700, "noise_std": 0.15, "direction_law": "gaussian"},
    "four_concepts": {
        "seed": 51,
        "dim": 20,
        "n_concepts": 4,
        "height": 2,
        "width": 2,
        "images_per_class": 200,
        "direction_law": "gaussian",
        "noise_std": 0.05,
    },
    # The filters share most of their length, because all have to cancel the same distractors.
    "hard_shared_distractor": {
        "seed": 31,
        "images_per_class": 700,
        "filter_cos_max": 1.0,
        "distractor_law": "normal",
        "distractor_args": (2.5, 2.0),
    },
    # Harder in one way each: clear gaps and no offset, cosines up to 0.75, little room, many concepts, many channels.
    "gap": {"seed": 71, **_FOUR, "off": (0.0, 1.0), "on": (3.0, 5.0), "offset": 0.0},
    "correlated": {"seed": 72, **_FOUR, "dim": 24, "n_concepts": 5, "shared": 0.9, "cos_max": 0.75, **_LOOSE},
    "tight": {"seed": 73, **_FOUR, "dim": 10, "n_concepts": 6, "cos_max": 0.6, **_LOOSE},
    "many": {"seed": 74, **_FOUR, "dim": 40, "n_concepts": 8, "n_distractors": 3, "noise_std": 0.05},
    "wide": {"seed": 75, **_FOUR, "dim": 128, "n_concepts": 5, "n_distractors": 4, "noise_std": 0.1},
    "unbalanced": {"seed": 61, "images_per_class": 900, "concept_prior": "geometric"},
}


def names() -> list[str]:
    """Names that `named` knows."""
    return list(_NAMED)


def named(name: str, **changes: Any) -> SyntheticSpec:
    """The specification of a known case, with changes. Raises `UnknownNameError` (no case of that name)."""
    if name not in _NAMED:
        error = UnknownNameError("synthetic data set", name, _NAMED)
        error.hint = "; ".join([*filter(None, [error.hint]), "there are " + ", ".join(_NAMED)])
        raise error
    return replace(SyntheticSpec(name=name, **_NAMED[name]), **changes)


def decoders(S: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Decoding directions (D, I): the concept rows of ``pinv([S | B])``, as columns."""
    return np.linalg.pinv(np.hstack([S, B]))[: S.shape[1]].T


def _from_table(rows: tuple[str, ...], dim: int = 16) -> np.ndarray:
    columns = np.zeros((dim, len(rows)))
    for column, row in enumerate(rows):
        values = [float(value) for value in row.split()]
        columns[: len(values), column] = values
    return columns / np.linalg.norm(columns, axis=0)


def _from_angles(rng: np.random.Generator, dim: int) -> np.ndarray:
    theta = rng.uniform(0.0, np.pi, dim - 1)
    theta[-1] = rng.uniform(0.0, 2.0 * np.pi)
    sines = np.concatenate([[1.0], np.cumprod(np.sin(theta))])
    return sines * np.concatenate([np.cos(theta), [1.0]])


def _draw_directions(rng: np.random.Generator, spec: SyntheticSpec) -> tuple[np.ndarray, np.ndarray]:
    """Random unit vectors that keep the bounds of ``spec``, by rejection."""
    wanted = spec.n_concepts + spec.n_distractors
    for _ in range(200):
        found: list[np.ndarray] = []
        common = rng.standard_normal(spec.dim) if spec.shared else np.zeros(spec.dim)
        common *= spec.shared / max(float(np.linalg.norm(common)), 1e-12)
        for _ in range(20_000):
            v = _from_angles(rng, spec.dim) if spec.direction_law == "angles" else rng.standard_normal(spec.dim)
            v = v / np.linalg.norm(v)
            if len(found) < spec.n_concepts and spec.shared:
                v = (v + common) / np.linalg.norm(v + common)
            if all(abs(v @ other) <= spec.cos_max for other in found):
                found.append(v)
                if len(found) == wanted:
                    break
        if len(found) < wanted:
            continue
        both = np.stack(found, axis=1)
        S, B = both[:, : spec.n_concepts], both[:, spec.n_concepts :]
        if np.linalg.svd(both, compute_uv=False)[-1] < spec.min_sv:
            continue
        W = decoders(S, B)
        W = W / np.linalg.norm(W, axis=0)
        if np.abs(W.T @ W - np.eye(spec.n_concepts)).max() <= spec.filter_cos_max:
            return S, B
    raise ValueError(
        f"Got no directions with cos_max={spec.cos_max}, min_sv={spec.min_sv}, filter_cos_max={spec.filter_cos_max} "
        "in 200 draws, expected looser bounds or more dimensions"
    )


def _classes(spec: SyntheticSpec) -> list[tuple[int, ...]]:
    sets = list(itertools.combinations(range(spec.n_concepts), spec.concepts_per_image))
    if spec.n_classes:
        sets = [sets[k] for k in np.linspace(0, len(sets) - 1, spec.n_classes).round().astype(int)]
    if len(sets) < 2:
        raise ValueError(
            f"Got {len(sets)} class, expected at least 2 sets of {human_count(spec.concepts_per_image, 'concept')}"
        )
    return sets


def _draw_owners(
    rng: np.random.Generator, spec: SyntheticSpec, sets: list[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Class of each image (N,) and owner of each of its positions (N, H W)."""
    n_positions = spec.height * spec.width
    y, owners = [], []
    for k, concepts in enumerate(sets):
        count = spec.images_per_class
        if spec.concept_prior == "geometric":
            count = max(8, round(count * 0.6**k))
        for _ in range(count):
            extra = rng.choice(concepts, size=n_positions - len(concepts))
            of_image = np.concatenate([np.asarray(concepts), extra])
            # With no position to spare the order is fixed, as in the paper.
            owners.append(rng.permutation(of_image) if extra.size else of_image)
            y.append(k)
    return np.asarray(y), np.stack(owners)


def generate(spec: SyntheticSpec) -> SyntheticCase:
    """Draw a case.

    The stream is NumPy's default generator on ``spec.seed`` alone, in a fixed order of draws, so that named cases
    equal the reference files bit by bit.
    """
    rng = np.random.default_rng(spec.seed)
    if spec.name == "paper_table":
        if (spec.dim, spec.n_concepts, spec.n_distractors) != (16, 3, 2):
            raise ValueError("Got changed sizes for `paper_table`, expected dim=16, n_concepts=3, n_distractors=2")
        S, B = _from_table(_TABLE_S), _from_table(_TABLE_B)
    else:
        S, B = _draw_directions(rng, spec)
    sets = _classes(spec)
    y, owner = _draw_owners(rng, spec, sets)
    N, n_positions = owner.shape
    n_concepts, F = spec.n_concepts, spec.n_distractors
    high, low = (
        rng.uniform(*spec.on, (N, n_positions, n_concepts)),
        rng.uniform(*spec.off, (N, n_positions, n_concepts)),
    )
    values = np.where(owner[..., None] == np.arange(n_concepts), high, low)
    draw = rng.uniform if spec.distractor_law == "uniform" else rng.normal
    distractors = draw(*spec.distractor_args, (N, n_positions, F))
    x = values @ S.T + distractors @ B.T + spec.offset
    if spec.noise_std:
        x = x + rng.normal(0.0, spec.noise_std, x.shape)
    order = rng.permutation(N)
    size = (spec.height, spec.width)
    X = x.transpose(0, 2, 1).reshape(N, spec.dim, *size)[order].astype(np.float32)
    y = y[order]
    is_test = np.arange(N) >= N - round(spec.test_fraction * N)
    pooled = X.mean((2, 3), dtype=np.float64)
    weight, bias = _fit_head(pooled[~is_test], y[~is_test], len(sets))
    right = (pooled @ weight + bias).argmax(1) == y
    return SyntheticCase(
        X,
        y,
        owner[order].reshape(N, *size),
        values[order].transpose(0, 2, 1).reshape(N, n_concepts, *size).astype(np.float32),
        is_test,
        S,
        B,
        decoders(S, B),
        np.full(spec.dim, spec.offset),
        np.array([[int(c in concepts) for c in range(n_concepts)] for concepts in sets]),
        PooledLinearHead(weight, bias),
        (float(right[~is_test].mean()), float(right[is_test].mean()) if is_test.any() else float("nan")),
    )


def _fit_head(pooled: np.ndarray, y: np.ndarray, n_classes: int, ridge: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression with a small ridge on features of unit spread: weight (D, K) and bias (K,)."""
    mean = pooled.mean(0)
    unit = np.sqrt(((pooled - mean) ** 2).mean())
    z = (pooled - mean) / unit
    D = z.shape[1]
    target = np.eye(n_classes)[y]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        V = flat.reshape(D + 1, n_classes)
        log_p = log_softmax(z @ V[:D] + V[D], axis=1)
        residual = (np.exp(log_p) - target) / len(y)
        value = -(log_p * target).sum() / len(y) + 0.5 * ridge * (V[:D] ** 2).sum()
        return value, np.vstack([z.T @ residual + ridge * V[:D], residual.sum(0)]).ravel()

    start = np.zeros((D + 1) * n_classes)
    V = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 4000}).x
    V = V.reshape(D + 1, n_classes)
    weight = V[:D] / unit
    return weight, V[D] - mean @ weight
