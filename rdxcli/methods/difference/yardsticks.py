"""Pairs made of one model that set a natural scale for a difference: how much do two networks differ that see the same?

``jitter``: the model and a copy with noise of a tenth of each feature's spread. ``halves``: two random halves of its
dimensions, which two networks half as wide could be. ``seeds``: two sets of random read-outs of it, the stand-ins for
two trainings that learned the same (see `rdxcli.methods.difference.resampling`).
"""

from __future__ import annotations

import numpy as np

from rdxcli.methods.difference.change import common_neighbours
from rdxcli.methods.difference.resampling import Versions
from rdxcli.numerics.seeding import generator

YARDSTICKS = ("jitter", "halves", "seeds")
JITTER = 0.1  # of the spread of each feature
NOISE = 0.05  # of the spread of all features, in read-outs


def yardstick(
    name: str, X: np.ndarray, random_state: int = 0
) -> tuple[tuple[np.ndarray, str], tuple[np.ndarray, str]] | None:
    """Two representations, each with what it is in words; None for halves of a single dimension.

    Parameters
    ----------
    name : {"jitter", "halves", "seeds"}
    X : (n, d) array
    """
    rng = generator(random_state, "yardstick", name)
    values = np.asarray(X, dtype=np.float64)
    d = values.shape[1]
    if name == "jitter":
        noisy = values + JITTER * values.std(axis=0) * rng.standard_normal(values.shape)
        return (values, ""), (noisy, f" with noise of {JITTER:.0%}")
    if name == "seeds":
        versions = Versions(values, NOISE, rng)
        return (versions.draw(d, rng), ", one set of read-outs"), (versions.draw(d, rng), ", another set of read-outs")
    if d < 2:
        return None
    order = rng.permutation(d)
    first, second = np.sort(order[: d // 2]), np.sort(order[d // 2 :])
    return (values[:, first], ", one half of its dimensions"), (values[:, second], ", the other half of its dimensions")


def scale(X: np.ndarray, k: int, queries: np.ndarray, random_state: int, device: str) -> dict[str, float]:
    """The difference score of every yardstick of a model that varies."""
    scores: dict[str, float] = {}
    for name in YARDSTICKS:
        pair = yardstick(name, X, random_state)
        if pair is not None and X.std() > 0.0:
            scores[name] = float(1.0 - common_neighbours(pair[0][0], pair[1][0], k, queries, device).mean())
    return scores
