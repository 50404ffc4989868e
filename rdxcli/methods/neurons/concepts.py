"""Concept sets and concept activations.

Symbols: P (n, c) concept activations of n images, names (c,) their strings; cos (n, c) cosine of image and text
embeddings; a, b the scale and shift of the calibrated sigmoid P = sigmoid(a (cos + b)).

Reference: Oikarinen and Weng, "Linear Explanations for Individual Neurons", ICML 2024 (arXiv 2405.06855), section 3 and
appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.special import expit

from rdxcli.numerics.moments import ColumnStatistics, blocks, check_source, read
from rdxcli.progress import human_count

CALIBRATION: Mapping[str, tuple[float, float]] = {
    "ViT-L-16-SigLIP-384": (60.0, -0.09),
    "ViT-SO400M-14-SigLIP-384": (58.0, -0.13),
    "ViT-L-14-336": (58.0, -0.25),
    "ViT-L-14-336-quickgelu": (58.0, -0.25),
}
"""Published (a, b) by open_clip name: the explainer, the simulator, and the CLIP model of the appendix."""


def text_lines(text: str) -> list[str]:
    """Lines of a concept or class-name file, as they are.

    Ends of lines may be LF, CR LF or bare CR; other Unicode separators belong to the text. A byte-order mark and empty
    lines at the end are dropped; nothing is read as a missing value, so ``null`` and ``nan`` are words.
    """
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


@dataclass(frozen=True)
class ConceptSet:
    """A cleaned list of concept strings.

    Attributes
    ----------
    names : tuple of str
        Distinct, in order of first appearance.
    empty, duplicates : int
        Lines left out because they were blank, or were there before.
    """

    names: tuple[str, ...]
    empty: int
    duplicates: int

    @property
    def notes(self) -> list[str]:
        """What was left out, in words."""
        notes = []
        if self.empty:
            notes.append(f"left out {self.empty} empty line{'s' * (self.empty > 1)} of the concept set")
        if self.duplicates:
            notes.append(f"left out {self.duplicates} repeated concept{'s' * (self.duplicates > 1)}")
        return notes


def clean_concepts(lines: Iterable[str]) -> ConceptSet:
    """Drop blank lines and exact repetitions, keep the first; spaces around a concept are removed.

    Raises `ValueError` (nothing left).
    """
    stripped = [line.strip() for line in lines]
    filled = [line for line in stripped if line]
    names = tuple(dict.fromkeys(filled))
    if not names:
        raise ValueError("Got a concept set without any concept, expected at least one line of text")
    return ConceptSet(names, len(stripped) - len(filled), len(filled) - len(names))


def label_concepts(
    targets: ArrayLike,
    class_names: Sequence[str],
    superclasses: Mapping[str, Sequence[int]] | None = None,
    *,
    classes: int | None = None,
) -> tuple[sparse.csr_array, tuple[str, ...]]:
    """LE(Label): one column per class, then one per superclass.

    Raises `ValueError` (ids out of range, or names and columns that do not match).

    Parameters
    ----------
    targets : (n,) int
        Class id of each image.
    superclasses : mapping of name to class ids, optional
        In the order of the columns; "_" in a name becomes a space.
    classes : int, optional
        Number of class columns; default ``len(class_names)``. (The published code takes max(targets) + 1, the same
        unless the last classes have no image.)

    Returns
    -------
    matrix : CSR array (n, c), float64, entries 0 or 1
    names : tuple of str, length c
        Not necessarily distinct: a superclass may be called like a class.
    """
    ids = np.asarray(targets)
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"Got targets of shape {ids.shape}, expected (n,)")
    if ids.dtype.kind not in "iu":
        raise ValueError(f"Got targets of type {ids.dtype}, expected class ids (integers)")
    k = len(class_names) if classes is None else classes
    if k > len(class_names):
        raise ValueError(f"Got {human_count(len(class_names), 'class name')} for {human_count(k, 'class')}")
    if ids.min() < 0 or ids.max() >= k:
        raise ValueError(f"Got class id {ids.max() if ids.max() >= k else ids.min()}, expected 0..{k - 1}")
    groups = dict(superclasses or {})
    member = sparse.lil_array((k, k + len(groups)), dtype=np.float64)
    member.setdiag(1.0)
    for column, (name, members) in enumerate(groups.items(), start=k):
        for one in set(members):
            if not 0 <= one < k:
                raise ValueError(f"Got class id {one} in the superclass {name!r}, expected 0..{k - 1}")
            member[one, column] = 1.0
    names = (*class_names[:k], *(name.replace("_", " ") for name in groups))
    return sparse.csr_array(sparse.csr_array(member)[ids]), names


def superclass_table(
    parents: Mapping[int, Sequence[str]],
    graph: Mapping[str, Sequence[str]],
    *,
    min_classes: int = 2,
    drop: Iterable[str] = (),
) -> dict[str, list[int]]:
    """Superclasses from a hypernym graph: every ancestor of every class, by the name of its first lemma.

    Raises `ValueError` (an ancestor that the graph does not know).

    Parameters
    ----------
    parents : mapping of class id to synset names
        Direct hypernyms of the synset of each class.
    graph : mapping of synset name to synset names
        Direct hypernyms of every ancestor.
    min_classes : int
        Superclasses with fewer classes are dropped.
    drop : iterable of str
        Names to leave out (the published table drops 64 that repeat another one's classes).

    Returns
    -------
    dict of name to sorted class ids, in order of first appearance (classes in the order given, each ancestor after
    its own ancestors). Synsets with the same lemma are merged: the name is what comes before the first ".", with "_"
    as spaces.
    """
    found: dict[str, set[int]] = {}

    def visit(synset: str, class_id: int, seen: set[str]) -> None:
        if synset in seen:
            return
        seen.add(synset)
        if synset not in graph:
            raise ValueError(f"Got the hypernym {synset!r}, which the graph does not hold")
        for above in graph[synset]:
            visit(above, class_id, seen)
        found.setdefault(synset.split(".")[0].replace("_", " "), set()).add(class_id)

    for class_id, direct in parents.items():
        seen: set[str] = set()
        for synset in direct:
            visit(synset, int(class_id), seen)
    unwanted = set(drop)
    return {name: sorted(ids) for name, ids in found.items() if len(ids) >= min_classes and name not in unwanted}


def active_concepts(statistics: ColumnStatistics, *, min_top: float = 0.5, min_std: float = 1e-5) -> np.ndarray:
    """Which concepts are present in the images at all: mean of the 5 largest values >= 0.5 and std (n - 1) >= 1e-5.

    `statistics`: of the concept activations, with ``top=5``.

    Returns
    -------
    (c,) bool
    """
    return np.asarray((statistics.top_mean >= min_top) & (statistics.std >= min_std))


def unit_rows(values: ArrayLike, name: str) -> np.ndarray:
    """Rows divided by their length, float64; a zero row stays zero.

    Raises `ValueError` (not two-dimensional, NaN or infinite values).
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"{name}: Got an array of shape {rows.shape}, expected (n, d)")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name}: Got NaN or infinite values, expected finite numbers")
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1.0)


class LazyCosines:
    """Concept activations that are computed when rows are asked for: cosines, or their calibrated sigmoid.

    A row source (see `rdxcli.numerics.moments`): ``source[rows]`` is a float64 block. n images and c concepts cost O((n
    + c) d) memory instead of O(n c). Raises `ValueError` (different widths, NaN, or only one of a and b).

    Parameters
    ----------
    image_features : (n, d) array-like
        Embeddings of a vision-language model, not necessarily normalised.
    text_features : (c, d) array-like
    a, b : float, optional
        Scale and shift of sigmoid(a (cos + b)); both or none. See `CALIBRATION` and `calibrate_sigmoid`.
    """

    def __init__(
        self, image_features: ArrayLike, text_features: ArrayLike, *, a: float | None = None, b: float | None = None
    ) -> None:
        if (a is None) != (b is None):
            raise ValueError(f"Got a={a} and b={b}, expected both or none")
        self.images = unit_rows(image_features, "image features")
        self.texts = unit_rows(text_features, "text features")
        if self.images.shape[1] != self.texts.shape[1]:
            raise ValueError(
                f"Got image features of width {self.images.shape[1]} and text features of width {self.texts.shape[1]}, "
                "expected the same model"
            )
        self.a, self.b = a, b

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""
        return len(self.images), len(self.texts)

    def __getitem__(self, rows: Any) -> np.ndarray:
        cosines = self.images[rows] @ self.texts.T
        if self.a is None or self.b is None:
            return cosines
        return expit(self.a * (cosines + self.b))


def calibration_grid() -> tuple[np.ndarray, np.ndarray]:
    """The published grids: 81 values of a in {0.1 .. 1, 0, 2, .. 150}, 201 values of b in {-1.00 .. 1.00}."""
    a = np.array([0.1, 0.25, 0.5, 0.75, 1.0, *np.arange(0, 151, 2)], dtype=np.float64)
    return a, np.arange(-100, 101) / 100.0


def calibrate_sigmoid(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    a_grid: ArrayLike | None = None,
    b_grid: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """The (a, b) with the lowest mean binary cross entropy of sigmoid(a (cos + b)) against 0/1 labels.

    Raises `ValueError` (shapes that differ, NaN, or labels other than 0 and 1).

    Parameters
    ----------
    cosines : (n, c) array-like
        Cosine of each image with each class or superclass name (the published choice: ImageNet validation images, 1000
        class names and the superclasses with at most 300 classes).
    labels : (n, c) array-like of 0 and 1
    a_grid, b_grid : (p,), (q,) array-like, optional
        Default `calibration_grid`.

    Returns
    -------
    a, b, loss : float
        The first best in a-major order. Logarithms are cut at -100, as PyTorch's binary cross entropy does.

    Notes
    -----
    O(p q n c). Cross entropy of sigmoid(x) is softplus(-x) for label 1 and softplus(x) for label 0.
    """
    cos, y = np.asarray(cosines, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if cos.shape != y.shape or not cos.size:
        raise ValueError(f"Got cosines {cos.shape} and labels {y.shape}, expected the same shape")
    if not np.isfinite(cos).all() or not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("Got NaN cosines or labels other than 0 and 1")
    default_a, default_b = calibration_grid()
    grid_a = default_a if a_grid is None else np.asarray(a_grid, dtype=np.float64)
    grid_b = default_b if b_grid is None else np.asarray(b_grid, dtype=np.float64)
    flipped = np.where(y == 1, -1.0, 1.0).ravel()
    flat = cos.ravel()
    best = (np.inf, float("nan"), float("nan"))
    for a in grid_a:
        for b in grid_b:
            # softplus, cut at 100 because the logarithm is cut at -100
            loss = float(np.minimum(np.logaddexp(0.0, a * (flat + b) * flipped), 100.0).mean())
            if loss < best[0]:
                best = (loss, float(a), float(b))
    return best[1], best[2], best[0]


def fit_sigmoid(
    cosines: Any, labels: Any, *, tolerance: float = 1e-10, max_iterations: int = 100
) -> tuple[float, float, float]:
    """The exact minimum of the same cross entropy over all (a, b), by Newton's method over blocks of rows.

    With logits a cos + a b this is a logistic regression in two numbers, so its minimum is unique; it costs a few
    passes over the data instead of 16,281. Raises `ValueError` (shapes that differ; labels that are all equal or
    perfectly separated (no finite minimum); a fit in which similar texts and images disagree (a <= 0)).

    Parameters
    ----------
    cosines : row source (n, c)
    labels : row source (n, c) of 0 and 1, dense or CSR
    """
    P, Y = check_source(cosines, "cosines"), check_source(labels, "labels")
    if tuple(P.shape) != tuple(Y.shape):
        raise ValueError(f"Got cosines {tuple(P.shape)} and labels {tuple(Y.shape)}, expected the same shape")
    every = np.arange(P.shape[0])

    def derivatives(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        loss, gradient, hessian = 0.0, np.zeros(2), np.zeros((2, 2))
        for rows in blocks(every, P.shape[1]):
            x = read(P, rows, "cosines").ravel()
            block = read(Y, rows, "labels")
            y = (block.toarray() if sparse.issparse(block) else block).ravel()
            logits = theta[0] * x + theta[1]
            p = expit(logits)
            loss += float((np.logaddexp(0.0, logits) - y * logits).sum())
            error, weight = p - y, p * (1.0 - p)
            gradient += (error @ x, error.sum())
            cross = weight @ x
            hessian += ((weight @ x**2, cross), (cross, weight.sum()))
        size = P.shape[0] * P.shape[1]
        return loss / size, gradient / size, hessian / size

    theta = np.zeros(2)
    loss, gradient, hessian = derivatives(theta)
    for _ in range(max_iterations):
        if np.linalg.cond(hessian) > 1e14 or np.abs(theta).max() > 1e5:
            raise ValueError("Got labels that the cosines separate perfectly or not at all, expected both kinds mixed")
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        length = 1.0
        while True:
            new = derivatives(theta - length * step)
            if new[0] <= loss - 1e-4 * length * decrement or length < 1e-8:
                break
            length /= 2
        theta = theta - length * step
        loss, gradient, hessian = new
        if decrement <= tolerance:
            break
    if loss < 1e-7:
        raise ValueError("Got labels that the cosines separate perfectly or not at all, expected both kinds mixed")
    if theta[0] <= 0:
        raise ValueError(f"Got a scale of {theta[0]:.3g}: matching texts and images are less similar than others")
    return float(theta[0]), float(theta[1] / theta[0]), loss
