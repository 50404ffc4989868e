"""Linear explanations of units: s(x) = bias + sum_k w_k P(concept_k | x).

Symbols: P (n, c) concept activations, A (n, u) unit activations, W (u, c) sparse weights that rank concepts, X and Y
their standardised training parts.

Three stages: a sparse fit on all concepts ranks them by signed weight; a greedy search takes concepts from the top of
the ranking as long as the validation correlation grows; the least-squares refit of the chosen set on raw values is the
explanation. All of them need second moments only, so rows are streamed and any number of them fits.

Reference: Oikarinen and Weng, "Linear Explanations for Individual Neurons", ICML 2024 (arXiv 2405.06855).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from rdxcli.methods.neurons.chance import Shuffled
from rdxcli.methods.neurons.choices import (
    Found,
    candidates,
    explained,
    joined,
    remarks,
    search_units,
    searches,
)
from rdxcli.methods.neurons.concepts import active_concepts
from rdxcli.methods.neurons.greedy import Adam, LeastSquares, Refit
from rdxcli.methods.neurons.judged import Judged
from rdxcli.methods.neurons.preparation import check_inputs, check_split, check_statistics
from rdxcli.methods.neurons.ranking import best_on_path, certificate, concept_scale, saga_weights, standardised
from rdxcli.methods.neurons.saga import effective_lambda
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics import elastic_net, proximal_flow
from rdxcli.numerics.elastic_net import Problem
from rdxcli.numerics.moments import (
    ColumnStatistics,
    Moments,
    check_rows,
    check_source,
    column_statistics,
    read_columns,
    second_moments,
)
from rdxcli.numerics.neighbours import resolve_device
from rdxcli.parameters import Count, NonNegative, Positive, Share
from rdxcli.progress import human_count, track

DEAD = 0.01  # a unit whose largest activation is below this is dead (appendix C.2)
MANY_CONCEPTS = 2000  # from here on float32 halves the time; weights of standardised data differ by less than 1e-6
FLAT = 0.02  # a concept whose values differ by less than this share of their mean is no candidate
BLOCK = 256  # units that are explained, and kept, together
SOLVERS = ("matched", "exact", "saga")


class LinearExplanation(Judged):
    """Linear explanations of all units of a layer.

    Parameters
    ----------
    lam : float or "path"
        l1 weight of the sparse fit for standardised data (0.05 in the paper; divided by max(0.001, alpha) inside).
        "path" fits ``path_size`` values between 1 and ``path_epsilon`` with the exact solver and takes, per unit, the
        one with the lowest squared validation error.
    alpha : float
        Share of the l1 penalty (0.99).
    solver : {"matched", "exact", "saga"}
        "matched" stops the proximal gradient where the published solver stops and gives its ranking; "exact" reaches
        the minimum of the objective; "saga" runs the published solver itself (slow, rows in memory, units in batches
        of ``unit_batch`` share one early stop).
    epochs, batch_size, learning_rate : int, int, float
        Budget of the published solver (500, 512, 5e-4).
    step : float
        Largest step of "matched".
    search : {"greedy", "top"}
        "top" skips the search and refits the ``description_length`` first ranked concepts (appendix B.4).
    rank : {"signed", "absolute"}
        Order of the candidates: by weight, as published (what excites the unit comes first, what inhibits it only when
        candidates run out), or by size of the weight, so that inhibition counts as much.
    max_length, tolerance, window : int, float, int
        Greedy search: at most 10 concepts, validation gain of 0.02, 10 candidates at a time.
    description_length : int
        Concepts of "top" (5).
    refit : {"least-squares", "adam"}
        "adam" is the published 100 full-batch steps from zero, which do not converge.
    statistics : {"train", "all"}
        Rows that the activity filter and the normalisation of units look at. The published code uses all rows, the
        test images included.
    min_top, min_std : float or None, float
        Activity filter: mean of the 5 largest activations of a concept (0.5) and standard deviation (1e-5). None
        switches the first part off, for concepts that are no probabilities.
    path_size, path_epsilon : int, float
        Grid of ``lam="path"``.
    device : {"auto", "cpu", "cuda", "mps"}
    dtype : {"float64", "float32"} or None
        Precision of the products; default float32 on a GPU and from 2,000 concepts on, else float64.
    unit_batch : int
        Units per batch of "saga" (128).
    block_rows : int, optional
        Rows per block; default about 64 MiB.
    n_shuffled : int
        Units whose activations are shuffled over the images and that are explained like all others (100): what the
        search finds where there is nothing to find. See `chance`. 0 for none.
    random_state : int
        Shuffling of "saga" and of ``n_shuffled``.

    Attributes
    ----------
    units_ : (m,) int64
        Units that were asked for, ascending.
    explanations_ : list of Explanation
        One per unit, concepts by weight, largest first.
    status_ : list of str
        ``explained``, ``constant`` (the unit does not vary on the training or validation rows), or ``no concept``
        (no candidate has a positive validation correlation).
    selected_ : list of int arrays
        Concept columns of each explanation, in the order of its concepts.
    path_ : list of float arrays
        Validation correlation after each selection (greedy), length 1 for "top".
    val_correlation_ : (m,) float64
        0 for units without explanation.
    ranking_ : (m, q) int64
        Best ranked concept columns, -1 filled.
    ranking_weights_ : (m, q) float64
        Their weights in the sparse fit, in standardised units.
    nonzero_ : (m,) int64
        Non-zero weights of the sparse fit.
    objective_, duality_gap_ : (m,) float64
        Of the sparse fit; the gap bounds the distance to the minimum. 0 for constant units.
    lam_ : (m,) float64
        Penalty used (after the division by alpha).
    dead_ : (m,) bool
        Largest activation below 0.01.
    concept_mask_ : (c,) bool
        Concepts that took part.
    shuffled_ : list of (columns, weights)
        Explanations of the shuffled units, for `chance`.
    shuffled_correlation_ : (n_shuffled,) float64
        Their validation correlations, 0 where no concept was found.
    notes_ : list of str

    Notes
    -----
    Moments cost O(n c (c + u)) time and O(c^2 + c u + n N) memory for N shuffled units, three passes over the rows.
    The sparse fit costs
    O(u s c) per step, the greedy search O(u max_length^3 window).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> P = (rng.random((300, 4)) < 0.4).astype(float)
    >>> A = 2.0 * P[:, :1] + P[:, 2:3] + 0.1 * rng.normal(size=(300, 1))
    >>> model = LinearExplanation().fit(P, A, train=range(200), val=range(200, 250), concept_names=list("abcd"))
    >>> model.explanations_[0].concepts
    ('a', 'c')
    """

    def __init__(
        self,
        *,
        lam: NonNegative | Literal["path"] = 0.05,
        alpha: Share = 0.99,
        solver: Literal["matched", "exact", "saga"] = "matched",
        epochs: Count = 500,
        batch_size: Count = 512,
        learning_rate: Positive = 5e-4,
        step: Positive = 0.005,
        search: Literal["greedy", "top"] = "greedy",
        rank: Literal["signed", "absolute"] = "signed",
        max_length: Count = 10,
        tolerance: NonNegative = 0.02,
        window: Count = 10,
        description_length: Count = 5,
        refit: Literal["least-squares", "adam"] = "least-squares",
        statistics: Literal["train", "all"] = "train",
        min_top: float | None = 0.5,
        min_std: NonNegative = 1e-5,
        path_size: Count = 20,
        path_epsilon: Positive = 0.005,
        device: str = "cpu",
        dtype: Literal["float64", "float32"] | None = None,
        unit_batch: Count = 128,
        block_rows: Count | None = None,
        n_shuffled: Annotated[int, Ge(0)] = 100,
        random_state: int = 0,
    ) -> None:
        self.lam, self.alpha, self.solver = lam, alpha, solver
        self.epochs, self.batch_size, self.learning_rate, self.step = epochs, batch_size, learning_rate, step
        self.rank = rank
        self.search, self.max_length, self.tolerance, self.window = search, max_length, tolerance, window
        self.description_length, self.refit = description_length, refit
        self.statistics, self.min_top, self.min_std = statistics, min_top, min_std
        self.path_size, self.path_epsilon = path_size, path_epsilon
        self.device, self.dtype, self.unit_batch, self.block_rows = device, dtype, unit_batch, block_rows
        self.n_shuffled, self.random_state = n_shuffled, random_state

    def fit(
        self,
        concepts: Any,
        activations: Any,
        *,
        train: Any,
        val: Any,
        concept_names: Sequence[str] | None = None,
        units: Sequence[int] | np.ndarray | None = None,
        stored: MutableMapping[str, Found] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> LinearExplanation:
        """Explain units.

        Parameters
        ----------
        concepts : row source (n, c)
            Array, memory map, CSR array (labels) or `rdxcli.methods.neurons.concepts.LazyCosines`.
        activations : row source (n, u)
            Pooled activations.
        train, val : int arrays or masks
            Disjoint rows for the fits and for the acceptance of candidates.
        concept_names : sequence of str, length c, optional
            Default ``concept 0``, ``concept 1``, ...
        units : sequence of int, optional
            Columns of ``activations`` to explain; default all. Units do not influence each other.
        stored : mutable mapping, optional
            Finished blocks of 256 units by name. A block that it holds is not computed again, a finished one is put
            in at once: with a mapping on disk a fit goes on where it was interrupted. It belongs to these inputs and
            parameters.
        advance : callable, optional
            Called with the number of units after each block.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Shapes that do not fit, NaN or infinite values, parts that overlap, impossible options, or no concept that
            passes the activity filter.
        """
        self._check()
        P, A, names, self.units_ = check_inputs(concepts, activations, concept_names, units)
        n, c = P.shape
        train_rows, val_rows, _ = check_split(train, val, None, n)
        self.notes_: list[str] = []
        self.concept_names_ = names
        self._device = resolve_device(self.device)
        small = self._device == "cpu" and c < MANY_CONCEPTS
        self._dtype = self.dtype or ("float64" if small else "float32")
        rows = np.arange(n) if self.statistics == "all" else train_rows
        of_concepts = column_statistics(P, rows, name="concepts", block_rows=self.block_rows)
        columns = self._active(of_concepts)
        # drawn from the whole layer, so that a unit's p value does not depend on which others are asked for
        every = np.arange(A.shape[1])
        both = Shuffled.of(A, every, (train_rows, val_rows), self.n_shuffled, self.random_state)
        wanted = np.concatenate([self.units_, np.arange(A.shape[1], both.shape[1])])
        of_units = column_statistics(both, rows, name="activations", block_rows=self.block_rows)
        shared = {
            "units": wanted,
            "centre_y": of_units.mean[wanted],
            "device": self._device,
            "dtype": self._dtype,
            "block_rows": self.block_rows,
        }
        moments = second_moments(P, both, train_rows, columns=columns, centre_x=of_concepts.mean[columns], **shared)
        if moments.constant_x.any():
            keep = ~moments.constant_x
            self._note(
                f"left out {human_count(int((~keep).sum()), 'concept', 'that do')} not vary on the training rows"
            )
            if not keep.any():
                raise ValueError("Got no concept that varies on the training rows")
            columns, moments = columns[keep], moments.select(keep)
        self.concept_mask_ = np.zeros(c, dtype=bool)
        self.concept_mask_[columns] = True
        held_out = second_moments(P, both, val_rows, columns=columns, centre_x=of_concepts.mean[columns], **shared)
        self.dead_ = of_units.maximum[self.units_] < DEAD
        spread = of_units.std[wanted]
        constant = moments.constant_y | held_out.constant_y | (spread <= 0)
        barred = self._barred(of_concepts, columns, held_out)
        m = len(self.units_)
        blocks = [np.arange(start, min(start + BLOCK, m)) for start in range(0, m, BLOCK)]
        blocks += [np.arange(m, len(wanted))] if len(wanted) > m else []
        problem: tuple[Problem, float] | None = None
        finished = []
        with track(f"explain units by {human_count(len(columns), 'concept')}", m, "units") as seen:
            for block in blocks:
                name = f"units-{block[0]}-{block[-1]}"
                found = None if stored is None else stored.get(name)
                if found is None:
                    problem = problem or self._problem(moments, spread, constant)
                    live = ~constant[block]
                    weights, lam, objective, gap = self._rank(
                        P, both, train_rows, columns, wanted, moments, held_out, spread, problem, block[live]
                    )
                    full = np.zeros((len(block), len(columns)))
                    full[live] = weights
                    found = self._choose(full, live, block, barred, moments, held_out, (lam, objective, gap))
                    if stored is not None:
                        stored[name] = found
                finished.append(found)
                if block[0] < m:
                    seen(len(block))
                    if advance is not None:
                        advance(len(block))
        self._explain(joined(finished), columns, moments, constant)
        return self

    def _barred(self, of_concepts: ColumnStatistics, columns: np.ndarray, val: Moments) -> np.ndarray:
        """Kept concepts that are no candidates: (k,) bool."""
        barred = np.zeros(len(columns), dtype=bool)
        if self.refit == "least-squares":
            # a fit to what little such a concept varies would have an enormous weight, and say nothing of the word
            spread = of_concepts.maximum[columns] - of_concepts.minimum[columns]
            flat = spread < FLAT * np.abs(of_concepts.mean[columns])
            if flat.any():
                shown = ", ".join(f"`{self.concept_names_[column]}`" for column in columns[flat][:5])
                self._note(
                    f"no candidates: {human_count(int(flat.sum()), 'concept', 'that hardly vary')} "
                    f"(by less than {FLAT:.0%} of the mean): {shown}"
                )
            barred |= flat
        if self.search == "greedy" and val.constant_x.any():
            # they have no validation correlation and would only fill the window
            self._note(
                f"no candidates: {human_count(int(val.constant_x.sum()), 'concept', 'that do')} not vary on the "
                "validation rows"
            )
            barred |= val.constant_x
        return barred

    def _active(self, statistics: ColumnStatistics) -> np.ndarray:
        lowest = -np.inf if self.min_top is None else self.min_top
        mask = active_concepts(statistics, min_top=lowest, min_std=self.min_std)
        if not mask.any():
            raise ValueError(
                f"Got no concept with a mean of its 5 largest activations of at least {self.min_top} and a standard "
                f"deviation of at least {self.min_std:g} (largest mean: {statistics.top_mean.max():.3g}); for concepts "
                "that are no probabilities switch the first condition off"
            )
        if not mask.all():
            self._note(
                f"left out {int((~mask).sum())} of {human_count(len(mask), 'concept')} that are hardly "
                "present in the images"
            )
        return np.flatnonzero(mask)

    def _problem(self, train: Moments, spread: np.ndarray, constant: np.ndarray) -> tuple[Problem, float]:
        """The sparse fit of all units, and its largest curvature."""
        lam = effective_lambda(0.05 if self.lam == "path" else float(self.lam), self.alpha)
        every = np.arange(len(spread))
        problem = standardised(train, concept_scale(train), np.where(constant, 1.0, spread), every, lam, self.alpha)
        return problem, proximal_flow.largest_eigenvalue(problem.G) if self.solver == "matched" else 0.0

    def _rank(
        self,
        P: Any,
        A: Any,
        rows: np.ndarray,
        columns: np.ndarray,
        wanted: np.ndarray,
        train: Moments,
        val: Moments,
        spread: np.ndarray,
        problem: tuple[Problem, float],
        live: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weights of the sparse fit in standardised units (m, kept concepts), penalties, objectives, gaps, all (m,)."""
        whole, curvature = problem
        lams = np.full(len(live), whole.lam)
        if not len(live):
            return np.zeros((0, len(columns))), lams, np.zeros(0), np.zeros(0)
        one = replace(whole, C=whole.C[live], v=whole.v[live])
        scale = concept_scale(train)
        if self.lam == "path":
            W, lams = best_on_path(
                one,
                standardised(val, scale, spread[live], live, whole.lam, self.alpha),
                (val.mean_x - train.mean_x) / scale,
                (val.mean_y - train.mean_y)[live] / spread[live],
                size=self.path_size,
                epsilon=self.path_epsilon,
                device=self._device,
            )
        elif self.solver == "exact":
            W = elastic_net.exact(one, device=self._device)
        elif self.solver == "matched":
            time = proximal_flow.flow_time(self.epochs, len(rows), self.batch_size, self.learning_rate)
            W = proximal_flow.time_matched(
                one, time, step=self.step, device=self._device, dtype=self._dtype, curvature=curvature
            )
        else:
            W = saga_weights(
                P,
                A,
                rows,
                columns=columns,
                units=wanted[live],
                centre=(train.mean_x, train.mean_y[live]),
                divisor=(scale, spread[live]),
                batch=self.unit_batch,
                lam=float(self.lam),
                alpha=self.alpha,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                epochs=self.epochs,
                random_state=self.random_state,
            )
        return W, lams, *certificate(one, W, lams)

    def _choose(
        self,
        weights: np.ndarray,
        live: np.ndarray,
        block: np.ndarray,
        barred: np.ndarray,
        train: Moments,
        val: Moments,
        fit: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> Found:
        """Candidates and search of a block; ``live`` (m,) marks units that vary, ``fit`` belongs to those."""
        greedy = self.search == "greedy"
        wanted = self.window * (self.max_length + 1) if greedy else self.description_length
        ranked = candidates(weights, barred, wanted, absolute=self.rank == "absolute")
        refit: Refit = LeastSquares(train, val) if self.refit == "least-squares" else Adam(train, val)
        order = np.full((len(train.mean_y), ranked.order.shape[1]), -1, dtype=np.int64)
        order[block] = ranked.order
        results = search_units(
            refit,
            block[live],
            order,
            greedy=greedy,
            max_length=self.max_length,
            tolerance=self.tolerance,
            window=self.window,
            description_length=self.description_length,
        )
        lam, objective, gap = np.full(len(block), fit[0][0] if len(fit[0]) else 0.0), *np.zeros((2, len(block)))
        lam[live], objective[live], gap[live] = fit
        inside = {unit - int(block[0]): search for unit, search in results.items()}
        length = self.max_length if greedy else self.description_length
        return Found(
            ranked.order,
            ranked.weights,
            (weights != 0).sum(axis=1),
            objective,
            gap,
            lam,
            *searches(inside, len(block), length),
        )

    def _explain(self, found: Found, columns: np.ndarray, train: Moments, constant: np.ndarray) -> None:
        """Results from finished blocks; the shuffled units come last."""
        m = len(self.units_)
        self.ranking_ = np.where(found.order >= 0, columns[found.order], -1)[:m]
        self.ranking_weights_, self.nonzero_ = found.order_weights[:m], found.nonzero[:m]
        self.objective_, self.duality_gap_, self.lam_ = found.objective[:m], found.gap[:m], found.lam[:m]
        self.explanations_: list[Explanation] = []
        self.selected_: list[np.ndarray] = []
        self.path_: list[np.ndarray] = []
        self.shuffled_: list[tuple[np.ndarray, np.ndarray]] = []
        last = []
        for place in range(len(found.bias)):
            used = found.chosen[place] >= 0
            path = found.path[place][np.isfinite(found.path[place])]
            chosen, weights = columns[found.chosen[place][used]], found.weights[place][used]
            if place >= m:
                self.shuffled_.append((chosen, weights))
                last.append(float(path[-1]) if len(path) else 0.0)
                continue
            status = "constant" if constant[place] else "explained" if len(path) else "no concept"
            bias = float(found.bias[place] if len(path) else train.mean_y[place])
            r = float(path[-1]) if len(path) else 0.0
            unit = int(self.units_[place])
            row, picked = explained(unit, chosen, weights, bias, r, status, self.concept_names_)
            self.explanations_.append(row)
            self.selected_.append(picked)
            self.path_.append(path)
        self.shuffled_correlation_ = np.array(last)
        self.status_ = [row.status for row in self.explanations_]
        self.val_correlation_ = np.array([row.scores["val correlation"] or 0.0 for row in self.explanations_])
        said = remarks(self.explanations_, self.selected_, self.dead_, DEAD, self.concept_names_, self.concept_mask_)
        self.notes_ += said

    def table(self, layer: str = "") -> ExplanationTable:
        """The explanations as a table in the published layout."""
        slots = self.max_length if self.search == "greedy" else self.description_length
        return ExplanationTable.of_layer("linear", self.explanations_, slots, self.notes_, layer)

    def predict(self, concepts: Any, rows: Any | None = None) -> np.ndarray:
        """Predicted activations, by column number (so equal names do not matter): (len(rows), m) float64.

        Parameters
        ----------
        concepts : row source (n, c)
            The same concepts as in `fit`.
        rows : int array or mask, optional
        """
        bias = np.array([row.bias for row in self.explanations_])
        weights = [np.array(row.weights) for row in self.explanations_]
        return self._linear(concepts, rows, list(zip(self.selected_, weights, strict=True))) + bias

    def _linear(self, concepts: Any, rows: Any | None, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        P = check_source(concepts, "concepts")
        if P.shape[1] != len(self.concept_mask_):
            raise ValueError(f"Got {human_count(P.shape[1], 'concept')}, expected {len(self.concept_mask_)}")
        chosen = np.arange(P.shape[0]) if rows is None else check_rows(rows, P.shape[0], "rows")
        used = np.array(sorted({int(column) for picked, _ in parts for column in picked}), dtype=np.int64)
        weights = np.zeros((len(used), len(parts)))
        for unit, (picked, own) in enumerate(parts):
            weights[np.searchsorted(used, picked), unit] = own
        return (read_columns(P, chosen, used, "concepts") if len(used) else np.zeros((len(chosen), 0))) @ weights

    def _predicted(self, concepts: Any, rows: np.ndarray, shuffled: bool) -> np.ndarray:
        return self._linear(concepts, rows, self.shuffled_) if shuffled else self.predict(concepts, rows)

    def _note(self, text: str) -> None:
        self.notes_.append(text)

    def _check(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"Got solver={self.solver!r}, expected one of {', '.join(map(repr, SOLVERS))}")
        if self.search not in ("greedy", "top"):
            raise ValueError(f"Got search={self.search!r}, expected 'greedy' or 'top'")
        if self.rank not in ("signed", "absolute"):
            raise ValueError(f"Got rank={self.rank!r}, expected 'signed' or 'absolute'")
        if self.refit not in ("least-squares", "adam"):
            raise ValueError(f"Got refit={self.refit!r}, expected 'least-squares' or 'adam'")
        if self.dtype not in (None, "float64", "float32"):
            raise ValueError(f"Got dtype={self.dtype!r}, expected 'float64' or 'float32'")
        check_statistics(self.statistics)
        if self.lam != "path" and (isinstance(self.lam, str) or not self.lam >= 0):
            raise ValueError(f"Got lam={self.lam!r}, expected a number of at least 0 or 'path'")
        for name in ("epochs", "batch_size", "max_length", "window", "description_length", "path_size", "unit_batch"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Got {name}={value!r}, expected a positive integer")
        count = self.n_shuffled
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 0:
            raise ValueError(f"Got n_shuffled={count!r}, expected an integer of at least 0")
