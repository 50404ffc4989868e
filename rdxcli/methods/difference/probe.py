"""Which classes can a linear classifier read from each representation, and where do the two disagree?

Reference: specification of RDX, section 5.4.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import sklearn
from rdxcli.methods.difference.inputs import check_pair
from rdxcli.numerics.seeding import integer_seed
from rdxcli.progress import human_count


@dataclass(frozen=True)
class Probe:
    """Cross-validated logistic regression on each representation.

    Attributes
    ----------
    classes : (c,) array
    predictions : (r, n) int64
        Out-of-fold predictions as positions in ``classes``, one row per representation.
    accuracy : (r, folds) float64
    agreement : (folds,) float64
        Share of the test images that get the same class from the first two representations.
    """

    classes: np.ndarray
    predictions: np.ndarray
    accuracy: np.ndarray
    agreement: np.ndarray


def classification_probe(
    R0: ArrayLike,
    R1: ArrayLike,
    labels: ArrayLike,
    *,
    mapped: tuple[ArrayLike, ArrayLike] | None = None,
    folds: int = 5,
    random_state: int = 0,
    published_split: bool = False,
) -> Probe:
    """Fit the probe.

    Raises `ValueError` (unusable input, fewer than two classes, or fewer images than folds).

    Parameters
    ----------
    R0, R1 : array-like of shapes (n, d0) and (n, d1)
    labels : (n,) array-like
    mapped : two array-likes of n rows, optional
        Mapped representations, which give rows 2 and 3.
    folds : int, default 5
    random_state : int, default 0
    published_split : bool, default False
        Use seed 0 for the folds whatever ``random_state`` is, as the original does (trap T11).

    Notes
    -----
    Features are used as they are and the solver stops after 100 iterations (the library's default), so that the numbers
    are those of the original. Each classifier is fed the representation it was trained on, also the mapped ones
    (the original feeds unmapped features to the mapped classifiers, trap T11).
    """
    R0, R1 = check_pair(R0, R1)
    classes, y = np.unique(np.asarray(labels), return_inverse=True)
    n = len(R0)
    if len(y) != n:
        raise ValueError(f"Got {human_count(len(y), 'label')} for {human_count(n, 'image')}, expected one each")
    if len(classes) < 2:
        raise ValueError(f"Got {len(classes)} class, expected at least two for a classifier")
    if not 2 <= folds <= n:
        raise ValueError(f"Got folds={folds} with n={human_count(n, 'image')}, expected between 2 and n")
    every = [R0, R1, *(np.asarray(values) for values in mapped or ())]
    seed = 0 if published_split else integer_seed(random_state, "probe")
    predictions = np.zeros((len(every), n), dtype=np.int64)
    accuracy = np.zeros((len(every), folds))
    agreement = np.zeros(folds)
    with warnings.catch_warnings():
        # the limit of 100 iterations is part of the definition
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        parts = sklearn.model_selection.KFold(folds, shuffle=True, random_state=seed).split(R0)
        for fold, (train, test) in enumerate(parts):
            if len(np.unique(y[train])) < 2:
                raise ValueError(
                    f"Got one class only in {human_count(len(train), 'training image')}, expected at least two"
                )
            for row, values in enumerate(every):
                model = sklearn.linear_model.LogisticRegression(random_state=0).fit(values[train], y[train])
                predictions[row, test] = model.predict(values[test])
                accuracy[row, fold] = (predictions[row, test] == y[test]).mean()
            agreement[fold] = (predictions[0, test] == predictions[1, test]).mean()
    return Probe(classes, predictions, accuracy, agreement)
