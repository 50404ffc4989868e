"""Where images lie in two models: how much their neighbourhoods moved, and where a group lies in the other model.

Symbols: n images; the k nearest neighbours of each in both models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LEAST = 0.1  # share of a group from which on a label is looked at by itself
MOST = 3  # labels of neighbours that are told


def whereabouts(
    members: np.ndarray, own: np.ndarray, other: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """Where the images of a group lie in both models.

    Parameters
    ----------
    members : (n,) bool
    own, other : (n, k) int arrays
        Neighbours in the model that holds the group together, and in the other one.
    labels : (n,) array of str, optional

    Returns
    -------
    dict
        ``own``, ``other``: the share of a member's neighbours that are members; ``chance``: the same for a random
        group; ``labels``: of each label that at least a tenth of the members have, ``label``, ``n``, and the labels of
        its members' neighbours in both models, as shares.
    """
    n, m = len(members), int(members.sum())
    out: dict[str, Any] = {
        "own": float(members[own[members]].mean()),
        "other": float(members[other[members]].mean()),
        "chance": (m - 1) / (n - 1),
        "labels": [],
    }
    if labels is None:
        return out
    text = np.asarray(labels).astype(str)
    names, counts = np.unique(text[members], return_counts=True)
    for i in np.argsort(-counts, kind="stable"):
        if counts[i] < LEAST * m:
            break
        rows = members & (text == names[i])
        shares = {side: _shares(text[lists[rows]]) for side, lists in (("own", own), ("other", other))}
        out["labels"].append({"label": str(names[i]), "n": int(counts[i]), **shares})
    return out


def _shares(found: np.ndarray) -> Mapping[str, float]:
    names, counts = np.unique(found, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST]
    return {str(names[i]): float(counts[i] / found.size) for i in order}
