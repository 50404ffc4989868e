"""Labels of samples, and which samples are the targets of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.errors import near_matches
from rdxcli.numerics.seeding import generator

Targets = int | str | Sequence[int] | np.ndarray | None


@dataclass(frozen=True, eq=False)
class Labels:
    """Class names of n samples as numbers into one list of names.

    Attributes
    ----------
    names : tuple of str
        Numbers in numeric order, other names in alphabetic order.
    true, predicted : (n,) int64 or None
        Index into ``names``.
    """

    names: tuple[str, ...]
    true: np.ndarray | None = None
    predicted: np.ndarray | None = None

    @classmethod
    def from_arrays(cls, n: int, labels: ArrayLike | None = None, predictions: ArrayLike | None = None) -> Labels:
        """Match true and predicted labels by name, so that 3, 3.0 and ``"3"`` are one class.

        Raises `ValueError` (another length than n, or labels that are neither integers nor text).
        """
        true = _as_text(labels, n, "labels")
        predicted = _as_text(predictions, n, "predictions")
        every = sorted({*([] if true is None else true), *([] if predicted is None else predicted)}, key=_order)
        number = {name: i for i, name in enumerate(every)}

        def coded(given: list[str] | None) -> np.ndarray | None:
            return None if given is None else np.array([number[name] for name in given], dtype=np.int64)

        return cls(tuple(every), coded(true), coded(predicted))

    @property
    def reference(self) -> np.ndarray | None:
        """What purity is measured against: the true labels where known, else the predictions."""
        return self.predicted if self.true is None else self.true

    def number(self, name: str) -> int:
        """Position of a class name. Raises `ValueError` with near matches."""
        try:
            return self.names.index(name)
        except ValueError:
            near = near_matches(name, self.names) or list(self.names[:5])
            raise ValueError(f"Got class {name!r}, expected a label that occurs, such as {', '.join(near)}") from None

    def counts(self, codes: np.ndarray) -> dict[str, int]:
        """How often each class occurs, the most frequent first, absent ones left out."""
        totals = np.bincount(codes, minlength=len(self.names))
        order = np.argsort(-totals, kind="stable")
        return {self.names[i]: int(totals[i]) for i in order if totals[i]}


def _as_text(given: ArrayLike | None, n: int, what: str) -> list[str] | None:
    if given is None:
        return None
    values = np.asarray(given)
    if values.shape != (n,):
        raise ValueError(f"Got {what} of shape {values.shape}, expected ({n},)")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.round(values)).any():
            raise ValueError(f"Got {what} that are no whole numbers, expected integers or names")
        values = values.astype(np.int64)
    if values.dtype.kind not in "iubUO":
        raise ValueError(f"Got {what} of type {values.dtype}, expected integers or names")
    return [str(value) for value in values.tolist()]


def _order(name: str) -> tuple[bool, int, str]:
    number = name.removeprefix("-").isdecimal()
    return (not number, int(name) if number else 0, name)


def choose_targets(targets: Targets, labels: Labels, n: int, random_state: int = 0) -> np.ndarray:
    """Rows that are asked for.

    Raises `ValueError` (unknown words or classes, rows out of range, labels or predictions that are needed and missing,
    nothing chosen).

    Parameters
    ----------
    targets : int, sequence of int, str or None
        Rows; ``all``; ``class:NAME`` (true label); ``predicted:NAME``; ``misclassified`` (the prediction is not the
        label); ``misclassified:NAME`` (those of true label NAME). None draws one row, as the paper does, but seeded.

    Returns
    -------
    (r,) int64
        In the order given, or ascending.
    """
    if targets is None:
        return generator(random_state, "rdr", "target").integers(n, size=1)
    if isinstance(targets, str):
        rows = np.flatnonzero(_mask(targets, labels, n))
        if not len(rows):
            raise ValueError(f"Got targets={targets!r}, but no sample is one")
        return rows
    rows = np.atleast_1d(np.asarray(targets))
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(f"Got targets={targets!r}, expected row numbers or one of the words")
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(
            f"Got target {rows.max() if rows.max() >= n else rows.min()}, expected a row from 0 to {n - 1}"
        )
    return np.array(list(dict.fromkeys(rows.tolist())), dtype=np.int64)


def _mask(word: str, labels: Labels, n: int) -> np.ndarray:
    kind, colon, name = word.partition(":")
    if kind == "all" and not colon:
        return np.ones(n, dtype=bool)
    if kind not in {"class", "predicted", "misclassified"} or (kind != "misclassified" and not name):
        raise ValueError(
            f"Got targets={word!r}, expected rows, 'all', 'class:NAME', 'predicted:NAME' or 'misclassified[:NAME]'"
        )
    if kind == "class":
        return _needed(labels.true, word, "labels") == labels.number(name)
    predicted = _needed(labels.predicted, word, "predictions")
    if kind == "predicted":
        return predicted == labels.number(name)
    true = _needed(labels.true, word, "labels")
    return (true != predicted) & (true == labels.number(name) if name else True)


def _needed(codes: np.ndarray | None, word: str, what: str) -> np.ndarray:
    if codes is None:
        raise ValueError(f"Got targets={word!r} without {what}, expected one of them for every sample")
    return codes
