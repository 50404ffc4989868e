"""Names for directions: concept masks (intersection over union) and words of a vision-language model.

Masks (Network Dissection's protocol; EDDP, section 5.2). Symbols: ``phi(i, c)`` IoU over a whole split, intersections
and unions summed over all images before dividing; label ``c_i = argmax_c phi(i, c)`` on the training split; a
detector is interpretable when ``phi(i, c_i) >= 0.04`` on the validation split; ``S1 = sum_i phi(i, c_i)``; ``S2 = sum
over labels of max_i phi(i, c)``.

Words: a direction is described by the words whose image-text scores go up and down with its activation over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdxcli.numerics.seeding import generator

from .base import Array

INTERPRETABLE = 0.04
"""Smallest IoU at which a label counts (EDDP, appendix G)."""


@dataclass(frozen=True)
class Overlaps:
    """Counts of positions, summed over images.

    Attributes
    ----------
    both : ndarray of int, shape (I, C)
        Detector i fires and concept c is there.
    fired : ndarray of int, shape (I, C)
        Detector i fires, in images annotated for concept c.
    there : ndarray of int, shape (C,)
        Concept c is there.
    """

    both: Array
    fired: Array
    there: Array

    @property
    def iou(self) -> Array:
        """Intersection over union (I, C), 0 where the union is empty."""
        return self.both / np.maximum(self.fired + self.there - self.both, 1)

    @property
    def precision(self) -> Array:
        """(I, C), 0 for a detector that never fires."""
        return self.both / np.maximum(self.fired, 1)

    @property
    def recall(self) -> Array:
        """(I, C), 0 for a concept that never occurs."""
        return self.both / np.maximum(self.there, 1)


def overlaps(
    responses: Array,
    masks: Array,
    n_concepts: int | None = None,
    *,
    annotated: Array | None = None,
    ignore: int | None = None,
    resolution: str = "masks",
    groups: Sequence[Sequence[int]] | None = None,
) -> Overlaps:
    """Count where detectors and concepts agree.

    Parameters
    ----------
    responses : ndarray, shape (N, I, h, w)
        Positive where a detector fires, see `base.Directions.responses`.
    masks : ndarray
        Either labels, integers (N, H, W) from 0 to ``n_concepts - 1``, or booleans (N, C, H, W) when concepts may
        overlap.
    n_concepts : int, optional
        Needed with labels; default is the largest label plus 1.
    annotated : ndarray of bool, shape (N, C), optional
        Images that were annotated for a concept; others do not count for it.
    ignore : int, optional
        Label of pixels that count for nothing (unlabelled).
    resolution : "masks" or "features"
        Scale responses up to the masks (bilinear) or masks down to the responses (the most frequent label, or more
        than half).
    groups : sequence of sequences of int, optional
        Join detectors by "any fires"; the result then has one row per group.

    Returns
    -------
    Overlaps
    """
    responses, masks = np.asarray(responses), np.asarray(masks)
    if responses.ndim != 4 or len(responses) != len(masks) or masks.ndim not in (3, 4):
        raise ValueError(
            f"Got responses {responses.shape} and masks {masks.shape}, "
            "expected (N, I, h, w) and (N, H, W) or (N, C, H, W)"
        )
    if masks.ndim == 3 and not np.issubdtype(masks.dtype, np.integer):
        raise ValueError(f"Got label masks of type {masks.dtype}, expected integers")
    if resolution not in ("masks", "features"):
        raise ValueError(f"Got resolution={resolution!r}, expected 'masks' or 'features'")
    if masks.ndim == 4:
        n_concepts = masks.shape[1]
    else:
        seen = masks if ignore is None else masks[masks != ignore]
        n_concepts = int(seen.max(initial=0)) + 1 if n_concepts is None else n_concepts
        if seen.size and (seen.min() < 0 or seen.max() >= n_concepts):
            raise ValueError(f"Got labels from {seen.min()} to {seen.max()}, expected 0 to {n_concepts - 1}")
    if annotated is not None and np.shape(annotated) != (len(masks), n_concepts):
        raise ValueError(f"Got annotated of shape {np.shape(annotated)}, expected ({len(masks)}, {n_concepts})")
    n_detectors = responses.shape[1] if groups is None else len(groups)
    both, fired, there = np.zeros((n_detectors, n_concepts)), np.zeros((n_detectors, n_concepts)), np.zeros(n_concepts)
    for n in range(len(masks)):
        present, counts = _concepts(
            masks[n], n_concepts, ignore, responses.shape[2:] if resolution == "features" else None
        )
        active = _fires(responses[n], present.shape[1:])
        if groups is not None:
            active = torch.stack([active[list(group)].any(0) for group in groups])
        active = (active & counts).flatten(1).double()
        known = np.ones(n_concepts) if annotated is None else np.asarray(annotated[n], dtype=float)
        present = present.flatten(1).double()
        both += (active @ present.T).numpy() * known
        fired += active.sum(1).numpy()[:, None] * known
        there += present.sum(1).numpy() * known
    return Overlaps(both.astype(np.int64), fired.astype(np.int64), there.astype(np.int64))


def _fires(responses: Array, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Where detectors (I, h, w) fire, at another size."""
    maps = torch.as_tensor(responses, dtype=torch.float32)
    if maps.shape[1:] != torch.Size(size):
        maps = interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
    return maps > 0


def _concepts(mask: Array, n_concepts: int, ignore: int | None, size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Booleans (C, H, W) of one mask, and (H, W) where pixels count, at the given size or their own."""
    raw = torch.as_tensor(np.ascontiguousarray(mask))
    counts = torch.ones(raw.shape[-2:], dtype=torch.bool)
    if raw.ndim == 3:
        present = raw.bool()
    else:
        counts = raw != ignore if ignore is not None else counts
        present = raw == torch.arange(n_concepts).view(-1, 1, 1)
        present &= counts
    if size is None or size == tuple(counts.shape):
        return present, counts
    share = torch.nn.functional.adaptive_avg_pool2d(torch.cat([present, counts[None]]).float()[None], size)[0]
    counts = share[-1] > 0.5
    if raw.ndim == 3:
        return share[:-1] > 0.5, counts
    winner = share[:-1].argmax(0)
    return (winner == torch.arange(n_concepts).view(-1, 1, 1)) & counts & (share[:-1].amax(0) > 0), counts


@dataclass(frozen=True)
class MaskLabels:
    """Labels of I detectors.

    Attributes
    ----------
    label : ndarray of int, shape (I,)
        Concept with the largest IoU on the training split.
    iou_train, iou : ndarray, shape (I, C)
        IoU with every concept, on the training and the validation split.
    label_iou, precision, recall, f1, average_precision : ndarray, shape (I,)
        With the own label, validation split.
    best_threshold, best_f1 : ndarray, shape (I,)
        Response at which F1 with the own label is best on the training split (supervised), and F1 there on validation.
    interpretable : ndarray of bool, shape (I,)
    any_iou : dict of int to float
        For each label, IoU of its detectors joined by "any fires" (linear-OR).
    """

    label: Array
    iou_train: Array
    iou: Array
    label_iou: Array
    precision: Array
    recall: Array
    f1: Array
    average_precision: Array
    best_threshold: Array
    best_f1: Array
    interpretable: Array
    any_iou: dict[int, float]

    @property
    def S1(self) -> float:
        """Sum over detectors of the IoU with their label."""
        return float(self.label_iou.sum())

    @property
    def S2(self) -> float:
        """Sum over labels of the best IoU among their detectors."""
        return float(sum(self.label_iou[self.label == c].max() for c in np.unique(self.label)))

    def summary(self) -> dict[str, float | int]:
        """Scores of SPEC section 7."""
        return {
            "S1": self.S1,
            "S2": self.S2,
            "S2_any": float(sum(self.any_iou.values())),
            "interpretable": int(self.interpretable.sum()),
            "unique_labels": len(np.unique(self.label[self.interpretable])),
            "mean_iou": float(self.label_iou.mean()),
            "mean_precision": float(self.precision.mean()),
            "mean_recall": float(self.recall.mean()),
            "mean_f1": float(self.f1.mean()),
            "mean_average_precision": float(self.average_precision.mean()),
            "mean_best_f1": float(self.best_f1.mean()),
        }


def label_by_masks(
    responses: Array,
    masks: Array,
    is_train: Array,
    n_concepts: int | None = None,
    *,
    annotated: Array | None = None,
    ignore: int | None = None,
    resolution: str = "masks",
) -> MaskLabels:
    """Label detectors by the concepts they overlap most.

    Parameters
    ----------
    responses, masks, n_concepts, annotated, ignore, resolution
        As in `overlaps`.
    is_train : ndarray of bool, shape (N,)
        Images that choose the labels; the others give the scores.

    Returns
    -------
    MaskLabels
    """
    responses, masks, is_train = np.asarray(responses), np.asarray(masks), np.asarray(is_train, dtype=bool)
    if is_train.shape != (len(masks),) or is_train.all() or not is_train.any():
        raise ValueError(f"Got {is_train.sum()} training images of {len(masks)}, expected some of each kind")
    if masks.ndim == 3 and n_concepts is None:
        n_concepts = int(masks.max() if ignore is None else masks[masks != ignore].max(initial=0)) + 1

    def count(rows: Array, groups: Sequence[Sequence[int]] | None = None) -> Overlaps:
        return overlaps(
            responses[rows],
            masks[rows],
            n_concepts,
            annotated=None if annotated is None else np.asarray(annotated)[rows],
            ignore=ignore,
            resolution=resolution,
            groups=groups,
        )

    train, valid = count(is_train), count(~is_train)
    label = train.iou.argmax(1)
    own = np.arange(len(label)), label
    precision, recall = valid.precision[own], valid.recall[own]
    best, best_f1, average = np.zeros(len(label)), np.zeros(len(label)), np.zeros(len(label))
    C = len(valid.there)
    for i, c in enumerate(label):
        scores, present = _flat(responses, masks, is_train, i, c, C, annotated, ignore, resolution)
        best[i] = _best_threshold(scores, present)
        scores, present = _flat(responses, masks, ~is_train, i, c, C, annotated, ignore, resolution)
        chosen = scores > best[i]
        best_f1[i] = 2 * (chosen & present).sum() / max(chosen.sum() + present.sum(), 1)
        average[i] = _average_precision(scores, present)
    labels = np.unique(label)
    joined = count(~is_train, [np.flatnonzero(label == c).tolist() for c in labels])
    return MaskLabels(
        label,
        train.iou,
        valid.iou,
        valid.iou[own],
        precision,
        recall,
        2 * precision * recall / np.maximum(precision + recall, 1e-12),
        average,
        best,
        best_f1,
        valid.iou[own] >= INTERPRETABLE,
        {int(c): float(joined.iou[row, c]) for row, c in enumerate(labels)},
    )


def _flat(
    responses: Array,
    masks: Array,
    rows: Array,
    i: int,
    c: int,
    n_concepts: int,
    annotated: Array | None,
    ignore: int | None,
    resolution: str,
) -> tuple[Array, Array]:
    """Responses of detector i and presence of concept c at all counted positions of some images."""
    scores, truth = [], []
    for n in np.flatnonzero(rows):
        if annotated is not None and not annotated[n][c]:
            continue
        size = responses.shape[2:] if resolution == "features" else None
        present, counts = _concepts(masks[n], n_concepts, ignore, size)
        maps = torch.as_tensor(responses[n, [i]], dtype=torch.float32)
        if maps.shape[1:] != counts.shape:
            maps = interpolate(maps[None], size=tuple(counts.shape), mode="bilinear", align_corners=False)[0]
        scores.append(maps[0][counts].numpy())
        truth.append(present[c][counts].numpy())
    if not scores:
        return np.zeros(0, np.float32), np.zeros(0, bool)
    return np.concatenate(scores), np.concatenate(truth)


def _best_threshold(scores: Array, present: Array) -> float:
    """Threshold with the best F1; half way between neighbouring scores."""
    if not present.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(present[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + present.sum())
    ends = np.append(sorted_scores[1:] < sorted_scores[:-1], True)
    last = int(np.argmax(np.where(ends, f1, -1.0)))
    if last + 1 == len(hits):
        return float(np.nextafter(sorted_scores[-1], -np.inf))
    return float((np.float64(sorted_scores[last]) + sorted_scores[last + 1]) / 2)


def _average_precision(scores: Array, present: Array) -> float:
    """Mean over positives of the precision at their score; ties count together."""
    if not present.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(present[order])
    ends = np.flatnonzero(np.append(sorted_scores[1:] < sorted_scores[:-1], True))
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * hits[ends] / (ends + 1)).sum() / present.sum())


@dataclass(frozen=True)
class WordLabels:
    """Words that describe I directions.

    Attributes
    ----------
    correlation : ndarray, shape (I, C)
        Pearson correlation of activation and image-text score over images; 0 for constant columns.
    best : ndarray of int, shape (I, top)
        Words with the largest correlation, best first.
    p_value : ndarray, shape (I,)
        Chance that the best word of a direction that has nothing to do with the images correlates as much.
    """

    correlation: Array
    best: Array
    p_value: Array


def label_by_words(
    activation: Array, scores: Array, top: int = 5, n_permutations: int = 199, random_state: int = 0
) -> WordLabels:
    """Describe directions by words.

    Parameters
    ----------
    activation : ndarray, shape (N, I)
        One number per image and direction, for example the mean of a concept map.
    scores : ndarray, shape (N, C)
        Image-text scores of C words, for example CLIP similarities.
    top : int
        Words kept for each direction.
    n_permutations : int
        Permutations of the images behind the p value (of the largest correlation over words).
    random_state : int
        Seed.

    Returns
    -------
    WordLabels
    """
    a, t = np.asarray(activation, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if a.ndim != 2 or t.ndim != 2 or len(a) != len(t) or len(a) < 3:
        raise ValueError(f"Got activation {a.shape} and scores {t.shape}, expected (N, I) and (N, C) with N >= 3")
    if not (np.isfinite(a).all() and np.isfinite(t).all()):
        raise ValueError("Got NaN or infinite values, expected finite activation and scores")
    if top < 1 or n_permutations < 1:
        raise ValueError(f"Got top={top}, n_permutations={n_permutations}, expected at least 1")
    a, t = _standard(a), _standard(t)
    correlation = a.T @ t
    best = np.argsort(-correlation, axis=1, kind="stable")[:, :top]
    largest = correlation.max(1)
    rng = generator(random_state, "word labels")
    exceeding = np.zeros(len(largest))
    for _ in range(n_permutations):
        exceeding += (a[rng.permutation(len(a))].T @ t).max(1) >= largest
    return WordLabels(correlation, best, (1 + exceeding) / (1 + n_permutations))


def _standard(columns: Array) -> Array:
    """Columns with mean 0 and length 1; constant ones become 0."""
    centred = columns - columns.mean(0)
    length = np.linalg.norm(centred, axis=0)
    flat = length <= 1e-9 * np.maximum(np.abs(columns).max(0), 1e-300) * np.sqrt(len(columns))
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, length))
