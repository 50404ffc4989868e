"""What the difference test found, as one object: the sentence, the page, the document and the gate are read off it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from rdxcli.progress import human_count
from rdxcli.records import Verdict


class Question(StrEnum):
    """What a null distribution asks of a pair."""

    CHANGED = "changed at all"
    READOUTS = "more than two read-outs"
    REFERENCE = "more than the reference"


YARDSTICKS: Mapping[Question, str] = {
    Question.CHANGED: "two runs of one model that differ by rounding",
    Question.READOUTS: "two versions of one model",
}
"""Whom the null distribution of a question describes."""

MEASURES: Mapping[str, str] = {"score": "Difference score", "strength": "Strength of the strongest group"}


@dataclass(frozen=True)
class Statistic:
    """One observed number and its null distribution.

    Attributes
    ----------
    null : (replicates,) float64
    """

    value: float
    null: np.ndarray

    @property
    def p_value(self) -> float:
        """Share of null values at least as large, with the observed one counted in: never 0."""
        return exceedance(self.value, self.null)

    @property
    def effect(self) -> float | None:
        """How many standard deviations of the null the value lies above its mean; None where the null does not vary."""
        spread = float(self.null.std())
        return float((self.value - self.null.mean()) / spread) if spread > 0.0 else None

    def to_dict(self) -> dict[str, float | None]:
        """``value, null_mean, null_sd, null_max, p_value, effect``."""
        return {
            "value": self.value,
            "null_mean": float(self.null.mean()),
            "null_sd": float(self.null.std()),
            "null_max": float(self.null.max()),
            "p_value": self.p_value,
            "effect": self.effect,
        }


def exceedance(value: float, null: np.ndarray) -> float:
    """``(1 + number of null values >= value) / (1 + number of null values)``."""
    return float((1 + np.count_nonzero(null >= value)) / (1 + len(null)))


def _p(value: float, statistic: Statistic) -> str:
    """A doubled p-value in words; the least that so many draws can give is a bound."""
    least = 2.0 / (1.0 + len(statistic.null))
    return f"p {'<=' if value <= least else '='} {min(1.0, value):.2g}"


@dataclass(frozen=True)
class Finding:
    """One question, asked of both numbers."""

    question: Question
    score: Statistic
    strength: Statistic
    alpha: float

    @property
    def p_value(self) -> float:
        """Twice the smaller of the two p-values, at most 1."""
        return min(1.0, 2.0 * min(self.score.p_value, self.strength.p_value))

    @property
    def yes(self) -> bool:
        """Whether ``p_value <= alpha``."""
        return self.p_value <= self.alpha

    @property
    def found_by(self) -> tuple[str, ...]:
        """Which of ``score`` and ``strength`` say so: those whose own doubled p-value is at most ``alpha``."""
        both = (("score", self.score), ("strength", self.strength))
        return tuple(name for name, one in both if min(1.0, 2.0 * one.p_value) <= self.alpha)

    def sentences(self) -> list[str]:
        """A sentence per number, those that found the difference first."""
        pairs = {"score": self.score, "strength": self.strength}
        order = sorted(pairs, key=lambda name: (name not in self.found_by, name))
        return [
            f"{MEASURES[name]} {pairs[name].value:.3f}; {YARDSTICKS[self.question]} have "
            f"{pairs[name].null.mean():.3f}, at most {pairs[name].null.max():.3f}: "
            f"{'more' if name in self.found_by else 'not more'} ({_p(2.0 * pairs[name].p_value, pairs[name])})."
            for name in order
        ]

    def to_dict(self) -> dict[str, Any]:
        """``question, answer, p_value, found_by, replicates, score, strength``."""
        return {
            "question": str(self.question),
            "answer": self.yes,
            "p_value": self.p_value,
            "found_by": list(self.found_by),
            "replicates": len(self.score.null),
            "score": self.score.to_dict(),
            "strength": self.strength.to_dict(),
        }


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
class Belonging:
    """Whether row i of both representations can be the same image.

    Attributes
    ----------
    agreement : float
        Mean share of common neighbours.
    chance : float
        The same for rows in random order.
    p_value : float
        How often random order agrees as much.
    """

    agreement: float
    chance: float
    p_value: float

    def doubtful(self, alpha: float) -> bool:
        """Neighbours agree no more than by chance."""
        return self.p_value > alpha

    def sentence(self) -> str:
        """For a doubtful pair."""
        return (
            "These rows do not seem to be the same images: neighbours agree no more than by chance "
            f"({self.agreement:.3f}; rows in random order {self.chance:.3f}, p = {self.p_value:.2g})."
        )


@dataclass(frozen=True)
class Kind:
    """What takes the difference away.

    Attributes
    ----------
    before : float
        Score as it is.
    rows, dimensions, linear : float or None
        Score with rows of length 1, with dimensions of equal spread, and with both representations whitened (which
        takes away every linear map); None where it cannot be computed.
    """

    before: float
    rows: float | None
    dimensions: float | None
    linear: float | None

    MOSTLY = 0.75

    @property
    def name(self) -> str:
        """``scale of rows``, ``scale of dimensions``, ``linear map`` or ``more than a linear map``."""
        for value, name in (
            (self.rows, "scale of rows"),
            (self.dimensions, "scale of dimensions"),
            (self.linear, "linear map"),
        ):
            if value is not None and value <= (1.0 - self.MOSTLY) * self.before:
                return name
        return "more than a linear map"

    def sentence(self) -> str | None:
        """What it is, when it is something simple."""
        after = {"scale of rows": self.rows, "scale of dimensions": self.dimensions, "linear map": self.linear}
        how = {
            "scale of rows": "a change of the scale of rows: with rows of length 1",
            "scale of dimensions": "a change of the scale of dimensions: with dimensions of equal spread",
            "linear map": "a linear map: with both representations whitened",
        }
        if self.name not in how:
            return None
        return f"This is mostly {how[self.name]} the score falls from {self.before:.3f} to {after[self.name]:.3f}."

    def to_dict(self) -> dict[str, Any]:
        """``name`` and the scores."""
        return {"name": self.name, **vars(self)}


@dataclass(frozen=True)
class Detectable:
    """The smallest planted changes that the test finds on this pair.

    Attributes
    ----------
    neighbours, images : int
        Of the test.
    changes : tuple of (float, float)
        Share of the dimensions and of the images in which they were shuffled.
    """

    neighbours: int
    images: int
    changes: tuple[tuple[float, float], ...]

    def sentence(self) -> str:
        """What would have been found."""
        size = f"At this size ({human_count(self.images, 'image')}, {human_count(self.neighbours, 'neighbour')})"
        if not self.changes:
            return f"{size} not even shuffling half of the images would have been found: the test says little."
        parts = [
            f"{images:.0%} of the images"
            if dimensions == 1.0
            else f"{dimensions:.0%} of the dimensions in {images:.0%}"
            for dimensions, images in self.changes
        ]
        return f"{size} shuffling {' or '.join(parts)} would have been found."

    def to_dict(self) -> list[dict[str, float]]:
        """``dimensions`` and ``images`` of each change."""
        return [{"dimensions": dimensions, "images": images} for dimensions, images in self.changes]


class ConceptNull:
    """How strong the strongest concept gets between two versions of one model, drawn as far as the concepts need it.

    A concept's p-value is that of Besag and Clifford (1991): drawing stops for it when `ENOUGH` null values have
    reached it, p = `ENOUGH` / draws; otherwise p = (1 + those that have) / (1 + draws). Values that can reach no
    concept that is still drawn for need not be known.

    Parameters
    ----------
    observed : float array or None
        Strengths of the concepts, (mean affinity - 1) x share of the images; None where they are not known yet.

    Attributes
    ----------
    values : list of float
        The null; NaN where it is below every concept that was still drawn for.
    """

    ENOUGH = 5
    KNOWN = 20
    """So many of the first values are known in any case, for the effect."""

    def __init__(self, observed: np.ndarray | None) -> None:
        self.observed = observed
        self.values: list[float] = []

    def add(self, values: list[float]) -> None:
        """Take the next null values, in the order of their draws."""
        self.values += values

    @property
    def limit(self) -> float:
        """The weakest concept that is still drawn for, infinity without any: values below it need not be known."""
        if self.observed is None:
            return 0.0
        reached = (np.array(self.values)[:, None] >= self.observed).sum(axis=0)
        return float(self.observed[reached < self.ENOUGH].min(initial=np.inf))

    @property
    def clear(self) -> bool:
        """Whether no concept needs more."""
        return self.observed is None or self.limit == np.inf

    def p_value(self, strength: float) -> float:
        """Probability that the strongest concept between two versions is at least as strong."""
        reached = np.flatnonzero(np.array(self.values) >= strength)
        if len(reached) >= self.ENOUGH:
            return self.ENOUGH / float(reached[self.ENOUGH - 1] + 1)
        return (1 + len(reached)) / (1 + len(self.values))

    def effect(self, strength: float) -> float | None:
        """How many standard deviations of the null the strength lies above its mean; None where it does not vary."""
        known = np.array(self.values[: self.KNOWN])
        return float((strength - known.mean()) / known.std()) if known.std() > 0.0 else None


@dataclass(frozen=True)
class DifferenceTest:
    """Outcome of `difference_test`.

    Attributes
    ----------
    answers : tuple of Finding
        The first decides: `Question.CHANGED` where both representations are runs of one architecture, else
        `Question.READOUTS`.
    score_interval : (float, float)
        95 % over images.
    concepts : ConceptNull or None
        Of the strongest concept that the estimator finds between two versions; None without an estimator.
    neighbours, rows, graph_rows : int
        Neighbours per image, images used for the score and for the strength.
    belonging : Belonging or None
        None where neighbours agree so much that there is no doubt.
    kind : Kind or None
        Of a difference that was found.
    detectable : Detectable or None
        Where none was found.
    scale : dict of str to float
        Score of pairs made of the first model, see `rdxcli.methods.difference.yardsticks`.
    """

    answers: tuple[Finding, ...]
    score_interval: tuple[float, float]
    concepts: ConceptNull | None
    reference: ReferenceTest | None
    neighbours: int
    rows: int
    graph_rows: int
    belonging: Belonging | None = None
    kind: Kind | None = None
    detectable: Detectable | None = None
    scale: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def deciding(self) -> Finding:
        """The answer that the verdict rests on."""
        return self.answers[0]

    @property
    def score(self) -> Statistic:
        """Of the deciding answer."""
        return self.deciding.score

    @property
    def strength(self) -> Statistic:
        """Of the deciding answer."""
        return self.deciding.strength

    @property
    def p_value(self) -> float:
        """Of the deciding answer."""
        return self.deciding.p_value

    @property
    def alpha(self) -> float:
        """Of the deciding answer."""
        return self.deciding.alpha

    @property
    def outcome(self) -> Verdict:
        """Found, none, or undecided: where the rows may not belong together, nothing can be said of the models."""
        if self.doubtful:
            return Verdict.UNDECIDED
        return Verdict.FOUND if self.deciding.yes else Verdict.NONE

    @property
    def doubtful(self) -> bool:
        """Whether the rows do not seem to be the same images."""
        return self.belonging is not None and self.belonging.doubtful(self.alpha)

    @property
    def different(self) -> bool:
        """Whether the verdict is "difference found"."""
        return self.outcome is Verdict.FOUND

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        return str(self.outcome)

    def sentences(self) -> list[str]:
        """What the test says, the most important first."""
        lines = []
        if self.doubtful and self.belonging is not None:
            lines.append(self.belonging.sentence())
        lines += self.deciding.sentences()
        for other in self.answers[1:]:
            more = "It is also" if other.yes and self.deciding.yes else "It is" if other.yes else "It is not"
            by = f", by the {' and the '.join(other.found_by)}" if other.found_by else ""
            lines.append(
                f"{more} more than {YARDSTICKS[other.question]} differ by{by} ({_p(other.p_value, other.score)})."
            )
        if self.kind is not None and (said := self.kind.sentence()):
            lines.append(said)
        if self.detectable is not None:
            lines.append(self.detectable.sentence())
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary: ``score, null_mean, null_p, verdict``, the sentences and the details of both statistics."""
        return {
            "score": self.score.value,
            "score_interval": list(self.score_interval),
            "null_mean": float(self.score.null.mean()),
            "null_p": self.p_value,
            "verdict": self.verdict,
            "question": str(self.deciding.question),
            "found_by": list(self.deciding.found_by),
            "sentences": self.sentences(),
            "alpha": self.alpha,
            "replicates": len(self.score.null),
            "neighbours": self.neighbours,
            "rows": self.rows,
            "graph_rows": self.graph_rows,
            "disagreement": self.score.to_dict(),
            "strength": self.strength.to_dict(),
            "answers": [one.to_dict() for one in self.answers],
            "reference": self.reference.to_dict() if self.reference else None,
            "same_images": None if self.belonging is None else {**vars(self.belonging), "doubtful": self.doubtful},
            "kind": self.kind.to_dict() if self.kind else None,
            "detectable": self.detectable.to_dict() if self.detectable else None,
            "scale": dict(self.scale),
            "notes": list(self.notes),
        }


def strengths(affinities: np.ndarray, sizes: np.ndarray, n: int) -> np.ndarray:
    """Strength of groups of images: (mean affinity - 1) x share of the n images."""
    return (affinities - 1.0) * sizes / n
