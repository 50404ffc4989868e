"""Matrices of bits, packed, and the number of bits in which their rows differ.

Symbols: B (n, m) bits; W (n, w) its packed words, uint64, w = ceil(m / 64); bit j of a row is bit j % 64 (from the
least significant) of word j // 64, and the bits past m are zero.

W is kept in column-major memory: word j of all rows is contiguous, which is the order in which one row is compared with
all others and in which a few columns are read. All results are integers, the same on every machine; ties are resolved
by row number.
"""

from __future__ import annotations

import os

import numpy as np
import torch

WORD = 64
SCRATCH = 2**17  # words in one temporary: 1 MiB, which stays in the second-level cache
QUERIES, COLUMNS, BITS = 1024, 2048, 4096  # block of the matrix product: rows by rows, so many bits at a time
FEW = 64  # rows up to which the product cannot pay for its unpacking

_HAS_COUNT = hasattr(np, "bitwise_count")  # NumPy 2; the table serves 1.26
_TABLE = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)


def popcount(words: np.ndarray) -> np.ndarray:
    """Ones in each word: uint8 array of the shape of ``words`` (uint64)."""
    if _HAS_COUNT:
        return np.bitwise_count(words)
    halves = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 4)
    return np.add.reduce(_TABLE[halves], axis=-1, dtype=np.uint8)


def empty(n: int, m: int) -> np.ndarray:
    """Room for n rows of m bits, column-major: (n, w) uint64."""
    return np.empty((n, -(-m // WORD)), dtype=np.uint64, order="F")


def pack(bits: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Pack (n, m) bits (bool or 0/1) into (n, w) uint64, column-major.

    Parameters
    ----------
    bits : (n, m) bool or integer
        Anything but zero is one.
    out : (n, w) uint64, optional
        Where to write, for example a range of rows of `empty`.
    """
    n, m = bits.shape
    out = empty(n, m) if out is None else out
    octets = np.packbits(bits if bits.dtype == bool else bits != 0, axis=1, bitorder="little")
    if octets.shape[1] < out.shape[1] * 8 or not octets.flags.c_contiguous:
        padded = np.zeros((n, out.shape[1] * 8), dtype=np.uint8)
        padded[:, : octets.shape[1]] = octets
        octets = padded
    out[:] = octets.view("<u8")
    return out


def unpack(words: np.ndarray, m: int) -> np.ndarray:
    """The (n, m) bits of (n, w) words, uint8 zeros and ones."""
    octets = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=m, bitorder="little")


def take_columns(words: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Bits of some columns: (n, len(index)) bool. O(n len(index))."""
    index = np.asarray(index, dtype=np.int64)
    shifts = (index % WORD).astype(np.uint64)
    return ((words[:, index // WORD] >> shifts) & np.uint64(1)).astype(bool)


def column_counts(words: np.ndarray, m: int) -> np.ndarray:
    """Ones in each column: (m,) int64. O(n m) byte operations, memory 255 m bytes."""
    counts = np.zeros(m, dtype=np.int64)
    for start in range(0, len(words), 255):  # 255 ones still fit in a byte
        counts += np.add.reduce(unpack(words[start : start + 255], m), axis=0, dtype=np.uint8)
    return counts


def agreement(words: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns on which all rows agree.

    Returns
    -------
    on, off : (m,) bool
        All rows are one; all rows are zero. O(n w).
    """
    on = np.bitwise_and.reduce(words, axis=0)
    off = ~np.bitwise_or.reduce(words, axis=0)
    both = unpack(np.stack([on, off]), m).astype(bool)
    return both[0], both[1]


def distances(words: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Differing bits between every row and one query: (n,) int32.

    Parameters
    ----------
    words : (n, w) uint64
    query : (w,) uint64

    Notes
    -----
    n w words are read once; temporaries take about 1 MiB.
    """
    n, w = words.shape
    step = max(1, min(SCRATCH // max(1, n), 1023))  # 1023 words of 64 ones fit in uint16
    columns = words.T
    out = np.zeros(n, dtype=np.int32)
    for j in range(0, w, step):
        differing = popcount(columns[j : j + step] ^ query[j : j + step, None])
        out += np.add.reduce(differing, axis=0, dtype=np.uint16)
    return out


def pairs(left: np.ndarray, right: np.ndarray, m: int, *, device: str = "cpu") -> np.ndarray:
    """Differing bits between all rows of two matrices by matrix products: (a, b) int32.

    |x| + |y| - 2 x.y in float32 over at most `BITS` bits at a time, where every number is an exact integer.

    Parameters
    ----------
    left, right : (a, w) and (b, w) uint64
    m : int
        Bits per row.
    device : str
        Where the products run: ``cpu`` or a torch device.

    Notes
    -----
    O(a b m). Meant for blocks of a few thousand rows: memory is 4 (a + b) min(m, `BITS`) + 8 a b bytes.
    """
    out = np.zeros((len(left), len(right)), dtype=np.int32)
    for start in range(0, m, BITS):
        part = slice(start // WORD, (start + BITS) // WORD)
        count = min(BITS, m - start)
        x, y = (
            torch.from_numpy(unpack(words[:, part], count)).to(device=device, dtype=torch.float32)
            for words in (left, right)
        )
        block = torch.addmm(x.sum(dim=1)[:, None] + y.sum(dim=1), x, y.T, alpha=-2.0)
        out += block.to(torch.int32).cpu().numpy()
    return out


def nearest(
    words: np.ndarray,
    m: int,
    rows: np.ndarray,
    k: int,
    *,
    strategy: str = "auto",
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest rows of some rows, themselves included.

    Raises `ValueError` (k out of range, unknown strategy).

    Parameters
    ----------
    words : (n, w) uint64
    m : int
        Bits per row.
    rows : (r,) int
        Points of departure.
    k : int
        Between 1 and n.
    strategy : {"auto", "xor", "product"}
        One pass of XOR and popcount per row, or blocks of matrix products. Both give the same integers. ``auto`` takes
        the product for more than `FEW` rows where it has three cores or an accelerator: with two cores, column-major
        words and NumPy 2 the XOR is the faster one.
    device : str
        Where the products run.

    Returns
    -------
    index : (r, k) int64
        By ascending distance, ties by row number.
    distance : (r, k) int32
    """
    n = len(words)
    rows = np.asarray(rows, dtype=np.int64)
    if not 1 <= k <= n:
        raise ValueError(f"Got k={k}, expected between 1 and the number of rows, {n}")
    if strategy not in {"auto", "xor", "product"}:
        raise ValueError(f"Got strategy={strategy!r}, expected 'auto', 'xor' or 'product'")
    if strategy == "auto":
        pays = device != "cpu" or not _HAS_COUNT or (os.cpu_count() or 1) > 2
        strategy = "product" if pays and len(rows) > FEW else "xor"
    if strategy == "product":
        return _nearest_by_products(words, m, rows, k, device)
    index = np.empty((len(rows), k), dtype=np.int64)
    found = np.empty((len(rows), k), dtype=np.int32)
    for i, row in enumerate(rows):
        every = distances(words, words[row])
        index[i] = smallest(every, k)
        found[i] = every[index[i]]
    return index, found


def smallest(values: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k smallest values of a vector, ascending, ties by position: (k,) int64."""
    if k < len(values):
        candidates = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
    else:
        candidates = np.arange(len(values))
    return candidates[np.argsort(values[candidates], kind="stable")[:k]]


def _nearest_by_products(
    words: np.ndarray, m: int, rows: np.ndarray, k: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and row numbers share one integer, so that a partition of integers is a stable partial sort."""
    n = len(words)
    keys = np.empty((len(rows), k), dtype=np.int64)
    for start in range(0, len(rows), QUERIES):
        queries = words[rows[start : start + QUERIES]]
        best = np.empty((len(queries), 0), dtype=np.int64)
        for first in range(0, n, COLUMNS):
            block = pairs(queries, words[first : first + COLUMNS], m, device=device).astype(np.int64)
            block *= n
            block += np.arange(first, first + block.shape[1])
            if k < block.shape[1]:
                block = np.partition(block, k - 1, axis=1)[:, :k]
            best = np.concatenate([best, block], axis=1)
            if k < best.shape[1]:
                best = np.partition(best, k - 1, axis=1)[:, :k]
        keys[start : start + QUERIES] = np.sort(best, axis=1)
    return keys % n, (keys // n).astype(np.int32)


def rule_mismatches(words: np.ndarray, index: np.ndarray, states: np.ndarray) -> np.ndarray:
    """How many of the given (column, state) pairs each row violates: (n,) int64. O(n len(index)).

    Parameters
    ----------
    words : (n, w) uint64
    index : (t,) int
        Different columns.
    states : (t,) bool
    """
    out = np.zeros(len(words), dtype=np.int64)
    for j, mask, want in _masks(index, states):
        out += popcount((words[:, j] ^ want) & mask)
    return out


def rule_matches(words: np.ndarray, index: np.ndarray, states: np.ndarray, tolerance: int = 0) -> np.ndarray:
    """Rows that violate at most ``tolerance`` of the (column, state) pairs: ascending int64. No pairs: all rows."""
    if tolerance:
        return np.flatnonzero(rule_mismatches(words, index, states) <= tolerance)
    kept = np.arange(len(words))
    for j, mask, want in _masks(index, states):
        column = words[:, j] if len(kept) == len(words) else words[kept, j]
        kept = kept[((column ^ want) & mask) == 0]
    return kept


def _masks(index: np.ndarray, states: np.ndarray) -> list[tuple[int, np.uint64, np.uint64]]:
    """The pairs gathered by word: (word, bits that matter, bits wanted)."""
    masks: dict[int, list[int]] = {}
    for column, state in zip(np.asarray(index).tolist(), np.asarray(states).tolist(), strict=True):
        entry = masks.setdefault(column // WORD, [0, 0])
        bit = 1 << (column % WORD)
        entry[0] |= bit
        entry[1] |= bit if state else 0
    return [(word, np.uint64(mask), np.uint64(want)) for word, (mask, want) in masks.items()]
