"""From a ranking of concepts to explanations of units: candidates, search, explanations, and what to say of them.

Symbols: m units, k kept concepts (columns of the moments), c all concepts; weights (m, k) of the sparse fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from rdxcli.methods.neurons.greedy import Refit, Search, greedy_search, top_fit
from rdxcli.methods.neurons.tables import Explanation
from rdxcli.progress import human_count

TOGETHER = 256  # units whose searches advance together


@dataclass(frozen=True)
class Candidates:
    """The best ranked concepts of each unit.

    Attributes
    ----------
    order : (m, q) int64
        Kept concepts, best first; -1 for concepts that are no candidates.
    weights : (m, q) float64
        Their weights in the sparse fit; 0 where there is none.
    """

    order: np.ndarray
    weights: np.ndarray


def candidates(weights: np.ndarray, barred: np.ndarray, wanted: int, *, absolute: bool = False) -> Candidates:
    """The first ``wanted`` concepts by signed or absolute weight, ties by column; ``barred`` (k,) come last as -1."""
    kept = weights.shape[1]
    order = np.argsort(np.where(barred, np.inf, -np.abs(weights) if absolute else -weights), axis=1, kind="stable")[
        :, : min(kept, wanted)
    ]
    of_order = np.where(barred[order], 0.0, np.take_along_axis(weights, order, axis=1))
    return Candidates(np.where(barred[order], -1, order), of_order)


def search_units(
    refit: Refit,
    units: np.ndarray,
    order: np.ndarray,
    *,
    greedy: bool,
    max_length: int,
    tolerance: float,
    window: int,
    description_length: int,
) -> dict[int, Search]:
    """What was chosen for each of ``units``, greedily or as the first ``description_length`` candidates."""
    results: dict[int, Search] = {}
    if not greedy:
        for unit in units.tolist():
            fit = top_fit(refit, unit, order[unit], description_length)
            results[unit] = Search([fit] if fit is not None and abs(fit.correlation) > 0 else [])
        return results
    for start in range(0, len(units), TOGETHER):
        part = units[start : start + TOGETHER]
        found = greedy_search(refit, part, order[part], max_length=max_length, tolerance=tolerance, window=window)
        results |= dict(zip(part.tolist(), found, strict=True))
    return results


@dataclass(frozen=True)
class Found:
    """What a block of m units was explained with, as plain arrays: what a run keeps of a finished block.

    Attributes
    ----------
    order : (m, q) int64
        Best ranked kept concepts, -1 filled.
    order_weights : (m, q) float64
        Their weights in the sparse fit.
    nonzero : (m,) int64
    objective, gap, lam : (m,) float64
        Of the sparse fit.
    chosen : (m, l) int64
        Kept concepts in the order of selection, -1 filled.
    weights : (m, l) float64
        Of the refit.
    bias : (m,) float64
    path : (m, l) float64
        Validation correlation after each selection; NaN beyond, and all NaN where nothing was chosen.
    """

    order: np.ndarray
    order_weights: np.ndarray
    nonzero: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    lam: np.ndarray
    chosen: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    path: np.ndarray


def joined(blocks: Sequence[Found]) -> Found:
    """Blocks of the same shape one below the other."""
    return Found(*(np.concatenate([getattr(block, one.name) for block in blocks]) for one in fields(Found)))


def searches(
    results: Mapping[int, Search], m: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``chosen``, ``weights``, ``bias`` and ``path`` of `Found` for ``m`` units; a single refit has a path of one."""
    chosen, weights = np.full((m, length), -1, dtype=np.int64), np.zeros((m, length))
    bias, path = np.zeros(m), np.full((m, length), np.nan)
    for row, search in results.items():
        if search.steps:
            last = search.steps[-1]
            chosen[row, : len(last.concepts)], weights[row, : len(last.concepts)] = last.concepts, last.weights
            bias[row] = last.bias
            path[row, : len(search.steps)] = [step.correlation for step in search.steps]
    return chosen, weights, bias, path


def explained(
    unit: int,
    chosen: np.ndarray,
    weights: np.ndarray,
    bias: float,
    correlation: float,
    status: str,
    names: Sequence[str],
) -> tuple[Explanation, np.ndarray]:
    """The explanation of a unit and its concept columns, largest weight first.

    Parameters
    ----------
    chosen : (l,) int64
        Columns of all concepts, in order of selection; empty without explanation.
    weights : (l,) float64
    correlation : float
        On the validation rows.
    status : {"explained", "constant", "no concept"}
    names : sequence of str, length c
    """
    by_weight = np.argsort(-weights, kind="stable")
    picked = chosen[by_weight]
    row = Explanation(
        unit=unit,
        concepts=tuple(names[column] for column in picked),
        weights=tuple(weights[by_weight].tolist()),
        bias=bias,
        scores={"val correlation": {"explained": correlation, "no concept": 0.0}.get(status)},
        status=status,
    )
    return row, picked


def remarks(
    explanations: Sequence[Explanation],
    selected: Sequence[np.ndarray],
    dead: np.ndarray,
    threshold: float,
    names: Sequence[str],
    mask: np.ndarray,
) -> list[str]:
    """What a reader should know of some explanations.

    Parameters
    ----------
    explanations : sequence of Explanation, length m
    selected : sequence of int arrays, length m
        Their concept columns.
    dead : (m,) bool
        Units that never exceed ``threshold``.
    names : sequence of str, length c
    mask : (c,) bool
        Concepts that took part.
    """
    found = []
    units = np.array([row.unit for row in explanations])
    for status, verb, words in (
        ("constant", "that do", "not vary on the training or validation rows"),
        ("no concept", "that have", "no concept with a positive validation correlation"),
    ):
        who = units[np.array([row.status == status for row in explanations])]
        if len(who):
            found.append(f"no explanation for {human_count(len(who), 'unit', verb)} {words}: {_some(who)}")
    quiet = units[dead & np.array([row.status != "constant" for row in explanations])]
    if len(quiet):
        found.append(f"{human_count(len(quiet), 'unit', 'never exceed')} {threshold}, as good as dead: {_some(quiet)}")
    counts: dict[str, int] = {}
    for column in np.flatnonzero(mask).tolist():
        counts[names[column]] = counts.get(names[column], 0) + 1
    chosen = {int(column) for picked in selected for column in picked}
    shared = sorted({names[column] for column in chosen if counts[names[column]] > 1})
    if shared:
        found.append(
            f"{human_count(len(shared), 'chosen name', 'belong')} to several concepts (see `selected_` "
            "for the column): "
            f"{', '.join(f'`{name}`' for name in shared[:5])}"
        )
    return found


def _some(units: np.ndarray) -> str:
    shown = ", ".join(map(str, units[:10].tolist()))
    return shown + (", ..." if len(units) > 10 else "")
