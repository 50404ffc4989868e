"""Free text for units: which of some proposals, captions of a unit's strongest images, fits its activations best.

Symbols: s_t (n,) likeness of text t to each image by a vision-language model, a_k activations of unit k, T_k proposals
of unit k, E_k the images that they were written about.

    text of unit k = argmax over t in T_k of corr(s_t, a_k) over the training and validation rows without E_k

A caption tells of one image, so the rows that choose are others: a proposal must say what the strongest images share.

References: Hernandez et al., "Natural Language Descriptions of Deep Visual Features" (MILAN), ICLR 2022; Bai et al.,
"Describe-and-Dissect", TMLR 2025 (arXiv 2403.13771), which proposes captions and scores them by generated images. No
code of theirs is used: here real images that the captions were not written about are the judge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from rdxcli.methods.neurons.chance import Shuffled
from rdxcli.methods.neurons.judged import Judged
from rdxcli.methods.neurons.preparation import check_inputs, check_split
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics.moments import blocks, check_source, read, read_columns
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

PHRASE_WORDS = 3
_EMPTY = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "some",
        "any",
        "no",
        "of",
        "in",
        "on",
        "at",
        "by",
        "to",
        "from",
        "with",
        "without",
        "for",
        "and",
        "or",
        "but",
        "as",
        "it",
        "its",
        "is",
        "are",
        "was",
        "be",
        "been",
        "being",
        "has",
        "have",
        "his",
        "her",
        "their",
        "them",
        "there",
        "here",
        "one",
        "two",
        "three",
        "very",
        "large",
        "small",
        "photo",
        "picture",
        "image",
        "images",
        "showing",
        "shows",
        "seen",
        "view",
        "front",
        "back",
        "top",
        "next",
        "near",
        "up",
        "down",
        "over",
        "under",
        "into",
        "out",
    ]
)


def shared_phrases(captions: Sequence[Sequence[str]], most: int = 20) -> list[str]:
    """Phrases of one to three words that the captions of several images share, those of most images first.

    A phrase neither begins nor ends with a word that says nothing, and is left out where a longer one is shared by as
    many images. English stop words; captions of other languages give phrases with theirs. `captions`: captions of each
    image.
    """
    seen: Counter[str] = Counter()
    for texts in captions:
        own = set()
        for text in texts:
            words = re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.casefold())
            for size in range(1, PHRASE_WORDS + 1):
                for start in range(len(words) - size + 1):
                    part = words[start : start + size]
                    if part[0] not in _EMPTY and part[-1] not in _EMPTY:
                        own.add(" ".join(part))
        seen.update(own)
    shared = [(count, phrase) for phrase, count in seen.items() if count > 1]
    kept = [
        (count, phrase)
        for count, phrase in shared
        if not any(more >= count and phrase != longer and f" {phrase} " in f" {longer} " for more, longer in shared)
    ]
    kept.sort(key=lambda one: (-one[0], -len(one[1]), one[1]))
    return [phrase for _, phrase in kept[:most]]


class UnitDescriptions(Judged):
    """The proposal that fits each unit best.

    Parameters
    ----------
    n_shuffled : int
        Shuffled units that choose among the proposals of some unit each, for `chance` (200); 0 for none.

    Attributes
    ----------
    units_ : (m,) int64
    best_ : (m,) int64
        Column of each unit's text; -1 where nothing is proposed (the status is ``no proposal``) or no proposal
        correlates with it (``no concept``).
    val_correlation_ : (m,) float64
        On the rows that chose.
    shuffled_ : (n_shuffled,) int64
        Columns that shuffled units chose.
    """

    def __init__(self, *, n_shuffled: Annotated[int, Ge(0)] = 200, random_state: int = 0) -> None:
        self.n_shuffled, self.random_state = n_shuffled, random_state

    def fit(
        self,
        concepts: Any,
        activations: Any,
        *,
        train: Any,
        val: Any,
        proposals: Sequence[np.ndarray],
        shown: Sequence[np.ndarray],
        concept_names: Sequence[str] | None = None,
        units: Sequence[int] | np.ndarray | None = None,
        stored: MutableMapping[str, Any] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> UnitDescriptions:
        """Choose.

        Raises `ValueError` (shapes that do not fit, NaN, parts that overlap).

        Parameters
        ----------
        concepts : row source (n, t)
            Likeness of every text to every image.
        activations : row source (n, u)
        train, val : int arrays or masks
            Disjoint; both choose.
        proposals : sequence of m int arrays
            Columns of ``concepts`` that are proposed for each unit; may be empty.
        shown : sequence of m int arrays
            Rows that these were written about, which do not choose for this unit.
        concept_names : sequence of str, length t, optional
        stored : ignored
            One pass over the rows is cheaper than the embeddings that it reads.
        advance : callable, optional
            Called with the number of units at the end.
        """
        P, A, names, self.units_ = check_inputs(concepts, activations, concept_names, units)
        n, t = P.shape
        m = len(self.units_)
        if len(proposals) != m or len(shown) != m:
            raise ValueError(
                f"Got proposals for {len(proposals)} and images for {len(shown)} of {human_count(m, 'unit')}"
            )
        train_rows, val_rows, _ = check_split(train, val, None, n)
        rows = np.sort(np.concatenate([train_rows, val_rows]))
        both = Shuffled.of(A, np.arange(A.shape[1]), (train_rows, val_rows), self.n_shuffled, self.random_state)
        proposing = [i for i in range(m) if len(proposals[i])]
        rng = generator(self.random_state, "proposals", m)
        borrowed = rng.choice(proposing, self.n_shuffled) if proposing else np.zeros(0, dtype=np.int64)
        of = [*range(m), *borrowed.tolist()]  # whose proposals each unit and shuffled unit has
        wanted = np.concatenate([self.units_, A.shape[1] + np.arange(len(borrowed))])
        sums = [_Sums(np.asarray(proposals[i], dtype=np.int64), np.asarray(shown[i], dtype=np.int64)) for i in of]
        centre = read_columns(both, rows[:1], wanted, "activations")[0]
        for part in blocks(rows, max(t, A.shape[1])):
            likeness, active = read(P, part, "concepts"), read(both, part, "activations", wanted) - centre
            for column, one in enumerate(sums):
                one.add(likeness, active[:, column], part)
        chosen = [one.best() for one in sums]
        self.best_ = np.array([k for k, _ in chosen[:m]], dtype=np.int64)
        self.shuffled_ = np.array([k for k, _ in chosen[m:]], dtype=np.int64)
        self.val_correlation_ = np.array([r for _, r in chosen[:m]])
        self.explanations_ = []
        for i, unit in enumerate(self.units_.tolist()):
            column = int(self.best_[i])
            nothing = "no proposal" if not len(proposals[i]) else "no concept"
            self.explanations_.append(
                Explanation(
                    unit,
                    (names[column],) if column >= 0 else (),
                    (1.0,) if column >= 0 else (),
                    0.0,
                    "",
                    {"val correlation": float(self.val_correlation_[i]) if column >= 0 else None},
                    "explained" if column >= 0 else nothing,
                )
            )
        self.notes_: list[str] = []
        without = [row.unit for row in self.explanations_ if row.status == "no proposal"]
        if without:
            self.notes_.append(
                f"nothing is proposed for {human_count(len(without), 'unit')}: {', '.join(map(str, without[:10]))}"
            )
        if advance is not None:
            advance(m)
        return self

    def table(self, layer: str = "") -> ExplanationTable:
        """The texts as a table ``layer, unit, description``, as MILAN's are."""
        return ExplanationTable.of_layer("description", self.explanations_, 1, self.notes_, layer)

    def _predicted(self, concepts: Any, rows: np.ndarray, shuffled: bool) -> np.ndarray:
        picked = self.shuffled_ if shuffled else self.best_
        used = np.unique(picked[picked >= 0])
        values = read_columns(check_source(concepts, "concepts"), rows, used, "concepts")
        out = np.zeros((len(rows), len(picked)))
        out[:, picked >= 0] = values[:, np.searchsorted(used, picked[picked >= 0])]
        return out


class _Sums:
    """Sums of one unit and its proposals over rows, for correlations."""

    def __init__(self, columns: np.ndarray, left_out: np.ndarray) -> None:
        self.columns, self.left_out = columns, left_out
        self.n, self.y, self.yy = 0, 0.0, 0.0
        self.x, self.xx, self.xy = (np.zeros(len(columns)) for _ in range(3))

    def add(self, likeness: np.ndarray, active: np.ndarray, rows: np.ndarray) -> None:
        x, keep = likeness[:, self.columns], ~np.isin(rows, self.left_out)
        if not keep.all():
            x, active = x[keep], active[keep]
        self.n += len(active)
        self.y += float(active.sum())
        self.yy += float(active @ active)
        self.x += x.sum(axis=0)
        self.xx += (x * x).sum(axis=0)
        self.xy += x.T @ active

    def best(self) -> tuple[int, float]:
        """Column of the largest correlation, and that; -1 where none is positive."""
        n = max(self.n, 1)
        spread = (self.xx - self.x**2 / n) * max(self.yy - self.y**2 / n, 0.0)
        usable = (self.xx - self.x**2 / n > 1e-10 * self.xx) & (self.yy - self.y**2 / n > 1e-12 * max(self.yy, 1e-300))
        r = np.divide(self.xy - self.x * self.y / n, np.sqrt(np.abs(spread)), out=np.full(len(self.x), -np.inf),
                      where=usable & (spread > 0))  # fmt: skip
        if not (r > 0).any():
            return -1, 0.0
        place = int(np.argmax(r))
        return int(self.columns[place]), float(r[place])
