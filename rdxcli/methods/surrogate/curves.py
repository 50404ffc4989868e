"""Deletion and insertion of concepts: does an explanation name the concepts that matter?

Symbols: an image's student embedding is finish(base + sum_j a_j V_j), a_j the image's value of concept j, V (C, D) one
vector per concept: z = b + sum_j c_j W_j for the surrogate, n(n(sum_j w_j Q_j) + mu) for SpLiCE. Concepts are removed
from the largest score down (deletion), or added to nothing in that order (insertion), and the embedding is judged after
each step. A good order makes the deletion curve fall and the insertion curve rise fast. The same with random orders is
the bar to pass: the areas are only worth something next to those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.sparse import csr_array

from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

Judge = Callable[[np.ndarray, np.ndarray], np.ndarray]
FRACTIONS = tuple(i / 10 for i in range(11))
_BLOCK_NUMBERS = 2**23


@dataclass(frozen=True)
class Curves:
    """Mean judgement over images as concepts go or come.

    Parameters
    ----------
    fractions : ndarray (F,)
        Share of an image's concepts that were removed or inserted.
    deletion, insertion : ndarray (F,)
    random_deletion, random_insertion : ndarray (F,)
        The same in random order, mean over repeats.
    images : int
        Images with at least one concept; the others are left out.
    """

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    random_deletion: np.ndarray
    random_insertion: np.ndarray
    images: int

    def areas(self) -> dict[str, float]:
        """Areas under the curves; ``*_gain`` is what the order gains over random orders (larger is better)."""
        area = {
            name: float(trapezoid(getattr(self, name), self.fractions))
            for name in ("deletion", "insertion", "random_deletion", "random_insertion")
        }
        area["deletion_gain"] = area["random_deletion"] - area["deletion"]
        area["insertion_gain"] = area["insertion"] - area["random_insertion"]
        return area


def cosine_to(targets: Any) -> Judge:
    """Judge by the cosine to one target per image.

    Parameters
    ----------
    targets : array (n, D)
        For example the teacher's image embeddings, or the text of each image's predicted class.
    """
    t = np.asarray(targets, dtype=np.float64)
    t = t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-12)

    def judge(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        length = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-12)
        return np.einsum("bfd,bd->bf", vectors, t[rows]) / length

    return judge


def agrees_with(predictions: Any, class_embeddings: Any) -> Judge:
    """Judge by whether the best class is still the teacher's.

    Parameters
    ----------
    predictions : array (n,) of int
    class_embeddings : array (J, D)
    """
    wanted = np.asarray(predictions)
    classes = np.asarray(class_embeddings, dtype=np.float64)
    classes = classes / np.maximum(np.linalg.norm(classes, axis=1, keepdims=True), 1e-12)

    def judge(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        # The length of a vector does not change its best class.
        return ((vectors @ classes.T).argmax(axis=-1) == wanted[rows][:, None]).astype(np.float64)

    return judge


def removal_curves(
    values: Any,
    scores: Any,
    vectors: Any,
    judge: Judge,
    *,
    base: Any = None,
    finish: Callable[[np.ndarray], np.ndarray] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    repeats: int = 5,
    random_state: int = 0,
) -> Curves:
    """Deletion and insertion curves of one explanation method.

    Raises `ValueError` when no image has a concept, or the entries do not match.

    Parameters
    ----------
    values : CSR array (n, C)
        a: encodings or SpLiCE weights, without explicit zeros.
    scores : CSR array (n, C) or ndarray (nnz,)
        What to order by, largest first; the same entries as ``values``.
    vectors : array (C, D)
        V.
    judge : callable
        ``judge(rows (b,), embeddings (b, F, D)) -> (b, F)``, see `cosine_to` and `agrees_with`.
    base : array (D,), optional
        What is left without concepts; zero without it.
    finish : callable, optional
        Applied to the last axis of the sums.
    fractions : sequence of float
        From 0 to 1.
    repeats : int
        Random orders per image.

    Notes
    -----
    O(nnz D) per order, in blocks of images.
    """
    A = csr_array(values)
    score = np.asarray(scores.data if hasattr(scores, "indptr") else scores, dtype=np.float64)
    if score.shape != (A.nnz,):
        raise ValueError(f"Got {score.shape} scores for {human_count(A.nnz, 'entry')}, expected one each")
    V = np.asarray(vectors, dtype=np.float64)
    if V.ndim != 2 or len(V) != A.shape[1]:
        raise ValueError(f"Got concept vectors of shape {V.shape}, expected ({A.shape[1]}, D)")
    steps = np.asarray(fractions, dtype=np.float64)
    if steps.ndim != 1 or len(steps) < 2 or steps[0] != 0 or steps[-1] != 1 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"Got fractions {list(fractions)}, expected rising numbers from 0 to 1")
    if repeats < 1:
        raise ValueError(f"Got repeats={repeats}, expected at least 1")
    origin = np.zeros(V.shape[1]) if base is None else np.asarray(base, dtype=np.float64)
    sizes = np.diff(A.indptr)
    rows = np.flatnonzero(sizes)
    if not len(rows):
        raise ValueError("Got no image with a concept, expected at least one")
    done = finish or (lambda x: x)
    total = np.zeros((2, 2, len(steps)))
    width = int(sizes.max())
    block = max(1, _BLOCK_NUMBERS // (width * V.shape[1]))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        place = A.indptr[part][:, None] + np.arange(width)[None, :]
        real = np.arange(width)[None, :] < sizes[part][:, None]
        place = np.where(real, place, 0)
        pieces = np.where(real, A.data[place], 0.0)[:, :, None] * V[A.indices[place]]
        # Enough to reach the nearest whole concept, at least one as soon as the fraction is above zero.
        count = np.ceil(steps[None, :] * sizes[part][:, None] - 1e-9).astype(np.int64)
        ranked = np.argsort(np.where(real, -score[place], np.inf), axis=1, kind="stable")
        total[0] += _both(pieces, ranked, count, origin, done, judge, part)
        for repeat in range(repeats):
            # One stream per image: blocks and order of the images change nothing.
            draw = np.stack([generator(random_state, "curves", int(row), repeat).random(width) for row in part])
            shuffled = np.argsort(np.where(real, draw, np.inf), axis=1, kind="stable")
            total[1] += _both(pieces, shuffled, count, origin, done, judge, part) / repeats
    mean = total / len(rows)
    return Curves(steps, mean[0, 0], mean[0, 1], mean[1, 0], mean[1, 1], len(rows))


def _both(
    pieces: np.ndarray,
    order: np.ndarray,
    count: np.ndarray,
    origin: np.ndarray,
    finish: Callable[[np.ndarray], np.ndarray],
    judge: Judge,
    rows: np.ndarray,
) -> np.ndarray:
    """Sums over a block of the judgements after deletion and after insertion: (2, F)."""
    summed = np.cumsum(np.take_along_axis(pieces, order[:, :, None], axis=1), axis=1)
    summed = np.concatenate([np.zeros_like(summed[:, :1]), summed], axis=1)
    taken = np.take_along_axis(summed, count[:, :, None], axis=1)
    left = summed[:, -1:] - taken
    return np.stack([judge(rows, finish(origin + x)).sum(axis=0) for x in (left, taken)])
