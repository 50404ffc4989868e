"""Names of layers: module paths, their aliases, and the table of what a forward pass goes through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeGuard

from rdxcli.errors import InputError, UnknownNameError, UsageError
from rdxcli.lazy import torch
from rdxcli.models.taps import OUTPUT, Tokens, first_tensor, layers_command, pool, standard_form

if TYPE_CHECKING:
    from torch import Tensor, nn

ALIASES = ("penultimate", "last", "block:N")


@dataclass(frozen=True)
class LayerInfo:
    """One row of the table of layers.

    Parameters
    ----------
    path : str
        Module path; `OUTPUT` for the whole network.
    type : str
        Class name.
    shape : tuple of int
        Output of one image, without the batch dimension, in its standard form: (c,), (t, c) or (c, h, w).
    kind : {"features", "tokens", "map"}
    calls : int
        How often the module runs in one pass; the last output is what is read.
    pooled : int
        Bytes of one image's pooled vector in float32.
    own : bool
        Whether it makes something of what it gets: not for dropout and the like, nor for a container (or the whole
        network) that hands on the output of its last part.
    """

    path: str
    type: str
    shape: tuple[int, ...]
    kind: str
    channels: int
    calls: int
    own: bool = True

    @property
    def pooled(self) -> int:
        return 4 * self.channels


def normal_path(path: str) -> str:
    """``encoder.layers[3].mlp[1]`` is ``encoder.layers.3.mlp.1``."""
    return re.sub(r"\[\s*['\"]?([\w-]+)['\"]?\s*\]", r".\1", path.strip()).strip(".")


def _is_trivial(module: nn.Module) -> bool:
    """Whether a module hands on what it gets (in evaluation mode)."""
    one = torch.nn
    return isinstance(module, one.Identity | one.Dropout | one.Dropout1d | one.Dropout2d | one.Flatten)


def _is_container(module: nn.Module) -> TypeGuard[nn.Sequential | nn.ModuleList]:
    return isinstance(module, torch.nn.Sequential | torch.nn.ModuleList)


def _is_composite(module: nn.Module) -> bool:
    return not _is_container(module) and any(True for _ in module.children())


def _is_stage(module: nn.Module) -> bool:
    """Whether a module holds blocks of its own: a list of nothing but composite modules."""
    lists = (sub for sub in module.modules() if _is_container(sub) and len(sub) > 0)
    return any(all(_is_composite(child) for child in sub.children()) for sub in lists)


def blocks(module: nn.Module) -> list[str]:
    """Paths of the repeated blocks (transformer blocks, residual blocks), in the order of the network.

    A block is a composite child of a ``Sequential`` or ``ModuleList`` that holds no such list of blocks itself.
    """
    found: list[str] = []

    def visit(parent: nn.Module, prefix: str) -> None:
        for name, child in parent.named_children():
            is_block = _is_container(parent) and _is_composite(child) and not _is_stage(child)
            if is_block and any(True for _ in child.parameters()):
                found.append(f"{prefix}{name}")
            else:
                visit(child, f"{prefix}{name}.")

    visit(module, "")
    return found


def resolve_layer(module: nn.Module, name: str, penultimate: str, model: str = "MODEL") -> str:
    """The module path that a layer's name means.

    Raises `UnknownNameError` (there is no such layer) or `UsageError` (``block:N`` is no number, out of range, or the
    network has no repeated blocks).

    Parameters
    ----------
    name : str
        Module path, ``penultimate``, ``last`` (the network's output), ``block:N`` (N may be negative).
    penultimate : str
        Path of the default layer.
    model : str
        What the model is called, for hints.
    """
    path = normal_path(name)
    modules = dict(module.named_modules())
    if path and path in modules:
        return path
    if path == "penultimate":
        return penultimate
    if path in ("last", OUTPUT):
        return OUTPUT
    if path.startswith("block:"):
        return _block(module, path.removeprefix("block:"), model)
    raise UnknownNameError(
        "layer", name, [*(known for known in modules if known), *ALIASES[:2], OUTPUT], layers_command(model)
    )


def matching_layers(module: nn.Module, table: Sequence[LayerInfo], pattern: str, model: str = "MODEL") -> list[str]:
    """Paths of the layers that a pattern means, in the order of the forward pass.

    Raises `UnknownNameError` or `UsageError` (no layer fits; the network has no repeated blocks).

    Parameters
    ----------
    table : sequence of LayerInfo
        From `trace`.
    pattern : str
        ``*`` stands for any characters and ``?`` for one: ``*`` is every layer that makes something of its own of what
        it gets, once; ``block:*`` the repeated blocks.
    model : str
        What the model is called, for hints.
    """
    text = normal_path(pattern)
    if text == "block:*":
        _block(module, "0", model)
        return blocks(module)
    found = [layer.path for layer in table if layer.own and layer.calls == 1 and fnmatchcase(layer.path, text)]
    if not found:
        raise UnknownNameError("layer", pattern, [layer.path for layer in table], layers_command(model))
    return found


def _block(module: nn.Module, index: str, model: str) -> str:
    known = blocks(module)
    if not known:
        raise UsageError(
            "this model has no repeated blocks, which `blocks` and `block:N` mean",
            hint=f"`{layers_command(model)}` lists its layers",
        )
    try:
        return known[int(index)]
    except (ValueError, IndexError):
        raise UsageError(f"got `block:{index}`, expected `block:0` to `block:{len(known) - 1}` or `block:-1`") from None


def trace(module: nn.Module, image: Tensor, tokens: Tokens) -> list[LayerInfo]:
    """Every module that runs, in order of completion, from one forward pass.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    image : Tensor of shape (1, channels, height, width)

    Notes
    -----
    Two images are passed, so that a tensor without one row per image is told from one that has it. Modules whose output
    cannot be read (windows, attention masks) are left out.
    """
    seen: dict[str, LayerInfo] = {}
    before: list[Tensor | None] = [None]
    batch = torch.cat([image, image])
    size = (image.shape[-2], image.shape[-1])

    def hook(path: str) -> Any:
        def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
            try:
                tensor = standard_form(output, len(batch), size, tokens, path)
            except InputError:
                return
            shape = tuple(tensor.shape[1:])
            kind = {1: "features", 2: "tokens", 3: "map"}[len(shape)]
            channels = shape[-1] if kind == "tokens" else shape[0]
            calls = seen.pop(path).calls + 1 if path in seen else 1
            raw = first_tensor(output)
            handed_on = raw is before[0] and (path == OUTPUT or _is_container(layer))
            before[0] = raw
            own = not handed_on and not _is_trivial(layer)
            seen[path] = LayerInfo(path, type(layer).__name__, shape, kind, channels, calls, own)

        return keep

    handles = [layer.register_forward_hook(hook(path or OUTPUT)) for path, layer in module.named_modules()]
    try:
        with torch.inference_mode():
            module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.values())


def penultimate_layer(module: nn.Module, image: Tensor, tokens: Tokens, classifier: nn.Module | None) -> str:
    """The layer whose pooled output is what the classifier reads.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    image : Tensor of shape (1, channels, height, width)
        Not constant, or layers could be confused.
    classifier : nn.Module, optional
        The last layer; None looks for a linear layer that runs last and gives the network's output.

    Returns
    -------
    str
        The last module before the classifier that does something and whose output, pooled by ``auto``, equals the
        classifier's input; otherwise the module that ran last before it. `OUTPUT` for a network without classifier.

    Notes
    -----
    Costs one forward pass. Cosmetic modules (dropout, identity, flatten) are passed over.
    """
    ran: list[tuple[str, nn.Module, Tensor | None]] = []
    read: dict[int, Tensor] = {}  # classifier candidates: id -> input
    size = (image.shape[-2], image.shape[-1])
    result: list[Tensor | None] = [None]

    def hook(path: str) -> Any:
        def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
            if path == OUTPUT:
                result[0] = first_tensor(output)
                return
            if isinstance(layer, torch.nn.Linear) or layer is classifier:
                read[id(layer)] = inputs[0].clone()
            try:
                value = pool(standard_form(output, len(image), size, tokens, path), "auto", tokens, path)
            except InputError:
                value = None
            ran.append((path, layer, value))

        return keep

    handles = [layer.register_forward_hook(hook(path or OUTPUT)) for path, layer in module.named_modules()]
    try:
        with torch.inference_mode():
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    position = _classifier_position(ran, read, result[0], classifier)
    if position is None:
        return OUTPUT
    wanted = read[id(ran[position][1])]
    if wanted.ndim == 4:
        wanted = wanted.mean((2, 3))
    before = [entry for entry in ran[:position] if entry[2] is not None]
    for path, layer, value in reversed(before):
        if value is not None and not _is_trivial(layer) and _same(value, wanted):
            return path
    for path, _, value in reversed(before):
        if value is not None and _same(value, wanted):
            return path
    return before[-1][0] if before else OUTPUT


def _classifier_position(
    ran: Sequence[tuple[str, nn.Module, Tensor | None]],
    read: dict[int, Tensor],
    result: Tensor | None,
    classifier: nn.Module | None,
) -> int | None:
    for position in reversed(range(len(ran))):
        _, layer, value = ran[position]
        if id(layer) not in read:
            continue
        if layer is classifier:
            return position
        if classifier is None and value is not None and result is not None and _same(value, result):
            return position
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    # the order of a sum matters in half precision, but must not change which layer is the default
    half = one.dtype in (torch.float16, torch.bfloat16)
    rtol, atol = (2e-2, 1e-2) if half else (1e-4, 1e-6)
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=rtol, atol=atol)
