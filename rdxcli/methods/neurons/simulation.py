"""How well does an explanation predict the unit? Correlation scores on held-out images.

Symbols: P (n, c) concept activations by the simulator, names (c,) their strings; y (n, units) true pooled activations;
prediction of a unit = bias + sum_k w_k P[:, concept_k].

The simulator should be another vision-language model than the one that made the explanation; here it is an array.

Reference: Oikarinen and Weng (2024), section 5.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.methods.neurons.formulas import parse_formula
from rdxcli.methods.neurons.preparation import check_sources
from rdxcli.methods.neurons.scores import Interval, ScoreSummary, correlation_interval, pearson, summarise
from rdxcli.methods.neurons.tables import ExplanationTable
from rdxcli.numerics.moments import check_rows, check_source, read_columns
from rdxcli.progress import human_count


@dataclass(frozen=True)
class Lookup:
    """Columns of the concepts of a table.

    Attributes
    ----------
    columns : mapping of str to int
        Every concept that was found.
    missing : tuple of str
        Concepts of the table that the matrix does not have.
    ambiguous : tuple of str
        Concepts whose name several columns carry; the first one is used.
    """

    columns: Mapping[str, int]
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """Remarks for people."""
        notes = []
        if self.ambiguous:
            shown = ", ".join(f"`{name}`" for name in self.ambiguous[:5])
            notes.append(
                f"{human_count(len(self.ambiguous), 'concept name', 'occur')} more than once, the first "
                f"column is used: {shown}"
            )
        if self.missing:
            shown = ", ".join(f"`{name}`" for name in self.missing[:5])
            notes.append(
                f"{human_count(len(self.missing), 'concept')} of the table are not in the concept matrix: {shown}"
            )
        return notes


def find_concepts(table: ExplanationTable, names: Sequence[str]) -> Lookup:
    """Where the concepts of a table, or the parts of its formulas, are among ``names``; the first of equals."""
    first: dict[str, int] = {}
    again: set[str] = set()
    for column, name in enumerate(names):
        if name in first:
            again.add(name)
        else:
            first[name] = column
    wanted = list(dict.fromkeys(part for name in table.concepts() for part in parse_formula(name, first).concepts))
    return Lookup(
        {name: first[name] for name in wanted if name in first},
        tuple(name for name in wanted if name not in first),
        tuple(name for name in wanted if name in again),
    )


def simulate(
    table: ExplanationTable, concepts: Any, names: Sequence[str], rows: Any | None = None, *, length: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """Predicted activations of the units of a table.

    Raises `ValueError` (a concept that the matrix does not have).

    Parameters
    ----------
    table : ExplanationTable
        Linear explanations, or descriptions (one concept of weight 1: the sigmoid of its similarity).
    concepts : row source (n, c)
        Concept activations by the simulator.
    names : sequence of str, length c
    rows : int array or mask, optional
        Images to predict; default all.
    length : int, optional
        Use only the first (heaviest) ``length`` concepts of each explanation.

    Returns
    -------
    predictions : (m, units) float64
        A unit without explanation is predicted as its bias, a constant.
    notes : list of str
    """
    design = _Design(table, concepts, names, rows)
    return design.predict(length), design.notes


class _Design:
    """The concept columns a table needs, read once."""

    def __init__(self, table: ExplanationTable, concepts: Any, names: Sequence[str], rows: Any | None) -> None:
        P = check_source(concepts, "concepts")
        if P.shape[1] != len(names):
            raise ValueError(f"Got {human_count(P.shape[1], 'concept column')} and {human_count(len(names), 'name')}")
        found = find_concepts(table, names)
        if found.missing:
            shown = ", ".join(f"`{name}`" for name in found.missing[:5])
            raise ValueError(
                f"Got {human_count(len(found.missing), 'concept')} without a column in the concept matrix: {shown}"
            )
        chosen = np.arange(P.shape[0]) if rows is None else check_rows(rows, P.shape[0], "rows")
        columns = np.array(sorted(set(found.columns.values())), dtype=np.int64)
        order = {int(column): i for i, column in enumerate(columns)}
        self.table, self.notes = table, found.notes
        self.place = {name: order[column] for name, column in found.columns.items()}
        self.values = read_columns(P, chosen, columns, "concepts") if len(columns) else np.zeros((len(chosen), 0))

    def predict(self, length: int | None = None) -> np.ndarray:
        weights = np.zeros((self.values.shape[1], len(self.table.rows)))
        formulas = np.zeros((len(self.values), len(self.table.rows)))
        for unit, row in enumerate(self.table.rows):
            for name, weight in list(zip(row.concepts, row.weights, strict=True))[:length]:
                formula = parse_formula(name, self.place)
                if not formula.operators:
                    weights[self.place[name], unit] += weight
                else:
                    formulas[:, unit] += weight * formula.truth(lambda part: self.values[:, self.place[part]])
        return np.asarray(self.values @ weights + formulas + np.array([row.bias for row in self.table.rows]))


@dataclass(frozen=True)
class CorrelationScores:
    """Correlation scores of the units of one table.

    Attributes
    ----------
    units : (m,) int64
    scores : (m,) float64
        NaN where undefined: the unit or its prediction does not vary.
    interval : Interval or None
        Over test images.
    lengths : (m,) int64
        Concepts per explanation.
    summary : ScoreSummary
        Mean and std (n - 1) / sqrt(units) over defined scores.
    """

    units: np.ndarray
    scores: np.ndarray
    interval: Interval | None
    lengths: np.ndarray
    summary: ScoreSummary
    notes: tuple[str, ...]


def correlation_scores(
    table: ExplanationTable,
    concepts: Any,
    names: Sequence[str],
    activations: Any,
    *,
    rows: Any | None = None,
    units: Sequence[int] | np.ndarray | None = None,
    n_resamples: int = 1000,
) -> CorrelationScores:
    """Pearson correlation of simulated and true activations on the test images, unit by unit.

    Raises `ValueError` (different numbers of rows, unknown units or concepts, fewer than 2 rows).

    Parameters
    ----------
    concepts : row source (n, c)
        By the simulator.
    activations : row source (n, u)
        Pooled activations of the layer.
    rows : int array or mask, optional
        Test images; default all.
    units : sequence of int, optional
        Unit number of each column of ``activations``; default 0..u-1.
    n_resamples : int
        0 for no intervals. Any other number gives those of `rdxcli.methods.neurons.scores.correlation_interval`, which
        need no resamples any more; the name has stayed.
    """
    P, A = check_sources(concepts, activations)
    chosen = np.arange(A.shape[0]) if rows is None else check_rows(rows, A.shape[0], "rows")
    if len(chosen) < 2:
        raise ValueError(f"Got {human_count(len(chosen), 'test row')}, expected at least 2")
    truth = read_columns(A, chosen, unit_columns(table, A.shape[1], units), "activations")
    predictions, notes = simulate(table, P, names, chosen)
    scores = pearson(predictions, truth)
    undefined = table.units[~np.isfinite(scores)]
    if len(undefined):
        notes.append(
            f"no correlation for {human_count(len(undefined), 'unit', 'that are')} constant or predicted as constant: "
            f"{', '.join(map(str, undefined[:10].tolist()))}"
        )
    interval = None
    if n_resamples:
        interval = correlation_interval(predictions, truth)
    lengths = np.array([len(row.concepts) for row in table.rows], dtype=np.int64)
    return CorrelationScores(table.units, scores, interval, lengths, summarise(scores), tuple(notes))


def unit_columns(table: ExplanationTable, width: int, units: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Column of each unit of a table among ``width`` columns. Raises `ValueError` (units without a column)."""
    known = np.arange(width) if units is None else np.asarray(units)
    if len(known) != width:
        raise ValueError(
            f"Got {human_count(len(known), 'unit number')} for {human_count(width, 'column')} of activations"
        )
    where = {int(unit): column for column, unit in enumerate(known)}
    missing = [row.unit for row in table.rows if row.unit not in where]
    if missing:
        raise ValueError(f"Got explanations of units {missing[:5]}, but activations of units {known[0]}..{known[-1]}")
    return np.array([where[row.unit] for row in table.rows], dtype=np.int64)


@dataclass(frozen=True)
class LengthCurve:
    """Score against the number of concepts that are used.

    Attributes
    ----------
    lengths : (l,) int64
    scores : (l, m) float64
        Score of each unit with only its first (heaviest) concepts; NaN where undefined.
    summaries : tuple of ScoreSummary
        Over the same units at every length, those whose score is defined at each of them, so that the curve does not
        move because the units change.
    by_length : mapping of int to ScoreSummary
        Units grouped by the length of their full explanation, each with its full score.
    """

    lengths: np.ndarray
    scores: np.ndarray
    summaries: tuple[ScoreSummary, ...]
    by_length: Mapping[int, ScoreSummary]


def length_curve(
    table: ExplanationTable,
    concepts: Any,
    names: Sequence[str],
    activations: Any,
    *,
    rows: Any | None = None,
    units: Sequence[int] | np.ndarray | None = None,
) -> LengthCurve:
    """Correlation scores when explanations are cut to their first 1, 2, ... concepts, weights as they are.

    Parameters and errors as in `correlation_scores`.
    """
    P, A = check_source(concepts, "concepts"), check_source(activations, "activations")
    chosen = np.arange(A.shape[0]) if rows is None else check_rows(rows, A.shape[0], "rows")
    truth = read_columns(A, chosen, unit_columns(table, A.shape[1], units), "activations")
    own = np.array([len(row.concepts) for row in table.rows])
    lengths = np.arange(1, max(1, int(own.max(initial=1))) + 1)
    design = _Design(table, P, names, chosen)
    scores = np.stack([pearson(design.predict(int(size)), truth) for size in lengths])
    common = np.isfinite(scores).all(axis=0)
    by_length = {int(size): summarise(scores[-1][own == size]) for size in np.unique(own) if size > 0}
    summaries = tuple(summarise(np.where(common, row, np.nan)) for row in scores)
    return LengthCurve(lengths, scores, summaries, by_length)
