"""Which concepts make a surrogate's image embedding, and its similarity to a text.

Symbols: c (C,) encoding, z = W c + b (D,), r = z / |z|, t unit text embedding, e_j = W c_j the part of concept j.
Since z is a sum of parts and the bias, r.x = sum_j e_j.x / |z| + b.x / |z| for every direction x, exactly. With x = r
the total is 1, with x = t it is the cosine to the text. Two ways to treat the bias b:

- ``separate``: the bias has a score of its own; concepts and bias add up to the total. For an affine model with the
  baseline c = 0 these (unscaled) parts are the Shapley values.
- ``rescaled``: the published form; the concepts' scores are multiplied by one factor so that they alone add up to the
  total. For texts the factor can be negative (every sign flips) or huge; for images it is large when the bias
  dominates.

Only the concepts an image has can have a score, so everything is sparse: O(nnz D).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from rdxcli.progress import human_count

from .encoding import Encodings
from .model import Surrogate

BIAS = ("separate", "rescaled")
UNSTABLE = 10.0
_ENTRIES = 2**17
_PAIRS = 2**22


@dataclass(frozen=True)
class Attributions:
    """Concept scores of n images, each towards one target.

    Parameters
    ----------
    indptr : ndarray (n + 1,) int64
    indices : ndarray (nnz,) int32
        Concepts of each image, ascending.
    scores : ndarray (nnz,) float64
    bias : ndarray (n,) float64
        Score of the bias; 0 when it is rescaled away.
    total : ndarray (n,) float64
        What scores and bias add up to: 1 for images, the cosine (or its difference) for texts. With ``rescaled`` images
        without concepts are the exception: they have no scores and no bias.
    factor : ndarray (n,) float64
        What the unscaled parts e_j.x were multiplied by.
    """

    indptr: np.ndarray
    indices: np.ndarray
    scores: np.ndarray
    bias: np.ndarray
    total: np.ndarray
    factor: np.ndarray
    num_concepts: int

    @property
    def has_concepts(self) -> np.ndarray:
        """Whether an image has any concept: (n,) bool. Without one there is nothing to explain."""
        return np.diff(self.indptr) > 0

    def csr(self) -> csr_array:
        """Scores as a SciPy array (n, C)."""
        return csr_array((self.scores, self.indices, self.indptr), shape=(len(self.bias), self.num_concepts))

    def top(self, k: int = 10) -> list[list[tuple[int, float]]]:
        """The k largest scores of each image by absolute value, as (concept, signed score); ties by concept.

        Images with fewer concepts have shorter lists; absent concepts never appear.
        """
        if k < 1:
            raise ValueError(f"Got k={k}, expected at least 1")
        return [
            top_entries(self.indices[start:end], self.scores[start:end], k)
            for start, end in zip(self.indptr[:-1], self.indptr[1:], strict=True)
        ]


def top_entries(columns: np.ndarray, scores: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k largest of some scores by absolute value, ties by column."""
    order = np.lexsort((columns, -np.abs(scores)))[:k]
    return [(int(columns[i]), float(scores[i])) for i in order]


@dataclass(frozen=True)
class Affine:
    """The affine part of a surrogate as arrays: ``table`` (C, D), ``bias`` (D,), and the text side."""

    table: np.ndarray
    bias: np.ndarray
    key_weight: np.ndarray | None = None
    key_bias: np.ndarray | None = None

    @classmethod
    def of(cls, surrogate: Surrogate | Affine) -> Affine:
        """Of a surrogate; the hidden layer of the MLP variant is left out."""
        if isinstance(surrogate, Affine):
            return surrogate
        key = surrogate.use_key_encoder
        return cls(
            surrogate.table.detach().cpu().numpy(),
            surrogate.bias.detach().cpu().numpy(),
            surrogate.key_weight.detach().cpu().numpy() if key else None,
            surrogate.key_bias.detach().cpu().numpy() if key else None,
        )

    def check(self, encodings: Encodings) -> None:
        """Refuse encodings over another number of concepts."""
        if len(self.table) != len(encodings.concepts):
            raise ValueError(
                f"Got encodings of {human_count(len(encodings.concepts), 'concept')}, expected the "
                f"{len(self.table)} of the surrogate"
            )

    def embed(self, encodings: Encodings) -> np.ndarray:
        """z of every image: (n, D) float64."""
        self.check(encodings)
        return np.asarray(encodings.csr(np.float64) @ self.table.astype(np.float64)) + self.bias.astype(np.float64)

    def texts(self, embeddings: Any) -> np.ndarray:
        """Unit text vectors on the student's side: (J, D) float64.

        Raises `ValueError` for a wrong shape, NaN or a row of zeros.
        """
        values = np.asarray(embeddings, dtype=np.float64)
        if values.ndim != 2 or not np.all(np.isfinite(values)):
            raise ValueError(
                f"Got text embeddings of shape {values.shape} or not finite, expected a finite (J, D) matrix"
            )
        if self.key_weight is not None and self.key_bias is not None:
            values = values @ self.key_weight.T.astype(np.float64) + self.key_bias
        if values.shape[1] != len(self.bias):
            raise ValueError(
                f"Got text embeddings of {human_count(values.shape[1], 'dimension')}, expected {len(self.bias)}"
            )
        norm = np.linalg.norm(values, axis=1, keepdims=True)
        if np.any(norm == 0):
            raise ValueError("Got a text embedding of zeros, expected a direction")
        return values / norm


def _length(z: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(z, axis=-1), 1e-12)


def _check_bias(bias: str) -> None:
    if bias not in BIAS:
        raise ValueError(f"Got bias {bias!r}, expected one of {BIAS}")


def _parts(affine: Affine, encodings: Encodings, direction: np.ndarray) -> np.ndarray:
    """e_ij.x_i for every stored entry, with one direction per image: (nnz,) float64."""
    row, column = encodings.row_of_entry, encodings.indices
    out = np.empty(len(column))
    for start in range(0, len(column), _ENTRIES):
        part = slice(start, start + _ENTRIES)
        out[part] = np.einsum("ed,ed->e", affine.table[column[part]], direction[row[part]])
    return out * encodings.shares


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def _assemble(
    encodings: Encodings, parts: np.ndarray, length: np.ndarray, along: np.ndarray, total: np.ndarray, bias: str
) -> Attributions:
    """Scores from unscaled parts; ``along`` is b.x / |z|."""
    if bias == "separate":
        factor, own = 1.0 / length, along
    else:
        # The concepts' share of the total is what the bias leaves.
        factor, own = _divide(total, (total - along) * length), np.zeros_like(along)
        factor = np.where(encodings.has_concepts, factor, 0.0)
    scores = parts * factor[encodings.row_of_entry]
    return Attributions(encodings.indptr, encodings.indices, scores, own, total, factor, encodings.shape[1])


def image_scores(surrogate: Surrogate | Affine, encodings: Encodings, *, bias: str = "rescaled") -> Attributions:
    """Concept scores of the surrogate's image embedding.

    Parameters
    ----------
    encodings : Encodings
        Without noise.
    bias : {"rescaled", "separate"}
        ``rescaled`` (published): the concepts' scores alone add up to 1; images without concepts get none.
        ``separate``: concepts and bias add up to 1.

    Notes
    -----
    Equation: lambda = 1 / (|z| - b.r), score_j = lambda c_j (W^T r)_j; ``separate`` has lambda = 1 / |z|.
    """
    _check_bias(bias)
    affine = Affine.of(surrogate)
    z = affine.embed(encodings)
    length = _length(z)
    r = z / length[:, None]
    parts = _parts(affine, encodings, r)
    total = np.ones(len(z))
    return _assemble(encodings, parts, length, r @ affine.bias / length, total, bias)


def text_scores(
    surrogate: Surrogate | Affine, encodings: Encodings, texts: Any, *, bias: str = "separate"
) -> Attributions:
    """Concept scores of each image's similarity to one text of its own, say its predicted class.

    Parameters
    ----------
    texts : array (n, D) or (D,)
        Need not be unit vectors.
    bias : {"separate", "rescaled"}
        ``separate``: concepts and bias add up to the cosine. ``rescaled`` is the published form.
    """
    _check_bias(bias)
    affine = Affine.of(surrogate)
    given = np.asarray(texts)
    t = affine.texts(given if given.ndim == 2 else given[None])
    t = np.broadcast_to(t, (encodings.shape[0], t.shape[1])) if len(t) == 1 else t
    if len(t) != encodings.shape[0]:
        raise ValueError(
            f"Got {human_count(len(t), 'text')} for {human_count(encodings.shape[0], 'image')}, expected "
            "one each or one for all"
        )
    z = affine.embed(encodings)
    length = _length(z)
    total = np.einsum("nd,nd->n", z, t) / length
    return _assemble(encodings, _parts(affine, encodings, t), length, t @ affine.bias / length, total, bias)


def contrast_scores(surrogate: Surrogate | Affine, encodings: Encodings, text: Any, other: Any) -> Attributions:
    """Why ``text`` and not ``other``: concept scores of the difference of two cosines, the bias on its own.

    Parameters
    ----------
    text, other : array (D,) or (n, D)

    Returns
    -------
    Attributions
        Scores and bias add up to cos(z, text) - cos(z, other); positive scores speak for ``text``.
    """
    first = text_scores(surrogate, encodings, text)
    second = text_scores(surrogate, encodings, other)
    return Attributions(
        first.indptr,
        first.indices,
        first.scores - second.scores,
        first.bias - second.bias,
        first.total - second.total,
        first.factor,
        first.num_concepts,
    )


@dataclass(frozen=True)
class ClassAttributions:
    """Concept scores of n images towards J texts.

    Parameters
    ----------
    indptr, indices
        As in `Attributions`.
    scores : ndarray (nnz, J)
    bias, similarity, factor : ndarray (n, J)
        Scores and bias of image i and text y add up to ``similarity[i, y]``.
    """

    indptr: np.ndarray
    indices: np.ndarray
    scores: np.ndarray
    bias: np.ndarray
    similarity: np.ndarray
    factor: np.ndarray
    num_concepts: int

    @property
    def predictions(self) -> np.ndarray:
        """Best text of each image: (n,) int64."""
        return self.similarity.argmax(axis=1)

    def top(self, image: int, text: int, k: int = 10) -> list[tuple[int, float]]:
        """The k largest scores of one pair by absolute value, as (concept, signed score)."""
        span = slice(self.indptr[image], self.indptr[image + 1])
        return top_entries(self.indices[span], self.scores[span, text], k)

    def dense(self) -> np.ndarray:
        """Scores as (n, J, C), zeros for absent concepts: for small cases only."""
        n, J = self.similarity.shape
        out = np.zeros((n, J, self.num_concepts))
        rows = np.repeat(np.arange(n), np.diff(self.indptr))
        out[rows, :, self.indices] = self.scores
        return out


def class_scores(
    surrogate: Surrogate | Affine, encodings: Encodings, texts: Any, *, bias: str = "separate"
) -> ClassAttributions:
    """Concept scores of the similarities to several texts.

    Parameters
    ----------
    texts : array (J, D)
    bias : {"separate", "rescaled"}

    Notes
    -----
    W^T t is formed once for all texts: O(C D J + nnz J), and nnz * J numbers of memory. For many images and texts use
    `text_scores` with each image's own text, or hand over images in blocks.
    """
    _check_bias(bias)
    affine = Affine.of(surrogate)
    t = affine.texts(texts)
    z = affine.embed(encodings)
    length = _length(z)[:, None]
    similarity = z @ t.T / length
    along = (t @ affine.bias)[None, :] / length
    used, where = np.unique(encodings.indices, return_inverse=True)
    projected = affine.table[used].astype(np.float64) @ t.T
    if bias == "separate":
        factor, own = np.broadcast_to(1.0 / length, similarity.shape), along
    else:
        factor, own = _divide(similarity, (similarity - along) * length), np.zeros_like(along)
        factor = np.where(encodings.has_concepts[:, None], factor, 0.0)
    scores = projected[where]
    scores *= encodings.shares[:, None]
    scores *= factor[encodings.row_of_entry]
    return ClassAttributions(encodings.indptr, encodings.indices, scores, own, similarity, factor, encodings.shape[1])


def best_texts(surrogate: Surrogate | Affine, encodings: Encodings, texts: Any) -> np.ndarray:
    """Best text of each image, the first on ties: (n,) int64. The predictions of `class_scores` without its scores.

    Parameters
    ----------
    texts : array (J, D)

    Notes
    -----
    O(nnz D + n D J) time and O(n D) memory, in blocks of images.
    """
    affine = Affine.of(surrogate)
    t = affine.texts(texts)
    z = affine.embed(encodings)
    step = max(1, _PAIRS // len(t))
    blocks = [(z[start : start + step] @ t.T).argmax(axis=1) for start in range(0, len(z), step)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.int64)


def unstable(attributions: Attributions, surrogate: Surrogate | Affine, encodings: Encodings) -> np.ndarray:
    """Images whose rescaled scores are blown up more than tenfold because the bias makes most of z: (n,) bool."""
    length = _length(Affine.of(surrogate).embed(encodings))
    return encodings.has_concepts & (np.abs(attributions.factor) * length > UNSTABLE)


def largest(values: Any, k: int, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The k largest entries by absolute value along an axis, largest first; ties by position.

    Along axis 0 of the scores (n, C) these are the images in which each concept matters most. `k`: at most the length
    of the axis.

    Returns
    -------
    entries, positions : ndarray
        Signed values and where they stand; the axis has length k.
    """
    dense = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if not 1 <= k <= dense.shape[axis]:
        raise ValueError(f"Got k={k}, expected 1 to {dense.shape[axis]}")
    positions = np.take(np.argsort(-np.abs(dense), axis=axis, kind="stable"), np.arange(k), axis=axis)
    return np.take_along_axis(dense, positions, axis=axis), positions


def describe(columns: Sequence[tuple[int, float]], names: Sequence[Any]) -> list[dict[str, Any]]:
    """Top concepts as plain documents ``{concept, score}``."""
    return [{"concept": str(names[column]), "score": score} for column, score in columns]
