"""Replacing the pooled activation of single units in any layer, and the loss that follows.

Symbols: m images, x the output of a layer, a (m,) the pooled activation of one unit, v (m,) its new value. The unit's
channel becomes x + (v - a) at every position that the pooling reads: its pattern stays, its pooled value is v (exactly
so for means and single tokens; for a maximum because every position moves by the same amount).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rdxcli.errors import InputError, UsageError
from rdxcli.models.front import Front, record_front
from rdxcli.models.rest import with_first
from rdxcli.models.taps import OUTPUT, Tokens, first_tensor, standard_form
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from rdxcli.models.loaded import LoadedModel


class HookedLosses:
    """Cross entropy of each of some images when the pooled activation of one unit of a layer is replaced.

    Works for every layer and architecture: a forward hook changes the layer's output while the network runs on the
    images. What runs up to the layer is recorded once (`rdxcli.models.front`) where it fits ``front_bytes``; then a
    call costs a pass of the rest of the network over the given rows, with gradients a backward pass behind the layer
    too. Raises `UsageError` or `InputError` (the layer cannot be replaced, or labels outside the logits).

    Parameters
    ----------
    model : LoadedModel
        A classifier.
    layer : str
        Module path.
    pool : str
        How the activations were pooled; see `rdxcli.models.taps.pool`.
    images : Tensor of shape (k, c, h, w)
        Preprocessed.
    rows : int array of shape (k,)
        Row of ``activations`` that each image belongs to.
    labels : int array of shape (n,)
        Class of each row.
    activations : (n, u) array
        Pooled activations.
    temperature : float
        The logits are divided by this.
    front_bytes : int
        Memory for the records; 0 runs the whole network each time.

    Attributes
    ----------
    front : Front or None
        The records.
    runs : int
        How often the layer runs in one pass; its last output is changed, as it is the last that is extracted.
    """

    def __init__(
        self,
        model: LoadedModel,
        layer: str,
        pool: str,
        images: Tensor,
        rows: np.ndarray,
        labels: np.ndarray,
        activations: Any,
        *,
        temperature: float = 1.1,
        batch_size: int = 32,
        front_bytes: int = 0,
    ) -> None:
        if layer == OUTPUT:
            raise UsageError("ablation needs a layer with something behind it", "choose an earlier layer with --layer")
        if not temperature > 0:
            raise UsageError(f"got temperature={temperature}, expected a positive number")
        self.model, self.layer, self.pool, self.images = model, layer, pool, images
        self.place = dict(model.module.named_modules())[layer]
        self.where = {int(row): i for i, row in enumerate(rows)}
        self.labels = torch.as_tensor(np.asarray(labels, dtype=np.int64))
        self.activations, self.temperature, self.batch_size = activations, temperature, batch_size
        self._size = (images.shape[-2], images.shape[-1])
        self._like = torch.empty(0, device=model.device, dtype=model.dtype)
        self.front: Front | None = None
        if front_bytes > 0 and len(images):
            self.front = record_front(
                model.module, self.place, images, self._like, most_bytes=front_bytes, batch_size=batch_size
            )
            if self.front is not None:
                self.images = images[:0]  # the records stand for them
        self.runs = 1 if self.front is not None or not len(images) else self._count(images[:1])

    def _count(self, image: Tensor) -> int:
        """How often the layer runs in one pass: activation functions of residual blocks are called again."""
        count = 0

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal count
            count += 1

        handle = self.place.register_forward_hook(hook)
        try:
            with torch.no_grad():
                self.model.module(image.to(self._like))
        finally:
            handle.remove()
        return count

    def __call__(self, unit: int, values: Tensor, rows: np.ndarray) -> Tensor:
        """Per-sample loss (m,), differentiable in ``values``; see `rdxcli.methods.neurons.ablation.Losses`."""
        loss: Tensor = _HookedLoss.apply(values, self, unit, rows)
        return loss

    def logits(self, unit: int, values: Tensor, rows: np.ndarray) -> Tensor:
        """Logits (m, classes) of the network with the unit replaced, on the model's device; not divided."""
        old = torch.as_tensor(np.asarray(self.activations[rows, unit], dtype=np.float64))
        change = (values.to(torch.float64) - old).to(self.model.device, self.model.dtype)
        which = [self.where[int(row)] for row in rows]
        ran = 0

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            nonlocal ran
            ran += 1
            if ran < self.runs:  # the last output is what was read
                return None
            own = first_tensor(output)
            if own is None:
                raise InputError(f"the layer `{self.layer}` returns no tensor")
            new = own.clone()
            # a view in the standard layout, through which one channel of the copy is changed
            view = standard_form(new, len(which), self._size, self.model.tokens, self.layer)
            _read_by(view, self.pool, self.model.tokens)[..., unit].add_(_spread(change, view))
            return new if isinstance(output, Tensor) else with_first(output, own, new)

        handle = self.place.register_forward_hook(hook)
        try:
            if self.front is not None:
                output: Tensor | None = self.front.logits(which, self._like)
            else:
                output = first_tensor(self.model.module(self.images[which].to(self._like)))
        finally:
            handle.remove()
        if not ran:
            raise InputError(f"the layer `{self.layer}` exists but takes no part in the forward pass")
        if ran != self.runs:
            raise UsageError(
                f"the layer `{self.layer}` runs {human_count(ran, 'time')} for some images and "
                f"{human_count(self.runs, 'time')} for others",
                "choose one that always runs equally often",
            )
        if output is None or output.ndim != 2:
            raise InputError(f"`{self.model.name}` gives no logits, so it has no loss")
        if int(self.labels.max()) >= output.shape[1]:
            raise InputError(
                f"got the class {int(self.labels.max())}, but the network has {human_count(output.shape[1], 'logit')}"
            )
        return output

    def losses(self, unit: int, values: Tensor, rows: np.ndarray) -> Tensor:
        """One batch of `__call__`, inside autograd."""
        logits = self.logits(unit, values, rows).to(torch.float64) / self.temperature
        truth = self.labels[torch.as_tensor(rows)].to(logits.device)
        return nn.functional.cross_entropy(logits, truth, reduction="none")


class _HookedLoss(torch.autograd.Function):
    """Loss and slope batch by batch: images do not influence each other, so no graph outlives its batch."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, owner: HookedLosses, unit: int, rows: np.ndarray) -> Tensor:
        losses, slopes = [], []
        for start in range(0, len(rows), owner.batch_size):
            stop = start + owner.batch_size
            part = values[start:stop].detach().clone()
            if ctx.needs_input_grad[0]:
                with torch.enable_grad():
                    part.requires_grad_(True)
                    loss = owner.losses(unit, part, rows[start:stop])
                    slopes.append(torch.autograd.grad(loss.sum(), part)[0])
            else:
                loss = owner.losses(unit, part, rows[start:stop])
            losses.append(loss.detach().to(values))
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None, None


def _read_by(view: Tensor, pool: str, tokens: Tokens) -> Tensor:
    """The part of a layer's output that a pooling reads, channels last: (m, c), (m, t, c) or (m, h, w, c)."""
    if view.ndim == 2:
        return view
    if view.ndim == 4:
        return view.permute(0, 2, 3, 1)
    patches_only = view.shape[1] <= tokens.prefix or (
        tokens.grid is not None and view.shape[1] == tokens.grid[0] * tokens.grid[1]
    )
    has_class = tokens.has_class and (not patches_only or view.shape[1] == 1)
    how = ("cls" if has_class else "mean") if pool == "auto" else pool
    if how in ("cls", "first"):
        return view[:, :1]
    return view if how in ("avg", "max") or patches_only else view[:, tokens.prefix :]


def _spread(change: Tensor, view: Tensor) -> Tensor:
    return change.reshape(-1, *([1] * (view.ndim - 2)))


def linear_head(model: LoadedModel, layer: str, image: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias of the classifier when it is linear and reads exactly the pooled activations of ``layer``.

    Parameters
    ----------
    image : Tensor of shape (1, c, h, w)
        On which this is checked.

    Returns
    -------
    (k, d) and (k,) float64, or None.
    """
    if layer == OUTPUT:
        return None
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, nn.Linear):
            seen.append((module, inputs[0].detach().clone(), output.detach().clone()))

    handles = [m.register_forward_hook(hook) for m in model.module.modules() if isinstance(m, nn.Linear)]
    try:
        with model.tap([layer], early_stop=False) as tap:
            pooled = tap(image)[layer]
        with torch.inference_mode():
            seen.clear()
            logits = first_tensor(model.module(image.to(model.device, model.dtype)))
    finally:
        for handle in handles:
            handle.remove()
    if not seen or logits is None:
        return None
    head, given, made = seen[-1]
    if made.shape != logits.shape or not torch.equal(made, logits) or given.shape != pooled.shape:
        return None
    if not torch.allclose(given.float(), pooled.float(), rtol=1e-4, atol=1e-6):
        return None
    weight = head.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().double().cpu().numpy()
    return weight, bias


def preprocessed(model: LoadedModel, pictures: Sequence[Any]) -> Tensor:
    """Images as the network takes them, (k, c, h, w) float32."""
    return torch.stack([model.transform(picture) for picture in pictures])
