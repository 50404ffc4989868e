"""SpLiCE, the baseline: an image embedding as a sparse non-negative sum of concept text embeddings.

Symbols: Q (C, D) dictionary: text embeddings of the concepts, unit, minus their mean, unit again; v (D,) an image
embedding, unit, minus the mean mu of image embeddings, unit again; w (C,) >= 0 the concept weights, the minimiser of

    |v - w Q|^2 + l1 sum(w).

The reconstruction is n(n(w Q) + mu), n the unit vector. Source: Bhalla, Oesterling, Srinivas, Calmon, Lakkaraju,
"Interpreting CLIP with Sparse Linear Concept Embeddings (SpLiCE)", NeurIPS 2024, equation 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from rdxcli.methods.estimator import Estimator
from rdxcli.parameters import NonNegative
from rdxcli.progress import human_count

_BLOCK = 256
_FIRST = 48
_STEP = 16
_ROUNDS = 64


def unit(values: np.ndarray) -> np.ndarray:
    """Rows divided by their length; rows of zeros stay."""
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _matrix(values: Any, name: str) -> np.ndarray:
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 2 or not len(out) or not np.all(np.isfinite(out)):
        raise ValueError(f"Got {name} of shape {out.shape} or not finite, expected a finite matrix")
    return out


def distinct(words: Sequence[str], embeddings: Any, most: float = 0.9) -> np.ndarray:
    """Places of the words that are not said by others already, after the publication's rules for its vocabulary.

    A word leaves when its cosine with an earlier one that stays is above ``most``, a phrase also when that with the
    mean of its own words is. So the list stands from the most frequent concept to the rarest, as word lists do; the
    publication takes the 10,000 most frequent words and 5,000 most frequent pairs of words of image captions.

    Parameters
    ----------
    words : sequence of str, length C
    embeddings : array (C, D)
        Text embeddings, not centred.
    most : float
        Largest cosine of two concepts; 1 removes nothing.
    """
    Q = unit(_matrix(embeddings, "concept embeddings"))
    place = {word: i for i, word in reversed(list(enumerate(words)))}
    kept = np.zeros(len(Q), dtype=bool)
    if most >= 1:
        return np.arange(len(Q))
    for i, word in enumerate(words):
        own = [place[part] for part in word.split() if part in place and place[part] != i]
        said = len(own) > 1 and len(own) == len(word.split()) and Q[i] @ unit(Q[own].mean(axis=0)) > most
        kept[i] = not said and not (Q[:i][kept[:i]] @ Q[i] > most).any()
    return np.flatnonzero(kept)


class SpLiCE(Estimator):
    """Sparse non-negative decomposition of image embeddings over concept words.

    Parameters
    ----------
    l1 : float
        Strength of the penalty; published 0.25 to 0.29 for OpenAI ViT-B/32 with 15,000 words.
    tolerance : float
        Largest violation of the optimality conditions, in units of the correlation with an atom (at most 1).

    Attributes
    ----------
    dictionary_ : ndarray (C, D) float64
        Q.
    image_mean_ : ndarray (D,) float64
        mu.
    violation_ : float
        Largest violation of the optimality conditions in the last `transform`.

    Notes
    -----
    Solved per block of images: the atoms with the largest correlations form a small problem, solved exactly by an
    active-set method; atoms of the whole dictionary that violate the optimality conditions join, until none does. The
    certificate is ``violation_``.
    """

    def __init__(self, l1: NonNegative = 0.25, tolerance: NonNegative = 1e-7) -> None:
        self.l1 = l1
        self.tolerance = tolerance

    def fit(self, concept_embeddings: Any, image_mean: Any, *, centred: bool = False) -> SpLiCE:
        """Build the dictionary.

        Parameters
        ----------
        concept_embeddings : array (C, D)
            Text embeddings of the concept words.
        image_mean : array (D,)
            Mean of unit image embeddings of the same model, over many images.
        centred : bool
            The embeddings are a finished dictionary: unit, centred, unit.

        Raises
        ------
        ValueError
            For NaN, wrong shapes, or a concept that equals the mean of all.
        """
        if not self.l1 > 0:
            raise ValueError(f"Got l1={self.l1}, expected a positive number")
        Q = _matrix(concept_embeddings, "concept embeddings")
        mu = np.asarray(image_mean, dtype=np.float64)
        if mu.shape != (Q.shape[1],) or not np.all(np.isfinite(mu)):
            raise ValueError(f"Got an image mean of shape {mu.shape} or not finite, expected ({Q.shape[1]},)")
        if not centred:
            Q = unit(Q)
            Q = Q - Q.mean(axis=0)
            if np.any(np.linalg.norm(Q, axis=1) < 1e-9):
                raise ValueError("Got a concept embedding that equals the mean of all, expected different concepts")
            Q = unit(Q)
        self.dictionary_, self.image_mean_ = Q, mu
        return self

    def centre(self, image_embeddings: Any) -> np.ndarray:
        """v of every image: (n, D)."""
        v = _matrix(image_embeddings, "image embeddings")
        if v.shape[1] != self.dictionary_.shape[1]:
            raise ValueError(
                f"Got images of {human_count(v.shape[1], 'dimension')}, expected {self.dictionary_.shape[1]}"
            )
        return unit(unit(v) - self.image_mean_)

    def transform(self, image_embeddings: Any) -> csr_array:
        """Concept weights of every image: CSR (n, C) float64, non-negative.

        Parameters
        ----------
        image_embeddings : array (n, D)
        """
        v = self.centre(image_embeddings)
        blocks, worst = [], 0.0
        for start in range(0, len(v), _BLOCK):
            weights, violation = solve(self.dictionary_, v[start : start + _BLOCK], self.l1, self.tolerance)
            blocks.append(weights)
            worst = max(worst, violation)
        self.violation_ = worst
        return csr_array(vstack(blocks, format="csr"))

    def reconstruct(self, weights: Any) -> np.ndarray:
        """Unit embeddings (n, D) that the weights stand for.

        Parameters
        ----------
        weights : CSR or dense array (n, C)
        """
        return self.finish(np.asarray(weights @ self.dictionary_))

    def finish(self, combined: np.ndarray) -> np.ndarray:
        """n(n(w Q) + mu) of given combinations w Q (..., D)."""
        return unit(unit(combined) + self.image_mean_)

    def intervene(self, weights: csr_array, columns: Mapping[int, float] | Any) -> csr_array:
        """Weights with some concepts set to a value (a mapping) or to zero (a sequence of columns)."""
        changed = csr_array(weights).tolil()
        values = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, 0.0)
        for column, value in values.items():
            changed[:, [int(column)]] = value
        out = csr_array(changed)
        out.eliminate_zeros()
        return out


def solve(Q: np.ndarray, v: np.ndarray, l1: float, tolerance: float = 1e-7) -> tuple[csr_array, float]:
    """Minimise |v - w Q|^2 + l1 sum(w) over w >= 0 for every row of ``v``.

    Parameters
    ----------
    Q : (C, D) float64
        Unit rows.
    v : (b, D) float64

    Returns
    -------
    weights : CSR (b, C)
    violation : float
        Largest violation of q_j.(v - w Q) <= l1 / 2, with equality where w_j > 0.
    """
    b, C = len(v), len(Q)
    threshold = l1 / 2.0
    correlation = v @ Q.T
    width = min(C, _FIRST)
    chosen = np.argpartition(-correlation, width - 1, axis=1)[:, :width]
    weights = np.zeros((b, width))
    todo = np.arange(b)
    for _ in range(_ROUNDS):
        atoms = Q[chosen[todo]]
        gram = atoms @ atoms.transpose(0, 2, 1)
        target = np.einsum("bkd,bd->bk", atoms, v[todo]) - threshold
        weights[todo] = _small(gram, target, weights[todo], tolerance)
        residual = v[todo] - np.einsum("bk,bkd->bd", weights[todo], atoms)
        slack = residual @ Q.T - threshold
        np.put_along_axis(slack, chosen[todo], -np.inf, axis=1)
        late = slack.max(axis=1) > tolerance
        if not late.any() or width >= C:
            break
        todo = todo[late]
        more = min(_STEP, C - width)
        added = np.argpartition(-slack[late], more - 1, axis=1)[:, :more]
        # Rows that are done get the same number of places, filled with atoms they already hold at weight zero.
        filler = np.repeat(chosen[:, :1], more, axis=1)
        filler[todo] = added
        chosen = np.concatenate([chosen, filler], axis=1)
        weights = np.concatenate([weights, np.zeros((b, more))], axis=1)
        width += more
    row, place = np.nonzero(weights > 0)
    out = csr_array((weights[row, place], (row, chosen[row, place])), shape=(b, C))
    slack = (v - out @ Q) @ Q.T - threshold
    held = np.asarray(out[row, chosen[row, place]] > 0) if len(row) else np.zeros(0, dtype=bool)
    equal = np.abs(slack[row, chosen[row, place]])[held] if len(row) else np.zeros(0)
    violation = max(float(slack.max(initial=0.0)), float(equal.max(initial=0.0)))
    out.sort_indices()
    return out, violation


def _small(gram: np.ndarray, target: np.ndarray, start: np.ndarray, tolerance: float) -> np.ndarray:
    """Minimise w G w / 2 - target.w over w >= 0, batched, by the active-set method of Lawson and Hanson (1974).

    The atom with the largest gradient joins; the minimum on the joined atoms is solved for exactly; where that has
    negative weights the step stops at the first zero, which leaves. Finitely many steps, no tuning.

    Parameters
    ----------
    gram : (b, k, k)
    target, start : (b, k)
        ``start`` must be the minimum on its own support, or zero.
    """
    b, k = target.shape
    w, on = start.copy(), start > 0
    settled = np.ones(b, dtype=bool)
    blocked = np.zeros((b, k), dtype=bool)  # joined and left again without a step: rounding
    todo = np.arange(b)
    for _ in range(20 * k + 100):
        gradient = target[todo] - np.einsum("bk,bkl->bl", w[todo], gram[todo])
        gradient[on[todo] | blocked[todo]] = -np.inf
        best = gradient.argmax(axis=1)
        wants = gradient[np.arange(len(todo)), best] > 0.1 * tolerance
        keep = wants | ~settled[todo]
        todo, best, wants = todo[keep], best[keep], wants[keep]
        if not len(todo):
            break
        joins = settled[todo]
        on[todo[joins], best[joins]] = True
        solved = _on_support(gram[todo], target[todo], on[todo])
        active = on[todo]
        bad = active & (solved <= 0)
        fine = ~bad.any(axis=1)
        w[todo[fine]] = solved[fine]
        blocked[todo[fine]] = False
        settled[todo] = fine
        rest = np.flatnonzero(~fine)
        if len(rest):
            old, new, off = w[todo[rest]], solved[rest], bad[rest]
            gap = np.where(off, old - new, 1.0)
            # An atom that just joined has weight zero: a step of zero, and it leaves at once.
            ratio = np.where(off, np.where(gap > 0, old / np.where(gap > 0, gap, 1.0), 0.0), np.inf)
            alpha = ratio.min(axis=1, keepdims=True)
            leaves = off & (ratio <= alpha)
            moved = np.where(active[rest], old + alpha * (new - old), 0.0)
            moved[leaves] = 0.0
            w[todo[rest]] = np.maximum(moved, 0.0)
            on[todo[rest]] &= ~leaves
            blocked[todo[rest]] |= leaves & (alpha == 0)
    return w


def _on_support(gram: np.ndarray, target: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Solve G w = target on each row's support ``on`` (b, k); zeros elsewhere."""
    size = int(on.sum(axis=1).max())
    order = np.argsort(~on, axis=1, kind="stable")[:, :size]
    real = np.take_along_axis(on, order, axis=1)
    rows = np.arange(len(on))[:, None]
    small = gram[rows[:, :, None], order[:, :, None], order[:, None, :]]
    eye = np.eye(size)
    # The ridge keeps systems with equal atoms solvable; it is far below the tolerance.
    small = np.where(real[:, :, None] & real[:, None, :], small + 1e-13 * eye, eye)
    solved = np.linalg.solve(small, np.where(real, target[rows, order], 0.0)[:, :, None])[:, :, 0]
    out = np.zeros_like(target)
    np.put_along_axis(out, order, np.where(real, solved, 0.0), axis=1)
    return out
