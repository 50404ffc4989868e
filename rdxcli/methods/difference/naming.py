"""Names for groups of images: words that fit the images of a group more than all other images.

Symbols: I (n, d) unit image embeddings; T (w, d) unit text embeddings of one vision-language model; S = I T' (n, w)
cosines, never held whole. For a group G of m images and a word j

- margin  = mean of S over G minus its mean over the rest;
- effect  = margin / standard deviation within the two parts (Cohen's d), which words of any variance share;
- p-value = share of random groups of m images whose *best* word has an effect (standardised by the deviation over all
  images) at least as large: it accounts for the number of words searched (Westfall and Young, 1993, max-T), and times
  the number of groups (Bonferroni).

Because S is bilinear, the mean of S over a group is the mean embedding of the group times T: a permutation costs
O(m d + d w), not O(n w).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.neurons.concepts import unit_rows
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

LARGE_EFFECT = 0.8
"""Cohen's (1988) large effect: below it no name is clear, however significant."""

LEVEL = 0.05
PERMUTATIONS = 999
MOST_DRAWN = 2000
AT_ONCE = 64  # permuted groups whose means are held together


@dataclass(frozen=True)
class Name:
    """A word (or caption) and how well it fits a group.

    Attributes
    ----------
    margin : float
        Mean cosine with the group's images minus the mean with all others.
    effect : float
        The margin in standard deviations within the group and the rest.
    p_value : float
        See the module; already multiplied by the number of tests.
    clear : bool
        ``p_value`` at most `LEVEL` and ``effect`` at least the least effect asked for.
    """

    word: str
    margin: float
    effect: float
    p_value: float
    clear: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return asdict(self)


def name_groups(
    images: ArrayLike,
    texts: ArrayLike,
    words: Sequence[str],
    groups: Mapping[str, ArrayLike],
    *,
    top: int = 5,
    permutations: int = PERMUTATIONS,
    least_effect: float = LARGE_EFFECT,
    tests: int | None = None,
    random_state: int = 0,
) -> dict[str, list[Name]]:
    """Rank words for each group of images.

    Raises `ValueError` (nothing to name, different widths or lengths, NaN, rows out of range).

    Parameters
    ----------
    images : (n, d) array
        Image embeddings, not necessarily normalised.
    texts : (w, d) array
        Text embeddings of the same model.
    groups : mapping of name to rows
        Groups may overlap. A group's result depends on its name and rows and on the number of groups, on nothing else.
    top : int
        Words kept per group.
    permutations : int
        Random groups per group; raised where there are so many tests that Bonferroni leaves no p-value below `LEVEL`.
    tests : int, optional
        What p-values are multiplied by; the number of groups when not given.

    Returns
    -------
    dict of group name to list of `Name`, largest effect first
        Empty for a group without images, with all images, or of a single image.
    """
    unit_images, unit_texts = unit_rows(images, "image embeddings"), unit_rows(texts, "text embeddings")
    n, tests = len(unit_images), len(groups) if tests is None else tests
    if not n or not len(unit_texts):
        raise ValueError(
            f"Got {n} image and {human_count(len(unit_texts), 'text embedding')}, expected at least one of each"
        )
    if unit_images.shape[1] != unit_texts.shape[1]:
        raise ValueError(
            f"Got image embeddings of width {unit_images.shape[1]} and text embeddings of width "
            f"{unit_texts.shape[1]}, expected the same model"
        )
    if len(words) != len(unit_texts):
        raise ValueError(
            f"Got {human_count(len(words), 'word')} and "
            f"{human_count(len(unit_texts), 'text embedding')}, expected one each"
        )
    if permutations < 1 or top < 1:
        raise ValueError(f"Got permutations={permutations} and top={top}, expected at least 1")
    enough = max(permutations, int(np.ceil(2 * tests / LEVEL)) - 1)
    centre = unit_images.mean(axis=0)
    centred = unit_images - centre
    deviation = _deviation(centred, unit_texts)
    names: dict[str, list[Name]] = {}
    for key, given in groups.items():
        rows = np.unique(np.asarray(given, dtype=np.int64))
        if rows.size and (rows[0] < 0 or rows[-1] >= n):
            raise ValueError(f"Group {key!r}: got rows from {rows[0]} to {rows[-1]}, expected 0..{n - 1}")
        if rows.size < 2 or rows.size == n:
            names[key] = []
            continue
        rng = generator(random_state, "names", key)
        names[key] = _rank(centred, unit_texts, words, deviation, rows, top, enough, least_effect, tests, rng)
    return names


def _rank(
    centred: np.ndarray,
    texts: np.ndarray,
    words: Sequence[str],
    deviation: np.ndarray,
    rows: np.ndarray,
    top: int,
    permutations: int,
    least_effect: float,
    tests: int,
    rng: np.random.Generator,
) -> list[Name]:
    n, m = len(centred), len(rows)
    rest = n / (n - m)  # mean of the group minus mean of the rest, when the mean of all is zero
    usable = deviation > 1e-9
    scale = np.where(usable, deviation, 1.0)

    def standardised(means: np.ndarray) -> np.ndarray:
        return np.where(usable, rest * (means @ texts.T) / scale, 0.0)

    margin = rest * (texts @ centred[rows].mean(axis=0))
    observed = np.where(usable, margin / scale, 0.0)
    best = np.concatenate(
        [
            standardised(_random_means(centred, m, min(AT_ONCE, permutations - start), rng)).max(axis=1)
            for start in range(0, permutations, AT_ONCE)
        ]
    )
    share = m / n
    within = np.sqrt(np.maximum(deviation**2 - share * (1 - share) * margin**2, 1e-6 * scale**2))
    effect = np.where(usable, margin / within, 0.0)
    order = np.argsort(-effect, kind="stable")[:top]
    found = []
    for j in order:
        p = min(1.0, tests * (1 + int((best >= observed[j] - 1e-12).sum())) / (permutations + 1))
        clear = bool(p <= LEVEL and effect[j] >= least_effect)
        found.append(Name(str(words[j]), float(margin[j]), float(effect[j]), p, clear))
    return found


def _random_means(centred: np.ndarray, m: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mean rows of random groups of m, shape (count, d).

    The smaller of a group and its complement is summed (all rows sum to zero). Of more than `MOST_DRAWN` rows that many
    stand for all, their mean scaled to the variance of the mean of m rows drawn without replacement.
    """
    n = len(centred)
    small = min(m, n - m)
    drawn = min(small, MOST_DRAWN)
    scale = np.sqrt((1 / m - 1 / n) / (1 / drawn - 1 / n)) * (1 if small == m else -1)
    rows = (rng.choice(n, drawn, replace=False, shuffle=False) for _ in range(count))
    return np.stack([centred[chosen].mean(axis=0) for chosen in rows]) * scale


def _deviation(centred: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Standard deviation of each word's cosines over all images, from the d x d second moments: shape (w,)."""
    moments = centred.T @ centred / len(centred)
    return np.asarray(np.sqrt(np.maximum(np.einsum("wd,de,we->w", texts, moments, texts, optimize=True), 0.0)))
