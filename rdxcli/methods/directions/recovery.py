"""How well found directions agree with known ones (synthetic data only).

Scores are those of SPEC section 12: ``enc``, ``dec`` mean |cos| under the best one-to-one match; ``dec_span`` the
same after projecting found filters on the span of ``[S | B]`` (what data without noise can see); ``corr`` mean
best-match |Pearson r| of filter outputs with signal values; ``iou`` mean matched and ``iou_off`` mean unmatched IoU
of detections with owners; ``rmse`` root mean square error of signal values relative to their mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from rdxcli.progress import human_count

from .base import Directions
from .signals import signal_values


@dataclass(frozen=True)
class Recovery:
    """Scores of one set of directions; ``iou_off`` and ``rmse`` are better when lower, the others when higher."""

    enc: float
    dec: float
    dec_span: float
    corr: float
    iou: float
    iou_off: float
    rmse: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def match_columns(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean |cos| of the columns of ``truth`` (D, I) with their match in ``found`` (D, J), 0 for one without."""
    cosines = np.abs(_unit(truth).T @ _unit(found))
    rows, columns = linear_sum_assignment(-cosines)
    return float(cosines[rows, columns].sum() / truth.shape[1])


def _unit(columns: np.ndarray) -> np.ndarray:
    return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)


def _by_position(maps: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(maps), 1, -1).reshape(-1, maps.shape[1])


def value_correlation(filters: np.ndarray, X: np.ndarray, values: np.ndarray) -> float:
    """Mean best-match |Pearson r| of filter outputs with signal values.

    Parameters
    ----------
    filters : ndarray, shape (D, J)
    X : ndarray, shape (N, D, H, W)
    values : ndarray, shape (N, I, H, W)
    """
    z, a = _by_position(X) @ filters, _by_position(values).astype(np.float64)
    z, a = z - z.mean(0), a - a.mean(0)
    r = np.abs(a.T @ z) / np.maximum(np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(z, axis=0)), 1e-12)
    rows, columns = linear_sum_assignment(-r)
    return float(r[rows, columns].sum() / a.shape[1])


def recovery(
    found: Directions,
    X: np.ndarray,
    values: np.ndarray,
    owner: np.ndarray,
    S: np.ndarray,
    B: np.ndarray,
    W: np.ndarray,
    is_test: np.ndarray,
) -> Recovery:
    """Score directions against the truth.

    Parameters
    ----------
    found : Directions
        As many as there are concepts.
    X, values, owner : ndarray
        Features (N, D, H, W), signal values (N, I, H, W) and owners (N, H, W).
    S, B, W : ndarray, shape (D, I), (D, F), (D, I)
        Encoding directions, distractors and decoding directions.
    is_test : ndarray of bool, shape (N,)
        Images on which detections and signal values are scored.
    """
    n_detectors = S.shape[1]
    if len(found.decoding_) != n_detectors:
        raise ValueError(
            f"Got {human_count(len(found.decoding_), 'direction')}, expected {n_detectors}, one per concept"
        )
    filters, signals = found.decoding_.T, found.encoding_.T
    Q = np.linalg.qr(np.hstack([S, B]))[0]
    active = _by_position(found.detect(X[is_test]))
    owned = owner[is_test].reshape(-1)[:, None] == np.arange(n_detectors)
    both = active.T.astype(np.int64) @ owned
    iou = both / np.maximum(active.sum(0)[:, None] + owned.sum(0) - both, 1)
    rows, columns = linear_sum_assignment(-iou)
    match = rows[np.argsort(columns)]
    read = signal_values(_by_position(X[is_test]), found.decoding_[match], found.encoding_[match])
    truth = _by_position(values[is_test])
    return Recovery(
        enc=match_columns(signals, S),
        dec=match_columns(filters, W),
        dec_span=match_columns(Q @ (Q.T @ filters), W),
        corr=value_correlation(filters, X, values),
        iou=float(iou[rows, columns].mean()),
        iou_off=float((iou.sum() - iou[rows, columns].sum()) / max(iou.size - n_detectors, 1)),
        rmse=float(np.sqrt(((read - (truth - truth.mean(0))) ** 2).mean())),
    )
