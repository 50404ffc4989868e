"""From layer outputs to the numbers a fit sees: pooling, splits, standardised training data.

Reference: Oikarinen and Weng (2024), sections 3 and 4.1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.numerics.moments import check_rows, check_source
from rdxcli.progress import human_count

Pool = Literal["avg", "max", "first", "none"]
POOLS: tuple[Pool, ...] = ("avg", "max", "first", "none")


def pool_outputs(outputs: ArrayLike, mode: Pool = "avg", units: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """One number per image and unit from the output of a layer.

    Raises `ValueError` (unknown mode, a rank other than 2, 3 or 4, or "first" on something without tokens).

    Parameters
    ----------
    outputs : (n, c, h, w), (n, token, feature) or (n, unit) array-like
        Units are the last axis of three-dimensional outputs, axis 1 otherwise.
    mode : {"avg", "max", "first", "none"}
        Mean or maximum over positions or over all tokens (the class token included), the class token alone (token 0;
        three-dimensional outputs only), or everything as it is. Two-dimensional outputs are returned as they are.
    units : sequence of int, optional
        Keep these units only.

    Returns
    -------
    (n, units) ndarray, or for "none" an array of the rank of ``outputs``; a copy, of the type of ``outputs``
    """
    values = np.asarray(outputs)
    if mode not in POOLS:
        raise ValueError(f"Got pool {mode!r}, expected one of {', '.join(map(repr, POOLS))}")
    if values.ndim not in (2, 3, 4):
        raise ValueError(
            f"Got an output of shape {values.shape}, expected (n, c, h, w), (n, token, feature) or (n, unit)"
        )
    if mode == "first" and values.ndim != 3:
        raise ValueError(f"Got pool 'first' for an output of shape {values.shape}, expected (n, token, feature)")
    if units is not None:
        values = np.take(values, np.asarray(units), axis=-1 if values.ndim == 3 else 1)
    if mode == "none" or values.ndim == 2:
        return values.copy()
    if mode == "first":
        return values[:, 0].copy()
    axes = (2, 3) if values.ndim == 4 else (1,)
    return np.asarray(values.mean(axis=axes) if mode == "avg" else values.max(axis=axes))


@dataclass(frozen=True)
class Split:
    """Sorted row numbers of the three parts.

    Attributes
    ----------
    train : int64
        Sparse fit and refits.
    val : int64
        Acceptance of candidates, parameters of the ablation score.
    test : int64
        All reported scores.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def random_split(n: int, seed: int = 0, fractions: tuple[float, float] = (0.7, 0.8)) -> Split:
    """70/10/20 split: 0..n-1 shuffled by Python's Mersenne Twister, cut at floor(0.7 n) and floor(0.8 n), each sorted.

    Raises `ValueError` (a part would be empty).
    """
    order = list(range(n))
    random.Random(seed).shuffle(order)
    cuts = [int(fraction * n) for fraction in fractions]
    parts = [np.sort(np.array(part, dtype=np.int64)) for part in np.split(np.array(order, dtype=np.int64), cuts)]
    if min(len(part) for part in parts) < 1:
        raise ValueError(f"Got {human_count(n, 'row')}, too few for training, validation and test parts")
    return Split(*parts)


def check_inputs(
    concepts: Any, activations: Any, concept_names: Sequence[str] | None, units: Sequence[int] | np.ndarray | None
) -> tuple[Any, Any, list[str], np.ndarray]:
    """What every explainer of units is given: both row sources, a name for each concept, the units asked for.

    Raises `ValueError` (no row sources, other numbers of rows or of names, units that are not there).
    """
    P, A = check_sources(concepts, activations)
    names = [f"concept {i}" for i in range(P.shape[1])] if concept_names is None else list(concept_names)
    if len(names) != P.shape[1]:
        raise ValueError(f"Got {human_count(P.shape[1], 'concept column')} and {human_count(len(names), 'name')}")
    return P, A, names, check_rows(np.arange(A.shape[1]) if units is None else units, A.shape[1], "units")


def check_sources(concepts: Any, activations: Any) -> tuple[Any, Any]:
    """Concepts and activations of the same images, as row sources."""
    P, A = check_source(concepts, "concepts"), check_source(activations, "activations")
    if P.shape[0] != A.shape[0]:
        raise ValueError(
            f"Got {human_count(P.shape[0], 'row')} of concepts and {human_count(A.shape[0], 'row')} of "
            "activations, expected the same images"
        )
    return P, A


def check_split(train: Any, val: Any, test: Any | None, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Checked, sorted row numbers of the parts.

    Raises `ValueError` (out of range, repeated, overlapping, or fewer than 2 rows in training or validation).
    """
    parts = {"train": check_rows(train, n, "train"), "val": check_rows(val, n, "val")}
    if test is not None:
        parts["test"] = check_rows(test, n, "test")
    for name in ("train", "val"):
        if len(parts[name]) < 2:
            raise ValueError(f"{name}: Got {len(parts[name])} row, expected at least 2")
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            common = np.intersect1d(parts[first], parts[second])
            if len(common):
                raise ValueError(
                    f"Got {human_count(len(common), 'row', 'that are')} both in {first} and in {second}, "
                    "expected disjoint parts"
                )
    return parts["train"], parts["val"], parts.get("test")


@dataclass(frozen=True)
class Standardised:
    """What the sparse fit of the paper sees, as full arrays (small data, tests)."""

    train_x: np.ndarray
    train_y: np.ndarray
    val_x: np.ndarray
    val_y: np.ndarray


def standardise(
    concepts: ArrayLike, activations: ArrayLike, train: ArrayLike, val: ArrayLike, *, statistics: str = "train"
) -> Standardised:
    """Concepts by mean and std (n - 1) of the training rows; units by those of ``statistics``.

    Raises `ValueError` (constant columns (they cannot be standardised)).

    Parameters
    ----------
    concepts : (n, c) array-like
    activations : (n, u) array-like
    statistics : {"train", "all"}
        Rows that normalise the units. "all" is what the published code does; it looks at the test images.
    """
    P, A = np.asarray(concepts, dtype=np.float64), np.asarray(activations, dtype=np.float64)
    rows, other = np.asarray(train), np.asarray(val)
    base = A if check_statistics(statistics) == "all" else A[rows]
    mean_x, std_x = P[rows].mean(axis=0), P[rows].std(axis=0, ddof=1)
    mean_y, std_y = base.mean(axis=0), base.std(axis=0, ddof=1)
    if not (std_x > 0).all() or not (std_y > 0).all():
        raise ValueError(
            f"Got {human_count(int((std_x <= 0).sum()), 'constant concept')} and "
            f"{human_count(int((std_y <= 0).sum()), 'constant unit')}, "
            "expected none"
        )
    return Standardised(
        (P[rows] - mean_x) / std_x,
        (A[rows] - mean_y) / std_y,
        (P[other] - mean_x) / std_x,
        (A[other] - mean_y) / std_y,
    )


def check_statistics(value: str) -> str:
    """``train`` or ``all``."""
    if value not in ("train", "all"):
        raise ValueError(f"Got statistics={value!r}, expected 'train' or 'all'")
    return value
