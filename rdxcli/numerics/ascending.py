"""How many values of an ascending row are smaller than a query: exact, several times faster than a binary search.

A binary search in a row of thousands of values jumps through memory and guesses each of its turns wrong half the time.
Here the range of each row is cut into equal buckets, whose first places are kept; a query reads its bucket's place and
walks from there, a step at a time, with whole blocks of queries. The few that have not arrived after `STEPS` steps
(ties, long tails) are searched for.
"""

from __future__ import annotations

import numpy as np

from rdxcli.numerics.neighbours import rank_dtype

STEPS = 3
"""More cost more than they find: two buckets a value leave less than one query in ten beyond three steps."""

BLOCK = 2**14
"""Queries that walk together: their places and values stay in the cache."""


class AscendingRows:
    """Rows of ascending values, prepared for many queries.

    Parameters
    ----------
    values : (m, k) float array
        Each row ascending and finite. Kept with one more column, of infinity; the places of the buckets take 2 to 4
        bytes each (4 from 65,536 columns on), two to four buckets a value.
    """

    def __init__(self, values: np.ndarray) -> None:
        rows, columns = values.shape
        self.values = np.concatenate([values, np.full((rows, 1), np.inf, dtype=values.dtype)], axis=1)
        self._buckets = 2 ** int(2 * columns - 1).bit_length()
        # The first value of a row may lie far below the others (a point's distance from itself); buckets begin at the
        # second, and what is smaller falls into the first of them.
        self._low = values[:, min(1, columns - 1)].copy()
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            slope = (self._buckets - 1) / (values[:, -1] - self._low)
        self._slope = np.where(np.isfinite(slope), slope, 0.0).astype(values.dtype)
        self._first = np.zeros((rows, self._buckets), dtype=np.uint16 if columns < 2**16 else np.uint32)
        for row in range(rows):
            counts = np.bincount(self._bucket(slice(row, row + 1), values[row][None])[0], minlength=self._buckets)
            np.cumsum(counts[:-1], out=self._first[row, 1:], dtype=self._first.dtype)

    def _bucket(self, rows: slice, queries: np.ndarray) -> np.ndarray:
        """Rises with the query within a row, for the values too: what lies in an earlier bucket is smaller."""
        places = queries - self._low[rows, None]
        with np.errstate(over="ignore"):  # far beyond the row: clipped
            places *= self._slope[rows, None]
        np.clip(places, 0, self._buckets - 1, out=places)
        return places.astype(np.intp)

    def smaller(self, queries: np.ndarray) -> np.ndarray:
        """Number of values of each row that are smaller than its queries.

        Parameters
        ----------
        queries : (m, r) float array
            Of the type of the values, finite.

        Returns
        -------
        (m, r) int16 or int32 array
        """
        width = self.values.shape[1]
        out = np.empty(queries.shape, dtype=rank_dtype(width))
        at_once = max(1, BLOCK // max(1, queries.shape[1]))
        for start in range(0, len(queries), at_once):
            part = slice(start, min(start + at_once, len(queries)))
            numbers, block = np.arange(part.start, part.stop)[:, None], queries[part]
            places = self._bucket(part, block)
            places += numbers * self._buckets
            places = self._first.ravel().take(places).astype(np.intp)
            places += numbers * width
            for _ in range(STEPS):
                behind = self.values.ravel().take(places) < block
                places += behind
            places -= numbers * width
            for row in np.flatnonzero(behind.any(axis=1)):
                rest = np.flatnonzero(behind[row])
                places[row, rest] = np.searchsorted(self.values[start + row], block[row, rest])
            out[part] = places
        return out
