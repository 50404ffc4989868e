"""Uncertainty region alignment (EDDP, section 4.4): where no detector is decided, the network must not be either.

Symbols, with shapes (leading ``...`` are independent solutions):

=========  ================  ==========================================================================
``X``      (N, D, H, W)      feature maps of N images, P = N H W positions
``W``      (..., I, D)       unit filters, one per row
``S``      (..., I, D)       signal vectors, one per row (only their directions matter)
``r``      (..., I, P)       residuals ``w_i . x_p - b_i``
``kappa``  scalar or (P,)    how far to move: 1 reaches the boundary
``f+``     maps -> (N, K)    the frozen part of the network above the layer, giving class logits
=========  ================  ==========================================================================

Every position is moved by ``-kappa * shift^T r``, where ``shift`` (..., I, D) holds one direction per detector: the
rows of ``pinv(W)^T`` (unconstrained) or ``pinv(W S^T)^T S`` (constrained to the span of the signal vectors). With
kappa = 1 and full rank both land where ``W x' = b``. The loss is the negative mean entropy of the predictions on the
moved features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

Head = Callable[[Tensor], Tensor]
"""Maps feature maps (N, D, H, W) to class logits (N, K), differentiably."""


class PooledLinearHead(nn.Module):
    """Average pooling and one linear layer: ``logits = mean_positions(x) @ weight + bias``.

    The usual end of a convolutional network. The learner recognises it and never forms the moved feature maps,
    which makes a step many times cheaper than with an arbitrary callable.

    Parameters
    ----------
    weight : array, shape (D, K)
    bias : array, shape (K,)
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: object, bias: object, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        w, b = torch.as_tensor(weight, dtype=dtype), torch.as_tensor(bias, dtype=dtype)
        if w.ndim != 2 or b.shape != (w.shape[1],):
            raise ValueError(f"Got weight {tuple(w.shape)} and bias {tuple(b.shape)}, expected (D, K) and (K,)")
        self.register_buffer("weight", w)
        self.register_buffer("bias", b)

    def forward(self, X: Tensor) -> Tensor:
        """Logits (N, K) of feature maps (N, D, H, W)."""
        return X.flatten(2).mean(2) @ self.weight + self.bias


def count_classes(head: Head, X: Tensor) -> int:
    """K of a head, from its logits of the first of the maps (N, D, H, W)."""
    with torch.no_grad():
        return int(head(X[:1].clone()).shape[1])


_WIDEST = 4096


def pooled_linear(head: Head, X: Tensor, tolerance: float = 1e-4) -> Head:
    """The head as a `PooledLinearHead` when it does what one does, else as it is.

    Weights are read off constant maps of single channels; they count when they predict the logits of features whose
    places and values were moved about as much as features differ.

    Parameters
    ----------
    X : Tensor, shape (N, D, H, W)
        Features of the kind that the head is for.
    tolerance : float
        Largest difference, relative to the largest logit.
    """
    D = X.shape[1]
    if isinstance(head, PooledLinearHead) or D > _WIDEST:
        return head
    with torch.no_grad():
        some = X[torch.linspace(0, len(X) - 1, min(len(X), 8)).long()]
        scale = float(some.abs().max()) or 1.0
        source = torch.Generator().manual_seed(0)
        noise = torch.randn(some.shape, generator=source).mul_(float(some.std(unbiased=False)))
        trials = torch.cat([some, some.flip(2, 3), some.flip(0) + noise, -some])
        wanted = head(trials).double().cpu()
        bias = head(torch.zeros_like(X[:1])).double().cpu()[0]
        first = head(scale * torch.ones_like(X[:1])).double().cpu()[0]
        # most networks are found out here, by one pass
        whole = head(2 * scale * torch.ones_like(X[:1])).double().cpu()[0]
        limit = tolerance * max(float(wanted.abs().max()), float((first - bias).abs().max()), 1e-6)
        if float((whole - bias - 2 * (first - bias)).abs().max()) > limit:
            return head
        channels = scale * torch.eye(D)[:, :, None, None].expand(D, D, *X.shape[2:])
        weight = torch.cat([head(part.contiguous()).double().cpu() for part in channels.split(64)]) - bias
        weight /= scale
        if float((trials.flatten(2).mean(2).double() @ weight + bias - wanted).abs().max()) > limit:
            return head
    return PooledLinearHead(weight.numpy(), bias.numpy())


def unconstrained_shift(W: Tensor) -> Tensor:
    """Directions along which each residual is removed, shortest ones: rows of ``pinv(W)^T``, shape (..., I, D)."""
    return torch.linalg.pinv(W).transpose(-1, -2)


def constrained_shift(W: Tensor, S: Tensor) -> Tensor:
    """The same inside the span of the signal vectors: ``pinv(W S^T)^T S`` with unit signals, shape (..., I, D)."""
    S = normalize(S, dim=-1)
    return torch.linalg.pinv(W @ S.transpose(-1, -2)).transpose(-1, -2) @ S


def move(X: Tensor, shift: Tensor, r: Tensor, kappa: Tensor | float = 1.0) -> Tensor:
    """Moved features ``x_p - kappa_p sum_i r_pi shift_i``.

    Parameters
    ----------
    X : Tensor, shape (D, P)
    shift : Tensor, shape (..., I, D)
    r : Tensor, shape (..., I, P)
    kappa : float or Tensor of shape (P,)

    Returns
    -------
    Tensor, shape (..., D, P)
    """
    return X - kappa * (shift.transpose(-1, -2) @ r)


def prediction_entropy(logits: Tensor, relative: bool = False) -> Tensor:
    """Entropy of ``softmax(logits)`` over the last dimension, in nats or (``relative``) divided by ``log K``."""
    log_p = torch.log_softmax(logits, dim=-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return entropy / math.log(logits.shape[-1]) if relative else entropy


@contextmanager
def frozen(head: Head, device: str) -> Iterator[None]:
    """While it lasts, a module ``head`` is on ``device``, in evaluation mode, and its parameters take no gradients."""
    if not isinstance(head, nn.Module):
        yield
        return
    training = [module for module in head.modules() if module.training]
    learning = [parameter for parameter in head.parameters() if parameter.requires_grad]
    home = next((tensor.device for tensor in (*head.parameters(), *head.buffers())), None)
    head.eval().requires_grad_(False).to(device)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad_(True)
        if home is not None:
            head.to(home)


class HeadOnShift:
    """Evaluates ``f+`` on moved features for many solutions at once.

    Parameters
    ----------
    head : callable
        ``f+``; a `PooledLinearHead` takes the short way.
    X : Tensor, shape (N, D, H, W)
        Original feature maps.
    basis : Tensor, shape (k, D)
        Rows turn the learner's own coordinates (in which shifts are given) into feature units.
    clamp : bool
        Set negative moved features to 0, for layers that end in a ReLU. Takes the long way.
    """

    def __init__(self, head: Head, X: Tensor, basis: Tensor, clamp: bool = False) -> None:
        self.head, self.X, self.basis, self.clamp = head, X, basis, clamp
        self.n_images = X.shape[0]
        self.per_image = X[0, 0].numel()
        with torch.no_grad():
            self.base = head(X)
        if self.base.ndim != 2 or self.base.shape[0] != self.n_images:
            raise ValueError(
                f"Got logits of shape {tuple(self.base.shape)} from the head, expected ({self.n_images}, classes)"
            )
        if self.base.shape[1] < 2:
            raise ValueError("Got a head with one output, expected at least two classes")
        self.short = isinstance(head, PooledLinearHead) and not clamp
        if isinstance(head, PooledLinearHead):
            self.weight = basis @ head.weight.to(basis)

    def logits(self, shift: Tensor, amount: Tensor) -> Tensor:
        """``f+(X - sum_i amount_i shift_i)``.

        Parameters
        ----------
        shift : Tensor, shape (R, I, k)
        amount : Tensor, shape (R, I, P)

        Returns
        -------
        Tensor, shape (R, N, K)
        """
        R, n_detectors, _ = amount.shape
        if self.short:
            pooled = amount.reshape(R, n_detectors, self.n_images, self.per_image).mean(-1)
            return self.base - pooled.transpose(1, 2) @ (shift @ self.weight)
        N, D = self.X.shape[:2]
        step = (shift @ self.basis).transpose(1, 2) @ amount
        moved = self.X - step.reshape(R, D, N, self.per_image).transpose(1, 2).reshape(R, *self.X.shape)
        if self.clamp:
            moved = moved.clamp_min(0)
        return self.head(moved.flatten(0, 1)).reshape(R, N, -1)

    def images(self, chosen: Tensor) -> HeadOnShift:
        """The same for some of the images, without evaluating the head on them again."""
        part = copy.copy(self)
        part.X, part.base, part.n_images = self.X[chosen], self.base[chosen], len(chosen)
        return part

    def loss(self, shift: Tensor, amount: Tensor) -> Tensor:
        """Alignment loss in [-1, 0] of each solution (entropy divided by ``log K``), shape (R,)."""
        return -prediction_entropy(self.logits(shift, amount), relative=True).mean(-1)
