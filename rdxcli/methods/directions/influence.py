"""How much directions influence the predictions of the network, and whether more than chance.

Symbols: ``s_i`` (D,) unit encoding direction; ``f+`` the network above the layer; ``p_k`` its probability of class k;
``g_k`` (D,) mean gradient of logit k, summed over positions; ``d_i`` (D,) mean feature where detector i fires minus
mean where it does not.

* Sensitivity (RCAV; EDDP, section 3.5): ``2 share(p_k(x + alpha s_i) >= p_k(x)) - 1`` over the images of class k,
  with the direction added at every position. In [-1, 1]; says how consistent an influence is, not how large.
* Derivative ``s_i . g_k``: change of logit k per feature unit along the direction, at every position.
* Effect ``(s_i . g_k) (s_i . d_i)``: change of logit k, to first order, if the concept appeared at every position the
  way it does where it is detected, as far as that goes along its direction.

Two nulls. For the sensitivity the published one (EDDP, appendix F): signal vectors of linear classifiers trained on
permuted decisions of the detector; p is the share of them at least as far from zero. With N permutations the smallest
p is 0, not 1 / (N + 1): the Bonferroni bound is far below 1 / N. It hardly ever finds anything with few classes,
where most vectors move some class in every image. For the effect: random directions in its place, isotropic, with p =
(1 + r) / (N + 1); this costs no pass of ``f+``, because the effect is quadratic in the direction.

Cost: one pass of ``f+`` over the images per direction, one backward pass, and for the published null one pass per
null direction (all free with a pooled linear head).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from rdxcli.numerics.seeding import generator, torch_generator

from .alignment import Head, PooledLinearHead
from .base import Array, Directions
from .features import as_maps, positions
from .signals import closed_form


def _logits(head: Head, X: Tensor, batch: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([head(part).double().cpu() for part in X.split(batch)])


def shifted_logits(head: Head, X: Tensor, vectors: Array, batch: int = 256) -> Iterator[Tensor]:
    """Logits (N, K), float64, of ``f+(X + v)`` for each vector v added at every position, one after the other."""
    V = torch.as_tensor(vectors, dtype=torch.float64)
    if isinstance(head, PooledLinearHead):
        base = _logits(head, X, batch)
        for change in V @ head.weight.double():
            yield base + change
        return
    for v in V.float():
        yield _logits(head, X + v[:, None, None], batch)


def _of_class(y: Array | None, logits: Tensor) -> tuple[Array, Array]:
    """Class of each image (given or predicted) and the classes that occur."""
    y = logits.argmax(1).numpy() if y is None else np.asarray(y)
    if y.shape != (len(logits),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"Got classes of shape {y.shape} and type {y.dtype}, expected {len(logits)} integers")
    if y.min() < 0 or y.max() >= logits.shape[1]:
        raise ValueError(f"Got classes from {y.min()} to {y.max()}, expected 0 to {logits.shape[1] - 1}")
    return y, np.unique(y)


def sensitivity(
    head: Head,
    features: Array | Tensor,
    vectors: Array,
    y: Array | None = None,
    alpha: float = 5.0,
    images: str = "class",
    batch: int = 256,
) -> tuple[Array, Array]:
    """RCAV sensitivity of each class to each direction.

    Parameters
    ----------
    head : callable
        Feature maps (N, D, H, W) to logits (N, K).
    features : array, shape (N, D, H, W) or (N, D)
    vectors : ndarray, shape (V, D)
        Directions; normalised here.
    y : ndarray of int, shape (N,), optional
        Classes of the images; default is what the network predicts.
    alpha : float
        Length of the step, in feature units; the paper uses 5.
    images : "class" or "all"
        Average over the images of the class, or over all.
    batch : int
        Images per forward pass.

    Returns
    -------
    values : ndarray, shape (V, C), float64
    classes : ndarray of int, shape (C,)
        Classes that have images (with ``images="all"``, all classes).
    """
    if images not in ("class", "all"):
        raise ValueError(f"Got images={images!r}, expected 'class' or 'all'")
    X = as_maps(features)
    vectors = np.asarray(vectors, np.float64)
    unit = alpha * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    base = _logits(head, X, batch)
    before = torch.softmax(base, 1)
    y, classes = _of_class(y, base)
    if images == "all":
        classes = np.arange(base.shape[1])
        members = np.full((len(X), len(classes)), 1.0 / len(X))
    else:
        members = (y[:, None] == classes).astype(np.float64)
        members /= members.sum(0)
    rows = [
        2 * ((torch.softmax(after, 1) >= before).numpy()[:, classes] * members).sum(0) - 1
        for after in shifted_logits(head, X, unit, batch)
    ]
    return np.stack(rows), classes


def class_gradients(
    head: Head, features: Array | Tensor, y: Array | None = None, images: str = "class", batch: int = 256
) -> tuple[list[Array], Array]:
    """Gradients of class logits, summed over positions.

    Parameters
    ----------
    head, features, y, images, batch
        As in `sensitivity`. With ``images="class"`` all classes together take one backward pass, otherwise one each.

    Returns
    -------
    gradients : list of ndarray, shape (n_k, D), float64
        For each class, one row per image it is taken over.
    classes : ndarray of int, shape (C,)
    """
    X = as_maps(features)
    base = _logits(head, X, batch)
    y, classes = _of_class(y, base)
    if images == "all":
        classes = np.arange(base.shape[1])
        return [_gradient(head, X, np.full(len(X), k), batch) for k in classes], classes
    own = _gradient(head, X, y, batch)
    return [own[y == k] for k in classes], classes


def _gradient(head: Head, X: Tensor, y: Array, batch: int) -> Array:
    """Gradient of ``logit[n, y_n]`` with respect to image n, summed over positions, (N, D)."""
    parts = []
    for part, of in zip(X.split(batch), torch.as_tensor(y).split(batch), strict=True):
        part = part.detach().clone().requires_grad_()
        with torch.enable_grad():
            logits = head(part)
            total = logits.gather(1, of.long()[:, None].to(logits.device)).sum()
            (gradient,) = torch.autograd.grad(total, part)
        parts.append(gradient.sum((2, 3)).double())
    return torch.cat(parts).numpy()


def derivatives(gradients: list[Array], vectors: Array) -> tuple[Array, Array]:
    """Mean derivative of each class logit along each direction, and its standard error over images.

    Parameters
    ----------
    gradients : list of ndarray, shape (n_k, D)
        From `class_gradients`.
    vectors : ndarray, shape (V, D)
        Normalised here.

    Returns
    -------
    mean, standard_error : ndarray, shape (V, C), float64
        Per feature unit. The error of a class with one image is 0.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    slopes = [unit @ g.T for g in gradients]
    mean = np.stack([slope.mean(1) for slope in slopes], axis=1)
    error = [slope.std(1, ddof=min(1, slope.shape[1] - 1)) / np.sqrt(slope.shape[1]) for slope in slopes]
    return mean, np.stack(error, axis=1)


def detected_differences(directions: Directions, features: Array | Tensor) -> tuple[Array, Array]:
    """Mean feature where each detector fires minus mean where it does not.

    Returns
    -------
    differences : ndarray, shape (I, D), float64
        0 for a detector that fires everywhere or nowhere.
    counts : ndarray of int, shape (I,)
        Positions where it fires.
    """
    X = as_maps(features)
    x = positions(X).double().numpy() - directions.mean_
    active = np.moveaxis(directions.detect(X), 1, -1).reshape(len(x), -1).astype(np.float64)
    counts = active.sum(0)
    inside = active.T @ x
    outside = x.sum(0) - inside
    difference = inside / np.maximum(counts, 1)[:, None] - outside / np.maximum(len(x) - counts, 1)[:, None]
    difference[(counts == 0) | (counts == len(x))] = 0.0
    return difference, counts.astype(int)


def _random_effects(gradients: Array, differences: Array, effect: Array, n_random: int, seed: int) -> Array:
    """Share ``(1 + r) / (N + 1)`` of random unit directions with an effect at least as large, (I, C)."""
    rng = generator(seed, "random directions")
    exceeding = np.zeros_like(effect)
    done = 0
    while done < n_random:
        block = min(4096, n_random - done)
        v = rng.standard_normal((block, gradients.shape[1]))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        slope, contrast = np.abs(v @ gradients.T), np.abs(v @ differences.T)
        for i in range(len(effect)):
            exceeding[i] += (slope * contrast[:, i, None] >= np.abs(effect[i])).sum(0)
        done += block
    return (1 + exceeding) / (n_random + 1)


def null_directions(
    x: Array,
    active: Array,
    n_permutations: int,
    seed: int,
    name: int,
    negatives: int = 20,
    most: int = 5000,
    epochs: int = 100,
    rate: float = 0.01,
) -> Array:
    """Signal vectors of linear classifiers trained on permuted detections (EDDP, appendix F).

    Parameters
    ----------
    x : ndarray, shape (P, D)
        Features by position.
    active : ndarray of bool, shape (P,)
        Decisions of one detector.
    n_permutations : int
    seed, name : int
        Stream of random numbers; ``name`` is the detector's index.
    negatives, most, epochs, rate
        Negatives per positive in the pool, size of the balanced sample, and how classifiers are trained.

    Returns
    -------
    ndarray, shape (n_permutations, D), float64
        Unit vectors.
    """
    rng = generator(seed, "null directions", name)
    positive, negative = np.flatnonzero(active), np.flatnonzero(~active)
    if min(len(positive), len(negative)) < 8:
        raise ValueError(
            f"Got a detector active at {len(positive)} of {len(x)} positions, expected 8 or more of each kind"
        )
    negative = rng.permutation(negative)[: negatives * len(positive)]
    half = min(len(positive), len(negative), most // 2)
    chosen = np.concatenate([rng.permutation(positive)[:half], negative[:half]])
    sample = torch.as_tensor(x[chosen], dtype=torch.float32)
    sample = sample - sample.mean(0)
    sample = sample / sample.square().mean().sqrt().clamp_min(1e-12)
    target = torch.zeros(n_permutations, 2 * half)
    for row in range(n_permutations):
        target[row, torch.from_numpy(rng.permutation(2 * half)[:half])] = 1.0
    source = torch_generator(seed, "null classifiers", name)
    W = (0.01 * torch.randn(n_permutations, x.shape[1], generator=source)).requires_grad_()
    b = torch.zeros(n_permutations, 1, requires_grad=True)
    optimiser = torch.optim.Adam([W, b], lr=rate)
    for _ in range(epochs):
        optimiser.zero_grad(set_to_none=True)
        loss = binary_cross_entropy_with_logits(W @ sample.T + b, target, reduction="sum") / (2 * half)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        Z = W @ sample.T
        return normalize(closed_form(sample.T.contiguous(), Z, Z + b), dim=1).double().numpy()


@dataclass(frozen=True)
class Influence:
    """Influence of I directions on C classes.

    Attributes
    ----------
    classes : ndarray of int, shape (C,)
    sensitivity : ndarray, shape (I, C)
    derivative, derivative_error : ndarray, shape (I, C)
        Mean over images and its standard error.
    effect : ndarray, shape (I, C)
        In units of logits.
    p_effect : ndarray, shape (I, C)
    p_sensitivity : ndarray, shape (I, C), or None
        Only when the published null was asked for.
    significant : ndarray of bool, shape (I, C)
        After Bonferroni, by the statistic that was asked for.
    notes : list of str
    """

    classes: Array
    sensitivity: Array
    derivative: Array
    derivative_error: Array
    effect: Array
    p_effect: Array
    p_sensitivity: Array | None
    significant: Array
    notes: list[str]

    def summary(self) -> dict[str, float | int]:
        """Counts of SPEC section 8.2 on significant pairs of direction and class.

        ``directions`` (SDC) and ``pairs`` (SCDP); directions with any positive or negative influence; classes with
        one; mean number of such directions per class; most classes that one direction influences.
        """
        sign = self.effect if self.p_sensitivity is None else self.sensitivity
        up, down = self.significant & (sign > 0), self.significant & (sign < 0)
        found: dict[str, float | int] = {
            "directions": int(self.significant.any(1).sum()),
            "pairs": int(self.significant.sum()),
        }
        for name, part in (("positive", up), ("negative", down)):
            found |= {
                f"directions_{name}": int(part.any(1).sum()),
                f"classes_{name}": int(part.any(0).sum()),
                f"{name}_per_class": float(part.sum(0).mean()),
                f"most_classes_{name}": int(part.sum(1).max()),
                f"least_classes_{name}": int(part.sum(1).min()),
            }
        return found


def influence(
    directions: Directions,
    head: Head,
    features: Array | Tensor,
    y: Array | None = None,
    *,
    alpha: float = 5.0,
    statistic: str = "effect",
    n_permutations: int = 100,
    level: float = 0.05,
    images: str = "class",
    random_state: int = 0,
    batch: int = 256,
) -> Influence:
    """Sensitivity, derivative and effect of every direction on every class, with significance.

    Parameters
    ----------
    directions : Directions
    head, features, y, alpha, images, batch
        As in `sensitivity`. The head must be in evaluation mode.
    statistic : "effect" or "sensitivity"
        Which one decides what is significant; "sensitivity" runs the published permutation null.
    n_permutations : int
        Null directions for each direction in the published null.
    level : float
        Before the Bonferroni correction by the number of pairs.
    random_state : int
        Seed; each direction has its own stream.

    Returns
    -------
    Influence
    """
    if statistic not in ("effect", "sensitivity"):
        raise ValueError(f"Got statistic={statistic!r}, expected 'effect' or 'sensitivity'")
    if n_permutations < 1 or not 0 < level < 1 or alpha <= 0:
        raise ValueError(
            f"Got n_permutations={n_permutations}, level={level}, alpha={alpha}, "
            "expected at least 1, in (0, 1) and positive"
        )
    X = as_maps(features)
    encoding = directions.encoding_
    found, classes = sensitivity(head, X, encoding, y, alpha, images, batch)
    gradients, _ = class_gradients(head, X, y, images, batch)
    slope, error = derivatives(gradients, encoding)
    differences, counts = detected_differences(directions, X)
    effect = slope * (encoding * differences).sum(1, keepdims=True)
    notes = []
    n_positions = len(X) * X.shape[2] * X.shape[3]
    idle = np.flatnonzero(np.minimum(counts, n_positions - counts) < 8)
    if idle.size:
        notes.append(f"detectors {idle.tolist()} fire at fewer than 8 positions, or at all but 8: not tested")
    wanted = max(9_999, int(2 * effect.size / level))
    n_random = min(wanted, 199_999)
    if n_random < effect.size / level:
        notes.append(f"{effect.size} pairs are too many for {n_random} random directions: no effect can be significant")
    p_effect = _random_effects(np.stack([g.mean(0) for g in gradients]), differences, effect, n_random, random_state)
    p_effect[idle] = 1.0
    p_found = None
    if statistic == "sensitivity":
        p_found = np.ones_like(found)
        x = positions(X).numpy()
        active = np.moveaxis(directions.detect(X), 1, -1).reshape(len(x), -1)
        for i in np.setdiff1d(np.arange(len(found)), idle):
            null = null_directions(x, active[:, i], n_permutations, random_state, int(i))
            null_found, _ = sensitivity(head, X, null, y, alpha, images, batch)
            p_found[i] = (np.abs(null_found) >= np.abs(found[i])).mean(0)
    p = p_effect if p_found is None else p_found
    return Influence(classes, found, slope, error, effect, p_effect, p_found, p < level / p.size, notes)


def compare_with_pattern_cavs(
    sensitivities: Array, labels: Array, pattern_sensitivities: dict[int, Array], level: float = 0.05
) -> float:
    """``S3``: share of (label, class) pairs in which a label's Pattern-CAV is more influential than its directions.

    Parameters
    ----------
    sensitivities : ndarray, shape (I, C)
    labels : ndarray of int, shape (I,)
        Label of each direction.
    pattern_sensitivities : dict of int to ndarray, shape (C,)
        Sensitivities to the Pattern-CAV of each label.
    level : float

    Returns
    -------
    float
        Below 0.5 the directions are the more influential.
    """
    found = []
    for label, pattern in pattern_sensitivities.items():
        own = np.abs(sensitivities[np.asarray(labels) == label])
        if len(own):
            found.append((own >= np.abs(pattern)).mean(0) < level / len(own))
    if not found:
        raise ValueError("Got no label with directions and a Pattern-CAV, expected at least one")
    return float(np.mean(found))
