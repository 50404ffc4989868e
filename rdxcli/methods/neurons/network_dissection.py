"""Network Dissection: the concept whose pixels overlap a unit's strongest activations most.

Symbols: A (n, u, h, w) activation maps of n images; T_k threshold of unit k with P(a_k > T_k) = 0.005 over all
positions of all images; S_k a map brought to the size (H, W) of the concept masks L_c; M_k = [S_k > T_k].

    IoU_k,c = sum_x |M_k(x) and L_c(x)| / sum_x |M_k(x) or L_c(x)|

over the images that have at least one labelled pixel of the category of c.

Reference: Bau, Zhou, Khosla, Oliva and Torralba, "Network Dissection: Quantifying Interpretability of Deep Visual
Representations", CVPR 2017, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics.neighbours import resolve_device

Batch = tuple[Any, Any]
UPSAMPLE_ELEMENTS = 2**24


class TopQuantile:
    """Thresholds that a given share of all values exceeds, exactly, from batches.

    Only the largest values of each unit are kept: share x total numbers per unit.

    Parameters
    ----------
    units : int
    total : int
        Values per unit that will come.
    share : float
        0.005 in the paper.
    """

    def __init__(self, units: int, total: int, share: float = 0.005) -> None:
        self.share, self.total, self.seen = share, total, 0
        self.kept = np.empty((units, 0), dtype=np.float32)
        self.minimum = np.full(units, np.inf, dtype=np.float32)

    def update(self, values: np.ndarray) -> None:
        """Take (units, m) values."""
        single = values.astype(np.float32)
        self.seen += values.shape[1]
        self.minimum = np.minimum(self.minimum, single.min(axis=1))
        self.kept = np.concatenate([self.kept, single], axis=1)
        most = int(self.share * self.total) + 1
        if self.kept.shape[1] > most:
            cut = self.kept.shape[1] - most
            self.kept = np.partition(self.kept, cut, axis=1)[:, cut:].copy()

    def thresholds(self) -> np.ndarray:
        """T_k: (units,) float64. floor(share total) values are above it, fewer where values are equal."""
        if self.seen != self.total:
            raise ValueError(f"Got {self.seen} activations per unit, expected {self.total}")
        above = int(self.share * self.total)
        return -np.partition(-self.kept, above, axis=1)[:, above].astype(np.float64)


class NetworkDissection(Estimator):
    """Label units by the segmentation concept they overlap most.

    Parameters
    ----------
    quantile : float
        Share of the positions that are above the threshold of a unit (0.005).
    min_iou : float
        A unit with a lower best IoU counts as not interpretable (0.04); it keeps its label.
    device : {"auto", "cpu", "cuda", "mps"}

    Attributes
    ----------
    units_ : (u,) int64
    thresholds_ : (u,) float64
    iou_ : (u, c) float64
        NaN for concepts without a pixel and for constant units.
    intersection_, union_ : (u, c) int64
        Pixels.
    best_ : (u,) int64
        Concept of each unit, -1 when it has no overlap at all.
    interpretable_ : (u,) bool
    explanations_ : list of Explanation
        Descriptions with the score ``iou``.
    notes_ : list of str

    Notes
    -----
    Two passes over the images: thresholds on the maps as they are, then overlaps on maps brought to the size of the
    masks by bilinear interpolation (pixel centres aligned). O(n u H W c') time for c' concepts per image; memory for
    one image at a time and the largest 0.5 % of the activations.
    """

    def __init__(self, *, quantile: float = 0.005, min_iou: float = 0.04, device: str = "cpu") -> None:
        self.quantile, self.min_iou, self.device = quantile, min_iou, device

    def fit(
        self,
        maps: Any,
        masks: Any,
        *,
        concept_names: Sequence[str],
        categories: Sequence[str] | None = None,
        ignore: int | None = None,
        batches: Callable[[], Iterable[Batch]] | None = None,
        n_images: int | None = None,
    ) -> NetworkDissection:
        """Measure overlaps.

        Parameters
        ----------
        maps : (n, u, h, w) array-like, or None
            Activation maps.
        masks : (n, H, W) int or (n, c, H, W) bool array-like, or None
            Label maps, label k is concept k (every value outside 0..c-1 and ``ignore`` is unlabelled), or one mask per
            concept, which may overlap.
        concept_names : sequence of str, length c
        categories : sequence of str, length c, optional
            Category of each concept; images without any pixel of a category do not count for its concepts. Default:
            one category for all.
        ignore : int, optional
            Label of unlabelled pixels inside 0..c-1.
        batches : callable, optional
            Instead of ``maps`` and ``masks``: called twice, each time gives the same batches (maps, masks). All maps
            have one size; masks may differ in size between batches.
        n_images : int, optional
            Number of images that ``batches`` gives; needed with it.

        Raises
        ------
        ValueError
            Shapes that do not fit, NaN, no images, or impossible options.
        """
        if not 0 < self.quantile < 1:
            raise ValueError(f"Got quantile={self.quantile}, expected a number in (0, 1)")
        names = list(concept_names)
        groups = _groups(names, categories)
        device = resolve_device(self.device)
        self.notes_: list[str] = []
        if batches is None:
            if maps is None or masks is None:
                raise ValueError("Got no maps or no masks, expected both, or batches")
            A, L = maps if hasattr(maps, "shape") else np.asarray(maps), masks
            L = L if hasattr(L, "shape") else np.asarray(L)
            if len(A.shape) != 4 or len(L.shape) not in (3, 4) or A.shape[0] != L.shape[0] or not A.shape[0]:
                raise ValueError(
                    f"Got maps {tuple(A.shape)} and masks {tuple(L.shape)}, expected (n, u, h, w) and (n, H, W) or "
                    "(n, c, H, W)"
                )
            n_images = A.shape[0]

            def slices() -> Iterator[Batch]:
                for start in range(0, A.shape[0], 16):
                    yield A[start : start + 16], L[start : start + 16]

            batches = slices
        if not n_images:
            raise ValueError(f"Got n_images={n_images}, expected the number of images that the batches give")
        top = self._quantiles(batches(), n_images)
        self.thresholds_ = top.thresholds()
        u, c = len(self.thresholds_), len(names)
        self.units_ = np.arange(u)
        both, active, labelled = (np.zeros((u, c)), np.zeros((u, c)), np.zeros(c))
        images = 0
        for maps_part, masks_part in batches():
            A_part = _maps(maps_part, u)
            if len(A_part) != len(masks_part):
                raise ValueError(f"Got {len(A_part)} maps and {len(masks_part)} masks in a batch")
            for one, mask in zip(A_part, np.asarray(masks_part), strict=True):
                flat, present = _pixels(mask, c, ignore)
                counted = groups[:, groups[present].any(axis=0)].any(axis=1) if len(present) else np.zeros(c, bool)
                if not counted.any():
                    continue
                inside, size = self._overlap(one, mask.shape[-2:], flat, device)
                both[:, present] += inside
                active[:, counted] += size[:, None]
                labelled[present] += flat.sum(axis=0)
                images += 1
        if not images:
            raise ValueError("Got no image with a labelled pixel")
        self._finish(both, active, labelled, top, names)
        return self

    def _quantiles(self, batches: Iterable[Batch], n_images: int) -> TopQuantile:
        top: TopQuantile | None = None
        for maps, _ in batches:
            values = _maps(maps, None if top is None else len(top.kept))
            _, u, h, w = values.shape
            top = top or TopQuantile(u, n_images * h * w, self.quantile)
            top.update(values.transpose(1, 0, 2, 3).reshape(u, -1))
        if top is None:
            raise ValueError("Got no activations, expected at least one image")
        return top

    def _overlap(
        self, maps: np.ndarray, size: tuple[int, int], flat: np.ndarray, device: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of M_k in each present concept (u, p), and pixels of M_k (u,)."""
        u, pixels = len(maps), size[0] * size[1]
        concepts = torch.as_tensor(flat.astype(np.float32), device=device)
        limits = torch.as_tensor(self.thresholds_, device=device)
        inside, total = np.empty((u, flat.shape[1])), np.empty(u)
        step = max(1, UPSAMPLE_ELEMENTS // pixels)
        for start in range(0, u, step):
            part = torch.as_tensor(maps[start : start + step].astype(np.float32), device=device)[None]
            large = torch.nn.functional.interpolate(part, size=size, mode="bilinear", align_corners=False)[0]
            mask = (large > limits[start : start + step, None, None].to(large.dtype)).flatten(1).to(torch.float32)
            inside[start : start + step] = (mask @ concepts).cpu().numpy()  # counts below 2^24: exact
            total[start : start + step] = mask.sum(dim=1, dtype=torch.float64).cpu().numpy()
        return inside, total

    def _finish(
        self, both: np.ndarray, active: np.ndarray, labelled: np.ndarray, top: TopQuantile, names: Sequence[str]
    ) -> None:
        union = active + labelled - both
        constant = top.kept.max(axis=1) <= top.minimum
        known = (labelled > 0)[None, :] & ~constant[:, None]
        self.iou_ = np.divide(both, union, out=np.full(both.shape, np.nan), where=known & (union > 0))
        self.intersection_, self.union_ = both.astype(np.int64), union.astype(np.int64)
        score = np.nan_to_num(self.iou_, nan=-1.0)
        self.best_ = np.where(score.max(axis=1) > 0, score.argmax(axis=1), -1)
        rows = np.arange(len(score))
        best = np.where(self.best_ >= 0, self.iou_[rows, np.maximum(self.best_, 0)], 0.0)
        self.interpretable_ = best > self.min_iou
        self.explanations_ = [
            Explanation(
                unit=int(unit),
                concepts=(names[label],) if label >= 0 else (),
                weights=(1.0,) if label >= 0 else (),
                scores={"iou": float(best[unit]) if label >= 0 else None},
                status="explained" if label >= 0 else "constant" if constant[unit] else "no overlap",
            )
            for unit, label in enumerate(self.best_.tolist())
        ]
        for status, words in (("constant", "do not vary"), ("no overlap", "overlap no concept")):
            who = [row.unit for row in self.explanations_ if row.status == status]
            if who:
                self.notes_.append(f"{len(who)} units {words} and have no label: {', '.join(map(str, who[:10]))}")
        absent = [name for name, count in zip(names, labelled, strict=True) if not count]
        if absent:
            shown = ", ".join(f"`{name}`" for name in absent[:5])
            self.notes_.append(f"{len(absent)} concepts have no pixel in these images: {shown}")

    def table(self, layer: str = "") -> ExplanationTable:
        """The labels as a table ``layer, unit, description, iou``."""
        rows = tuple(
            Explanation(row.unit, row.concepts, row.weights, 0.0, layer, row.scores, row.status)
            for row in self.explanations_
        )
        return ExplanationTable("description", rows, 1, tuple(self.notes_))


def _groups(names: Sequence[str], categories: Sequence[str] | None) -> np.ndarray:
    """(c, categories) bool membership."""
    if not names:
        raise ValueError("Got no concept names, expected at least one")
    own = ["all"] * len(names) if categories is None else list(categories)
    if len(own) != len(names):
        raise ValueError(f"Got {len(names)} concepts and {len(own)} categories")
    distinct = list(dict.fromkeys(own))
    return np.array([[one == category for category in distinct] for one in own])


def _maps(maps: Any, units: int | None) -> np.ndarray:
    values = np.asarray(maps)
    if values.ndim != 4 or (units is not None and values.shape[1] != units):
        expected = "(n, u, h, w)" if units is None else f"(n, {units}, h, w)"
        raise ValueError(f"Got activation maps of shape {values.shape}, expected {expected}")
    if not np.isfinite(values).all():
        raise ValueError("activations: Got NaN or infinite values, expected finite numbers")
    return values


def _pixels(mask: np.ndarray, c: int, ignore: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Concepts present in an image and their pixels: (H W, p) bool, (p,) int."""
    if mask.ndim == 2:
        if mask.dtype.kind not in "iu":
            raise ValueError(f"Got a label map of type {mask.dtype}, expected integers")
        labels = mask.ravel()
        present = np.unique(labels)
        present = present[(present >= 0) & (present < c)]
        if ignore is not None:
            present = present[present != ignore]
        return labels[:, None] == present[None, :], present.astype(np.int64)
    if mask.ndim != 3 or len(mask) != c:
        raise ValueError(f"Got masks of shape {mask.shape}, expected ({c}, H, W) or (H, W)")
    flat = mask.reshape(c, -1) != 0
    present = np.flatnonzero(flat.any(axis=1))
    return flat[present].T, present
