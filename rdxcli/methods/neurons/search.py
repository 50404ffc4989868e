"""Which units respond to this? One number per image, from a word, an image or a class, against all units of a layer.

Symbols: q (n,) how much each image shows what is asked for; A (n, u) activations; B random orders of the images.

    r = corr(q, a),      p = (1 + #{b: corr(q, a in order b) >= r}) / (1 + B), corrected over the units
    auc: the probability that one of the `top_share` images that show it most activates the unit more than another image

Both are on the scale of the other methods of this room; nothing is fitted, so all images count.

References: search by text and by image as in SemanticLens (Dreyer et al. 2025, arXiv 2501.05398), which compares with
the strongest images of a unit; here all images count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.base import BaseEstimator

from rdxcli.methods.neurons.chance import Chance, against_shuffled
from rdxcli.methods.neurons.scores import Interval, correlation_interval, pearson
from rdxcli.numerics.moments import check_source, read_columns
from rdxcli.parameters import Count, Share
from rdxcli.progress import human_count


class UnitSearch(BaseEstimator):
    """The units that respond to what is asked for.

    Parameters
    ----------
    top_share : float
        Images that count as showing it, for ``auc_`` (0.05).
    orders : int
        Random orders of the images (999).

    Attributes
    ----------
    scores_ : (u,) float64
        Correlation with each unit; NaN where either does not vary.
    auc_ : (u,) float64
    order_ : (u,) int64
        Units by correlation, largest first, undefined ones last.
    """

    def __init__(self, *, top_share: Share = 0.05, orders: Count = 999, random_state: int = 0) -> None:
        self.top_share, self.orders, self.random_state = top_share, orders, random_state

    def fit(self, query: Sequence[float] | np.ndarray, activations: Any) -> UnitSearch:
        """Compare with all units.

        Raises `ValueError` (shapes that do not fit, NaN, a query that is equal for all images, or fewer than 8 images).

        Parameters
        ----------
        query : (n,) float
        activations : row source (n, u)
        """
        A = check_source(activations, "activations")
        q = np.asarray(query, dtype=np.float64)
        n = A.shape[0]
        if q.shape != (n,):
            raise ValueError(
                f"Got a query of shape {q.shape}, expected one number for each of {human_count(n, 'image')}"
            )
        if n < 8 or not np.isfinite(q).all() or np.ptp(q) == 0:
            raise ValueError("Got a query that is no number or equal for all images, or fewer than 8 images")
        values = read_columns(A, np.arange(n), np.arange(A.shape[1]), "activations")
        repeated = np.repeat(q[:, None], A.shape[1], axis=1)
        self.scores_ = pearson(repeated, values)
        self.interval_: Interval = correlation_interval(repeated, values)
        self.chance_: Chance = against_shuffled(
            self.scores_, values, q[:, None], orders=self.orders, random_state=self.random_state
        )
        count = max(1, round(self.top_share * n))
        shown = np.argsort(-q, kind="stable")[:count]
        ranks = rankdata(values, axis=0)
        self.auc_ = (ranks[shown].sum(axis=0) / count - (count + 1) / 2) / (n - count)
        self.order_ = np.argsort(-np.nan_to_num(self.scores_, nan=-np.inf), kind="stable")
        return self
