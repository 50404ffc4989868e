"""Do images of the concept drive the unit? AUC and mean activation difference against other images.

Symbols: x (m,) activations of a unit on images of its concept, y (n,) on control images.

    auc = P(x > y) + P(x = y) / 2,        mad = (mean x - mean y) / std y

Reference: Kopf et al., "CoSy: Evaluating Textual Explanations of Neurons", NeurIPS 2024 (arXiv 2405.20331), which
generates the images of a concept; here they are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu, norm, rankdata

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

    Parameters
    ----------
    concept : (m,) float
    control : (n,) float

    Raises
    ------
    ValueError
        NaN or infinite values.
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
