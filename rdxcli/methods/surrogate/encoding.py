"""Concept encodings: which share of an image's captions mentions each concept.

Row i of the encoding is c_i in [0, 1]^C with c_i[j] = k_ij / m_i (``average``) or 1 where k_ij > 0 (``union``).
Stored as CSR with the counts, not the shares: a share forgets how many captions it rests on, and the training noise
needs that. Rows are known by sample id, never by position alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse import csr_array, issparse

from rdxcli.progress import human_count

from .extraction import Concept
from .vocabulary import ConceptCounts, Vocabulary

METHODS = ("average", "union")
_LARGEST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Encodings:
    """Concepts of n images in CSR form.

    Parameters
    ----------
    ids : sequence of str, length n
    concepts : sequence of Concept, length c
    indptr : ndarray (n + 1,) int64
    indices : ndarray (nnz,) int32
        Columns, ascending within a row.
    shares : ndarray (nnz,) float32
        What the model reads: k / m, or 1.
    count, num_captions : ndarray (nnz,) uint16 and (n,) uint16, or None
        k and m. None for encodings that a user brought as plain numbers; noise is impossible then.
    method : str
        ``average``, ``union`` or ``given``.
    """

    ids: Sequence[str]
    concepts: Sequence[Concept]
    indptr: np.ndarray
    indices: np.ndarray
    shares: np.ndarray
    count: np.ndarray | None = None
    num_captions: np.ndarray | None = None
    method: str = "average"
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        n, c, nnz = len(self.ids), len(self.concepts), len(self.indices)
        if self.indptr.shape != (n + 1,) or int(self.indptr[0]) != 0 or int(self.indptr[-1]) != nnz:
            raise ValueError(
                f"Got a row index of shape {self.indptr.shape} for {human_count(n, 'id')} and "
                f"{human_count(nnz, 'entry')}"
            )
        if np.any(np.diff(self.indptr) < 0):
            raise ValueError("Got a row index that falls, expected it to rise")
        if nnz and (self.indices.min() < 0 or self.indices.max() >= c):
            raise ValueError(f"Got a column outside the {human_count(c, 'concept')}")
        if len(self.shares) != nnz or not np.all(np.isfinite(self.shares)):
            raise ValueError(
                f"Got {human_count(len(self.shares), 'value')} for {human_count(nnz, 'entry')}, or "
                "values that are not finite"
            )
        if len(set(self.ids)) != n:
            raise ValueError("Got a sample id twice, expected every id once")
        if (self.count is None) != (self.num_captions is None):
            raise ValueError("Got only one of count and num_captions, expected both or none")
        if self.count is not None and self.num_captions is not None:
            if len(self.count) != nnz or len(self.num_captions) != n:
                raise ValueError(
                    f"Got {human_count(len(self.count), 'count')} for {human_count(nnz, 'entry')} or a "
                    "wrong number of caption counts"
                )
            if np.any(self.count < 1) or np.any(self.count > self.num_captions[self.row_of_entry]):
                raise ValueError("Got counts outside 1 <= k <= m, expected k of an image's m captions")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""
        return len(self.ids), len(self.concepts)

    @cached_property
    def row_of_entry(self) -> np.ndarray:
        """Row of each stored entry: (nnz,) int64."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.indptr))

    @property
    def l0(self) -> np.ndarray:
        """Concepts per image: (n,) int64."""
        return np.diff(self.indptr)

    @property
    def has_concepts(self) -> np.ndarray:
        """Whether an image has any concept: (n,) bool."""
        return self.l0 > 0

    def csr(self, dtype: DTypeLike = np.float32) -> csr_array:
        """The encoding as a SciPy array (n, c)."""
        return csr_array((self.shares.astype(dtype), self.indices, self.indptr), shape=self.shape)

    def dense(self, dtype: DTypeLike = np.float32) -> np.ndarray:
        """The encoding as a dense array (n, c); shares are rounded once, from k / m in float64."""
        values = self.shares.astype(np.float64)
        if self.method == "average" and self.count is not None and self.num_captions is not None:
            values = self.count / self.num_captions[self.row_of_entry].astype(np.float64)
        out = np.zeros(self.shape, dtype=dtype)
        out[self.row_of_entry, self.indices] = values.astype(dtype)
        return out

    def take(self, rows: ArrayLike) -> Encodings:
        """Some rows, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        entries, indptr = entries_of(self.indptr, rows)
        return replace(
            self,
            ids=[self.ids[row] for row in rows],
            indptr=indptr,
            indices=self.indices[entries],
            shares=self.shares[entries],
            count=None if self.count is None else self.count[entries],
            num_captions=None if self.num_captions is None else self.num_captions[rows],
        )

    def align(self, ids: Sequence[str]) -> Encodings:
        """The rows of the given samples, in their order.

        Raises `ValueError` (naming samples that have no encoding. Rows are never matched by position).
        """
        where = {name: row for row, name in enumerate(self.ids)}
        missing = [str(name) for name in ids if name not in where]
        if missing:
            raise ValueError(
                f"Got {len(missing)} of {human_count(len(ids), 'sample')} without an encoding, first "
                f"{', '.join(missing[:3])}; "
                "expected encodings of the same data set"
            )
        return self.take([where[name] for name in ids])

    def with_values(self, column_values: Mapping[int, float]) -> Encodings:
        """Write given values into whole columns of every row: an intervention on concepts.

        Returns
        -------
        Encodings
            Without counts (``method`` is ``given``); entries set to 0 are dropped.
        """
        n, c = self.shape
        columns = np.array([int(column) for column in column_values], dtype=np.int64)
        values = np.array([float(value) for value in column_values.values()])
        if len(columns) and (columns.min() < 0 or columns.max() >= c):
            raise ValueError(f"Got columns {columns.tolist()}, expected 0 to {c - 1}")
        if not np.all(np.isfinite(values)):
            raise ValueError(f"Got the values {values.tolist()}, expected finite numbers")
        kept = ~np.isin(self.indices, columns)
        row = np.concatenate([self.row_of_entry[kept], np.repeat(np.arange(n), len(columns))])
        column = np.concatenate([self.indices[kept], np.tile(columns, n)])
        data = np.concatenate([self.shares[kept].astype(np.float64), np.tile(values, n)])
        return from_matrix(csr_array((data, (row, column)), shape=(n, c)), self.ids, self.concepts)

    def arrays(self) -> dict[str, np.ndarray]:
        """What goes into ``encodings.npz``: indptr, indices, count, num_captions (shares for given numbers)."""
        out: dict[str, np.ndarray] = {"indptr": self.indptr.astype(np.int64), "indices": self.indices.astype(np.int32)}
        if self.count is not None and self.num_captions is not None:
            out |= {"count": self.count.astype(np.uint16), "num_captions": self.num_captions.astype(np.uint16)}
        else:
            out["shares"] = self.shares.astype(np.float32)
        return out


def entries_of(indptr: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the entries of some CSR rows, and the row index of the selection.

    Parameters
    ----------
    indptr : (n + 1,) int64
    rows : (b,) int64

    Returns
    -------
    entries : (nnz of the rows,) int64
    selected : (b + 1,) int64
    """
    if len(rows) and (rows.min() < 0 or rows.max() >= len(indptr) - 1):
        raise ValueError(f"Got a row outside 0 to {len(indptr) - 2}")
    sizes = indptr[rows + 1] - indptr[rows]
    selected = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    entries = np.arange(selected[-1]) + np.repeat(indptr[rows] - selected[:-1], sizes)
    return entries, selected


def _shares(count: np.ndarray, num_captions: np.ndarray, indptr: np.ndarray, method: str) -> np.ndarray:
    if method not in METHODS:
        raise ValueError(f"Got method {method!r}, expected one of {METHODS}")
    if method == "union":
        return np.ones(len(count), dtype=np.float32)
    total = np.repeat(num_captions.astype(np.float64), np.diff(indptr))
    if np.any(total < 1):
        raise ValueError("Got concepts of an image without captions, expected none")
    return (count / total).astype(np.float32)


def encode(counts: ConceptCounts, vocabulary: Vocabulary, *, method: str = "average") -> Encodings:
    """Encodings of counted captions over a vocabulary.

    Raises `ValueError` for an unknown method, or more than 65,535 captions of an image.

    Parameters
    ----------
    vocabulary : Vocabulary
        Concepts that no caption mentions get an empty column.
    method : {"average", "union"}
    """
    if len(counts.num_captions) and counts.num_captions.max() > _LARGEST:
        raise ValueError(f"Got an image with more than {_LARGEST} captions")
    column = np.full(len(counts.concepts), -1, dtype=np.int64)
    where = {concept: j for j, concept in enumerate(counts.concepts)}
    for j, concept in enumerate(vocabulary.concepts):
        if concept in where:
            column[where[concept]] = j
    matrix = counts.matrix
    new = column[matrix.indices]
    kept = new >= 0
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[kept]
    order = np.lexsort((new[kept], row))
    sizes = np.bincount(row, minlength=matrix.shape[0])
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    count = matrix.data[kept][order].astype(np.uint16)
    num_captions = counts.num_captions.astype(np.uint16)
    notes = list(vocabulary.notes)
    for what, number in (("captions", int((num_captions == 0).sum())), ("concepts", int((sizes == 0).sum()))):
        if number:
            notes.append(f"{number} of {human_count(len(counts.ids), 'image')} have no {what}")
    return Encodings(
        list(counts.ids),
        list(vocabulary.concepts),
        indptr,
        new[kept][order].astype(np.int32),
        _shares(count, num_captions, indptr, method),
        count,
        num_captions,
        method,
        tuple(notes),
    )


def from_arrays(
    arrays: Mapping[str, Any], ids: Sequence[str], concepts: Sequence[Concept], *, method: str = "average"
) -> Encodings:
    """Encodings from the arrays of ``encodings.npz``; everything is checked.

    Raises `ValueError` when an array is missing or the arrays contradict each other.
    """
    if missing := {"indptr", "indices"} - set(arrays):
        raise ValueError(f"Got encodings without {', '.join(sorted(missing))}, expected indptr and indices")
    indptr = np.asarray(arrays["indptr"], dtype=np.int64)
    indices = np.asarray(arrays["indices"], dtype=np.int32)
    if "count" in arrays and "num_captions" in arrays:
        count, total = (np.asarray(arrays[key], dtype=np.uint16) for key in ("count", "num_captions"))
        if len(indptr) != len(total) + 1 or len(count) != int(indptr[-1]) or np.any(np.diff(indptr) < 0):
            raise ValueError(
                f"Got {len(indptr)} row ends, {human_count(len(count), 'count')} and "
                f"{human_count(len(total), 'caption count')}"
            )
        shares = _shares(count, total, indptr, method)
        return Encodings(list(ids), list(concepts), indptr, indices, shares, count, total, method)
    if "shares" not in arrays:
        raise ValueError("Got encodings without values, expected count and num_captions, or shares")
    shares = np.asarray(arrays["shares"], dtype=np.float32)
    return Encodings(list(ids), list(concepts), indptr, indices, shares, method="given")


def from_matrix(
    values: Any, ids: Sequence[str], concepts: Sequence[Concept], *, num_captions: ArrayLike | None = None
) -> Encodings:
    """Encodings from a user's own numbers, dense or sparse (n, c).

    Raises `ValueError` for NaN, a wrong shape, or values that are not shares of ``num_captions``.

    Parameters
    ----------
    values : array_like or sparse array (n, c)
        Zeros are dropped.
    num_captions : array_like of int (n,), optional
        With it the values must be k / m, and the counts are recovered, so that training noise is possible.
    """
    matrix = csr_array(values if issparse(values) else np.asarray(values, dtype=np.float64))
    if matrix.shape != (len(ids), len(concepts)):
        raise ValueError(f"Got a matrix of shape {matrix.shape}, expected {(len(ids), len(concepts))}")
    if not np.all(np.isfinite(matrix.data)):
        raise ValueError("Got NaN or infinite encodings, expected finite numbers")
    matrix.eliminate_zeros()
    matrix.sort_indices()
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    shares = matrix.data.astype(np.float32)
    if num_captions is None:
        return Encodings(list(ids), list(concepts), indptr, indices, shares, method="given")
    total = np.asarray(num_captions, dtype=np.uint16)
    if total.shape != (len(ids),):
        raise ValueError(f"Got caption counts of shape {total.shape}, expected ({len(ids)},)")
    exact = matrix.data * np.repeat(total, np.diff(indptr))
    count = np.rint(exact)
    if np.any(np.abs(exact - count) > 1e-2 * np.maximum(count, 1)) or np.any(count < 1):
        raise ValueError("Got values that are not k / m for the given caption counts")
    return Encodings(list(ids), list(concepts), indptr, indices, shares, count.astype(np.uint16), total)
