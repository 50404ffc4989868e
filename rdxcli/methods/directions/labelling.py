"""Names for directions: concept masks (intersection over union) and words of a vision-language model.

Masks (Network Dissection's protocol; EDDP, section 5.2). Symbols: ``phi(i, c)`` IoU over a whole split, intersections
and unions summed over all images before dividing; label ``c_i = argmax_c phi(i, c)`` on the training split; a
detector meets the published bar when ``phi(i, c_i) >= 0.04`` on the validation split; ``S1 = sum_i phi(i, c_i)``;
``S2 = sum over labels of max_i phi(i, c)``. Nearly everything meets that bar: `mask_chance` says what random filters
and maps of other images reach. Masks are read one image at a time, twice at most.

Words: a direction is described by the words whose image-text scores go up and down with its activation over images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

from .base import Array, Directions
from .features import as_maps
from .influence import claims, random_filters

MaskSource = Array | Callable[[int], Array]
"""Masks of all images, or a function from the row of an image to its mask."""

OUTSIDE = "outside"
"""``ignore`` for "labels that name no concept count for nothing"."""

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
    masks: MaskSource,
    n_concepts: int | None = None,
    *,
    annotated: Array | None = None,
    ignore: int | str | None = None,
    resolution: str = "masks",
    groups: Sequence[Sequence[int]] | None = None,
) -> Overlaps:
    """Count where detectors and concepts agree.

    Parameters
    ----------
    responses : ndarray, shape (N, I, h, w)
        Positive where a detector fires, see `base.Directions.responses`.
    masks : ndarray or callable
        Either labels, integers (N, H, W) from 0 to ``n_concepts - 1``, or booleans (N, C, H, W) when concepts may
        overlap; or a function from a row to its mask, (H, W) or (C, H, W), which may differ in size.
    n_concepts : int, optional
        Needed with a function; default is the largest label plus 1.
    annotated : ndarray of bool, shape (N, C), optional
        Images that were annotated for a concept; others do not count for it.
    ignore : int or "outside", optional
        Label of pixels that count for nothing (unlabelled); "outside" takes every label that is none of the concepts.
    resolution : "masks" or "features"
        Scale responses up to the masks (bilinear) or masks down to the responses (the most frequent label, or more
        than half).
    groups : sequence of sequences of int, optional
        Join detectors by "any fires"; the result then has one row per group.
    """
    walk = _Walk.of(responses, masks, n_concepts, annotated, ignore, resolution)
    tally = _Tally(walk.responses.shape[1] if groups is None else len(groups), walk.n_concepts)
    for seen in walk.images(range(len(walk.responses))):
        tally.add(seen, groups)
    return tally.overlaps()


@dataclass(frozen=True)
class _Seen:
    """One image.

    Attributes
    ----------
    maps : Tensor, shape (I, p)
        Responses at its positions.
    present : Tensor of bool, shape (C, p)
    counts : Tensor of bool, shape (p,)
        Positions that are labelled.
    known : ndarray, shape (C,)
        1 for concepts that the image was annotated for.
    """

    maps: Tensor
    present: Tensor
    counts: Tensor
    known: Array


@dataclass(frozen=True)
class _Walk:
    """Responses and masks side by side, one image at a time."""

    responses: Array
    read: Callable[[int], Array]
    n_concepts: int
    annotated: Array | None
    ignore: int | str | None
    resolution: str

    @classmethod
    def of(
        cls,
        responses: Array,
        masks: MaskSource,
        n_concepts: int | None,
        annotated: Array | None,
        ignore: int | str | None,
        resolution: str,
    ) -> _Walk:
        responses = np.asarray(responses)
        shape = None if callable(masks) else np.shape(masks)
        if responses.ndim != 4 or (shape is not None and (len(responses) != shape[0] or len(shape) not in (3, 4))):
            raise ValueError(
                f"Got responses {responses.shape} and masks {shape}, "
                "expected (N, I, h, w) and (N, H, W) or (N, C, H, W)"
            )
        if resolution not in ("masks", "features"):
            raise ValueError(f"Got resolution={resolution!r}, expected 'masks' or 'features'")
        if callable(masks):
            if n_concepts is None:
                raise ValueError("Got masks as a function and no n_concepts, expected the number of concepts")
            read = masks
        else:
            stack = np.asarray(masks)
            if stack.ndim == 3 and not np.issubdtype(stack.dtype, np.integer):
                raise ValueError(f"Got label masks of type {stack.dtype}, expected integers")
            if stack.ndim == 4:
                n_concepts = stack.shape[1]
            elif n_concepts is None:
                seen = stack if not isinstance(ignore, int) else stack[stack != ignore]
                n_concepts = int(seen.max(initial=0)) + 1
            read = stack.__getitem__
        if annotated is not None and np.shape(annotated) != (len(responses), n_concepts):
            raise ValueError(f"Got annotated of shape {np.shape(annotated)}, expected ({len(responses)}, {n_concepts})")
        return cls(responses, read, n_concepts, annotated, ignore, resolution)

    def image(self, row: int) -> _Seen:
        size = (self.responses.shape[2], self.responses.shape[3]) if self.resolution == "features" else None
        present, counts = _concepts(self.read(row), self.n_concepts, self.ignore, size)
        maps = torch.as_tensor(self.responses[row], dtype=torch.float32)
        if maps.shape[1:] != counts.shape:
            maps = interpolate(maps[None], size=tuple(counts.shape), mode="bilinear", align_corners=False)[0]
        known = np.ones(self.n_concepts) if self.annotated is None else np.asarray(self.annotated[row], dtype=float)
        return _Seen(maps.flatten(1), present.flatten(1), counts.flatten(), known)

    def images(self, rows: Sequence[int] | Array | range) -> Iterator[_Seen]:
        return (self.image(int(row)) for row in rows)


class _Tally:
    """Sums of `Overlaps` while images pass."""

    def __init__(self, n_detectors: int, n_concepts: int) -> None:
        self.both, self.fired = np.zeros((n_detectors, n_concepts)), np.zeros((n_detectors, n_concepts))
        self.there = np.zeros(n_concepts)

    def add(self, seen: _Seen, groups: Sequence[Sequence[int]] | None = None) -> None:
        active = seen.maps > 0
        if groups is not None:
            active = torch.stack([active[list(group)].any(0) for group in groups])
        fires = (active & seen.counts).double()
        present = seen.present.double()
        self.both += (fires @ present.T).numpy() * seen.known
        self.fired += fires.sum(1).numpy()[:, None] * seen.known
        self.there += present.sum(1).numpy() * seen.known

    def overlaps(self) -> Overlaps:
        return Overlaps(self.both.astype(np.int64), self.fired.astype(np.int64), self.there.astype(np.int64))


class _Histograms:
    """Responses of each detector where its concept is and where it is not, in bins between its extremes."""

    def __init__(self, responses: Array, bins: int = 4096) -> None:
        flat = responses.transpose(1, 0, 2, 3).reshape(responses.shape[1], -1)
        self.low = flat.min(1).astype(np.float64)
        self.step = np.maximum((flat.max(1) - self.low) / bins, np.finfo(float).tiny)
        self.bins = bins
        self.counts = np.zeros((len(self.low), 2, bins), np.int64)

    def add(self, seen: _Seen, label: Array) -> None:
        maps = seen.maps[:, seen.counts].double().numpy()
        present = seen.present[:, seen.counts].numpy()
        bin_of = np.clip((maps - self.low[:, None]) / self.step[:, None], 0, self.bins - 1).astype(np.int64)
        for i, c in enumerate(label):
            if seen.known[c]:
                for kind, chosen in enumerate((~present[c], present[c])):
                    self.counts[i, kind] += np.bincount(bin_of[i, chosen], minlength=self.bins)

    def best_thresholds(self) -> Array:
        """Edge of a bin with the best F1, (I,); 0 for a concept that never occurs."""
        hits, fired = self._above()
        there = hits[:, :1]
        f1 = 2 * hits / np.maximum(fired + there, 1)
        edges = self.low[:, None] + self.step[:, None] * np.arange(self.bins)
        best = np.take_along_axis(edges, f1.argmax(1)[:, None], 1)[:, 0]
        return np.where(there[:, 0] > 0, best, 0.0)

    def f1_above(self, thresholds: Array) -> Array:
        """F1 of "at least the threshold", which lies on an edge, (I,)."""
        hits, fired = self._above()
        at = np.clip(np.round((thresholds - self.low) / self.step), 0, self.bins - 1).astype(int)[:, None]
        return (2 * np.take_along_axis(hits, at, 1) / np.maximum(np.take_along_axis(fired, at, 1) + hits[:, :1], 1))[
            :, 0
        ]

    def average_precision(self) -> Array:
        """Mean over positives of the precision at their response, (I,); responses of one bin count together."""
        hits, fired = self._above()
        gained = self.counts[:, 1]
        return (gained * hits / np.maximum(fired, 1)).sum(1) / np.maximum(gained.sum(1), 1)

    def _above(self) -> tuple[Array, Array]:
        """Positives, and all positions, from each bin on, (I, bins)."""
        hits = self.counts[:, 1, ::-1].cumsum(1)[:, ::-1]
        return hits, hits + self.counts[:, 0, ::-1].cumsum(1)[:, ::-1]


def _concepts(
    mask: Array, n_concepts: int, ignore: int | str | None, size: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Booleans (C, H, W) of one mask, and (H, W) where pixels count, at the given size or their own."""
    raw, counts = _labelled(mask, n_concepts, ignore)
    present = raw.bool() if raw.ndim == 3 else (raw == torch.arange(n_concepts).view(-1, 1, 1)) & counts
    if size is None or size == tuple(counts.shape):
        return present, counts
    share = torch.nn.functional.adaptive_avg_pool2d(torch.cat([present, counts[None]]).float()[None], size)[0]
    counts = share[-1] > 0.5
    if raw.ndim == 3:
        return share[:-1] > 0.5, counts
    winner = share[:-1].argmax(0)
    return (winner == torch.arange(n_concepts).view(-1, 1, 1)) & counts & (share[:-1].amax(0) > 0), counts


def _labelled(mask: Array, n_concepts: int, ignore: int | str | None) -> tuple[Tensor, Tensor]:
    """One mask as a tensor, and (H, W) where its pixels count."""
    raw = torch.as_tensor(np.ascontiguousarray(mask))
    counts = torch.ones(raw.shape[-2:], dtype=torch.bool)
    if raw.ndim == 3:
        if len(raw) != n_concepts:
            raise ValueError(f"Got a mask of {human_count(len(raw), 'concept')}, expected {n_concepts}")
        return raw, counts
    raw = raw.long()
    if ignore == OUTSIDE:
        return raw, (raw >= 0) & (raw < n_concepts)
    if isinstance(ignore, int):
        counts = raw != ignore
    seen = raw[counts]
    if seen.numel() and (int(seen.min()) < 0 or int(seen.max()) >= n_concepts):
        raise ValueError(f"Got labels from {int(seen.min())} to {int(seen.max())}, expected 0 to {n_concepts - 1}")
    return raw, counts


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
        Response at which F1 with the own label is best on the training split (supervised), and F1 there on validation;
        to 1 / 4096 of the range of responses.
    interpretable : ndarray of bool, shape (I,)
        The published bar: an IoU of at least 0.04. See `mask_chance` for what meets it.
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
    masks: MaskSource,
    is_train: Array,
    n_concepts: int | None = None,
    *,
    annotated: Array | None = None,
    ignore: int | str | None = None,
    resolution: str = "masks",
) -> MaskLabels:
    """Label detectors by the concepts they overlap most.

    Parameters
    ----------
    responses, masks, n_concepts, annotated, ignore, resolution
        As in `overlaps`.
    is_train : ndarray of bool, shape (N,)
        Images that choose the labels; the others give the scores.
    """
    walk = _Walk.of(responses, masks, n_concepts, annotated, ignore, resolution)
    train, valid = _split(is_train, len(walk.responses))
    n_detectors = walk.responses.shape[1]
    first = _Tally(n_detectors, walk.n_concepts)
    for seen in walk.images(train):
        first.add(seen)
    on_train = first.overlaps()
    label = on_train.iou.argmax(1)
    chosen, scored = _Histograms(walk.responses), _Histograms(walk.responses)
    for seen in walk.images(train):
        chosen.add(seen, label)
    labels = np.unique(label)
    groups = [np.flatnonzero(label == c).tolist() for c in labels]
    second, joined = _Tally(n_detectors, walk.n_concepts), _Tally(len(groups), walk.n_concepts)
    for seen in walk.images(valid):
        second.add(seen)
        joined.add(seen, groups)
        scored.add(seen, label)
    on_valid, together = second.overlaps(), joined.overlaps().iou
    own = np.arange(n_detectors), label
    precision, recall = on_valid.precision[own], on_valid.recall[own]
    best = chosen.best_thresholds()
    return MaskLabels(
        label,
        on_train.iou,
        on_valid.iou,
        on_valid.iou[own],
        precision,
        recall,
        2 * precision * recall / np.maximum(precision + recall, 1e-12),
        scored.average_precision(),
        best,
        scored.f1_above(best),
        on_valid.iou[own] >= INTERPRETABLE,
        {int(c): float(together[row, c]) for row, c in enumerate(labels)},
    )


def _split(is_train: Array, n: int) -> tuple[Array, Array]:
    is_train = np.asarray(is_train, dtype=bool)
    if is_train.shape != (n,) or is_train.all() or not is_train.any():
        raise ValueError(f"Got {human_count(is_train.sum(), 'training image')} of {n}, expected some of each kind")
    return np.flatnonzero(is_train), np.flatnonzero(~is_train)


@dataclass(frozen=True)
class MaskChance:
    """What the labels of I detectors are worth against chance.

    IoU here is taken on the grid of the features, with the share of a concept in each cell.

    Attributes
    ----------
    random_iou : ndarray, shape (I,)
        Median IoU of random filters that fire as often, with the best of their labels.
    permuted_iou : ndarray, shape (I,)
        Mean IoU of the detector's own maps on other images, with the best label there.
    p_random : ndarray, shape (I,)
        Share of random filters with an IoU at least as large.
    p_permuted : ndarray, shape (I,)
        The same for permutations of the images.
    above : ndarray of bool, shape (I,)
        More than chance: by random filters (Benjamini and Hochberg at ``level``) and, each at ``level``, by permuted
        images.
    """

    random_iou: Array
    permuted_iou: Array
    p_random: Array
    p_permuted: Array
    above: Array
    n_random: int
    n_permutations: int

    @property
    def p_value(self) -> Array:
        """The larger of the two, (I,)."""
        return np.maximum(self.p_random, self.p_permuted)


_ENTRIES = 2**24
_WORK = 3e11
_LEVELS = 8


def mask_chance(
    directions: Directions,
    features: Array | Tensor,
    masks: MaskSource,
    is_train: Array,
    n_concepts: int,
    *,
    ignore: int | str | None = None,
    level: float = 0.05,
    n_random: int = 199,
    n_permutations: int = 99,
    random_state: int = 0,
) -> MaskChance:
    """Compare the IoU of detectors with their label to what is reached without knowing the concepts.

    Two kinds of chance, labelled and scored in the same way: random filters that fire as often as the detector, which
    follow what is in the images but no concept in particular; and the detector's maps laid over other images, which
    keep where and how often it fires.

    Parameters
    ----------
    features : array, shape (N, D, H, W)
    masks, n_concepts, ignore
        As in `overlaps`.
    is_train : ndarray of bool, shape (N,)
        Images that choose the labels.
    n_random, n_permutations : int
        Random filters; permutations at most (fewer, 19 at least, where there are many directions and concepts).

    Returns
    -------
    MaskChance
        Memory stays at 2^24 shares of concepts: evenly spaced images of each split are taken where there are more.
    """
    X = as_maps(features)
    train, valid = _split(is_train, len(X))
    cells = X.shape[2] * X.shape[3]
    most = max(4, _ENTRIES // (2 * cells * n_concepts))
    parts = [
        rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))] for rows in (train, valid)
    ]
    read = masks if callable(masks) else np.asarray(masks).__getitem__
    grids = [_Grid.of(read, rows, n_concepts, ignore, (X.shape[2], X.shape[3])) for rows in parts]
    rows = np.concatenate(parts)
    x = X[rows]
    cut = len(parts[0])
    active = directions.detect(x)
    count = active.shape[1]
    found = _chosen_iou(*(grid.iou(part) for grid, part in zip(grids, (active[:cut], active[cut:]), strict=True)))

    rng = generator(random_state, "masks on other images")
    n_permutations = int(np.clip(_WORK / (2 * count * len(rows) * cells * n_concepts), 19, n_permutations))
    permuted = np.stack(
        [
            _chosen_iou(
                *(
                    grid.iou(part[rng.permutation(len(part))])
                    for grid, part in zip(grids, (active[:cut], active[cut:]), strict=True)
                )
            )
            for _ in range(n_permutations)
        ]
    )
    shares = np.clip(active.mean((0, 2, 3)), 1 / active[:, 0].size, 1 - 1 / active[:, 0].size)
    levels = np.unique(np.quantile(np.log(shares), np.linspace(0, 1, min(_LEVELS, count))))
    nearest = np.abs(np.log(shares)[:, None] - levels).argmin(1)
    random = np.empty((len(levels), n_random))
    for place, of_level in enumerate(levels):
        for start in range(0, n_random, 64):
            size = min(64, n_random - start)
            filters = random_filters(x, np.full(size, np.exp(of_level)), random_state=random_state, name=start)
            fires = filters.detect(x)
            random[place, start : start + size] = _chosen_iou(
                *(grid.iou(part) for grid, part in zip(grids, (fires[:cut], fires[cut:]), strict=True))
            )
    p_random = (1 + (random[nearest] >= found[:, None]).sum(1)) / (1 + n_random)
    p_permuted = (1 + (permuted >= found).sum(0)) / (1 + n_permutations)
    return MaskChance(
        np.median(random, axis=1)[nearest],
        permuted.mean(0),
        p_random,
        p_permuted,
        claims(p_random[:, None], level)[:, 0] & (p_permuted <= level),
        n_random,
        n_permutations,
    )


def _chosen_iou(on_train: Array, on_valid: Array) -> Array:
    """IoU (I,) on the second split with the concept that is best on the first."""
    return on_valid[np.arange(len(on_train)), on_train.argmax(1)]


@dataclass(frozen=True)
class _Grid:
    """Shares of the concepts in the cells of the features of some images.

    Attributes
    ----------
    shares : Tensor, shape (n, p, C), float32
        Of the labelled area of a cell that a concept covers, times `labelled`.
    labelled : Tensor, shape (n, p), float32
    """

    shares: Tensor
    labelled: Tensor

    @classmethod
    def of(
        cls,
        read: Callable[[int], Array],
        rows: Array,
        n_concepts: int,
        ignore: int | str | None,
        size: tuple[int, int],
    ) -> _Grid:
        shares, labelled = [], []
        for row in rows:
            present, counts = _concepts(read(int(row)), n_concepts, ignore, None)
            both = torch.cat([present, counts[None]]).float()
            pooled = torch.nn.functional.adaptive_avg_pool2d(both[None], size)[0].flatten(1)
            shares.append(pooled[:-1].T)
            labelled.append(pooled[-1])
        return cls(torch.stack(shares), torch.stack(labelled))

    def iou(self, active: Array) -> Array:
        """Intersection over union (I, C) of detections (n, I, h, w) and concepts."""
        fires = torch.as_tensor(active).flatten(2).float().transpose(0, 1).reshape(active.shape[1], -1)
        both = fires @ self.shares.reshape(-1, self.shares.shape[2])
        union = (fires @ self.labelled.reshape(-1))[:, None] + self.shares.sum((0, 1)) - both
        return (both / union.clamp_min(1e-9)).numpy()


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
