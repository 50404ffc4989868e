"""From a ranking of concepts to explanations of units: candidates, search, explanations, and what to say of them.

Symbols: m units, k kept concepts (columns of the moments), c all concepts; weights (m, k) of the sparse fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rdxcli.methods.neurons.greedy import Fit, Refit, Search, greedy_search, top_fit
from rdxcli.methods.neurons.tables import Explanation

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


def candidates(weights: np.ndarray, barred: np.ndarray, wanted: int) -> Candidates:
    """The first ``wanted`` concepts by signed weight, ties by column; ``barred`` (k,) ones come last and as -1."""
    kept = weights.shape[1]
    order = np.argsort(np.where(barred, np.inf, -weights), axis=1, kind="stable")[:, : min(kept, wanted)]
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


def explained(
    unit: int, search: Search | None, mean: float, columns: np.ndarray, names: Sequence[str]
) -> tuple[Explanation, np.ndarray]:
    """The explanation of a unit and its concept columns, largest weight first.

    Parameters
    ----------
    unit : int
    search : Search or None
        None for a unit that is constant.
    mean : float
        Of the unit on the training rows: what is said of a unit without explanation.
    columns : (k,) int64
        Column of each kept concept.
    names : sequence of str, length c
    """
    steps = [] if search is None else search.steps
    status = "constant" if search is None else "explained" if steps else "no concept"
    fit = steps[-1] if steps else Fit(np.empty(0, dtype=np.int64), np.empty(0), mean, float("nan"))
    by_weight = np.argsort(-fit.weights, kind="stable")
    picked = columns[fit.concepts[by_weight]]
    row = Explanation(
        unit=unit,
        concepts=tuple(names[column] for column in picked),
        weights=tuple(fit.weights[by_weight].tolist()),
        bias=fit.bias,
        scores={"val correlation": fit.correlation if steps else 0.0 if status == "no concept" else None},
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
    threshold : float
    names : sequence of str, length c
    mask : (c,) bool
        Concepts that took part.
    """
    found = []
    units = np.array([row.unit for row in explanations])
    for status, words in (
        ("constant", "do not vary on the training or validation rows and have no explanation"),
        ("no concept", "have no concept with a positive validation correlation"),
    ):
        who = units[np.array([row.status == status for row in explanations])]
        if len(who):
            found.append(f"{len(who)} units {words}: {_some(who)}")
    quiet = units[dead & np.array([row.status != "constant" for row in explanations])]
    if len(quiet):
        found.append(f"{len(quiet)} units never exceed {threshold} and are as good as dead: {_some(quiet)}")
    counts: dict[str, int] = {}
    for column in np.flatnonzero(mask).tolist():
        counts[names[column]] = counts.get(names[column], 0) + 1
    chosen = {int(column) for picked in selected for column in picked}
    shared = sorted({names[column] for column in chosen if counts[names[column]] > 1})
    if shared:
        found.append(
            f"{len(shared)} chosen names belong to several concepts (see `selected_` for the column): "
            f"{', '.join(f'`{name}`' for name in shared[:5])}"
        )
    return found


def _some(units: np.ndarray) -> str:
    shown = ", ".join(map(str, units[:10].tolist()))
    return shown + (", ..." if len(units) > 10 else "")
