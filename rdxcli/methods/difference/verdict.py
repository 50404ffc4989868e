"""What the difference test returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

FOUND = "difference found"
NOT_FOUND = "no difference found"


@dataclass(frozen=True)
class Statistic:
    """One observed number and its null distribution.

    Attributes
    ----------
    value : float
    null : (replicates,) float64
    """

    value: float
    null: np.ndarray

    @property
    def p_value(self) -> float:
        """Share of null values at least as large, with the observed one counted in: never 0."""
        return exceedance(self.value, self.null)

    def to_dict(self) -> dict[str, float]:
        """``value, null_mean, null_sd, null_max, p_value``."""
        return {
            "value": self.value,
            "null_mean": float(self.null.mean()),
            "null_sd": float(self.null.std()),
            "null_max": float(self.null.max()),
            "p_value": self.p_value,
        }


def exceedance(value: float, null: np.ndarray) -> float:
    """``(1 + number of null values >= value) / (1 + number of null values)``."""
    return float((1 + np.count_nonzero(null >= value)) / (1 + len(null)))


@dataclass(frozen=True)
class ReferenceTest:
    """The same two numbers for a second pair of models, and whether the first pair exceeds them.

    Attributes
    ----------
    score, strength : float
        Of the reference pair.
    score_p, strength_p : float
        Evidence that the first pair's number is larger: the larger of two p-values, one over half-samples of the images
        and one over pairs of null values, which vary as two pairs of versions of one model do.
    p_value : float
        Both combined (twice the smaller, at most 1).
    exceeded : bool
    """

    score: float
    strength: float
    score_p: float
    strength_p: float
    p_value: float
    exceeded: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of the attributes, and a ``verdict`` in words."""
        verdict = ("" if self.exceeded else "not ") + "more different than the reference pair"
        return {**vars(self), "verdict": verdict}


@dataclass(frozen=True)
class DifferenceTest:
    """Outcome of `difference_test`.

    Attributes
    ----------
    score, strength : Statistic
    p_value : float
        Twice the smaller of the two p-values, at most 1.
    alpha : float
    concepts_null : (replicates,) float64 or None
        Strength of the strongest concept, (mean affinity - 1) x share of the images, that the estimator finds between
        two versions; None when the test was made without an estimator.
    reference : ReferenceTest or None
    neighbours, rows, graph_rows : int
        Neighbours per image, images used for the score and for the strength.
    notes : list of str
    """

    score: Statistic
    strength: Statistic
    p_value: float
    alpha: float
    concepts_null: np.ndarray | None
    reference: ReferenceTest | None
    neighbours: int
    rows: int
    graph_rows: int
    notes: list[str] = field(default_factory=list)

    @property
    def different(self) -> bool:
        """Whether the verdict is "difference found"."""
        return self.p_value <= self.alpha

    @property
    def verdict(self) -> str:
        """``difference found`` or ``no difference found``."""
        return FOUND if self.different else NOT_FOUND

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary: ``score, null_mean, null_p, verdict`` and the details of both statistics."""
        return {
            "score": self.score.value,
            "null_mean": float(self.score.null.mean()),
            "null_p": self.p_value,
            "verdict": self.verdict,
            "alpha": self.alpha,
            "replicates": len(self.score.null),
            "neighbours": self.neighbours,
            "rows": self.rows,
            "graph_rows": self.graph_rows,
            "disagreement": self.score.to_dict(),
            "strength": self.strength.to_dict(),
            "reference": self.reference.to_dict() if self.reference else None,
            "notes": list(self.notes),
        }


def strengths(affinities: np.ndarray, sizes: np.ndarray, n: int) -> np.ndarray:
    """Strength of groups of images: (mean affinity - 1) x share of the n images."""
    return (affinities - 1.0) * sizes / n
