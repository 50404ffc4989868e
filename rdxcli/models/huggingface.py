"""Vision models of the transformers library, from the hub's cache or from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.lazy import torch, transformers
from rdxcli.models.grammar import parse
from rdxcli.models.opened import (
    Opened,
    all_options,
    build,
    check_folder,
    constructor_options,
    fetching,
    hub_is_offline,
    random_weights,
)
from rdxcli.models.preprocessing import OPTIONS, Preprocessing, ProcessorTransform, override
from rdxcli.models.registry import ModelSpec
from rdxcli.models.taps import Tokens
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from torch import nn

# two-tower models: the class of their image tower, with the projection into the joint space where there is one
_VISION_TOWERS = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "metaclip_2": "MetaClip2VisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "chinese_clip": "ChineseCLIPVisionModel",
    "altclip": "AltCLIPVisionModel",
    "align": "AlignVisionModel",
    "blip": "BlipVisionModel",
    "clipseg": "CLIPSegVisionModel",
}
# their `pooler_output` goes through a layer that classifiers do not use
_READ_AT_NORM = {"vit": "layernorm", "deit": "layernorm"}


def open_huggingface(spec: ModelSpec, untrained: bool) -> Opened:
    """``hf:REPO_OR_FOLDER``: backbone or image tower, with the repository's own image processor.

    The library fills weights that a checkpoint lacks with random numbers and goes on; here that is an error, save for
    the pooling layer of backbones, which is then left out.
    """
    target, common = library_place(spec)
    with quiet(), fetching(spec):
        config = transformers.AutoConfig.from_pretrained(target, **common)
        module, provenance = _network(spec, target, config, common, untrained)
        transform = _transform(spec, target, _vision_config(config), common)
    return Opened(
        module, transform, _tokens(module, _vision_config(config)), provenance,
        default_layer=_READ_AT_NORM.get(config.model_type, "last"),
    )  # fmt: skip


def open_whole(
    spec: ModelSpec, untrained: bool
) -> tuple[nn.Module, Preprocessing | ProcessorTransform, dict[str, Any], str, dict[str, Any]]:
    """``hf:REPO_OR_FOLDER`` with every tower: network, image transform, provenance, and what opens the tokeniser."""
    target, common = library_place(spec)
    with quiet(), fetching(spec):
        config = transformers.AutoConfig.from_pretrained(target, **common)
        options = constructor_options(spec)
        if untrained:
            module = build(spec, transformers.AutoModel.from_config, options, config=config)
            provenance = random_weights(spec)
        else:
            module, info = build(
                spec,
                transformers.AutoModel.from_pretrained,
                options,
                pretrained_model_name_or_path=target,
                dtype=torch.float32,
                output_loading_info=True,
                **common,
            )
            refuse_missing(spec, module, missing_keys(info))
            provenance = {"origin": "transformers", "repository": target, "class": type(module).__name__}
        transform = _transform(spec, target, _vision_config(config), common)
    commit = getattr(config, "_commit_hash", None)
    return module, transform, {**provenance, "revision": commit} if commit else provenance, target, common


def library_place(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """Repository or folder, and what every call of the library gets."""
    target, revision = parse(spec.source).target, None
    if "@" in target:
        target, _, revision = target.rpartition("@")
    if target.startswith(("/", ".", "~")):
        target = str(check_folder(spec, target))
    return target, {"revision": revision, "trust_remote_code": False, "local_files_only": hub_is_offline()}


@contextmanager
def quiet() -> Iterator[None]:
    """No reports and no progress bars of the library's own; what matters in them is checked and said here."""
    verbosity, bars = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _vision_config(config: Any) -> Any:
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return config
    if hasattr(vision, "projection_dim") and hasattr(config, "projection_dim"):
        vision.projection_dim = config.projection_dim  # the whole model's, which the weights have
    return vision


def _network(
    spec: ModelSpec, target: str, config: Any, common: dict[str, Any], untrained: bool
) -> tuple[nn.Module, dict[str, Any]]:
    name = _VISION_TOWERS.get(config.model_type)
    kind: Any = getattr(transformers, name) if name is not None else transformers.AutoModel
    options = constructor_options(spec)
    if untrained:
        make = kind._from_config if name is not None else kind.from_config
        settings = _vision_config(config) if name is not None else config
        return build(spec, make, options, config=settings), random_weights(spec)

    def load(**extra: Any) -> tuple[nn.Module, list[str]]:
        module, info = build(
            spec,
            kind.from_pretrained,
            options,
            pretrained_model_name_or_path=target,
            config=_vision_config(config) if name is not None else config,
            dtype=torch.float32,
            output_loading_info=True,
            **common,
            **extra,
        )
        return module, missing_keys(info)

    module, missing = load()
    if missing and all("pooler" in key.split(".") for key in missing):
        module, missing = load(add_pooling_layer=False)
    refuse_missing(spec, module, missing)
    provenance = {"origin": "transformers", "repository": target, "class": type(module).__name__}
    commit = getattr(config, "_commit_hash", None)
    return module, {**provenance, "revision": commit} if commit else provenance


def missing_keys(info: dict[str, Any]) -> list[str]:
    """Weights that a checkpoint lacks or has in another shape, from the library's loading info."""
    return sorted([*info["missing_keys"], *(key for key, *_ in info.get("mismatched_keys", ()))])


def refuse_missing(spec: ModelSpec, module: nn.Module, missing: list[str]) -> None:
    """Raise `InputError` when weights are missing: the library would fill in random ones."""
    if missing:
        raise InputError(
            f"`{spec.name}`: the checkpoint lacks {human_count(len(missing), 'weight')} of {type(module).__name__} "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})",
            hint="they would be random; `rdx extract --untrained` takes random weights on purpose",
        )


def _transform(spec: ModelSpec, target: str, config: Any, common: dict[str, Any]) -> Preprocessing | ProcessorTransform:
    options = {key: value for key, value in all_options(spec).items() if key in OPTIONS}
    if "preprocess" in options:
        size = getattr(config, "image_size", 224)
        side = (size, size) if isinstance(size, int) else tuple(size)
        return override(Preprocessing(input_size=side, resize_to=side, interpolation="bicubic"), options)
    refused = ", ".join(sorted(set(options) - {"mean", "std"}))
    if refused:
        raise UsageError(
            f"`{spec.name}`: {refused} cannot change the repository's own image processor",
            hint="`preprocess=imagenet` (or half, clip, unit) replaces it, with all other options on top",
        )
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(target, **common)
    except (OSError, ValueError) as error:
        raise MissingDataError(
            f"`{spec.name}` comes without an image processor ({' '.join(str(error).split())[:120]})",
            hint="say how it was trained: `?preprocess=imagenet` (or half, clip, unit), with `input_size=` and so on",
        ) from None
    for key in ("mean", "std"):
        if key in options:
            setattr(processor, f"image_{key}", list(getattr(override(Preprocessing(), options), key)))
    return ProcessorTransform(processor)


def _tokens(module: nn.Module, config: Any) -> Tokens:
    """From the names of the learned tokens: class token first, then distillation and register tokens."""
    lengths = {"cls_token": 0, "class_embedding": 0, "distillation_token": 0, "register_tokens": 0}
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        if last in lengths:
            lengths[last] = parameter.shape[1] if parameter.ndim == 3 else 1
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    grid = (size // patch, size // patch) if isinstance(size, int) and isinstance(patch, int) else None
    has_class = bool(lengths["cls_token"] or lengths["class_embedding"])
    return Tokens(prefix=sum(lengths.values()), has_class=has_class, grid=grid)
