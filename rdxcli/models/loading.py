"""From a model's name to a network that can be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import torch
from rdxcli.models import digits
from rdxcli.models.checkpoints import load_strictly, state_sha256
from rdxcli.models.devices import pick_device, pick_dtype
from rdxcli.models.layers import resolve_layer
from rdxcli.models.loaded import LoadedModel
from rdxcli.models.opened import Opened, all_options, constructor_options, random_weights
from rdxcli.models.preprocessing import Preprocessing, override
from rdxcli.models.registry import ModelSpec, resolve
from rdxcli.numerics.seeding import integer_seed
from rdxcli.progress import log

if TYPE_CHECKING:
    from torch import nn


def load(name: str | ModelSpec, device: str = "auto", dtype: str | None = None, untrained: bool = False) -> LoadedModel:
    """Load a model.

    Raises `UnknownNameError` or `UsageError` (the name, device or dtype cannot be used), `MissingDataError` (weights
    are not on this machine and cannot be fetched) or `InputError` (a checkpoint does not fit its network, or holds
    NaN).

    Parameters
    ----------
    name : str or ModelSpec
        Short name or explicit scheme; see `rdxcli.models.grammar`.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    dtype : str, optional
        ``float32`` (default), ``float16``, ``bfloat16``: type of the weights and of the computation.
    untrained : bool
        Random weights on purpose, the same every time. Weights that are missing are never replaced by random ones.
    """
    spec = name if isinstance(name, ModelSpec) else resolve(name)
    target, precision = pick_device(device), pick_dtype(dtype)
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        torch.manual_seed(integer_seed(spec.seed, "models", "untrained"))
        opened = _open(spec, untrained)
    module = opened.module.eval().requires_grad_(False)
    check_finite(spec, module)
    digest = state_sha256(module)
    if untrained:
        log.info("%s has random weights (--untrained)", spec.name)
    return LoadedModel(
        spec=spec,
        module=module.to(device=target, dtype=precision),
        transform=opened.transform,
        tokens=opened.tokens,
        provenance=opened.provenance,
        weights_sha256=digest,
        untrained=untrained,
        classifier=opened.classifier,
        default_layer=spec.default_layer or opened.default_layer,
    )


def check_layers(name: str | ModelSpec, layers: Iterable[str | None]) -> None:
    """Refuse layers of a network that rdx trains itself before it is trained; patterns are left for later."""
    spec = name if isinstance(name, ModelSpec) else resolve(name)
    named = [layer for layer in layers if layer and not {"*", "?"} & set(layer)]
    if spec.kind == "digits" and named:
        module = digits.network(digits.RECIPES[spec.source.removeprefix("digits:")].classes)
        for layer in named:
            resolve_layer(module, layer, "", spec.name)


def _open(spec: ModelSpec, untrained: bool) -> Opened:
    from rdxcli.models import files, huggingface, libraries

    match spec.kind:
        case "digits":
            return _open_digits(spec, untrained)
        case "torchvision":
            return libraries.open_torchvision(spec, untrained)
        case "timm":
            return libraries.open_timm(spec, untrained)
        case "open_clip":
            return libraries.open_open_clip(spec, untrained)
        case "hf":
            return huggingface.open_huggingface(spec, untrained)
        case "file":
            return files.open_file(spec, untrained)
        case _:
            return files.open_factory(spec, untrained)


def _open_digits(spec: ModelSpec, untrained: bool) -> Opened:
    if unknown := constructor_options(spec):
        raise UsageError(f"`{spec.name}` takes no option `{next(iter(unknown))}`")
    variant = spec.source.removeprefix("digits:")
    module = digits.network(digits.RECIPES[variant].classes)
    provenance = random_weights(spec)
    if not untrained:
        trained = digits.obtain(variant, spec.seed)
        load_strictly(module, trained.state, spec.name)
        provenance = {"origin": "trained by rdx on scikit-learn's digits", **trained.facts}
        provenance.pop("seconds", None)  # differs between runs that are the same otherwise
    preprocessing = Preprocessing((8, 8), "squash", (8, 8), "bilinear", "L", 255.0, (0.5,), (0.5,))
    return Opened(module, override(preprocessing, all_options(spec)), provenance=provenance, default_layer="conv2")


def check_finite(spec: ModelSpec, module: nn.Module) -> None:
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"the weights of `{spec.name}` hold NaN or infinite numbers (`{key}`)",
                hint="the file is damaged: fetch it again",
            )
