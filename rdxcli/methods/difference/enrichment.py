"""What do the images of a group share? Every group against all other images, in every property that is known of them.

Symbols: a group G of m images among the n of which a property is known; x the property.

- A number: ``difference`` is P(x in G > x outside) - P(x in G < x outside), in [-1, 1] (Cliff's delta, 2 AUC - 1); its
  interval is Newcombe's, its p-value that of the rank sum with ties (Wilcoxon, Mann and Whitney) in the normal
  approximation, which is too large in the far tail of tiny groups, never too small.
- A category: ``difference`` is the share inside minus the share outside, with Newcombe's interval; its p-value is
  Fisher's exact one.

Both differences lie on one scale, so that properties can be ordered by it. With strata (the labels of the images) a
second p-value asks the same among images of one label: of a number by the sum of ranks over strata, whose mean and
variance over all ways of drawing the group within strata are known (van Elteren), of a category by the exact
distribution of the count (Cochran, Mantel and Haenszel). All p-values of a call are corrected together (Holm).

References: Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", Statistics
in Medicine 2006 (method 5); van Elteren 1960; Mantel and Haenszel 1959.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfc

from rdxcli.methods.difference.predictions import NORMAL, fisher, hypergeometric, newcombe
from rdxcli.numerics.multiple import holm

SMALLEST = 3  # images of a category, or of a group, below which nothing is asked
MOST_VALUES = 50  # categories of one property that are asked about, the most frequent ones


@dataclass(frozen=True)
class Shared:
    """One property of one group beside all other images.

    Attributes
    ----------
    kind : {"number", "date", "category"}
    value : str or None
        The category.
    n : int
        Images of the group of which the property is known.
    inside, rest : float
        Medians (of dates: days since 1970), or shares of the category.
    difference, low, high : float
        In [-1, 1], with its interval of 95 %.
    within_labels : float or None
        Corrected p-value of the same question among images of one label; None without labels, and where it cannot be
        asked: no label has images inside and outside of the group.
    """

    group: str
    property: str
    kind: str
    value: str | None
    n: int
    inside: float
    rest: float
    difference: float
    low: float
    high: float
    p_value: float
    p_corrected: float = 1.0
    within_labels: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def enrich(
    groups: Mapping[str, ArrayLike], properties: Mapping[str, ArrayLike], strata: ArrayLike | None = None
) -> list[Shared]:
    """Test every group in every property.

    Raises `ValueError` (arrays of different lengths).

    Parameters
    ----------
    groups : mapping of str to (n,) bool
        They may overlap. Of fewer than `SMALLEST` images, or all of them, nothing is asked.
    properties : mapping of str to (n,) array
        Numbers (NaN: unknown), dates (datetime64, NaT), or text (categories; "" unknown). Of a category the
        `MOST_VALUES` most frequent values are asked about; of two values the one that the group has more often.
    strata : (n,) array of str, optional
        Labels.

    Returns
    -------
    list of Shared
        By group, largest difference first.
    """
    masks = {name: np.asarray(mask, dtype=bool) for name, mask in groups.items()}
    columns = {name: np.asarray(values) for name, values in properties.items()}
    labels = None if strata is None else np.unique(np.asarray(strata).astype(str), return_inverse=True)[1]
    lengths = {len(one) for one in (*masks.values(), *columns.values(), *(() if labels is None else (labels,)))}
    if len(lengths) > 1:
        raise ValueError(f"Got groups, properties and labels of {sorted(lengths)} images, expected one number")
    found: list[Shared] = []
    within: list[float] = []
    for name, values in columns.items():
        kind = {"M": "date", "U": "category", "S": "category", "O": "category"}.get(values.dtype.kind, "number")
        ask = _ask_category if kind == "category" else _ask_number
        for shared, p in ask(name, kind, values, masks, labels):
            found.append(shared)
            within.append(p)
    corrected = holm(np.array([one.p_value for one in found])).tolist()
    asked = np.isfinite(within) if labels is not None else np.zeros(len(found), dtype=bool)
    told = iter(holm(np.array(within)[asked]).tolist())
    done = [
        Shared(**{**asdict(one), "p_corrected": p, "within_labels": next(told) if has else None})
        for one, p, has in zip(found, corrected, asked, strict=True)
    ]
    order = {name: place for place, name in enumerate(masks)}
    return sorted(done, key=lambda one: (order[one.group], -abs(one.difference)))


def _ask_number(
    name: str, kind: str, values: np.ndarray, masks: Mapping[str, np.ndarray], labels: np.ndarray | None
) -> list[tuple[Shared, float]]:
    if kind == "date":
        x = np.where(np.isnat(values), np.nan, values.astype("datetime64[s]").astype(np.float64) / 86400.0)
    else:
        x = values.astype(np.float64)
    known = np.isfinite(x)
    x = x[known]
    if len(np.unique(x)) < 2:
        return []
    codes = None if labels is None else labels[known]
    ranks = midranks(x)
    scores = np.zeros(0) if codes is None else _ranks_within(x, codes)
    out = []
    for group, mask in masks.items():
        inside = mask[known]
        m, rest = int(inside.sum()), int((~inside).sum())
        if m < SMALLEST or rest < SMALLEST:
            continue
        auc = (float(ranks[inside].sum()) - m * (m + 1) / 2.0) / (m * rest)
        low, high = auc_interval(auc, m, rest)
        p = _drawn(ranks, inside, np.zeros(len(x), dtype=np.int64))
        within = _drawn(scores, inside, codes) if codes is not None and _mixed(inside, codes) else np.nan
        medians = float(np.median(x[inside])), float(np.median(x[~inside]))
        shared = Shared(group, name, kind, None, m, *medians, 2 * auc - 1, 2 * low - 1, 2 * high - 1, p)
        out.append((shared, within))
    return out


def _ask_category(
    name: str, kind: str, values: np.ndarray, masks: Mapping[str, np.ndarray], labels: np.ndarray | None
) -> list[tuple[Shared, float]]:
    text = values.astype(str)
    known = text != ""
    text = text[known]
    names, counts = np.unique(text, return_counts=True)
    if len(names) < 2:
        return []
    order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    asked = [str(names[i]) for i in order if counts[i] >= SMALLEST]
    codes = None if labels is None else labels[known]
    out = []
    for group, mask in masks.items():
        inside = mask[known]
        m, n = int(inside.sum()), len(text)
        if m < SMALLEST or n - m < SMALLEST:
            continue
        mine, mixed = asked, codes is not None and _mixed(inside, codes)
        if len(names) == 2:  # one question, not two
            first = np.mean(text[inside] == names[0]) - np.mean(text[~inside] == names[0])
            mine = [str(names[0] if first >= 0.0 else names[1])]
        for value in mine:
            has = text == value
            count, every = int((has & inside).sum()), int(has.sum())
            shares = count / m, (every - count) / (n - m)
            interval = newcombe(count, m, every - count, n - m)
            within = _fisher_within(has, inside, codes) if codes is not None and mixed else np.nan
            p = fisher(count, m, every, n)
            out.append((Shared(group, name, kind, value, m, *shares, shares[0] - shares[1], *interval, p), within))
    return out


def midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values share their mean rank: (n,) float64."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[place])


def _mixed(inside: np.ndarray, codes: np.ndarray) -> bool:
    """Whether some stratum has images inside and outside of the group."""
    return len(np.intersect1d(codes[inside], codes[~inside])) > 0


def _ranks_within(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Ranks among the images of one label, divided by their number and 1 (van Elteren's weights)."""
    scores = np.zeros(len(values))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        scores[rows] = midranks(values[rows]) / (len(rows) + 1.0)
    return scores


def _drawn(scores: np.ndarray, inside: np.ndarray, codes: np.ndarray) -> float:
    """Two-sided p-value of the sum of scores in the group, drawn at random within each stratum."""
    count = int(codes.max()) + 1
    size, taken = np.bincount(codes, minlength=count), np.bincount(codes[inside], minlength=count)
    total, squares = (np.bincount(codes, weights=scores**power, minlength=count) for power in (1, 2))
    here = size > 1
    mean = total[here] / size[here]
    spread = np.maximum(squares[here] / size[here] - mean**2, 0.0) * size[here] / (size[here] - 1.0)
    variance = float((taken[here] * (size[here] - taken[here]) / size[here] * spread).sum())
    observed = float(np.bincount(codes[inside], weights=scores[inside], minlength=count)[here].sum())
    if variance <= 1e-12 * max(1.0, float(squares.sum())):
        return 1.0
    return float(erfc(abs(observed - float((taken[here] * mean).sum())) / np.sqrt(2.0 * variance)))


def _fisher_within(has: np.ndarray, inside: np.ndarray, codes: np.ndarray) -> float:
    """Exact two-sided p-value of the number of marked images in a group that is drawn at random within each stratum."""
    count = int(codes.max()) + 1
    size, taken, marked = (np.bincount(codes[one], minlength=count) for one in (codes >= 0, inside, has))
    mass, first = np.ones(1), 0
    for n, m, every in zip(size.tolist(), taken.tolist(), marked.tolist(), strict=True):
        low, high = max(0, m + every - n), min(m, every)
        first += low
        if high > low:
            mass = np.convolve(mass, hypergeometric(np.arange(low, high + 1), m, every, n))
    observed = int((has & inside).sum()) - first
    return min(1.0, float(mass[mass <= mass[observed] * (1.0 + 1e-7)].sum()))


def auc_interval(auc: float, m: int, rest: int) -> tuple[float, float]:
    """The 95 % interval of P(inside > rest): all values that are less than 1.96 of their own standard errors away."""
    size = (m + rest) / 2.0 - 1.0

    def too_far(value: float) -> bool:
        spread = 1.0 + size * ((1.0 - value) / (2.0 - value) + value / (1.0 + value))
        return abs(auc - value) > NORMAL * float(np.sqrt(value * (1.0 - value) * spread / (m * rest)))

    ends = []
    for end in (0.0, 1.0):
        near, far = auc, end
        for _ in range(40):
            middle = (near + far) / 2.0
            near, far = (near, middle) if too_far(middle) else (middle, far)
        ends.append((near + far) / 2.0)
    return ends[0], ends[1]
