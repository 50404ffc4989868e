"""Reading activations: hooks on several layers in one forward pass, pooled as soon as they are there.

Symbols: b images in the batch, c channels (or features, or units), h x w positions, t tokens, of which the first p are
prefix tokens (class token, register tokens) and the others image patches.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import torch
from rdxcli.models.devices import without_gradients
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from torch import Tensor, nn

POOLS = ("auto", "avg", "mean", "max", "first", "cls", "none")
"""What ``--pool`` takes; see `pool`."""

OUTPUT = "output"
"""Name of the layer that is the whole network: its own output."""


@dataclass(frozen=True)
class Tokens:
    """What a network's authors say of its tensors.

    Parameters
    ----------
    prefix : int
        Number of tokens before the image patches.
    has_class : bool
        Whether the first of them is a class token.
    channels_last : bool
        Whether 4-D feature maps are (b, h, w, c) where their shape leaves it open.
    grid : (int, int), optional
        Rows and columns of patches.
    model : str
        What the network is called, for hints.
    """

    prefix: int = 0
    has_class: bool = False
    channels_last: bool = False
    grid: tuple[int, int] | None = None
    model: str = "MODEL"


def layers_command(model: str) -> str:
    """What lists the layers of a model."""
    return f"rdx list layers {shlex.quote(model)}"


def first_tensor(output: Any) -> Tensor | None:
    """The tensor a layer stands for: itself, ``pooler_output``, or the first tensor in a tuple or mapping."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        for key in ("pooler_output", "image_embeds", "last_hidden_state"):
            if isinstance(output.get(key), torch.Tensor):
                return output[key]
        output = list(output.values())
    if isinstance(output, Sequence) and not isinstance(output, str):
        return next((tensor for tensor in map(first_tensor, output) if tensor is not None), None)
    return None


def embedding(output: Any) -> Tensor:
    """The tensor of an output that has one."""
    tensor = first_tensor(output)
    assert tensor is not None
    return tensor


def standard_form(output: Any, batch: int, image_size: tuple[int, int], tokens: Tokens, layer: str) -> Tensor:
    """The layer's tensor as (b, c), (b, t, c) or (b, c, h, w).

    Raises `InputError` if the output holds no floating-point tensor with one row per image.

    Parameters
    ----------
    output : Tensor, tuple or mapping
        What the layer returned.
    image_size : (int, int)
        Height and width of the input; channels-last maps are recognised by the side ratio.
    layer : str
        For error messages.
    """
    tensor = first_tensor(output)
    if tensor is None or not tensor.is_floating_point():
        raise InputError(
            f"the layer `{layer}` returns no floating-point tensor",
            hint=f"`{layers_command(tokens.model)}` shows what can be read",
        )
    if tensor.ndim == 3 and tensor.shape[0] != batch and tensor.shape[1] == batch:
        tensor = tensor.transpose(0, 1)  # (t, b, c), as sequence-first transformers have it
    if tensor.ndim not in (2, 3, 4) or tensor.shape[0] != batch:
        raise InputError(
            f"the layer `{layer}` returns shape {tuple(tensor.shape)} for {human_count(batch, 'image')}, "
            "expected one row per image",
            hint=f"read the module around it; `{layers_command(tokens.model)}` shows what can be read",
        )
    if tensor.ndim == 4 and _is_channels_last(tensor, image_size, tokens.channels_last):
        tensor = tensor.permute(0, 3, 1, 2)
    return tensor


def _is_channels_last(tensor: Tensor, image_size: tuple[int, int], tie: bool) -> bool:
    _, first, second, third = tensor.shape
    wanted = math.log(image_size[0] / image_size[1])
    as_first, as_last = abs(math.log(second / third) - wanted), abs(math.log(first / second) - wanted)
    return tie if math.isclose(as_first, as_last, abs_tol=1e-9) else as_last < as_first


def pool(tensor: Tensor, how: str, tokens: Tokens, layer: str = "") -> Tensor:
    """One vector per image (or one map, for ``none``).

    ========  ==================================  ==========================================================
    ``how``   feature map (b, c, h, w)            tokens (b, t, c)
    ========  ==================================  ==========================================================
    auto      spatial mean                        class token, or the mean of the patches where there is none
    avg       spatial mean                        mean of all tokens, prefix included (Linear Explanations)
    mean      spatial mean                        mean of the patches
    max       spatial maximum                     maximum over all tokens
    first     error                               first token
    cls       error                               class token; error where there is none
    none      unchanged                           patches as a map (b, c, h, w)
    ========  ==================================  ==========================================================

    A tensor (b, c) is returned as it is. Raises `UsageError` if this kind of layer cannot be pooled so.

    Returns
    -------
    Tensor of shape (b, c), or (b, c, h, w) for ``none``; never a view of ``tensor``, which the network may overwrite.
    """
    if how not in POOLS:
        raise UsageError(f"unknown pooling: `{how}`", hint="expected " + ", ".join(f"`{name}`" for name in POOLS))
    if tensor.ndim == 2:
        return tensor.clone()
    if tensor.ndim == 4:
        if how in ("first", "cls"):
            raise UsageError(
                f"`--pool {how}` takes a token, but the layer `{layer}` is a feature map", hint="`--pool avg`"
            )
        if how == "none":
            return tensor.clone(memory_format=torch.contiguous_format)
        return tensor.amax((2, 3)) if how == "max" else tensor.mean((2, 3))
    return _pool_tokens(tensor, how, tokens, layer)


def _pool_tokens(tensor: Tensor, how: str, tokens: Tokens, layer: str) -> Tensor:
    count = tensor.shape[1]
    # a layer in front of the prefix (patch embedding, first stage of some networks) holds patches only
    patches_only = count <= tokens.prefix or (tokens.grid is not None and count == math.prod(tokens.grid))
    has_class = tokens.has_class and (not patches_only or count == 1)
    if how == "auto":
        how = "cls" if has_class else "mean"
    if how == "cls" and not has_class:
        raise UsageError(f"`--pool cls` needs a class token, but the layer `{layer}` has none", hint="`--pool mean`")
    if how in ("cls", "first"):
        return tensor[:, 0].clone()
    if how == "avg":
        return tensor.mean(1)
    if how == "max":
        return tensor.amax(1)
    patches = tensor if patches_only else tensor[:, tokens.prefix :]
    if how == "mean":
        return patches.mean(1)
    side = math.isqrt(patches.shape[1])
    height, width = tokens.grid if tokens.grid and math.prod(tokens.grid) == patches.shape[1] else (side, side)
    if height * width != patches.shape[1]:
        raise UsageError(
            f"`--pool none` wants a map, but the {human_count(patches.shape[1], 'patch token')} of the "
            f"layer `{layer}` form no grid",
            hint="`--pool mean`",
        )
    return patches.transpose(1, 2).reshape(len(patches), -1, height, width).contiguous()


class _StopForward(Exception):  # noqa: N818  not an error: leaves the forward pass
    pass


class LayerTap:
    """Context manager that reads several layers of a network in one forward pass.

    After the first batch has shown that each layer runs exactly once, later passes end behind the last of them.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    layers : sequence of str
        Module paths of ``module.named_modules()``, or `OUTPUT`.
    pool : str or mapping of str to str
        One of `POOLS` for all layers, or one per layer.
    early_stop : bool
        Whether passes may end early.

    Examples
    --------
    >>> from rdxcli.models.architectures import PooledCNN
    >>> with LayerTap(PooledCNN().eval(), ["conv1", "conv2"]) as tap:
    ...     values = tap(torch.zeros(5, 1, 28, 28))
    >>> {layer: tuple(value.shape) for layer, value in values.items()}
    {'conv1': (5, 32), 'conv2': (5, 64)}
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        pool: str | Mapping[str, str] = "auto",
        tokens: Tokens | None = None,
        early_stop: bool = True,
    ) -> None:
        self.module = module
        self.layers = list(dict.fromkeys(layers))
        self.pools = {layer: pool if isinstance(pool, str) else pool[layer] for layer in self.layers}
        self.tokens = tokens or Tokens()
        self.early_stop = early_stop and OUTPUT not in self.layers
        self._handles: list[Any] = []
        self._values: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        self._may_stop = False
        self._images: Tensor | None = None

    def __enter__(self) -> LayerTap:
        modules = dict(self.module.named_modules())
        try:
            for layer in self.layers:
                target = self.module if layer == OUTPUT else modules[layer]
                self._handles.append(target.register_forward_hook(self._hook(layer)))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, layer: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._images is None:  # somebody else runs the network meanwhile
                return
            size = (self._images.shape[-2], self._images.shape[-1])
            tensor = standard_form(output, len(self._images), size, self.tokens, layer)
            self._values[layer] = pool(tensor, self.pools[layer], self.tokens, layer)
            self._calls[layer] = self._calls.get(layer, 0) + 1
            if self._may_stop and len(self._values) == len(self.layers):
                raise _StopForward

        return hook

    @without_gradients
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Activations of a batch.

        Raises `InputError` if a layer did not run.

        Parameters
        ----------
        images : Tensor of shape (b, channels, height, width)
            Moved to the network's device and precision.

        Returns
        -------
        dict of str to Tensor
            In the order of ``layers``; shapes as in `pool`. A layer that runs several times in one pass gives its last
            output.
        """
        if not self._handles:
            raise RuntimeError("LayerTap is a context manager: use it in a `with` block")
        parameter = next(self.module.parameters(), None)
        if parameter is not None:
            images = images.to(parameter.device, parameter.dtype)
        self._values, self._calls, self._images = {}, {}, images
        try:
            self.module(images)
        except _StopForward:
            pass
        finally:
            self._images = None
        missing = [layer for layer in self.layers if layer not in self._values]
        if missing:
            raise InputError(
                f"the layer `{missing[0]}` exists but takes no part in the forward pass",
                hint=f"`{layers_command(self.tokens.model)}` lists those that run",
            )
        self._may_stop = self.early_stop and all(calls == 1 for calls in self._calls.values())
        return {layer: self._values[layer] for layer in self.layers}

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)
