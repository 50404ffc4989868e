"""Models of torchvision, timm and open_clip, with their own preprocessing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rdxcli.errors import UnknownNameError, UsageError
from rdxcli.lazy import open_clip, timm, torch, torchvision
from rdxcli.models.grammar import parse
from rdxcli.models.opened import (
    Opened,
    all_options,
    build,
    check_folder,
    constructor_options,
    fetching,
    is_offline,
    missing_weights,
    random_weights,
    unknown_weights,
)
from rdxcli.models.preprocessing import Preprocessing, from_open_clip, from_timm, from_torchvision, override
from rdxcli.models.registry import ModelSpec
from rdxcli.models.taps import Tokens
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from torch import nn

# ---------------------------------------------------------------------------------------------------- torchvision


def open_torchvision(spec: ModelSpec, untrained: bool) -> Opened:
    """``torchvision:resnet50`` or ``torchvision:resnet50@IMAGENET1K_V1`` (the library's default weights otherwise)."""
    name, _, tag = parse(spec.source).target.partition("@")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, known)
    entries = torchvision.models.get_model_weights(name)
    if tag and tag not in entries.__members__:
        raise unknown_weights(f"torchvision:{name}", tag, entries.__members__)
    weights = entries[tag] if tag else getattr(entries, "DEFAULT", None)
    options = constructor_options(spec)
    preprocessing = from_torchvision(weights.transforms()) if weights is not None else Preprocessing()
    if untrained:
        module = build(spec, torchvision.models.get_model, options, name=name, weights=None)
        provenance = random_weights(spec)
    else:
        if weights is None:
            raise missing_weights(spec, "torchvision has none for this network")
        _check_head(spec, options, len(weights.meta["categories"]))
        if is_offline() and not _hub_file(weights.url).is_file():
            raise missing_weights(spec, f"{_hub_file(weights.url)} is not there, and HF_HUB_OFFLINE is set")
        with fetching(spec):
            module = build(spec, torchvision.models.get_model, options, name=name, weights=weights, progress=False)
        provenance = {"origin": "torchvision", "weights": str(weights), "url": weights.url}
    return Opened(module, override(preprocessing, all_options(spec)), torchvision_tokens(module), provenance)


def _hub_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _check_head(spec: ModelSpec, options: dict[str, Any], classes: int | None) -> None:
    """Libraries fill a head of another size with random numbers; that takes the user's word."""
    wanted = options.get("num_classes")
    if classes is not None and wanted not in (None, 0, classes):
        raise UsageError(
            f"`{spec.name}` asks for {human_count(wanted, 'class')}, but the weights have {classes}: the "
            "head would be random",
            hint=f"leave `num_classes` out, or `file:PATH?arch={spec.source}` for weights of your own",
        )


def torchvision_tokens(module: nn.Module) -> Tokens:
    """How to read a torchvision network's tensors."""
    kind = type(module).__name__
    if kind == "VisionTransformer":
        side = int(module.image_size) // int(module.patch_size)  # type: ignore[arg-type]
        return Tokens(prefix=1, has_class=True, grid=(side, side))
    return Tokens(channels_last=kind == "SwinTransformer")


# ----------------------------------------------------------------------------------------------------------- timm


def open_timm(spec: ModelSpec, untrained: bool) -> Opened:
    """``timm:NAME``, ``timm:hf-hub:ORG/NAME``, ``timm:local-dir:FOLDER``, with the model's own evaluation transform."""
    target = parse(spec.source).target
    target = target.replace("hf_hub:", "hf-hub:", 1) if target.startswith("hf_hub:") else target
    _check_timm_name(spec, target)
    options = constructor_options(spec)
    with fetching(spec):
        if untrained:
            module = build(spec, timm.create_model, options, model_name=target, pretrained=False)
        else:
            _check_head(spec, options, _timm_classes(target))
            module = build(spec, timm.create_model, options, model_name=target, pretrained=True)
    config = module.pretrained_cfg
    origin = {key: config[key] for key in ("architecture", "tag", "hf_hub_id", "url", "license") if config.get(key)}
    provenance = random_weights(spec) if untrained else {"origin": "timm", **origin}
    preprocessing = override(timm_preprocessing(module, options), all_options(spec))
    return Opened(module, preprocessing, timm_tokens(module), provenance, timm_classifier(module))


def _check_timm_name(spec: ModelSpec, target: str) -> None:
    if target.startswith("local-dir:"):
        check_folder(spec, target.removeprefix("local-dir:"))
    if ":" in target:
        return
    if "/" in target:
        raise UsageError(
            f"`timm:{target}` looks like a repository", hint=f"`timm:hf-hub:{target}` or `timm:local-dir:{target}`"
        )
    name, _, tag = target.partition(".")
    if not timm.is_model(name):
        raise UnknownNameError("timm model", target, [*timm.list_models(), *timm.list_pretrained()])
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise unknown_weights(f"timm:{name}", tag, tags)


def _timm_classes(target: str) -> int | None:
    """Classes of the pretrained head; None where only the hub knows."""
    if ":" in target:
        return None
    config = timm.get_pretrained_cfg(target)
    return config.num_classes if config is not None else None


def timm_preprocessing(module: nn.Module, options: dict[str, Any]) -> Preprocessing:
    """Evaluation transform of a timm network; ``img_size`` of the constructor sets the input size as well."""
    size = options.get("img_size")
    args = {"in_chans": options.get("in_chans")}
    if isinstance(size, int):
        args["input_size"] = (options.get("in_chans", 3), size, size)
    elif isinstance(size, tuple):
        args["input_size"] = (options.get("in_chans", 3), *size)
    return from_timm(timm.data.resolve_model_data_config(module, args={k: v for k, v in args.items() if v is not None}))


def timm_tokens(module: nn.Module) -> Tokens:
    """How to read a timm network's tensors, as the network itself says."""
    has_class = getattr(module, "cls_token", None) is not None
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return Tokens(
        prefix=int(getattr(module, "num_prefix_tokens", int(has_class))),
        has_class=has_class,
        channels_last=str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC"),
        grid=(int(grid[0]), int(grid[1])) if grid is not None else None,
    )


def timm_classifier(module: nn.Module) -> nn.Module | None:
    """The layer that gives the logits, the first of several (distilled networks); None for networks without."""
    get = getattr(module, "get_classifier", None)
    found = get() if get is not None else None
    found = found[0] if isinstance(found, tuple | list) and found else found
    return found if isinstance(found, torch.nn.Module) else None


# ------------------------------------------------------------------------------------------------------ open_clip


def open_open_clip(spec: ModelSpec, untrained: bool) -> Opened:
    """``open_clip:ARCH/PRETRAINED``, ``open_clip:hf-hub:ORG/NAME``, ``open_clip:local-dir:FOLDER``: the image tower.

    The network's output is the image embedding in the joint space, not normalised. QuickGELU follows the weights: a tag
    trained with it gets it, and an architecture that has it refuses weights that were trained without.
    """
    model, preprocessing, provenance = whole_open_clip(spec, untrained)
    module = model.visual
    return Opened(module, preprocessing, _open_clip_tokens(module), provenance, default_layer="last")


def whole_open_clip(spec: ModelSpec, untrained: bool) -> tuple[Any, Preprocessing, dict[str, Any]]:
    """Both towers of an open_clip model, the preprocessing of its images, and what is known of the weights."""
    arch, pretrained = split_open_clip(parse(spec.source).target)
    if arch.startswith("local-dir:"):
        check_folder(spec, arch.removeprefix("local-dir:"))
    options = constructor_options(spec, "image_size")
    size = constructor_options(spec).get("image_size")
    quick = _quick_gelu(spec, arch, pretrained)
    with fetching(spec):
        model = build(
            spec,
            open_clip.create_model,
            options,
            model_name=arch,
            pretrained=None if untrained else pretrained,
            load_weights=not untrained,
            require_pretrained=not untrained,
            pretrained_text=False,
            force_quick_gelu=quick,
            force_image_size=size,
        )
    config = {**asdict(open_clip.transform.PreprocessCfg()), **open_clip.get_model_preprocess_cfg(model)}
    provenance = (
        random_weights(spec) if untrained else {"origin": "open_clip", "architecture": arch, "weights": pretrained}
    )
    preprocessing = override(from_open_clip(config), all_options(spec))
    return model, preprocessing, {**provenance, "quick_gelu": quick or "quickgelu" in arch}


def split_open_clip(target: str) -> tuple[str, str | None]:
    """Architecture and weights of ``ARCH/PRETRAINED``; folders and hub names have no separate weights."""
    if target.startswith(("hf-hub:", "local-dir:")):
        return target, None
    known = open_clip.list_models()
    parts = target.split("/")
    # an architecture may be written `ViT-B/32`, weights may be a path: take the longest known architecture
    for cut in range(len(parts) - 1, 0, -1):
        arch = "-".join(parts[:cut])
        if arch in known:
            return arch, "/".join(parts[cut:])
    raise UnknownNameError("open_clip architecture", parts[0], known)


def _quick_gelu(spec: ModelSpec, arch: str, pretrained: str | None) -> bool:
    if pretrained is None or Path(pretrained).is_file():
        return False
    config = open_clip.get_pretrained_cfg(arch, pretrained)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise unknown_weights(f"open_clip:{arch}", pretrained, tags)
    trained_with = bool(config.get("quick_gelu", False))
    built_with = bool((open_clip.get_model_config(arch) or {}).get("quick_gelu", False))
    if built_with and not trained_with:
        raise UsageError(
            f"`{spec.name}`: the architecture uses QuickGELU, but `{pretrained}` was trained without it",
            hint=f"`open_clip:{arch.replace('-quickgelu', '')}/{pretrained}`",
        )
    return trained_with


def _open_clip_tokens(module: nn.Module) -> Tokens:
    trunk = getattr(module, "trunk", None)
    if isinstance(trunk, torch.nn.Module):
        return timm_tokens(trunk)
    if getattr(module, "class_embedding", None) is None:
        return Tokens()
    grid = getattr(module, "grid_size", None)
    return Tokens(prefix=1, has_class=True, grid=(int(grid[0]), int(grid[1])) if grid is not None else None)
