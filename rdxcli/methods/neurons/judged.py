"""Explanations that predict activations, judged on rows that their fit has not seen, beside what chance reaches."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.neurons.chance import Chance, against_shuffled
from rdxcli.methods.neurons.scores import Interval, correlation_interval, pearson
from rdxcli.numerics.moments import check_rows, check_source, read_columns


class Judged(Estimator):
    """What estimators share that explain units, and shuffled units by the same search.

    Attributes
    ----------
    units_ : (m,) int64
    """

    units_: np.ndarray
    n_shuffled: int
    random_state: int

    @abstractmethod
    def _predicted(self, concepts: Any, rows: np.ndarray, shuffled: bool) -> np.ndarray:
        """Predictions by the explanations of the units, or of the shuffled units: (rows, units)."""

    def score_rows(
        self, concepts: Any, activations: Any, rows: Any, *, confidence: float = 0.95
    ) -> tuple[np.ndarray, Interval]:
        """Correlation of predicted and true activations on other rows, with intervals.

        Parameters
        ----------
        concepts, activations : row sources (n, c) and (n, u)

        Returns
        -------
        scores : (m,) float64
            NaN for units that are constant or predicted as constant.
        interval : Interval
            See `rdxcli.methods.neurons.scores.correlation_interval`.
        """
        predictions, truth, _ = self._on(concepts, activations, rows)
        return pearson(predictions, truth), correlation_interval(predictions, truth, confidence=confidence)

    def chance(self, concepts: Any, activations: Any, rows: Any) -> Chance:
        """How often shuffled activations are predicted as well as each unit is, on rows that the fit did not see.

        The shuffled units of `fit` were explained by the same search. Their explanations are scored against each unit's
        own activations in random order on ``rows``: what a unit that has nothing to do with the images would reach.
        Corrected over units by Benjamini and Hochberg's procedure. Raises `ValueError` (``n_shuffled`` is 0).

        Parameters
        ----------
        concepts, activations : row sources (n, c) and (n, u)
        rows : int array or mask
            Disjoint from training and validation.
        """
        if not self.n_shuffled:
            raise ValueError("Got n_shuffled=0, so that there is nothing to compare with")
        predictions, truth, chosen = self._on(concepts, activations, rows)
        shuffled = self._predicted(concepts, chosen, True)
        return against_shuffled(pearson(predictions, truth), truth, shuffled, random_state=self.random_state)

    def _on(self, concepts: Any, activations: Any, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        A = check_source(activations, "activations")
        chosen = check_rows(rows, A.shape[0], "rows")
        return self._predicted(concepts, chosen, False), read_columns(A, chosen, self.units_, "activations"), chosen
