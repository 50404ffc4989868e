"""Thresholds at which positions have exactly one active detector.

EDDP's sparsity and maximum activation losses both reach their best where exactly one detector is active, fully, at
each position. With frozen filters that can be maximised directly, one threshold at a time: as threshold i falls past
the outputs of detector i in descending order, a position without an active detector is won (+1), one with exactly one
is lost (-1), and any other stays as it is. The best threshold is the largest running sum. Unlike the losses this
needs no assumption that all detectors own equal shares. An addition of ours. Cost: O(I P) per sweep after an O(I P
log P) sort.
"""

from __future__ import annotations

import numpy as np


def single_owner_thresholds(
    outputs: np.ndarray, thresholds: np.ndarray, factor: float = 3.0, sweeps: int = 10
) -> tuple[np.ndarray, float]:
    """Thresholds near the given ones with the most positions that have exactly one active detector.

    Parameters
    ----------
    outputs : ndarray, shape (I, P)
        Filter outputs ``w_i . x_p``.
    thresholds : ndarray, shape (I,)
        Where to start.
    factor : float
        No detector may own more than ``factor`` times, or less than ``1 / factor`` of, the positions it owns at the
        start. The bound keeps one detector from taking everything, which would also give each position one owner.
    sweeps : int
        Rounds over all detectors at most.

    Returns
    -------
    thresholds : ndarray, shape (I,)
        Each half way between two neighbouring outputs.
    share : float
        Share of the positions with exactly one active detector.
    """
    n_detectors, P = outputs.shape
    active = outputs > thresholds[:, None]
    start = np.maximum(active.sum(1), 1)
    low = np.clip((start / factor).astype(int), 1, P - 1)
    high = np.clip((start * factor).astype(int), low, P - 1)
    order = np.argsort(-outputs, axis=1, kind="stable")
    found = np.array(thresholds, dtype=outputs.dtype)
    count = active.sum(0)
    for _ in range(sweeps):
        changed = False
        for i in range(n_detectors):
            others = (count - active[i])[order[i]]
            gain = np.cumsum((others == 0).astype(np.int64) - (others == 1))
            # `gain[n - 1]` belongs to n owned positions.
            best = low[i] + int(np.argmax(gain[low[i] - 1 : high[i]]))
            edge = outputs[i, order[i, best - 1]], outputs[i, order[i, best]]
            found[i] = (edge[0] + edge[1]) / 2
            now = outputs[i] > found[i]
            if (now != active[i]).any():
                count += now.astype(count.dtype) - active[i]
                active[i] = now
                changed = True
        if not changed:
            break
    return found, float((count == 1).mean())
