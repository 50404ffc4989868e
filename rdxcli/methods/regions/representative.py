"""Representative Interpretation, the baseline that comes with the published code of decision regions.

Symbols: f (n, d) features of the layer; y the predicted class of each sample; g(x) = (largest - second logit) at x; W
(d, B), b (B,) the B sampled pieces of the decision boundary; a sample is on one side or the other: bit = [f W + b > 0].
A few pieces are chosen, one by one, so that the samples on the target's side of all of them are predicted like it.

Reference: Lam et al., "Finding Representative Interpretations on Convolutional Neural Networks", ICCV 2021 (arXiv
2108.06384), in the variant of the decision-region code at its commit 6a94f97.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from rdxcli.methods.estimator import Estimator
from rdxcli.methods.regions.distances import as_features
from rdxcli.numerics.seeding import generator
from rdxcli.parameters import Count
from rdxcli.progress import human_count

TorchHead = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Cover:
    """Outcome of `greedy_cover`.

    Attributes
    ----------
    order : (s,) int64
        Chosen boundaries in the order of choice.
    same, other : int64 arrays
        Surviving rows of each group, ascending.
    """

    order: np.ndarray
    same: np.ndarray
    other: np.ndarray

    def selected(self, boundaries: int) -> np.ndarray:
        """Chosen boundaries as a (boundaries,) bool mask."""
        mask = np.zeros(boundaries, dtype=bool)
        mask[self.order] = True
        return mask


def greedy_cover(
    match_same: ArrayLike, match_other: ArrayLike, *, delta: int = 0, n_steps: int = 40, compat: bool = False
) -> Cover:
    """Boundaries that keep samples predicted like the target and remove the others.

    Each step takes the boundary with the smallest (same lost + 1e-5) / (other removed + 1e-10), the first one on a tie,
    in float32. Raises `ValueError` (other shapes, no boundaries, negative numbers).

    Parameters
    ----------
    match_same, match_other : (a, B) and (b, B) bool
        The sample is on the target's side of the boundary.
    delta : int, default 0
        Ends when at most this many others survive.
    n_steps : int, default 40
        Ends after ``n_steps + 1`` steps, as published.
    compat : bool, default False
        When nothing more can be removed the original uses its marker -1 as an index: the last boundary is chosen as
        well, and removes whom it removes. Off: it stops there.
    """
    same, other = np.asarray(match_same, dtype=bool), np.asarray(match_other, dtype=bool)
    if same.ndim != 2 or other.ndim != 2 or same.shape[1] != other.shape[1] or not same.shape[1]:
        raise ValueError(f"Got matches of shapes {same.shape} and {other.shape}, expected (a, B) and (b, B)")
    if delta < 0 or n_steps < 0:
        raise ValueError(f"Got delta={delta} and n_steps={n_steps}, expected at least 0")
    alive_same, alive_other = np.arange(len(same)), np.arange(len(other))
    order: list[int] = []
    while True:
        lost = (~same[alive_same]).sum(axis=0)
        removed = (~other[alive_other]).sum(axis=0)
        last = not removed.any()
        if last and not compat:
            break
        price = (lost.astype(np.float32) + np.float32(1e-5)) / (removed.astype(np.float32) + np.float32(1e-10))
        price[order] = np.float32(1e10)
        best = same.shape[1] - 1 if last else int(price.argmin())
        if best not in order:
            order.append(best)
        alive_same = alive_same[same[alive_same, best]]
        alive_other = alive_other[other[alive_other, best]]
        if last or len(alive_other) <= delta or len(order) > n_steps:
            break
    return Cover(np.array(order, dtype=np.int64), alive_same, alive_other)


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Pieces of the decision boundary.

    Attributes
    ----------
    W : (d, B) float32
    b : (B,) float32
    points : (B, d) float32
        Where each piece was found; W and b vanish there up to the gap that was left.
    rows : (B,) int64
        The sample of another class each search started from.
    classes : (B,) int64
        The class on the other side of each piece; it need not be the one of the sample.
    """

    W: np.ndarray
    b: np.ndarray
    points: np.ndarray
    rows: np.ndarray
    classes: np.ndarray


def sides(features: ArrayLike, W: ArrayLike, b: ArrayLike) -> np.ndarray:
    """On which side of each boundary the samples lie: f W + b > 0 in float32, (n, B) bool."""
    f = as_features(features).astype(np.float32)
    return f @ np.asarray(W, dtype=np.float32) + np.asarray(b, dtype=np.float32) > 0


def find_boundaries(
    head: TorchHead,
    features: ArrayLike,
    target: int,
    rows: ArrayLike,
    *,
    weight: float = 0.9,
    gap: float = 1e-5,
    max_iterations: int = 1000,
    device: str = "cpu",
) -> Boundaries:
    """Search the boundary between the target and each of some samples, and linearise it there.

    pos = target, neg = sample; x = weight pos + (1 - weight) neg takes the place of pos when it is predicted like the
    target, else of neg, until it is and the squared gap of its two largest logits is below ``gap``. The boundary is the
    tangent plane of that gap: w = grad g(x), b = g(x) - <w, x>.

    Parameters
    ----------
    head : torch callable
        From features of the layer's own shape to logits (b, c); samples must not influence each other.
    features : (n, ...) array-like
    rows : (B,) int
        Samples that are predicted differently.
    weight, gap : float
        Published values 0.9 and 1e-5.
    max_iterations : int
        Searches that take longer are left out; the original goes on for ever.

    Returns
    -------
    Boundaries
        Of the searches that ended, in the order of ``rows``.

    Notes
    -----
    All searches advance together: about 150 forward passes of B samples and one backward pass.
    """
    values = np.asanyarray(features)
    starts = np.asarray(rows, dtype=np.int64)

    def tensor(index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[index], dtype=np.float32)).to(device)

    neg = tensor(starts)
    pos = tensor(np.full(len(starts), target))
    x = pos.clone()
    found = torch.zeros(len(starts), dtype=torch.bool, device=device)
    with torch.no_grad():
        own = head(pos[:1]).argmax(dim=1) if len(starts) else None
        for _ in range(max_iterations):
            open_ = torch.nonzero(~found).ravel()
            if not len(open_):
                break
            new = weight * pos[open_] + (1.0 - weight) * neg[open_]
            logits = head(new)
            top = torch.topk(logits, 2, dim=1).values
            kept = logits.argmax(dim=1) == own
            x[open_] = new
            done = kept & ((top[:, 0] - top[:, 1]) ** 2 < gap)
            found[open_] = done
            pos[open_[kept]] = new[kept]
            neg[open_[~kept]] = new[~kept]
    points = x[found].detach().requires_grad_(True)
    if len(points):
        largest, which = torch.topk(head(points), 2, dim=1)
        difference = largest[:, 0] - largest[:, 1]
        classes = which[:, 1].cpu().numpy()
        (slope,) = torch.autograd.grad(difference.sum(), points)
        flat, w = points.detach().flatten(1), slope.flatten(1)
        b = difference.detach() - (flat * w).sum(dim=1)
    else:
        flat = w = points.detach().flatten(1)
        b = points.new_zeros(0)
        classes = np.empty(0, dtype=np.int64)
    where = starts[found.cpu().numpy()]
    return Boundaries(w.T.cpu().numpy(), b.detach().cpu().numpy(), flat.cpu().numpy(), where, classes)


class RepresentativeInterpretation(Estimator):
    """Samples on the target's side of a few pieces of the decision boundary.

    Unlike a relaxed decision region it needs the head of the model with its gradients, and the predictions.

    Parameters
    ----------
    n_boundaries : int, default 50
        Pieces that are sampled (published).
    weight, gap : float, default 0.9 and 1e-5
        Of the search (published).
    delta, n_steps : int, default 0 and 40
        When the choice ends (published).
    compat : bool, default False
        Keep the original's slip at the end of the choice, see `greedy_cover`.
    max_iterations : int, default 1000

    Attributes
    ----------
    bits_ : (n, B) bool
    selected_ : (s,) int64
        Chosen boundaries in order.
    members_ : (r,) int64
        Samples equal to the target on all of them, the target first, then ascending. Empty when nothing was chosen.
    scores_ : dict
        ``size``, ``coverage``; ``purity``: share of the members that are predicted like the target; ``recall``: share
        of those predicted like it that are members.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from rdxcli.methods.regions.representative import RepresentativeInterpretation
    >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    >>> def head(f): return torch.stack([f[:, 0], -f[:, 0]], dim=1)
    >>> ri = RepresentativeInterpretation(n_boundaries=5).fit(x, head, target=0)
    >>> ri.scores_["purity"]
    1.0
    """

    def __init__(
        self,
        n_boundaries: Count = 50,
        *,
        weight: float = 0.9,
        gap: float = 1e-5,
        delta: int = 0,
        n_steps: Count = 40,
        compat: bool = False,
        max_iterations: Count = 1000,
        device: str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.n_boundaries = n_boundaries
        self.weight = weight
        self.gap = gap
        self.delta = delta
        self.n_steps = n_steps
        self.compat = compat
        self.max_iterations = max_iterations
        self.device = device
        self.random_state = random_state

    def fit(
        self, features: ArrayLike, head: TorchHead, *, target: int, predictions: ArrayLike | None = None
    ) -> RepresentativeInterpretation:
        """Sample boundaries around the target, choose among them, cover.

        Raises `ValueError` (features that are not finite, a target out of range, options out of range, only one
        predicted class).

        Parameters
        ----------
        features : (n, ...) array-like
            Output of the layer, in its own shape.
        head : torch callable
            From such features to logits, in evaluation mode.
        predictions : (n,) int array-like, optional
            Predicted class numbers; default those of the head.
        """
        self._check_options()
        values = np.asanyarray(features)
        as_features(values)
        if not isinstance(target, int | np.integer) or not 0 <= target < len(values):
            raise ValueError(f"Got target={target!r}, expected a row from 0 to {len(values) - 1}")
        y = self._predictions(values, head) if predictions is None else np.asarray(predictions)
        if y.shape != (len(values),):
            raise ValueError(f"Got predictions of shape {y.shape}, expected ({len(values)},)")
        others = np.flatnonzero(y != y[target])
        if not len(others):
            raise ValueError("Got one predicted class for all samples, expected at least two: there is no boundary")
        rng = generator(self.random_state, "representative interpretation", int(target))
        rows = rng.choice(others, size=min(self.n_boundaries, len(others)), replace=False)
        self.boundaries_ = find_boundaries(
            head,
            values,
            int(target),
            rows,
            weight=self.weight,
            gap=self.gap,
            max_iterations=self.max_iterations,
            device=self.device,
        )
        self.notes_: list[str] = []
        found = len(self.boundaries_.rows)
        if found < self.n_boundaries:
            self.notes_.append(f"{human_count(found, 'boundary')} found instead of {self.n_boundaries}")
        self.target_ = int(target)
        if found:
            self.bits_ = sides(values, self.boundaries_.W, self.boundaries_.b)
            self._cover(y)
        else:
            self.bits_ = np.zeros((len(values), 0), dtype=bool)
            self._store(np.empty(0, dtype=np.int64), y)
        return self

    def membership(self, features: ArrayLike) -> np.ndarray:
        """Which samples, for example new ones, are covered: (n,) bool. None when no boundary was chosen."""
        bits = sides(features, self.boundaries_.W, self.boundaries_.b)[:, self.selected_]
        return (bits == self.bits_[self.target_, self.selected_]).all(axis=1) & bool(len(self.selected_))

    def _cover(self, y: np.ndarray) -> None:
        match = self.bits_ == self.bits_[self.target_]
        same = y == y[self.target_]
        cover = greedy_cover(match[same], match[~same], delta=self.delta, n_steps=self.n_steps, compat=self.compat)
        if len(cover.other) > self.delta:
            self.notes_.append(f"{human_count(len(cover.other), 'sample')} of other predictions are still covered")
        self._store(cover.order, y)

    def _store(self, order: np.ndarray, y: np.ndarray) -> None:
        self.selected_ = order
        members = np.flatnonzero((self.bits_ == self.bits_[self.target_])[:, order].all(axis=1))
        if not len(order):
            members = members[:0]
            self.notes_.append("unbounded: no boundary separates the target from any sample")
        self.members_ = np.concatenate([members[members == self.target_], members[members != self.target_]])
        like = y == y[self.target_]
        size = len(members)
        self.scores_: dict[str, Any] = {
            "size": size,
            "coverage": size / len(y) if len(order) else 1.0,
            "purity": float(like[members].mean()) if size else None,
            "recall": float(like[members].sum() / like.sum()) if size else None,
        }

    def _predictions(self, values: np.ndarray, head: TorchHead) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for start in range(0, len(values), 256):
                batch = np.ascontiguousarray(values[start : start + 256], dtype=np.float32)
                parts.append(head(torch.from_numpy(batch).to(self.device)).argmax(dim=1).cpu().numpy())
        return np.concatenate(parts)

    def _check_options(self) -> None:
        for name, least in (("n_boundaries", 1), ("delta", 0), ("n_steps", 0), ("max_iterations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Got {name}={getattr(self, name)}, expected at least {least}")
        if not 0 < self.weight < 1:
            raise ValueError(f"Got weight={self.weight}, expected a share between 0 and 1")
        if not self.gap > 0:
            raise ValueError(f"Got gap={self.gap}, expected a positive number")
