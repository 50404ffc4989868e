"""Whether directions are sound: state of every detector, variance they hold, and whether they are found again.

Symbols: ``s_i`` (D,) unit encoding directions, I of them; ``x`` (P, D) features by position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from torch import Tensor

from rdxcli.numerics.seeding import generator

from .base import Array, Directions
from .features import as_maps, positions
from .influence import random_filters
from .signals import MIN_POSITIVES

STATES = ("sound", "idle", "crowded", "copy")
CROWDED = 0.5
COPY = 0.95


@dataclass(frozen=True)
class Health:
    """State of every detector.

    Attributes
    ----------
    states : list of str
        "idle": fires at fewer than 8 positions, so that its encoding direction is a guess. "crowded": fires at more
        than half of them. "copy": an earlier direction has a cosine above 0.95 with it. Else "sound".
    """

    states: list[str]

    def of(self, index: int) -> str:
        """State of one direction."""
        return self.states[index]

    def summary(self) -> dict[str, int]:
        """How many are in each state."""
        return {state: self.states.count(state) for state in STATES}

    def notes(self, again: dict[str, Any] | None = None) -> list[str]:
        """What a person must read."""
        found = [
            f"directions {', '.join(str(i) for i, own in enumerate(self.states) if own == state)}: {words}"
            for state, words in (("idle", "idle, they hardly ever fire"), ("copy", "copies of earlier ones"))
            if state in self.states
        ]
        if again is not None and again["mean"] < again["chance"] + 0.1:
            found.append(
                f"on half of the samples other directions are found (cosine {again['mean']:.2f}, chance "
                f"{again['chance']:.2f}): do not read much into these"
            )
        return found


def health(directions: Directions, features: Array | Tensor) -> Health:
    """State of every detector on some features, (N, D, H, W) or (N, D)."""
    active = np.moveaxis(np.asarray(directions.detect(as_maps(features))), 1, -1).reshape(-1, len(directions.bias_))
    count = active.sum(0)
    cosines = np.abs(np.tril(directions.encoding_ @ directions.encoding_.T, -1))
    states = []
    for i in range(len(count)):
        if count[i] < MIN_POSITIVES:
            states.append("idle")
        elif cosines[i].max(initial=0.0) > COPY:
            states.append("copy")
        else:
            states.append("crowded" if count[i] > CROWDED * len(active) else "sound")
    return Health(states)


def variance(directions: Directions, features: Array | Tensor) -> dict[str, float]:
    """Share of the variance of the features that lies in the span of the encoding directions.

    Returns
    -------
    dict
        ``explained``; ``random``: what as many random directions hold on average; ``best``: the principal directions.
    """
    x = positions(as_maps(features)).double().numpy()
    if len(x) > 65_536:
        x = x[np.unique(np.linspace(0, len(x) - 1, 65_536).astype(int))]
    x = x - x.mean(0)
    count = min(len(directions.encoding_), *x.shape)
    U, values, _ = np.linalg.svd(directions.encoding_.T, full_matrices=False)
    axes = U[:, values > 1e-9 * values[0]]
    total = float((x**2).sum()) or 1.0
    side = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    spectrum = np.linalg.eigvalsh(side)[::-1]
    return {
        "explained": float(((x @ axes) ** 2).sum() / total),
        "random": axes.shape[1] / x.shape[1],
        "best": float(spectrum[:count].sum() / total),
    }


def matched_cosines(encoding: Array, other: Array) -> Array:
    """|cosine| of each direction (I, D) with its partner in another set, partners chosen together, (I,)."""
    cosines = np.abs(encoding @ other.T)
    rows, columns = linear_sum_assignment(-cosines)
    found = np.zeros(len(encoding))
    found[rows] = cosines[rows, columns]
    return found


def stability(
    directions: Directions, features: Array | Tensor, head: Any = None, random_state: int = 0
) -> dict[str, Any]:
    """Whether directions are found again on two halves of the samples, with other seeds.

    Parameters
    ----------
    directions : Directions
        A fitted estimator.
    features : array, shape (N, D, H, W) or (N, D)
    head : callable, optional
        As it was given to ``fit``.

    Returns
    -------
    dict
        ``each`` (I,): mean matched |cosine| with the directions of the halves. ``mean``; ``halves``: mean of each half.
        ``chance``: the same for as many random filters of the same features, whose encoding directions lie where the
        features vary most. Empty when a half cannot be fitted.
    """
    X = as_maps(features)
    rng = generator(random_state, "halves")
    order = rng.permutation(len(X))
    found = []
    for seed, part in enumerate(np.array_split(order, 2)):
        again = clone(directions)
        if "random_state" in again.get_params():
            again.set_params(random_state=random_state + 1 + seed)
        rows = np.sort(part)
        try:
            again.fit(X[rows] if np.ndim(features) == 4 else X[rows, :, 0, 0], head)
        except ValueError:
            return {}
        found.append(matched_cosines(directions.encoding_, again.encoding_))
    shares = np.full(len(directions.bias_), 1 / len(directions.bias_))
    x = X[np.sort(order[: max(1, 16_384 // (X.shape[2] * X.shape[3]))])]
    random = random_filters(x, shares, random_state=random_state, name="stability").encoding_
    return {
        "each": np.mean(found, axis=0),
        "mean": float(np.mean(found)),
        "halves": [float(one.mean()) for one in found],
        "chance": float(matched_cosines(directions.encoding_, random).mean()),
    }
