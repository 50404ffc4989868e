"""Do images of the concept drive the unit? AUC and mean activation difference against other images.

Symbols: x (m,) activations of a unit on images of its concept, y (n,) on control images.

    auc = P(x > y) + P(x = y) / 2,        mad = (mean x - mean y) / std y

Reference: Kopf et al., "CoSy: Evaluating Textual Explanations of Neurons", NeurIPS 2024 (arXiv 2405.20331), which
generates the images of a concept; here they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, norm, rankdata

from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics.multiple import benjamini_hochberg

FEWEST = 3


@dataclass(frozen=True)
class ImageScore:
    """A unit on images of its concept.

    Attributes
    ----------
    auc : float
        NaN with fewer than 3 images on a side.
    low, high : float
        95 % interval (DeLong's variance on the logit scale).
    mad : float
        In standard deviations of the control images; NaN where those do not vary.
    p_value : float
        One-sided, of Mann and Whitney.
    images : int
        Of the concept.
    """

    auc: float
    low: float
    high: float
    mad: float
    p_value: float
    images: int


def image_score(concept: np.ndarray, control: np.ndarray) -> ImageScore:
    """Scores of one unit.

    Raises `ValueError` (NaN or infinite values).

    Parameters
    ----------
    concept : (m,) float
    control : (n,) float
    """
    x, y = np.asarray(concept, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Got NaN or infinite activations, expected finite numbers")
    m, n = len(x), len(y)
    nothing = float("nan")
    if min(m, n) < FEWEST:
        return ImageScore(nothing, nothing, nothing, nothing, nothing, m)
    both = rankdata(np.concatenate([x, y]))
    # share of the other side that each image exceeds
    above = (both[:m] - rankdata(x)) / n
    below = 1.0 - (both[m:] - rankdata(y)) / m
    auc = float(above.mean())
    variance = above.var(ddof=1) / m + below.var(ddof=1) / n
    bounded = min(max(auc, 0.5 / (m * n)), 1.0 - 0.5 / (m * n))
    floor = np.sqrt(1.0 / (12.0 * min(m, n))) * 2.0 * np.sqrt(bounded * (1.0 - bounded))
    half = norm.ppf(0.975) * max(np.sqrt(variance), floor if variance == 0 else 0.0) / (bounded * (1.0 - bounded))
    centre = np.log(bounded / (1.0 - bounded))
    spread = y.std(ddof=1)
    p_value = float(mannwhitneyu(x, y, alternative="greater").pvalue)
    return ImageScore(
        auc,
        float(1.0 / (1.0 + np.exp(-(centre - half)))),
        float(1.0 / (1.0 + np.exp(-(centre + half)))),
        float((x.mean() - y.mean()) / spread) if spread > 0 else nothing,
        p_value,
        m,
    )


def table_scores(
    table: ExplanationTable, activations: Any, shown: Any, labels: Sequence[str] | np.ndarray, rows: np.ndarray
) -> list[dict[str, Any]]:
    """Scores of each unit of a table for its heaviest concept that has images, with p values corrected over units.

    Parameters
    ----------
    activations, shown : (n, u) and (m, u) array-likes
        On other images, and on those of the concepts.
    labels : (m,) str
        Concept of each of these; case and underscores do not matter.
    rows : int array
        Control images among the others.

    Returns
    -------
    list of dict
        ``unit``, ``length``, ``concept``, ``images``, ``score`` (AUC), ``low``, ``high``, ``mad``, ``p_value``,
        ``q_value``; None where there are no images or nothing is defined.
    """
    place = {_plain(str(name)): np.flatnonzero(np.asarray(labels) == name) for name in dict.fromkeys(labels)}
    units = [_scored(row, activations, shown, rows, place) for row in table.rows]
    known = [i for i, unit in enumerate(units) if unit["p_value"] is not None]
    adjusted = benjamini_hochberg(np.array([units[i]["p_value"] for i in known], dtype=np.float64))
    for i, q in zip(known, adjusted, strict=True):
        units[i]["q_value"] = float(q)
    return units


def _scored(
    row: Explanation, activations: Any, shown: Any, rows: np.ndarray, place: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"unit": row.unit, "length": len(row.concepts), "concept": None, "images": 0}
    entry |= dict.fromkeys(("score", "low", "high", "mad", "p_value", "q_value"))
    positive = [name for name, weight in zip(row.concepts, row.weights, strict=True) if weight > 0]
    concept = next((name for name in positive if _plain(name) in place), None)
    if concept is None:
        return entry
    of = np.asarray(shown[place[_plain(concept)], row.unit], dtype=np.float64)
    found = image_score(of, np.asarray(activations[rows, row.unit], dtype=np.float64))
    values = {"score": found.auc, "low": found.low, "high": found.high, "mad": found.mad, "p_value": found.p_value}
    known = {name: value if np.isfinite(value) else None for name, value in values.items()}
    return {**entry, **known, "concept": concept, "images": found.images}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
