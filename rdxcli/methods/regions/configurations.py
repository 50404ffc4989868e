"""On/off states of neurons, packed: what decision regions are made of.

Symbols: n samples, m neurons; z (n, m) activations of one layer, flattened per sample in C order, so that neuron
``(channel * H + row) * W + column`` of a convolution; theta (m,) thresholds; C = [z > theta] (n, m) the configurations;
c (m,) the number of ones in each column of C.

Reference: Chang, Kwon and Choi, "Understanding Distributed Representations of Concepts in Deep Neural Networks without
Supervision", AAAI 2024 (arXiv 2312.17285).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.numerics import hamming
from rdxcli.progress import human_count

POOLS = ("none", "avg", "max")
BLOCK_BYTES = 2**24  # of activations read at a time


def binarise(z: ArrayLike, theta: ArrayLike = 0.0) -> np.ndarray:
    """States of activations: z > theta, strictly. NaN, -0.0 and everything up to the threshold are off.

    Parameters
    ----------
    theta : array-like, default 0
        Broadcast against z.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(z) > np.asarray(theta)


@dataclass(frozen=True, eq=False)
class Configurations:
    """Packed states of n samples at one layer.

    Build it with `from_activations` or `from_bits`; `encode` applies the same thresholds to further samples.

    Attributes
    ----------
    words : (n, w) uint64
        Packed rows, see `rdxcli.numerics.hamming`; 64 times smaller than float64 and 32 times than float32.
    shape : tuple of int
        Shape of one sample's neurons: (m,), or (c, h, w) of a map. m is the product.
    thresholds : float or (m,) array
        theta.
    pool : {"none", "avg", "max"}
        How maps were reduced to one number per channel before the threshold.
    """

    words: np.ndarray
    shape: tuple[int, ...]
    thresholds: float | np.ndarray = 0.0
    pool: str = "none"
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_activations(
        cls, activations: ArrayLike, threshold: float | str | ArrayLike = 0.0, *, pool: str = "none"
    ) -> Configurations:
        """Threshold and pack activations.

        Raises `ValueError` (NaN, no rows, no columns, values that are no real numbers, thresholds of another length).

        Parameters
        ----------
        activations : (n, d) or (n, c, h, w) array-like
            May be memory-mapped: about 16 MiB are read at a time.
        threshold : float, "median", "quantile:Q" or (m,) array-like, default 0
            0 is the published rule and means "on its side of the neuron's boundary", before or after a ReLU. Pooled or
            GELU features have no boundary at 0: use ``median`` (per neuron) or a quantile. A vector with one number per
            channel is used for all positions of the channel.
        pool : {"none", "avg", "max"}, default "none"
            ``none``: each position of a map is a neuron (published). Otherwise one neuron per channel.
        """
        values = _check(activations, pool)
        shape = tuple(values.shape[1:]) if pool == "none" else (values.shape[1],)
        theta = _thresholds(values, threshold, shape, pool)
        made = cls(_packed(values, theta, shape, pool), shape, theta, pool)
        made.notes.extend(_remarks(made))
        return made

    @classmethod
    def from_bits(cls, bits: ArrayLike, shape: tuple[int, ...] | None = None) -> Configurations:
        """Pack states that are known already: (n, m) bool or 0/1."""
        states = np.asarray(bits)
        if states.ndim < 2 or not states.size:
            raise ValueError(f"Got states of shape {states.shape}, expected (n, m) with at least one row and column")
        if states.dtype != bool and not np.isin(states, (0, 1)).all():
            raise ValueError("Got states other than 0 and 1, expected bits: use from_activations for activations")
        flat = states.reshape(len(states), -1)
        return cls(hamming.pack(flat), tuple(shape or states.shape[1:]))

    def encode(self, activations: ArrayLike) -> Configurations:
        """Configurations of further samples of the same layer, with the thresholds of this object.

        Raises `ValueError` (another number of neurons).
        """
        values = _check(activations, self.pool)
        shape = tuple(values.shape[1:]) if self.pool == "none" else (values.shape[1],)
        if shape != self.shape and int(np.prod(shape)) != self.m:
            raise ValueError(f"Got samples of shape {shape}, expected {self.shape}")
        return Configurations(
            _packed(values, self.thresholds, self.shape, self.pool), self.shape, self.thresholds, self.pool
        )

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.words)

    @property
    def m(self) -> int:
        """Neurons."""
        return int(np.prod(self.shape))

    @cached_property
    def counts(self) -> np.ndarray:
        """c: samples in which each neuron is on, (m,) int64. Computed once, O(n m)."""
        return hamming.column_counts(self.words, self.m)

    @property
    def constant(self) -> bool:
        """All samples have the same configuration."""
        return bool(((self.counts == 0) | (self.counts == self.n)).all())

    def bits(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Unpacked states of some rows: (r, m) uint8."""
        return hamming.unpack(self.words[rows], self.m)

    def states(self, neurons: ArrayLike) -> np.ndarray:
        """States of some neurons in all samples: (n, t) bool."""
        return hamming.take_columns(self.words, np.asarray(neurons))

    def distances(self, row: int) -> np.ndarray:
        """Differing bits between one sample and all: (n,) int32. About 1 MiB of scratch memory."""
        return hamming.distances(self.words, self.words[row])

    def take(self, rows: ArrayLike) -> Configurations:
        """The configurations of some samples only."""
        words = np.asfortranarray(self.words[np.asarray(rows)])
        return Configurations(words, self.shape, self.thresholds, self.pool)

    def positions(self, neurons: ArrayLike) -> np.ndarray:
        """Neurons as (channel, row, column), or (unit,): (t, len(shape)) int64."""
        return np.stack(np.unravel_index(np.asarray(neurons, dtype=np.int64), self.shape), axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything in plain arrays, for an artifact: ``words``, ``shape``, ``thresholds``, ``pool``."""
        return {
            "words": self.words,
            "shape": np.array(self.shape, dtype=np.int64),
            "thresholds": np.asarray(self.thresholds),
            "pool": np.array(self.pool),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Configurations:
        """The inverse of `arrays`. Raises `ValueError` (words that do not fit the shape)."""
        shape = tuple(int(size) for size in np.atleast_1d(arrays["shape"]))
        words = np.asfortranarray(arrays["words"], dtype=np.uint64)
        if words.ndim != 2 or words.shape[1] != -(-int(np.prod(shape)) // hamming.WORD):
            raise ValueError(
                f"Got packed words of shape {words.shape}, expected rows of {human_count(int(np.prod(shape)), 'bit')}"
            )
        theta = np.asarray(arrays["thresholds"])
        return cls(words, shape, float(theta) if theta.ndim == 0 else theta, str(arrays["pool"]))


def _check(activations: ArrayLike, pool: str) -> np.ndarray:
    values = np.asanyarray(activations)
    if pool not in POOLS:
        raise ValueError(f"Got pool={pool!r}, expected one of {', '.join(map(repr, POOLS))}")
    if values.ndim < 2 or not values.size:
        raise ValueError(f"Got activations of shape {values.shape}, expected (n, d) or (n, c, h, w), none of them 0")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"Got activations of type {values.dtype}, expected real numbers")
    if pool != "none" and values.ndim < 3:
        raise ValueError(f"Got pool={pool!r} with activations of shape {values.shape}, expected maps (n, c, h, w)")
    return values


def _blocks(values: np.ndarray) -> list[slice]:
    step = max(1, BLOCK_BYTES // max(1, values[:1].nbytes))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def _pooled(block: np.ndarray, pool: str) -> np.ndarray:
    """Rows of neurons: (b, m)."""
    if pool == "none":
        return block.reshape(len(block), -1)
    flat = block.reshape(len(block), block.shape[1], -1)
    return flat.mean(axis=2) if pool == "avg" else flat.max(axis=2)


def _packed(values: np.ndarray, theta: float | np.ndarray, shape: tuple[int, ...], pool: str) -> np.ndarray:
    out = hamming.empty(len(values), int(np.prod(shape)))
    for rows in _blocks(values):
        block = _pooled(np.asarray(values[rows]), pool)
        if block.dtype.kind == "f":
            bad = np.isnan(block).any(axis=1)
            if bad.any():
                raise ValueError(
                    f"Got NaN in row {rows.start + int(bad.argmax())} of the activations, expected numbers"
                )
        hamming.pack(binarise(block, theta), out[rows])
    return out


def _thresholds(
    values: np.ndarray, threshold: float | str | ArrayLike, shape: tuple[int, ...], pool: str
) -> float | np.ndarray:
    m = int(np.prod(shape))
    if isinstance(threshold, str):
        return _quantile(values, _level(threshold), m, pool)
    theta = np.asarray(threshold, dtype=np.float64)
    if np.isnan(theta).any():
        raise ValueError("Got a threshold of NaN, expected a number")
    if theta.ndim == 0:
        return float(theta)
    if theta.size == m:
        return theta.reshape(m)
    if theta.size == shape[0]:
        return np.repeat(theta.ravel(), m // shape[0])
    raise ValueError(
        f"Got {human_count(theta.size, 'threshold')} for {human_count(m, 'neuron')} of shape {shape}, "
        f"expected 1, {shape[0]} or {m}"
    )


def _level(name: str) -> float:
    text = "0.5" if name == "median" else name.removeprefix("quantile:")
    try:
        level = float(text)
    except ValueError:
        level = -1.0
    if (name != "median" and not name.startswith("quantile:")) or not 0 < level < 1:
        raise ValueError(f"Got threshold={name!r}, expected a number, 'median' or 'quantile:Q' with Q between 0 and 1")
    return level


def _quantile(values: np.ndarray, level: float, m: int, pool: str) -> np.ndarray:
    """Per-neuron quantiles of the data: (m,). Columns are read in groups, so that n columns fit in memory."""
    if pool != "none":
        pooled = np.concatenate([_pooled(np.asarray(values[rows]), pool) for rows in _blocks(values)])
        values = pooled
    flat = values.reshape(len(values), -1)
    step = max(1, BLOCK_BYTES // max(1, flat[:, :1].nbytes))
    parts = []
    for start in range(0, m, step):
        columns = np.asarray(flat[:, start : start + step])
        columns = columns if columns.dtype in (np.float32, np.float64) else columns.astype(np.float64)
        if np.isnan(columns).any():
            raise ValueError("Got NaN in the activations, expected numbers")
        parts.append(np.quantile(columns, level, axis=0))
    return np.concatenate(parts)


def _remarks(made: Configurations) -> list[str]:
    counts, n = made.counts, made.n
    notes = []
    on = float(counts.sum()) / (n * made.m)
    dead, always = int((counts == 0).sum()), int((counts == n).sum())
    if on > 0.95 or on < 0.05:
        notes.append(
            f"{100 * on:.1f} % of all states are on at threshold {_threshold_name(made)}: rectified and pooled "
            "features need another threshold, for example the median of each neuron"
        )
    if dead + always > made.m / 2:
        notes.append(
            f"{dead} of {human_count(made.m, 'neuron')} are never on and {always} always; they cannot "
            "tell samples apart"
        )
    return notes


def _threshold_name(made: Configurations) -> str:
    return f"{made.thresholds:g}" if isinstance(made.thresholds, float) else "per neuron"
