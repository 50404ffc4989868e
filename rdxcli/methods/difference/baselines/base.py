"""What all baselines share: fit on two representations, k concepts per model, nine images per concept.

Symbols: R (n, d) one representation; U (n, k) coefficients of k concepts; V (k, d) their directions.

Direction ``01`` holds the concepts of model 0 (compared with what RDX finds closer in ``a``), ``10`` those of model 1.
Baselines have no null concept: they do not look for differences, they describe each model.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.methods.difference.graph import DIRECTIONS, Direction
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.methods.difference.results import DirectionResult
from rdxcli.methods.estimator import Estimator
from rdxcli.numerics.threads import single_thread, torch_on_one_thread
from rdxcli.progress import human_count


class Baseline(Estimator):
    """Base of the baselines.

    Attributes
    ----------
    directions_ : dict of str to DirectionResult
        ``affinities`` are NaN: baselines have none.
    """

    n_clusters: int
    num_samples: int
    random_state: int

    def fit(self, R0: ArrayLike, R1: ArrayLike) -> Any:
        """Find the concepts of both models.

        Raises `ValueError` (unusable input, or a method that cannot run on it; the message says why).

        Parameters
        ----------
        R0, R1 : array-like of shapes (n, d0) and (n, d1)
        """
        pair = check_pair(R0, R1)
        n = len(pair[0])
        for name in ("n_clusters", "num_samples"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Got {name}={value!r}, expected a positive integer")
        if self.n_clusters > n:
            raise ValueError(
                f"Got n_clusters={self.n_clusters} with n={human_count(n, 'image')}, expected at most as many"
            )
        self.n_ = n
        self.notes_: list[str] = []
        self.directions_: dict[str, DirectionResult] = {}
        # Thousands of steps on small matrices: waking the threads for each costs more than the step.
        with single_thread(), torch_on_one_thread():
            self._fit(*(np.array(R, dtype=np.float64) for R in pair))
        return self

    def _fit(self, R0: np.ndarray, R1: np.ndarray) -> None:
        for model, (direction, R) in enumerate(zip(DIRECTIONS, (R0, R1), strict=True)):
            labels, samples = self._concepts(R, model)
            self._store(direction, labels, samples)

    @abstractmethod
    def _concepts(self, R: np.ndarray, model: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Labels (n,), 0 = none, 1 ... k the concepts, and the images of each concept, best first."""

    def _store(self, direction: Direction, labels: np.ndarray, samples: list[np.ndarray]) -> None:
        found = len(samples)
        if found < self.n_clusters:
            self.notes_.append(
                f"direction {direction}: found {human_count(found, 'concept')} instead of {self.n_clusters}"
            )
        self.directions_[direction] = DirectionResult(
            direction,
            labels.astype(np.int64),
            np.full(found + 1, np.nan),
            np.bincount(labels, minlength=found + 1),
            [np.empty(0, dtype=np.int64), *samples],
            np.empty(0),
        )

    def _from_coefficients(self, U: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Images with the largest entries of each column; members of a concept have it as their largest positive entry.

        Columns are not turned round: a concept is shown by its positive side only (trap T21).
        """
        count = min(self.num_samples, len(U))
        samples = [np.argsort(-U[:, c], kind="stable")[:count] for c in range(U.shape[1])]
        return np.where(U.max(axis=1) > 0, U.argmax(axis=1) + 1, 0), samples


def check_dimensions(k: int, R: np.ndarray, what: str) -> None:
    """Refuse more components than a decomposition of ``R`` can have. Raises `ValueError`."""
    if k > min(R.shape):
        raise ValueError(
            f"Got n_clusters={k} for {human_count(R.shape[0], 'image')} of "
            f"{human_count(R.shape[1], 'dimension')}: {what} finds at most "
            f"{min(R.shape)}"
        )
