"""Logical explanations of units: a AND b, a OR b, a AND NOT b.

Symbols: P (n, c) concept activations between 0 and 1, A (n, u) unit activations. The truth of a formula is a number:
AND is the minimum, OR the maximum, NOT is 1 - P, so that a formula of present concepts (P >= 1/2) is present exactly
where logic says so.

A beam search grows formulas by one concept at a time. They are compared by the correlation of their truth with the unit
on the training rows; a longer one must gain on the validation rows. So the scores are those of linear explanations,
and the same shuffled units say what chance reaches.

References: Mu and Andreas, "Compositional Explanations of Neurons", NeurIPS 2020 (arXiv 2006.14032), for the search;
Bykov et al., "Labeling Neural Representations with Inverse Recognition" (INVERT), NeurIPS 2023 (arXiv 2311.13594), for
judging by all activations instead of a threshold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.methods.neurons.chance import Shuffled
from rdxcli.methods.neurons.concepts import active_concepts
from rdxcli.methods.neurons.judged import Judged
from rdxcli.methods.neurons.preparation import check_inputs, check_split
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics.moments import check_source, column_statistics, read_columns
from rdxcli.parameters import Count, NonNegative
from rdxcli.progress import human_count, track

OPERATORS = ("AND NOT", "AND", "OR")
_SPLIT = re.compile(r" (AND NOT|AND|OR) ")


@dataclass(frozen=True)
class Formula:
    """Concepts joined from the left: ``((c0 op1 c1) op2 c2) ...``.

    Attributes
    ----------
    concepts : tuple
        Columns, or names.
    operators : tuple of str
        One fewer than concepts.
    """

    concepts: tuple[Any, ...]
    operators: tuple[str, ...] = ()

    def truth(self, of: Mapping[Any, np.ndarray] | Callable[[Any], np.ndarray]) -> np.ndarray:
        """Its truth from that of the concepts."""
        get = of if callable(of) else of.__getitem__
        value = get(self.concepts[0])
        for operator, concept in zip(self.operators, self.concepts[1:], strict=True):
            value = combine(operator, value, get(concept))
        return value

    def text(self, name: Callable[[Any], str] = str) -> str:
        """``(a OR b) AND NOT c``."""
        shown = name(self.concepts[0])
        for i, (operator, concept) in enumerate(zip(self.operators, self.concepts[1:], strict=True)):
            shown = f"({shown})" if i else shown
            shown = f"{shown} {operator} {name(concept)}"
        return shown


def combine(operator: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Truth of ``a operator b``."""
    if operator == "OR":
        return np.maximum(a, b)
    return np.minimum(a, 1.0 - b if operator == "AND NOT" else b)


def parse_formula(text: str, known: Mapping[str, Any] | set[str]) -> Formula:
    """The formula of names that ``text`` writes; a text that is a known name is that name, whatever is in it.

    What cannot be a formula of the known names comes back as one unknown name.
    """
    if text in known:
        return Formula((text,))
    formula = _read(text)
    return formula if formula.operators and all(name in known for name in formula.concepts) else Formula((text,))


def _read(text: str) -> Formula:
    parts = _SPLIT.split(text)
    names, operators = parts[0::2], parts[1::2]
    depth = len(operators) - 1  # parentheses that join from the left
    if depth > 0 and names[0].startswith("(" * depth):
        names[0] = names[0][depth:]
        names[1:-1] = [name.removesuffix(")") for name in names[1:-1]]
    return Formula(tuple(names), tuple(operators))


def formula_parts(text: str) -> list[str]:
    """The concepts of a formula that `Formula.text` wrote."""
    return list(_read(text).concepts)


class LogicalExplanation(Judged):
    """A logical formula of a few concepts for each unit.

    Parameters
    ----------
    max_length : int
        Concepts of a formula (3).
    beam : int
        Formulas that are kept at each length (10).
    pool : int
        Concepts that formulas are grown with: those whose own correlation with the unit is largest in size (50).
    tolerance : float
        Validation correlation that one more concept must gain (0.02).
    min_top : float
        Activity filter of the concepts, as for linear explanations (0.5).
    n_shuffled : int
        Shuffled units that the same search explains, for `chance` (50); 0 for none.

    Attributes
    ----------
    units_ : (m,) int64
    formulas_ : list of Formula or None
        Of concept columns; None where nothing was found.
    explanations_ : list of Explanation
        The formula as a concept, with the slope and intercept of a least-squares line.
    val_correlation_ : (m,) float64
    auc_ : (m,) float64
        Probability that an image where the formula is present activates the unit more than one where it is not, on the
        training rows; NaN where it is present everywhere or nowhere.
    """

    def __init__(
        self,
        *,
        max_length: Count = 3,
        beam: Count = 10,
        pool: Count = 50,
        tolerance: NonNegative = 0.02,
        min_top: float = 0.5,
        n_shuffled: int = 50,
        random_state: int = 0,
    ) -> None:
        self.max_length, self.beam, self.pool, self.tolerance = max_length, beam, pool, tolerance
        self.min_top, self.n_shuffled, self.random_state = min_top, n_shuffled, random_state

    def fit(
        self,
        concepts: Any,
        activations: Any,
        *,
        train: Any,
        val: Any,
        concept_names: Sequence[str] | None = None,
        units: Sequence[int] | np.ndarray | None = None,
        stored: MutableMapping[str, Any] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> LogicalExplanation:
        """Explain units; parameters and errors as in `rdxcli.methods.neurons.linear.LinearExplanation.fit`.

        Raises `ValueError` (also concepts outside of 0 to 1, whose truth is not defined).
        """
        P, A, self.names_, self.units_ = check_inputs(concepts, activations, concept_names, units)
        n, c = P.shape
        train_rows, val_rows, _ = check_split(train, val, None, n)
        statistics = column_statistics(P, train_rows, name="concepts")
        if statistics.minimum.min() < 0 or statistics.maximum.max() > 1:
            raise ValueError("Got concept activations outside of 0 to 1, expected probabilities")
        columns = np.flatnonzero(active_concepts(statistics, min_top=self.min_top))
        if not len(columns):
            raise ValueError(f"Got no concept with a mean of its 5 largest activations of at least {self.min_top}")
        self.notes_ = []
        if len(columns) < c:
            self.notes_.append(
                f"left out {c - len(columns)} of {human_count(c, 'concept')} that are hardly present in the images"
            )
        both = Shuffled.of(A, np.arange(A.shape[1]), (train_rows, val_rows), self.n_shuffled, self.random_state)
        wanted = np.concatenate([self.units_, np.arange(A.shape[1], both.shape[1])])
        inside = read_columns(P, train_rows, columns, "concepts"), read_columns(P, val_rows, columns, "concepts")
        truth = (
            read_columns(both, train_rows, wanted, "activations"),
            read_columns(both, val_rows, wanted, "activations"),
        )
        z = [_unit_columns(part) for part in inside]
        own = z[0].T @ _unit_columns(truth[0])  # correlations of single concepts, (kept, units)
        found = []
        with track(f"formulas of {human_count(len(columns), 'concept')}", len(wanted), "units") as seen:
            for i in range(len(wanted)):
                found.append(self._search(own[:, i], inside, truth[0][:, i], truth[1][:, i]))
                seen(1)
                if advance is not None and i < len(self.units_):
                    advance(1)
        m = len(self.units_)
        local = [None if one is None else Formula(tuple(int(columns[k]) for k in one[0].concepts), one[0].operators)
                 for one in found]  # fmt: skip
        self.formulas_, self.shuffled_ = local[:m], local[m:]
        self.val_correlation_ = np.array([0.0 if one is None else one[1] for one in found[:m]])
        self.auc_ = np.full(m, np.nan)
        self.explanations_ = []
        for i, unit in enumerate(self.units_.tolist()):
            self.explanations_.append(self._explanation(i, unit, found[i], inside[0], truth[0][:, i]))
        return self

    def _search(
        self, own: np.ndarray, inside: tuple[np.ndarray, np.ndarray], a: np.ndarray, held: np.ndarray
    ) -> tuple[Formula, float] | None:
        """The best formula of one unit, of kept concepts, and its validation correlation."""
        if np.ptp(a) == 0 or np.ptp(held) == 0:
            return None
        target, held = _unit_columns(a[:, None])[:, 0], _unit_columns(held[:, None])[:, 0]
        P, V = inside
        pool = np.argsort(-np.abs(own), kind="stable")[: self.pool]
        first = np.argsort(-own, kind="stable")[: self.beam]
        beam = [(Formula((int(k),)), P[:, k]) for k in first if own[k] > 0]
        best: tuple[Formula, float] | None = None
        for length in range(1, self.max_length + 1):
            if length > 1:
                beam = self._grown(beam, pool, P, target)
            chosen = best
            for formula, _ in beam:
                r = _correlation(formula.truth(lambda k: V[:, k]), held)
                needed = 0.0 if best is None else best[1] + self.tolerance
                if r > max(needed, -np.inf if chosen is None or chosen is best else chosen[1]):
                    chosen = (formula, r)
            if chosen is best:
                break
            best = chosen
        return best

    def _grown(
        self, beam: list[tuple[Formula, np.ndarray]], pool: np.ndarray, P: np.ndarray, target: np.ndarray
    ) -> list[tuple[Formula, np.ndarray]]:
        candidates = []
        for formula, value in beam:
            for operator in OPERATORS:
                truths = combine(operator, value[:, None], P[:, pool])
                r = _unit_columns(truths).T @ target
                for place in np.argsort(-r, kind="stable")[: self.beam]:
                    concept = int(pool[place])
                    if concept not in formula.concepts:
                        longer = Formula((*formula.concepts, concept), (*formula.operators, operator))
                        candidates.append((float(r[place]), longer, truths[:, place]))
        candidates.sort(key=lambda one: -one[0])
        return [(formula, value) for _, formula, value in candidates[: self.beam]]

    def _explanation(
        self, i: int, unit: int, found: tuple[Formula, float] | None, P: np.ndarray, a: np.ndarray
    ) -> Explanation:
        if found is None:
            constant = np.ptp(a) == 0
            status = "constant" if constant else "no concept"
            return Explanation(
                unit, (), (), float(a.mean()), "", {"val correlation": None if constant else 0.0}, status
            )
        value = found[0].truth(lambda k: P[:, k])
        slope, bias = np.polyfit(value, a, 1)
        present = value >= 0.5
        if present.any() and not present.all():
            ranks = np.argsort(np.argsort(a, kind="stable"), kind="stable") + 1.0
            count = int(present.sum())
            self.auc_[i] = (ranks[present].sum() / count - (count + 1) / 2) / (len(a) - count)
        formula = self.formulas_[i]
        assert formula is not None
        text = formula.text(lambda k: self.names_[k])
        scores = {"val correlation": found[1], "auc": None if np.isnan(self.auc_[i]) else float(self.auc_[i])}
        return Explanation(unit, (text,), (float(slope),), float(bias), "", scores, "explained")

    def table(self, layer: str = "") -> ExplanationTable:
        """The formulas as concepts of a linear table; `simulate` works them out from their parts."""
        return ExplanationTable.of_layer("linear", self.explanations_, 1, self.notes_, layer)

    def _predicted(self, concepts: Any, rows: np.ndarray, shuffled: bool) -> np.ndarray:
        """Truths; 0 where nothing was found."""
        formulas = self.shuffled_ if shuffled else self.formulas_
        used = sorted({int(k) for formula in formulas if formula is not None for k in formula.concepts})
        place = {k: i for i, k in enumerate(used)}
        values = read_columns(check_source(concepts, "concepts"), rows, np.array(used, dtype=np.int64), "concepts")
        out = np.zeros((len(rows), len(formulas)))
        for i, formula in enumerate(formulas):
            if formula is not None:
                out[:, i] = formula.truth(lambda k: values[:, place[k]])
        return out


def _unit_columns(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(length > 1e-12, length, np.inf))


def _correlation(value: np.ndarray, target: np.ndarray) -> float:
    return float(_unit_columns(value[:, None])[:, 0] @ target)
