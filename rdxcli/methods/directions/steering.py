"""What-if: moving features along directions, explaining single predictions, and correcting a network without training.

Symbols: ``x_p`` (D,) feature at position p; pair (``w_i``, ``s_i``), threshold ``b_i``, margin ``M_i``; ``a_pi``
signal value relative to its mean; ``m_pi = sigmoid((w_i . x_p - b_i) / M_i)`` activation.

* Steering: ``x' = x + amount s_i``, everywhere or where the concept is (EDDP's counterfactuals).
* Explaining: loss of a class logit when an active concept is taken away, ``x' = x - t_i s_i`` where it is active,
  ``t_i`` the concept's own strength. The mean over the images where it is present is its influence (`influence`).
* Correcting (EDDP, appendix I): ``x' = relu(x - strength m_p s)`` at the layer, inside the running network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from .alignment import Head
from .base import Array, Directions
from .features import as_maps


def _evaluate(head: Head, X: Tensor, batch: int) -> Array:
    with torch.no_grad():
        return torch.cat([head(part).double().cpu() for part in X.split(batch)]).numpy()


def steer(
    directions: Directions,
    head: Head,
    features: Array | Tensor,
    index: int,
    amounts: Sequence[float],
    where: str = "all",
    clamp: bool = False,
    batch: int = 256,
) -> Array:
    """Counterfactual logits along one encoding direction.

    Parameters
    ----------
    head : callable
        Feature maps (N, D, H, W) to logits (N, K).
    features : array, shape (N, D, H, W) or (N, D)
    index : int
        Which direction.
    amounts : sequence of float, length A
        Steps in feature units; negative ones move away from the concept.
    where : "all", "present" or "absent"
        Positions that are moved: all, or only where the concept is detected or not.
    clamp : bool
        Set negative features to 0 afterwards, for a layer that ends in a ReLU.
    batch : int
        Images per forward pass.

    Returns
    -------
    ndarray, shape (A, N, K), float64
    """
    X = as_maps(features)
    _check_index(directions, index)
    if where not in ("all", "present", "absent"):
        raise ValueError(f"Got where={where!r}, expected 'all', 'present' or 'absent'")
    if not np.isfinite(np.asarray(amounts, dtype=float)).all() or len(amounts) == 0:
        raise ValueError(f"Got amounts={list(amounts)}, expected one or more finite numbers")
    return np.stack(
        [_evaluate(head, moved(directions, X, index, float(amount), where, clamp), batch) for amount in amounts]
    )


def moved(
    directions: Directions, X: Tensor, index: int, amount: float, where: str = "all", clamp: bool = False
) -> Tensor:
    """Feature maps ``X`` (N, D, H, W) a step along one encoding direction, see `steer`."""
    step = amount * torch.as_tensor(directions.encoding_[index], dtype=torch.float32)[:, None, None]
    if where != "all":
        present = torch.from_numpy(_only(directions, index).detect(X)).float()
        step = step * (present if where == "present" else 1 - present)
    found = X + step
    return found.clamp_min(0) if clamp else found


def _only(directions: Directions, index: int) -> Directions:
    """One of the directions."""
    chosen = slice(index, index + 1)
    return Directions.of(
        directions.encoding_[chosen],
        directions.decoding_[chosen],
        directions.bias_[chosen],
        directions.margin_[chosen],
        directions.mean_,
        directions.gain_[chosen],
    )


def takes_negative(X: Tensor) -> bool:
    """Whether features ever are negative; a layer whose never are ends in a ReLU, and the network sees no others."""
    return float(X.min()) < 0


def own_strength(directions: Directions, features: Array | Tensor) -> Array:
    """How strong each concept is where it is: mean signal value where it is detected minus the mean where it is not.

    Parameters
    ----------
    features : array, shape (N, D, H, W) or (N, D)

    Returns
    -------
    ndarray, shape (I,), float64
        In feature units along the encoding direction; 0 for a detector that fires everywhere or nowhere.
    """
    difference, _ = _between(directions, features)
    return difference


def clarity(directions: Directions, features: Array | Tensor) -> Array:
    """How clearly detectors tell places apart: `own_strength` in units of the spread of the signal inside both kinds.

    A cut through one Gaussian cloud has 2.4 to 2.8 of it at shares of 1 to 50 %, a concept that is there or not has
    more. `directions`, `features`: as in `own_strength`.

    Returns
    -------
    ndarray, shape (I,), float64
    """
    difference, spread = _between(directions, features)
    return np.abs(difference) / np.maximum(spread, np.finfo(np.float32).tiny)


def _between(directions: Directions, features: Array | Tensor) -> tuple[Array, Array]:
    """Mean signal where a detector fires minus where it does not, and the spread inside both kinds of places, (I,)."""
    X = as_maps(features)
    values = np.moveaxis(directions.decode(X), 1, 0).reshape(len(directions.bias_), -1).astype(np.float64)
    present = np.moveaxis(directions.detect(X), 1, 0).reshape(values.shape)
    count = present.sum(1)
    absent = values.shape[1] - count
    inside, whole = (values * present).sum(1), values.sum(1)
    both = ((inside, count), (whole - inside, absent))
    means = [total / np.maximum(number, 1) for total, number in both]
    squares = np.einsum("ip,ip->i", values, values)
    spread = squares - sum(number * mean**2 for (_, number), mean in zip(both, means, strict=True))
    known = (count > 0) & (absent > 0)
    difference = np.where(known, means[0] - means[1], 0.0)
    return difference, np.sqrt(np.maximum(spread, 0) / values.shape[1])


def explain_predictions(
    directions: Directions,
    head: Head,
    features: Array | Tensor,
    strength: Array | None = None,
    clamp: bool = False,
    batch: int = 256,
) -> tuple[Array, Array]:
    """What each active concept contributes to each prediction.

    Parameters
    ----------
    directions, head, features, clamp, batch
        As in `steer`.
    strength : ndarray, shape (I,), optional
        How much of each concept is taken away, in feature units; default is its own strength over these features.

    Returns
    -------
    contributions : ndarray, shape (N, I, K), float64
        Logits as they are minus logits with concept i taken away where it is active; 0 where it is not active.
    logits : ndarray, shape (N, K), float64
    """
    X = as_maps(features)
    logits = _evaluate(head, X, batch)
    strength = own_strength(directions, X) if strength is None else strength
    present = torch.from_numpy(directions.detect(X))
    found = np.zeros((len(X), len(directions.encoding_), logits.shape[1]))
    for i, s in enumerate(torch.as_tensor(directions.encoding_, dtype=torch.float32)):
        chosen = present[:, i].flatten(1).any(1)
        if not bool(chosen.any()):
            continue
        moved = X[chosen] - float(strength[i]) * present[chosen, i].float().unsqueeze(1) * s[:, None, None]
        found[chosen.numpy(), i] = logits[chosen.numpy()] - _evaluate(
            head, moved.clamp_min(0) if clamp else moved, batch
        )
    return found, logits


class ConceptCorrection(nn.Module):
    """Takes a concept out of feature maps: ``x' = relu(x - strength m_p s)`` (EDDP, appendix I).

    Parameters
    ----------
    index : int
        The unwanted concept.
    strength : float
        Feature units taken off where the concept is fully present; the paper's toy uses 450.
    along : ndarray, shape (D,), optional
        Move along this direction instead of the encoding direction (for comparison); normalised here.
    relu : bool
        False for layers that do not end in a ReLU.
    """

    filter: Tensor
    step: Tensor

    def __init__(
        self, directions: Directions, index: int, strength: float, along: Array | None = None, relu: bool = True
    ) -> None:
        super().__init__()
        _check_index(directions, index)
        s = directions.encoding_[index] if along is None else np.asarray(along, dtype=np.float64)
        if s.shape != directions.encoding_[index].shape or not np.linalg.norm(s) > 0:
            raise ValueError(
                f"Got a direction of shape {s.shape}, expected {directions.encoding_[index].shape} and not 0"
            )
        self.register_buffer("filter", torch.as_tensor(directions.decoding_[index], dtype=torch.float32))
        self.register_buffer("step", torch.as_tensor(strength * s / np.linalg.norm(s), dtype=torch.float32))
        self.bias = float(directions.bias_[index])
        self.margin = float(directions.margin_[index])
        self.relu = relu

    def forward(self, X: Tensor) -> Tensor:
        """Corrected maps (N, D, H, W)."""
        response = torch.einsum("ndhw,d->nhw", X, self.filter) - self.bias
        moved = X - torch.sigmoid(response / self.margin)[:, None] * self.step[:, None, None]
        return moved.clamp_min(0) if self.relu else moved


@contextmanager
def corrected(layer: nn.Module, correction: ConceptCorrection) -> Iterator[None]:
    """While it lasts, the output of ``layer`` goes through ``correction``."""
    handle = layer.register_forward_hook(lambda module, inputs, output: correction(output))
    try:
        yield
    finally:
        handle.remove()


def _check_index(directions: Directions, index: int) -> None:
    if not 0 <= index < len(directions.encoding_):
        raise ValueError(f"Got direction {index}, expected 0 to {len(directions.encoding_) - 1}")
