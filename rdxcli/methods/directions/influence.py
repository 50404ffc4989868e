"""How much directions influence the predictions of the network, and whether more than random filters do.

One definition, in logits. The influence of direction i on class k is what logit k loses when the concept is taken away
where it is, averaged over the images where it is present: ``f_k(x) - f_k(x')`` with ``x'_p = x_p - t_i s_i`` at the
positions p where detector i fires, ``t_i`` the concept's own strength (`steering.own_strength`, the ``1x`` of
``--steer``; features that never are negative stay so). Positive values speak for the class. Single images and
``--steer I=-1x`` with ``steer_where=present`` are the same intervention.

It is computed by the intervention itself (``how="intervention"``), in closed form where the network above the layer is
pooling and a linear map; by its first-order term ``t_i sum_p s_i . grad_p f_k`` (``how="derivative"``) where there are
too many directions for one pass of the network each.

Three nulls say what is more than chance:

* ``"filters"``: random filters with isotropic weights, thresholds that fire as often as the detectors under test, and
  signal vectors, strengths and influence estimated the same way. They move the logits too, since they read mixtures of
  what matters; what they are not is concepts. The test statistic is the *clarity* of a detector (`steering.clarity`:
  how far its signal differs between where it fires and where it does not, in units of its spread inside either),
  times ``min(1, influence / usual)``, with the largest influence on a class that three of four random filters have
  (each class in units of the null's root mean square). So a direction counts that is clearer than nearly all random
  filters and moves a class no less than these do; a clear one that the network ignores does not, nor does an arbitrary
  cut.
* ``"covariance"``: the same with filters drawn from the covariance of the features. They read the directions of large
  variance, which usually move the logits most.
* ``"images"``, for directions of images that a person gave (`tcav.TCAV`): random sets of images in the place of the
  concept's. Their encoding directions, taken away at the same places by the same strength (without keeping features at
  or above 0, which would favour the one that is there).
* ``"published"`` (EDDP, appendix F): RCAV sensitivity against signal vectors of linear classifiers trained on permuted
  decisions of the detector; p is the share of them at least as far from zero, Bonferroni over all pairs. With N
  permutations the smallest p is 0, not 1 / (N + 1): the bound is far below 1 / N.

Random filters have no scale of their own, latents of a dictionary do (`base.Directions.gain_`): these are compared with
random filters taken away by as much, per unit of it.

But for the last, p is corrected over the classes by their maximum and Benjamini and Hochberg's rule chooses the
directions, so that sets without influence give any significant pair with probability ``level``.

Sensitivity (RCAV; EDDP, section 3.5): ``2 share(p_k(x + alpha s_i) >= p_k(x)) - 1`` over the images of class k, with
the direction added at every position. In [-1, 1]; says how consistent an influence is, not how large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from rdxcli.numerics.seeding import generator, torch_generator
from rdxcli.progress import human_count

from .alignment import Head, PooledLinearHead, pooled_linear
from .base import Array, Directions, closed_form_signals
from .features import as_maps, positions
from .signals import MIN_POSITIVES, closed_form
from .steering import clarity, moved, own_strength, takes_negative

NULLS = ("filters", "covariance", "images", "published")
HOW = ("auto", "intervention", "derivative")
IMAGES = 512
"""Images per direction at most."""
PASSES = 32_768
"""Images that go through the network above the layer for all directions together; beyond it, fewer images each."""
FEWEST = 32
"""Images per direction below which the derivative takes over."""
NULL_FILTERS, NULL_FILTERS_NETWORK, NULL_IMAGES = 999, 255, 32
"""Random filters behind a linear end and behind a network; images of each behind a network."""
CLASSES = 20
"""Classes with a gradient of their own, the ones predicted most often."""
RANDOM_SETS_NETWORK = 99
"""Random sets of images that stand in for those of a concept, behind a network."""
_NULL_POSITIONS = 16_384
_CHUNK = 64
_EQUAL = 0.1
"""Range of log shares within which detectors fire equally often."""
_ALIKE = 31
"""Random filters that fire most nearly as often, whose median clarity is shown."""


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
        raise ValueError(
            f"Got classes of shape {y.shape} and type {y.dtype}, expected {human_count(len(logits), 'integer')}"
        )
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


@dataclass(frozen=True)
class Effects:
    """What each direction gives to the logits where its concept is present.

    Attributes
    ----------
    values : ndarray, shape (I, C), float64
        In logits; NaN for a detector that fires nowhere, or everywhere.
    classes : ndarray of int, shape (C,)
    strength : ndarray, shape (I,), float64
        How much is taken away along the unit encoding direction, in feature units.
    images : ndarray of int, shape (I,)
        Images that were averaged over.
    """

    values: Array
    classes: Array
    strength: Array
    images: Array
    how: str


def effects(
    directions: Directions,
    head: Head,
    features: Array | Tensor,
    *,
    how: str = "auto",
    clamp: bool | None = None,
    images: int = IMAGES,
    classes: Array | None = None,
    batch: int = 256,
) -> Effects:
    """Loss of each logit when a concept is taken away where it is, averaged over the images where it is present.

    Parameters
    ----------
    head : callable
        Feature maps (N, D, H, W) to logits (N, K), in evaluation mode.
    features : array, shape (N, D, H, W) or (N, D)
    how : "auto", "intervention" or "derivative"
        "auto" intervenes as long as `PASSES` images leave at least `FEWEST` to each direction.
    clamp : bool, optional
        Keep features at or above 0; default where they never are below it (the layer ends in a ReLU).
    images : int
        Evenly spaced images with the concept per direction at most. A linear end of the network takes all.
    classes : ndarray of int, optional
        Which classes the derivative is taken for; default are the `CLASSES` predicted most often.
    batch : int
        Images per forward pass.
    """
    if how not in HOW:
        raise ValueError(f"Got how={how!r}, expected one of {HOW}")
    X = as_maps(features)
    clamp = not takes_negative(X) if clamp is None else clamp
    head = pooled_linear(head, X)
    active = np.asarray(directions.detect(X)).reshape(len(X), len(directions.bias_), -1)
    present = np.asarray(active.any(axis=2))
    strength = own_strength(directions, X)
    tested = np.flatnonzero(strength != 0)
    count = len(strength)
    if isinstance(head, PooledLinearHead):
        values = _linear(directions, head, X, active, present, strength, tested, clamp)
        return Effects(values, np.arange(values.shape[1]), strength, present.sum(0), "intervention")
    most = min(images, max(FEWEST, PASSES // max(count, 1)))
    if how == "derivative" or (how == "auto" and count * FEWEST > PASSES):
        return _derivative(directions, head, X, active, present, strength, classes, batch)
    rows = {int(i): _evenly(np.flatnonzero(present[:, i]), most) for i in tested}
    union = np.unique(np.concatenate([*rows.values(), [0]]))
    base = _logits(head, X[union], batch).numpy()
    values, used = np.full((count, base.shape[1]), np.nan), np.zeros(count, int)
    for i, own in rows.items():
        after = _logits(head, moved(directions, X[own], i, -float(strength[i]), "present", clamp), batch).numpy()
        values[i], used[i] = (base[np.searchsorted(union, own)] - after).mean(0), len(own)
    return Effects(values, np.arange(values.shape[1]), strength, used, "intervention")


def _evenly(rows: Array, most: int) -> Array:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))]


def _linear(
    directions: Directions,
    head: PooledLinearHead,
    X: Tensor,
    active: Array,
    present: Array,
    strength: Array,
    tested: Array,
    clamp: bool,
) -> Array:
    """The intervention behind pooling and a linear map: only the moved positions are touched."""
    weight = head.weight.double().cpu().numpy()
    values = np.full((len(strength), weight.shape[1]), np.nan)
    x = positions(X).numpy() if clamp else None
    for i in tested:
        step = strength[i] * directions.encoding_[i]
        if x is None:
            lost = step * active[:, i].sum()
        else:
            # x - max(x - step, 0) is the smaller of x and step
            lost = np.minimum(x[active[:, i].reshape(-1)], step.astype(np.float32)).sum(0, dtype=np.float64)
        values[i] = lost @ weight / (active.shape[2] * present[:, i].sum())
    return values


def _derivative(
    directions: Directions,
    head: Head,
    X: Tensor,
    active: Array,
    present: Array,
    strength: Array,
    classes: Array | None,
    batch: int,
) -> Effects:
    """First-order influence on the classes that are predicted most, all directions from the same gradients."""
    rows = _evenly(np.arange(len(X)), IMAGES)
    if classes is None:
        said = _logits(head, X[rows], batch).argmax(1).numpy()
        found, counts = np.unique(said, return_counts=True)
        classes = np.sort(found[np.argsort(-counts, kind="stable")[:CLASSES]])
    fires = torch.as_tensor(active[rows]).double()  # (n, I, P)
    S = torch.as_tensor(directions.encoding_)
    total = torch.zeros(len(strength), len(classes), dtype=torch.float64)
    for column, k in enumerate(classes):
        for start in range(0, len(rows), batch):
            part = X[rows[start : start + batch]].clone().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(head(part)[:, int(k)].sum(), part)
            slopes = torch.einsum("id,ndp->nip", S, gradient.flatten(2).double().cpu())
            total[:, column] += (slopes * fires[start : start + batch]).sum((0, 2))
    used = present[rows].sum(0)
    values = strength[:, None] * total.numpy() / np.maximum(used, 1)[:, None]
    values[(used == 0) | (strength == 0)] = np.nan
    return Effects(values, classes, strength, used, "derivative")


def random_filters(
    features: Array | Tensor, shares: Array, covariance: bool = False, random_state: int = 0, name: str | int = 0
) -> Directions:
    """Pairs that know nothing of the network: random filters that fire on given shares of the positions.

    Parameters
    ----------
    features : array, shape (N, D, H, W) or (N, D)
    shares : ndarray, shape (R,)
        Between 0 and 1, one filter each.
    covariance : bool
        Draw filters from the covariance of the features instead of isotropically.
    random_state, name
        Seed and stream.

    Returns
    -------
    Directions
        Encoding directions are the closed-form signal vectors of the filters.
    """
    X = as_maps(features)
    x = positions(X).double()
    mean = x.mean(0)
    W = torch.as_tensor(generator(random_state, "null filters", name).standard_normal((len(shares), x.shape[1])))
    if covariance:
        values, axes = torch.linalg.eigh(torch.cov(x.T).reshape(x.shape[1], x.shape[1]))
        W = (W * values.clamp_min(0).sqrt()) @ axes.T
    W = normalize(W, dim=1)
    outputs = (x - mean) @ W.T
    ranks = np.clip(np.round(np.asarray(shares) * len(x)).astype(int), 1, len(x) - 1)
    edges = [np.partition(column, -rank - 1) for column, rank in zip(outputs.T.numpy(), ranks, strict=True)]
    bias = np.array([(one[-rank - 1] + one[-rank:].min()) / 2 for one, rank in zip(edges, ranks, strict=True)])
    bias += (W @ mean).numpy()
    filters = W.numpy()
    return Directions.of(closed_form_signals(X, filters, bias, mean.numpy()), filters, bias, mean=mean.numpy())


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
            f"Got a detector active at {len(positive)} of {human_count(len(x), 'position')}, expected 8 "
            "or more of each kind"
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
    effect : ndarray, shape (I, C)
        In logits, see `effects`; NaN where a detector fires nowhere or everywhere.
    p_value : ndarray, shape (I, C)
        By the null that was asked for; corrected over the classes except for the published one.
    significant : ndarray of bool, shape (I, C)
    sensitivity : ndarray, shape (I, C), or None
        Only with the published null; NaN for classes without images.
    strength : ndarray, shape (I,)
        In feature units.
    images : ndarray of int, shape (I,)
        Images behind each effect.
    clarity, clarity_chance : ndarray, shape (I,)
        `steering.clarity` of the detectors, and the median of random filters that fire about as often; NaN where there
        are none.
    n_null : int
        Random filters, or permutations for each direction.
    """

    classes: Array
    effect: Array
    p_value: Array
    significant: Array
    sensitivity: Array | None
    strength: Array
    images: Array
    clarity: Array
    clarity_chance: Array
    how: str
    null: str
    n_null: int
    notes: list[str]

    def summary(self) -> dict[str, float | int | str]:
        """Counts of SPEC section 8.2 on significant pairs of direction and class.

        ``directions`` (SDC) and ``pairs`` (SCDP); directions with any positive or negative influence; classes with
        one; mean number of such directions per class; most classes that one direction influences. And how: ``how``,
        ``null``, ``n_null``.
        """
        sign = self.effect if self.sensitivity is None else self.sensitivity
        up, down = self.significant & (sign > 0), self.significant & (sign < 0)
        found: dict[str, float | int | str] = {
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
        return found | {"how": self.how, "null": self.null, "n_null": self.n_null}


def influence(
    directions: Directions,
    head: Head,
    features: Array | Tensor,
    y: Array | None = None,
    *,
    null: str | None = None,
    how: str = "auto",
    level: float = 0.05,
    n_null: int | None = None,
    alpha: float = 5.0,
    random_state: int = 0,
    batch: int = 256,
) -> Influence:
    """Influence of every direction on every class, with significance.

    Parameters
    ----------
    head, features, batch
        As in `effects`.
    y : ndarray of int, shape (N,), optional
        Classes of the images, for the published null; default is what the network predicts.
    null : "filters", "covariance", "images" or "published", optional
        Default is "images" for directions that have random sets to compare with, else "filters".
    how : "auto", "intervention" or "derivative"
        See `effects`.
    level : float
        Chance that directions without influence give any significant pair.
    n_null : int, optional
        Random filters (999 behind a linear end of the network, 255 elsewhere), or permutations (100).
    alpha : float
        Step of the sensitivity in feature units, for the published null.
    random_state : int
        Seed.
    """
    stand_ins: Array | None = getattr(directions, "stand_ins_", None)
    null = null or ("filters" if stand_ins is None else "images")
    if null not in NULLS:
        raise ValueError(f"Got null={null!r}, expected one of {NULLS}")
    if null == "images" and stand_ins is None:
        raise ValueError("Got null='images' for directions that were not found from images of concepts")
    if (n_null is not None and n_null < 1) or not 0 < level < 1 or not alpha > 0:
        raise ValueError(
            f"Got n_null={n_null}, level={level}, alpha={alpha}, expected at least 1, in (0, 1) and positive"
        )
    X = as_maps(features)
    head = pooled_linear(head, X)
    if y is not None:
        _of_class(y, _logits(head, X, batch))  # checked whatever the null
    found = effects(directions, head, X, how=how, batch=batch)
    active = np.moveaxis(np.asarray(directions.detect(X)), 1, -1).reshape(-1, len(directions.bias_))
    counts = active.sum(0)
    idle = np.minimum(counts, len(active) - counts) < MIN_POSITIVES
    notes = []
    if idle.any():
        notes.append(
            f"detectors {np.flatnonzero(idle).tolist()} fire at fewer than {MIN_POSITIVES} positions, or at all but "
            f"{MIN_POSITIVES}: not tested"
        )
    tested = np.flatnonzero(~idle & np.isfinite(found.values).all(1))
    p = np.ones_like(found.values)
    clear, clear_chance = clarity(directions, X), np.full(len(idle), np.nan)
    if null == "published":
        n_permutations = n_null or 100
        values, p, of_pairs = _published(
            directions, head, X, y, found.classes, active, tested, n_permutations, alpha, random_state, batch
        )
        return Influence(
            **{name: getattr(found, name) for name in ("classes", "strength", "images", "how")},
            effect=found.values,
            p_value=p,
            significant=p < level / of_pairs,
            sensitivity=values,
            clarity=clear,
            clarity_chance=clear_chance,
            null=null,
            n_null=n_permutations,
            notes=notes,
        )
    linear = isinstance(head, PooledLinearHead)
    if null == "images" and stand_ins is not None:
        n_null = min(n_null or (stand_ins.shape[1] if linear else RANDOM_SETS_NETWORK), stand_ins.shape[1])
        for i in tested:
            p[i] = _against_stand_ins(directions, int(i), found, stand_ins[i, :n_null], head, X, batch)
    n_null = n_null or (NULL_FILTERS if linear else NULL_FILTERS_NETWORK)
    if len(tested) and null != "images":
        shares = counts / len(active)
        own_scale = not np.allclose(directions.gain_, (directions.decoding_ * directions.encoding_).sum(1))
        p[tested], clear_chance[tested] = _against_filters(
            found, clear, tested, shares, head, X, null == "covariance", own_scale, n_null, random_state, batch
        )
    needed = int(np.ceil(len(p) / ((n_null + 1) * level)))
    of_chance = "random sets" if null == "images" else "random filters"
    if needed > 1:
        notes.append(
            f"with {n_null} {of_chance} and {human_count(len(p), 'direction')} at least {needed} must "
            "stand out for any to be "
            "significant"
        )
    return Influence(
        found.classes,
        found.values,
        p,
        claims(p, level),
        None,
        found.strength,
        found.images,
        clear,
        clear_chance,
        found.how,
        null,
        n_null,
        notes,
    )


def claims(p: Array, level: float) -> Array:
    """Pairs that count as significant among p values (I, C) that are corrected over the classes, booleans (I, C).

    Benjamini and Hochberg's rule over the smallest p of each direction: without any influence some pair is claimed with
    probability ``level`` at most, and of many claims a share of ``level`` is expected to be chance.
    """
    strongest = np.sort(p.min(1))
    passed = np.flatnonzero(strongest <= level * np.arange(1, len(p) + 1) / len(p))
    return p <= (strongest[passed[-1]] if len(passed) else 0.0)


def _against_stand_ins(
    directions: Directions, index: int, found: Effects, stand_ins: Array, head: Head, X: Tensor, batch: int
) -> Array:
    """p values (C,) of one direction against random sets in its place, corrected over the classes by the maximum."""
    vectors = np.concatenate([directions.encoding_[index][None], stand_ins])
    if isinstance(head, PooledLinearHead):  # places and strength are the same for all: only the directions differ
        values = vectors @ head.weight.double().cpu().numpy()
    else:
        fires = np.asarray(directions.detect(X))[:, index]
        rows = _evenly(np.flatnonzero(fires.any(axis=(1, 2))), NULL_IMAGES)
        part, where = X[rows], torch.from_numpy(fires[rows]).float()[:, None] * float(found.strength[index])
        base = _logits(head, part, batch)
        values = np.stack(
            [
                (base - _logits(head, part - where * torch.as_tensor(one, dtype=torch.float32)[:, None, None], batch))
                .mean(0)
                .numpy()
                for one in vectors
            ]
        )[:, found.classes]
    values = np.abs(values)
    scale = np.maximum(np.sqrt((values[1:] ** 2).mean(0)), np.finfo(float).tiny)
    random = np.sort((values[1:] / scale).max(1))
    return (1 + len(random) - np.searchsorted(random, values[0] / scale, side="left")) / (len(random) + 1)


def _against_filters(
    found: Effects,
    clear: Array,
    tested: Array,
    shares: Array,
    head: Head,
    X: Tensor,
    covariance: bool,
    per_unit: bool,
    n_null: int,
    seed: int,
    batch: int,
) -> tuple[Array, Array]:
    """p values (len(tested), C) against random filters, corrected over the classes by the maximum; their clarity."""
    per_map = X.shape[2] * X.shape[3]
    x = X[_evenly(np.arange(len(X)), max(128, _NULL_POSITIONS // per_map))]
    own = np.clip(shares[tested], MIN_POSITIVES / (len(x) * per_map), 1 - MIN_POSITIVES / (len(x) * per_map))
    drawn = own[np.arange(n_null) % len(own)]
    values, strengths, clarities = [], [], []
    for start in range(0, n_null, _CHUNK):
        filters = random_filters(x, drawn[start : start + _CHUNK], covariance, seed, start)
        clarities.append(clarity(filters, x))
        if per_unit:
            like = found.strength[tested][np.arange(start, start + len(filters.bias_)) % len(tested)]
            filters.gain_ = filters.gain_ * own_strength(filters, x) / like
        one = effects(filters, head, x, how=found.how, images=NULL_IMAGES, classes=found.classes, batch=batch)
        values.append(one.values)
        strengths.append(one.strength)
    random = np.abs(np.nan_to_num(np.concatenate(values)))
    mine = np.abs(found.values[tested])
    if per_unit:
        random = random / np.maximum(np.abs(np.concatenate(strengths)), np.finfo(float).tiny)[:, None]
        mine = mine / np.abs(found.strength[tested])[:, None]
    scale = np.maximum(np.sqrt((random**2).mean(0)), np.finfo(float).tiny)
    random, mine = (random / scale).max(1), mine / scale
    at, near = np.log(drawn), np.log(own)
    usual = _usual(at, random)
    chance = np.concatenate(clarities)
    random = chance * np.minimum(1.0, random / usual(at))
    mine = clear[tested][:, None] * np.minimum(1.0, mine / usual(near)[:, None])
    random, mine = _at_equal_shares(at, random, near, mine)
    ordered = np.sort(random)
    p = (1 + n_null - np.searchsorted(ordered, mine, side="left")) / (n_null + 1)
    return p, np.array([np.median(chance[np.argsort(np.abs(at - one), kind="stable")[:_ALIKE]]) for one in near])


def _usual(drawn: Array, values: Array) -> Callable[[Array], Array]:
    """What three of four random filters (R,) exceed, at log shares: one value, or a power of the share."""
    if np.ptp(drawn) <= _EQUAL or not (values > 0).all():
        lowest = max(float(np.quantile(values, 0.25)), np.finfo(float).tiny)
        return lambda at: np.full(len(at), lowest)
    line = np.polyfit(drawn, np.log(values), 1)
    line[1] += np.quantile(np.log(values) - np.polyval(line, drawn), 0.25)
    return lambda at: np.exp(np.polyval(line, at))


def _at_equal_shares(drawn: Array, random: Array, own: Array, mine: Array) -> tuple[Array, Array]:
    """Statistics of random filters (R,) and of directions (I, C) in a form that does not depend on how often they fire.

    Rare detectors are clearer, and differ more among themselves: the logarithm is taken relative to its mean and spread
    among random filters, both linear in the logarithm of the share.
    """
    if np.ptp(drawn) <= _EQUAL or not (random > 0).all():
        return random, mine
    level = np.polyfit(drawn, np.log(random), 1)
    rest = np.log(random) - np.polyval(level, drawn)
    spread = np.polyfit(drawn, np.abs(rest), 1)
    floor = 0.2 * float(np.abs(rest).mean())

    def standard(share: Array, value: Array) -> Array:
        return (np.log(np.maximum(value, 1e-300)) - np.polyval(level, share)) / np.maximum(
            np.polyval(spread, share), floor
        )

    return standard(drawn, random), standard(own[:, None], mine)


def _published(
    directions: Directions,
    head: Head,
    X: Tensor,
    y: Array | None,
    classes: Array,
    active: Array,
    tested: Array,
    n_permutations: int,
    alpha: float,
    seed: int,
    batch: int,
) -> tuple[Array, Array, int]:
    """Sensitivities and their p values for ``classes`` (I, C), NaN and 1 without images, and the number of pairs."""
    x = positions(X).numpy()
    values, with_images = sensitivity(head, X, directions.encoding_, y, alpha, batch=batch)
    p = np.ones_like(values)
    for i in tested:
        null = null_directions(x, active[:, i], n_permutations, seed, int(i))
        p[i] = (np.abs(sensitivity(head, X, null, y, alpha, batch=batch)[0]) >= np.abs(values[i])).mean(0)
    of_all = np.full((len(p), int(max(classes.max(), with_images.max())) + 1), np.nan)
    p_of_all = np.ones_like(of_all)
    of_all[:, with_images], p_of_all[:, with_images] = values, p
    return of_all[:, classes], p_of_all[:, classes], p.size
