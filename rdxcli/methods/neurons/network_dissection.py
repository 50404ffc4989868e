"""Network Dissection: the concept whose pixels overlap a unit's strongest activations most.

Symbols: A (n, u, h, w) activation maps of n images; T_k threshold of unit k with P(a_k > T_k) = 0.005 over all
positions of all images; S_k a map brought to the size (H, W) of the concept masks L_c; M_k = [S_k > T_k].

    IoU_k,c = sum_x |M_k(x) and L_c(x)| / sum_x |M_k(x) or L_c(x)|

over the images that have at least one labelled pixel of the category of c.

Some concept always overlaps a little. What chance reaches is the best IoU of the same maps laid over the masks of other
images: where a unit is active in an image, and where concepts usually lie, stay as they are.

Reference: Bau, Zhou, Khosla, Oliva and Torralba, "Network Dissection: Quantifying Interpretability of Deep Visual
Representations", CVPR 2017, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.neurons.chance import Chance, against_orders
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.numerics.neighbours import resolve_device
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Share
from rdxcli.progress import human_count

Batch = tuple[Any, Any]
UPSAMPLE_ELEMENTS = 2**24
GRID = 28  # cells a side of the maps and masks that are laid over each other in other orders
MOST_CELLS = 2**27  # bytes of all such maps
MOST_IMAGES = 300
FEWEST_IMAGES = 8
DRAWN_ELEMENTS = 2**23


class TopQuantile:
    """Thresholds that a given share of all values exceeds, exactly, from batches.

    Only the largest values of each unit are kept: share x total numbers per unit.

    Parameters
    ----------
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
            raise ValueError(f"Got {human_count(self.seen, 'activation')} per unit, expected {self.total}")
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
    orders : int
        Random orders of the images for ``chance_`` (1,999); 0 for none.
    random_state : int
        Of the orders.

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
    chance_ : Chance or None
        The best IoU against that of the same maps over the masks of other images; None for ``orders=0`` and for fewer
        than 8 images. Both are measured on cells of a grid of 28 x 28, on at most 300 images.
    explanations_ : list of Explanation
        Descriptions with the score ``iou``.
    notes_ : list of str

    Notes
    -----
    Two passes over the images: thresholds on the maps as they are, then overlaps on maps brought to the size of the
    masks by bilinear interpolation (pixel centres aligned). O(n u H W c') time for c' concepts per image; memory for
    one image at a time and the largest 0.5 % of the activations.
    """

    def __init__(
        self,
        *,
        quantile: Share = 0.005,
        min_iou: Share = 0.04,
        device: str = "cpu",
        orders: Annotated[int, Ge(0)] = 1999,
        random_state: int = 0,
    ) -> None:
        self.quantile, self.min_iou, self.device = quantile, min_iou, device
        self.orders, self.random_state = orders, random_state

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
        cells = _Cells(u, groups, n_images if self.orders else 0, self.random_state)
        for maps_part, masks_part in batches():
            A_part = _maps(maps_part, u)
            if len(A_part) != len(masks_part):
                raise ValueError(
                    f"Got {human_count(len(A_part), 'map')} and {human_count(len(masks_part), 'mask')} in a batch"
                )
            for one, mask in zip(A_part, np.asarray(masks_part), strict=True):
                flat, present = _pixels(mask, c, ignore)
                counted = groups[:, groups[present].any(axis=0)].any(axis=1) if len(present) else np.zeros(c, bool)
                if not counted.any():
                    continue
                inside, size = self._overlap(
                    one, mask.shape[-2:], flat, device, cells.next(mask.shape[-2:], flat, present)
                )
                both[:, present] += inside
                active[:, counted] += size[:, None]
                labelled[present] += flat.sum(axis=0)
                images += 1
        if not images:
            raise ValueError("Got no image with a labelled pixel")
        self._finish(both, active, labelled, top, names)
        self.chance_: Chance | None = None
        if len(cells.maps) >= FEWEST_IMAGES:
            best = np.where(self.best_ >= 0, cells.best(None), np.nan)
            rng = generator(self.random_state, "orders", len(cells.maps))
            draws = cells.best(np.stack([rng.permutation(len(cells.maps)) for _ in range(self.orders)]))
            self.chance_ = against_orders(best, draws)
            if len(cells.maps) < images:
                self.notes_.append(f"chance is measured on {len(cells.maps)} of {human_count(images, 'image')}")
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
        self, maps: np.ndarray, size: tuple[int, int], flat: np.ndarray, device: str, cells: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of M_k in each present concept (u, p), and of M_k (u,); ``cells`` (u, g) is filled with shares."""
        u, pixels = len(maps), size[0] * size[1]
        concepts = torch.as_tensor(flat.astype(np.float32), device=device)
        limits = torch.as_tensor(self.thresholds_, device=device)
        inside, total = np.empty((u, flat.shape[1])), np.empty(u)
        step = max(1, UPSAMPLE_ELEMENTS // pixels)
        for start in range(0, u, step):
            part = torch.as_tensor(maps[start : start + step].astype(np.float32), device=device)[None]
            large = torch.nn.functional.interpolate(part, size=size, mode="bilinear", align_corners=False)[0]
            on = (large > limits[start : start + step, None, None].to(large.dtype)).to(torch.float32)
            if cells is not None:
                shares = torch.nn.functional.adaptive_avg_pool2d(on[None], (GRID, GRID))[0].flatten(1)
                cells[start : start + step] = (255.0 * shares).round().to(torch.uint8).cpu().numpy()
            mask = on.flatten(1)
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
        for status, verb, words in (("constant", "that do", "not vary"), ("no overlap", "that overlap", "no concept")):
            who = [row.unit for row in self.explanations_ if row.status == status]
            if who:
                self.notes_.append(
                    f"no label for {human_count(len(who), 'unit', verb)} {words}: {', '.join(map(str, who[:10]))}"
                )
        absent = [name for name, count in zip(names, labelled, strict=True) if not count]
        if absent:
            shown = ", ".join(f"`{name}`" for name in absent[:5])
            self.notes_.append(f"{human_count(len(absent), 'concept', 'have')} no pixel in these images: {shown}")

    def table(self, layer: str = "") -> ExplanationTable:
        """The labels as a table ``layer, unit, description, iou``."""
        return ExplanationTable.of_layer("description", self.explanations_, 1, self.notes_, layer)


class _Cells:
    """Maps and masks of some images as shares of the cells of one grid, to be laid over each other in any order.

    Parameters
    ----------
    groups : (c, categories) bool
    n_images : int
        That will come; 0 keeps none.
    random_state : int
        Of the choice of images where not all can be kept.
    """

    def __init__(self, units: int, groups: np.ndarray, n_images: int, random_state: int) -> None:
        most = min(n_images, MOST_IMAGES, max(FEWEST_IMAGES, MOST_CELLS // (units * GRID * GRID)))
        chosen = generator(random_state, "images", n_images).permutation(n_images)[:most]
        self.wanted, self.seen, self.units, self.groups = set(chosen.tolist()), 0, units, groups
        self.maps: list[np.ndarray] = []  # (u, g) uint8
        self.masks: list[np.ndarray] = []  # (g, p) float32
        self.present: list[np.ndarray] = []  # (p,) int

    def next(self, size: tuple[int, int], flat: np.ndarray, present: np.ndarray) -> np.ndarray | None:
        """Where the map of the next image goes; None when it is not kept."""
        self.seen += 1
        if self.seen - 1 not in self.wanted:
            return None
        pixels = torch.as_tensor(flat.T.reshape(1, -1, *size).astype(np.float32))
        self.masks.append(torch.nn.functional.adaptive_avg_pool2d(pixels, (GRID, GRID))[0].flatten(1).numpy().T)
        self.present.append(present)
        self.maps.append(np.zeros((self.units, GRID * GRID), dtype=np.uint8))
        return self.maps[-1]

    def best(self, orders: np.ndarray | None) -> np.ndarray:
        """Best IoU (B, u) when image j gets the map of image ``orders[b, j]``; (u,) for the order as it is."""
        n, c = len(self.maps), len(self.groups)
        perms = np.arange(n)[None] if orders is None else orders
        labelled, counted = np.zeros(c), np.zeros((n, c), dtype=np.float32)
        for j, present in enumerate(self.present):
            labelled[present] += self.masks[j].sum(axis=0)
            counted[j] = self.groups[:, self.groups[present].any(axis=0)].any(axis=1)
        found = np.empty((len(perms), self.units))
        step = max(1, min(DRAWN_ELEMENTS // (len(perms) * c), MOST_CELLS // (4 * n * GRID * GRID)))
        for start in range(0, self.units, step):
            maps = np.stack([one[start : start + step] for one in self.maps]).astype(np.float32) / 255.0
            both = np.zeros((len(perms), maps.shape[1], c), dtype=np.float32)
            for j, present in enumerate(self.present):
                both[:, :, present] += (maps @ self.masks[j])[perms[:, j]]
            sizes = maps.sum(axis=2)
            active = np.stack([sizes[order].T @ counted for order in perms])
            union = active + labelled - both
            iou = np.divide(both, union, out=np.zeros_like(both), where=(union > 0) & (labelled > 0))
            found[:, start : start + step] = iou.max(axis=2)
        return found[0] if orders is None else found


def _groups(names: Sequence[str], categories: Sequence[str] | None) -> np.ndarray:
    """(c, categories) bool membership."""
    if not names:
        raise ValueError("Got no concept names, expected at least one")
    own = ["all"] * len(names) if categories is None else list(categories)
    if len(own) != len(names):
        raise ValueError(f"Got {human_count(len(names), 'concept')} and {human_count(len(own), 'category')}")
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
