"""CLIP-Dissect: the concept whose image-text similarities follow a unit best.

Symbols: S (n, c) cosine of each image and each concept text; A (n, u) unit activations; B_k the images that activate
unit k most; p(t | x) = softmax over concepts of a S; f(k, t) the similarity of unit and concept.

    cos           S_t . A_k / (|S_t| |A_k|)
    cos-cubed     the same for centred columns raised to the third power
    rank-reorder  -mean |A_k - A_k in the order of S_t|^p / (expected for a random order) / (mean S_t)^q, over B_k
    wpmi          log p(t | B_k) - lam log p(t),      p(t | B_k) = prod_{x in B_k} p(t | x)
    soft-wpmi     the same with p(t | B_k) = prod_x (1 + p(x in B_k) (p(t | x) - 1))

Reference: Oikarinen and Weng, "CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision Networks",
ICLR 2023 (arXiv 2204.10965), section 3; parameters of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.neurons.chance import Chance, against_best
from rdxcli.methods.neurons.preparation import check_inputs
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics.moments import blocks, check_rows, read, read_columns
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Count
from rdxcli.progress import human_count

Similarity = Literal["soft-wpmi", "wpmi", "rank-reorder", "cos", "cos-cubed"]
SIMILARITIES: tuple[Similarity, ...] = ("soft-wpmi", "wpmi", "rank-reorder", "cos", "cos-cubed")

FEW_UNITS = 32  # below this the units themselves say too little about how common a concept is
MIN_PROBABILITY = 1e-7
MIN_NORM = 1e-3
MIN_SIMILARITY = 1e-6


def top_images(activations: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k largest values of each column, largest first, ties by row: (k, u) int64."""
    n = len(activations)
    if k < n:
        threshold = np.partition(activations, n - k, axis=0)[n - k]
    out = np.empty((k, activations.shape[1]), dtype=np.int64)
    for unit in range(activations.shape[1]):
        column = activations[:, unit]
        if k < n:
            above = np.flatnonzero(column > threshold[unit])
            equal = np.flatnonzero(column == threshold[unit])[: k - len(above)]
            rows = np.sort(np.concatenate([above, equal]))
        else:
            rows = np.arange(n)
        out[:, unit] = rows[np.argsort(-column[rows], kind="stable")]
    return out


class ClipDissect(Estimator):
    """Describe each unit by the concept with the highest similarity.

    Parameters
    ----------
    similarity : {"soft-wpmi", "wpmi", "rank-reorder", "cos", "cos-cubed"}
        The paper recommends soft-wpmi.
    top_k : int, optional
        Size of B_k for soft-wpmi (100) and wpmi (28); default the published one, at most n.
    a : float, optional
        Scale of the softmax: 10 for soft-wpmi, 2 for wpmi.
    lam : float, optional
        Weight of log p(t): 1 for soft-wpmi, 0.6 for wpmi.
    p_start, p_end : float
        soft-wpmi: p(x in B_k) falls linearly with the rank of x from 0.998 to 0.97.
    top_fraction, p, scale_p : float
        rank-reorder: share of the images (0.05), exponent of the error (3) and of the mean similarity (0.5).
    prior : {"auto", "units", "images"}
        p(t) of wpmi and soft-wpmi. "units": the mean of p(t | B_k) over all units of the layer, as published. "images":
        the expectation of log p(t | B) for random images, which does not depend on the units. "auto": units, unless
        fewer than 32 of them vary (with a single unit the published prior cancels the score).
    n_shuffled : int, optional
        Units whose activations are shuffled over the images, for ``chance_``. Default 20 times the units, between 200
        and 2,000; 0 for none. wpmi and soft-wpmi look at ranks alone, so that these stand for any unit exactly.
    random_state : int
        Of the shuffling.

    Attributes
    ----------
    units_ : (m,) int64
    similarity_ : (m, c) float64
        f(k, t); NaN rows for constant units.
    best_ : (m,) int64
        Column of the description, -1 for constant units. Ties by column.
    explanations_ : list of Explanation
        Descriptions with the score ``similarity``.
    chance_ : Chance or None
        The best similarity of each unit against that of shuffled units.
    notes_ : list of str
    """

    def __init__(
        self,
        *,
        similarity: Similarity = "soft-wpmi",
        top_k: Count | None = None,
        a: float | None = None,
        lam: float | None = None,
        p_start: float = 0.998,
        p_end: float = 0.97,
        top_fraction: float = 0.05,
        p: float = 3.0,
        scale_p: float = 0.5,
        prior: Literal["auto", "units", "images"] = "auto",
        n_shuffled: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.similarity, self.top_k, self.a, self.lam = similarity, top_k, a, lam
        self.p_start, self.p_end = p_start, p_end
        self.top_fraction, self.p, self.scale_p, self.prior = top_fraction, p, scale_p, prior
        self.n_shuffled, self.random_state = n_shuffled, random_state

    def fit(
        self,
        concepts: Any,
        activations: Any,
        *,
        concept_names: Sequence[str] | None = None,
        units: Sequence[int] | np.ndarray | None = None,
        rows: Any | None = None,
    ) -> ClipDissect:
        """Describe units.

        Parameters
        ----------
        concepts : row source (n, c)
            Cosines of images and concept texts, such as `rdxcli.methods.neurons.concepts.LazyCosines` without a, b.
        activations : row source (n, u)
            Pooled activations of the whole layer: p(t) is the mean over all its units, whichever are described.
        concept_names : sequence of str, length c, optional
        units : sequence of int, optional
            Columns to describe; default all.
        rows : int array or mask, optional
            Probing images; default all.

        Raises
        ------
        ValueError
            Shapes that do not fit, NaN, fewer than 2 images, impossible options.
        """
        P, A, names, self.units_ = check_inputs(concepts, activations, concept_names, units)
        self._check()
        chosen = np.arange(P.shape[0]) if rows is None else check_rows(rows, P.shape[0], "rows")
        if len(chosen) < 2:
            raise ValueError(f"Got {human_count(len(chosen), 'image')}, expected at least 2")
        self.notes_: list[str] = []
        values = read_columns(A, chosen, np.arange(A.shape[1]), "activations")
        live = np.ptp(values, axis=0) > 0
        constant = self.units_[~live[self.units_]]
        if len(constant):
            shown = ", ".join(map(str, constant[:10].tolist()))
            self.notes_.append(f"no description for {human_count(len(constant), 'unit', 'that do')} not vary: {shown}")
        wanted = self.units_[live[self.units_]]
        self.similarity_ = np.full((len(self.units_), P.shape[1]), np.nan)
        self.chance_: Chance | None = None
        if len(wanted):
            count = self.n_shuffled if self.n_shuffled is not None else min(max(200, 20 * len(wanted)), 2000)
            shuffled = self._shuffled(values[:, wanted], count)
            place = np.flatnonzero(live[self.units_])
            if self.similarity in ("soft-wpmi", "wpmi"):
                found, null = self._pointwise(P, values, chosen, wanted, np.flatnonzero(live), shuffled)
            else:
                of = self._reorder if self.similarity == "rank-reorder" else self._cosine
                found, null = of(P, values[:, wanted], chosen), np.zeros(0)
                if count:
                    null = of(P, shuffled, chosen).max(axis=1)
            self.similarity_[place] = found
            if count:
                best = self.similarity_.max(axis=1)
                self.chance_ = against_best(best, null[np.isfinite(null)])
        self._describe(names)
        return self

    def _shuffled(self, values: np.ndarray, count: int) -> np.ndarray:
        """Columns of ``values`` in random orders: (n, count)."""
        if not count:
            return values[:, :0]
        rng = generator(self.random_state, "shuffled", len(values))
        drawn = np.concatenate([rng.permutation(values.shape[1]) for _ in range(-(-count // values.shape[1]))])
        return np.stack([rng.permutation(values[:, column]) for column in drawn[:count]], axis=1)

    def _describe(self, names: Sequence[str]) -> None:
        known = np.isfinite(self.similarity_).any(axis=1)
        self.best_ = np.where(known, np.where(np.isfinite(self.similarity_), self.similarity_, -np.inf).argmax(1), -1)
        self.explanations_ = [
            Explanation(
                unit=int(unit),
                concepts=(names[best],) if best >= 0 else (),
                weights=(1.0,) if best >= 0 else (),
                scores={"similarity": float(self.similarity_[row, best]) if best >= 0 else None},
                status="explained" if best >= 0 else "constant",
            )
            for row, (unit, best) in enumerate(zip(self.units_, self.best_.tolist(), strict=True))
        ]

    def table(self, layer: str = "") -> ExplanationTable:
        """The descriptions as a table ``layer, unit, description, similarity``."""
        return ExplanationTable.of_layer("description", self.explanations_, 1, self.notes_, layer)

    def _pointwise(
        self,
        P: Any,
        values: np.ndarray,
        rows: np.ndarray,
        wanted: np.ndarray,
        live: np.ndarray,
        shuffled: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarities of the wanted units, and the best of each shuffled one."""
        soft = self.similarity == "soft-wpmi"
        k = min(len(rows), self.top_k or (100 if soft else 28))
        a, lam = self.a or (10.0 if soft else 2.0), (1.0 if soft else 0.6) if self.lam is None else self.lam
        prior = self.prior
        if prior == "auto":
            prior = "units" if len(live) >= FEW_UNITS else "images"
            if prior == "images" and lam:
                self.notes_.append(
                    f"only {human_count(len(live), 'unit', 'vary')}, so p(concept) is taken over images "
                    "instead of over the units"
                )
        reference = live if prior == "units" and lam else wanted
        top = top_images(values[:, reference], k)
        # p(x in B_k) by rank; wpmi is the case of certainty
        belief = self.p_start - np.arange(k) / k * (self.p_start - self.p_end) if soft else np.ones(k)
        images = np.unique(top)
        probability = _softmax_rows(P, rows[images], a)
        inside = _log_products(probability, np.searchsorted(images, top), belief)
        own = np.searchsorted(reference, wanted)
        common: Any = 0.0
        total: Any = None
        if lam and prior == "units":
            highest = inside.max(axis=0)
            total = highest + np.log(np.exp(inside - highest).sum(axis=0))
            common = total - np.log(len(inside))
        elif lam:
            common = _expected_log(P, rows, a, belief)
        null = np.empty(shuffled.shape[1])
        for start in range(0, len(null), 256):  # few at a time: one number of each is kept
            part = top_images(shuffled[:, start : start + 256], k)
            images = np.unique(part)
            products = _log_products(_softmax_rows(P, rows[images], a), np.searchsorted(images, part), belief)
            # like any unit of the layer, a shuffled one has its share in what is common to the layer
            theirs = common if total is None else np.logaddexp(total, products) - np.log(len(inside) + 1)
            null[start : start + 256] = (products - lam * theirs).max(axis=1)
        return inside[own] - lam * common, null

    def _reorder(self, P: Any, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        k = max(2, int(len(rows) * self.top_fraction))
        top = top_images(values, k)
        out = np.empty((values.shape[1], P.shape[1]))
        for unit in range(values.shape[1]):
            picked = top[:, unit]
            target = values[picked, unit]  # descending
            ascending = target[::-1]
            order = np.sort(picked)
            S = _dense(read(P, rows[order], "concepts"))[np.searchsorted(order, picked)]
            rank = np.empty(S.shape, dtype=np.int64)
            np.put_along_axis(rank, np.argsort(S, axis=0, kind="stable"), np.arange(k)[:, None], axis=0)
            error = (np.abs(target[:, None] - ascending[rank]) ** self.p).mean(axis=0)
            # the published code draws 5 random orders; this is their expectation
            expected = (np.abs(target[:, None] - target[None, :]) ** self.p).mean()
            scale = np.maximum(S.mean(axis=0), MIN_SIMILARITY) ** self.scale_p
            out[unit] = -error / expected / scale if expected > 0 else np.nan
        if not np.isfinite(out).all():
            self.notes_.append("units whose most activating images are all equal have no rank order")
        return out

    def _cosine(self, P: Any, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        cubed = self.similarity == "cos-cubed"
        c, mean = P.shape[1], np.zeros(P.shape[1])
        if cubed:
            for part in blocks(rows, c):
                mean += _dense(read(P, part, "concepts")).sum(axis=0)
            mean /= len(rows)
            values = (values - values.mean(axis=0)) ** 3
        product, square = np.zeros((values.shape[1], c)), np.zeros(c)
        start = 0
        for part in blocks(rows, c):
            S = _dense(read(P, part, "concepts"))
            S = (S - mean) ** 3 if cubed else S
            product += values[start : start + len(part)].T @ S
            square += (S**2).sum(axis=0)
            start += len(part)
        floor = MIN_NORM if cubed else np.finfo(float).tiny
        norm_s, norm_a = np.sqrt(square), np.linalg.norm(values, axis=0)
        return product / np.maximum(norm_s, floor) / np.maximum(norm_a, floor)[:, None]

    def _check(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise ValueError(
                f"Got similarity={self.similarity!r}, expected one of {', '.join(map(repr, SIMILARITIES))}"
            )
        if self.prior not in ("auto", "units", "images"):
            raise ValueError(f"Got prior={self.prior!r}, expected 'auto', 'units' or 'images'")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Got top_k={self.top_k}, expected a positive integer")
        if not 0 < self.top_fraction <= 1:
            raise ValueError(f"Got top_fraction={self.top_fraction}, expected a number in (0, 1]")
        if not 0 <= self.p_end <= self.p_start <= 1:
            raise ValueError(f"Got p_start={self.p_start}, p_end={self.p_end}, expected 0 <= p_end <= p_start <= 1")


def _dense(block: Any) -> np.ndarray:
    return block.toarray() if sparse.issparse(block) else block


def _softmax_rows(P: Any, rows: np.ndarray, a: float) -> np.ndarray:
    """softmax(a S) over concepts for some images: (len(rows), c) float64."""
    out = np.empty((len(rows), P.shape[1]))
    start = 0
    for part in blocks(rows, P.shape[1]):
        z = a * _dense(read(P, part, "concepts"))
        z = np.exp(z - z.max(axis=1, keepdims=True))
        out[start : start + len(part)] = z / z.sum(axis=1, keepdims=True)
        start += len(part)
    return out


def _log_products(probability: np.ndarray, top: np.ndarray, belief: np.ndarray) -> np.ndarray:
    """sum_i log(1 + belief_i (p(t | x_i) - 1) + 1e-7) for the images ``top`` (k, u) of each unit: (u, c).

    Factors are multiplied in groups before the logarithm is taken: none is below 1e-7, so 16 of them cannot underflow.
    """
    k, u = top.shape
    out = np.empty((u, probability.shape[1]))
    for unit in range(u):
        factors = probability[top[:, unit]]
        factors *= belief[:, None]
        factors += (1.0 - belief + MIN_PROBABILITY)[:, None]
        out[unit] = np.log(np.multiply.reduceat(factors, np.arange(0, k, 16), axis=0)).sum(axis=0)
    return out


def _expected_log(P: Any, rows: np.ndarray, a: float, belief: np.ndarray) -> np.ndarray:
    """Mean over images x of sum_i log(1 + belief_i (p(t | x) - 1) + 1e-7): (c,)."""
    total = np.zeros(P.shape[1])
    for part in blocks(rows, P.shape[1]):
        p = _softmax_rows(P, part, a)
        for start in range(0, len(belief), 16):
            product = np.ones_like(p)
            for one in belief[start : start + 16]:
                product *= (1.0 - one + MIN_PROBABILITY) + one * p
            total += np.log(product).sum(axis=0)
    return total / len(rows)
