"""Checkpoint files with a named architecture, and networks from the user's own code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.datasets.addresses import localised
from rdxcli.download.store import checkpoint_file
from rdxcli.errors import InputError, RdxError, UnknownNameError, UsageError
from rdxcli.lazy import timm, torch, torchvision
from rdxcli.models.architectures import ARCHITECTURES
from rdxcli.models.checkpoints import file_sha256, load_strictly, read_state
from rdxcli.models.grammar import ModelName, literal, parse, split_factory
from rdxcli.models.libraries import timm_classifier, timm_preprocessing, timm_tokens, torchvision_tokens
from rdxcli.models.opened import Opened, all_options, build, constructor_options, missing_weights, random_weights
from rdxcli.models.preprocessing import Preprocessing, ProcessorTransform, from_torchvision, override
from rdxcli.models.registry import ModelSpec
from rdxcli.places import cache_root
from rdxcli.progress import log

if TYPE_CHECKING:
    from torch import Tensor, nn

_METADATA = {"mean": "mean", "std": "std", "resize_short_side": "resize", "crop": "input_size"}


def open_file(spec: ModelSpec, untrained: bool) -> Opened:
    """``file:PATH?arch=ARCHITECTURE``: weights loaded strictly, number of classes from the head's shape.

    A safetensors file may name its own ``architecture``, ``mean``, ``std``, ``resize_short_side`` and ``crop`` in its
    metadata; the options of the name stand above them.
    """
    parsed = parse(spec.source)
    path = Path(localised(parsed.target)).expanduser()
    state: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    if not untrained:
        path = _find(spec, path)
        state, metadata = read_state(path)
    options = {_METADATA[key]: value for key, value in metadata.items() if key in _METADATA}
    options |= all_options(spec)
    arch = options.get("arch") or _from_metadata(spec, path, metadata)
    opened = _architecture(spec, parse(arch), state, constructor_options(spec, "arch"))
    assert isinstance(opened.transform, Preprocessing)
    opened.transform = override(opened.transform, options)
    if untrained:
        opened.provenance = random_weights(spec)
        return opened
    by_order = arch in ARCHITECTURES and ARCHITECTURES[arch].by_order
    load_strictly(opened.module, state, str(path), by_order)
    opened.provenance = {
        "origin": "file",
        "file": path.name,
        "file_sha256": file_sha256(path),
        "architecture": arch,
        **({"url": spec.url} if spec.url else {}),
        **({"metadata": dict(sorted(metadata.items()))} if metadata else {}),
    }
    return opened


def _find(spec: ModelSpec, path: Path) -> Path:
    """The file of a catalogue entry in the folders where downloads and libraries put weights."""
    if spec.url is None:
        return path

    data = Path(os.environ.get("RDX_DATA") or "data")
    downloaded = checkpoint_file(spec.name.partition("?")[0], data)
    if downloaded is not None:
        return downloaded
    original = Path(spec.source.removeprefix("file:").partition("?")[0])
    # `rdx download` gives each recipe a folder, and turns pickles into safetensors
    names = (original, original.with_suffix(".safetensors"))
    folders = (data, cache_root() / "models", Path(torch.hub.get_dir()) / "checkpoints")
    found = [folder / name for name in names for folder in folders if (folder / name).is_file()]
    for name in names:
        found += [path for depth in ("*", "*/*") for path in sorted(data.glob(f"{depth}/{name.as_posix()}"))]
    if not found:
        raise missing_weights(spec, f"`{original}` is neither below {data} nor in torch's hub cache")
    _check_digest(found[0])
    return found[0]


def _check_digest(path: Path) -> None:
    """Publishers write the first digits of the SHA-256 into the file's name: ``resnet20-12fca82f.th``."""
    digits = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    if digits and path.suffix != ".safetensors" and not file_sha256(path).startswith(digits[1]):
        raise InputError(f"{path} is damaged: its SHA-256 does not begin with {digits[1]}", hint="fetch it again")


def _from_metadata(spec: ModelSpec, path: Path, metadata: Mapping[str, str]) -> str:
    said = metadata.get("architecture", "")
    for start, scheme in (
        ("torchvision.models.", "torchvision:"),
        ("torchvision:", "torchvision:"),
        ("timm ", "timm:"),
        ("timm:", "timm:"),
    ):
        if said.startswith(start):
            log.info("%s: architecture `%s` from the file's metadata", path.name, said)
            return scheme + said.removeprefix(start)
    if said in ARCHITECTURES:
        return said
    raise UsageError(
        f"`{spec.name}` does not say which network the weights belong to"
        + (f" (the file says `{said}`)" if said else ""),
        hint=f"`file:{path}?arch=timm:NAME`, torchvision:NAME or one of " + ", ".join(ARCHITECTURES),
    )


def _architecture(spec: ModelSpec, arch: ModelName, state: Mapping[str, Tensor], options: dict[str, Any]) -> Opened:
    options = {**{key: literal(value) for key, value in arch.options.items()}, **options}
    if arch.scheme == "timm":
        return _timm_architecture(spec, arch.target, state, options)
    if arch.scheme == "torchvision":
        return _torchvision_architecture(spec, arch.target, state, options)
    own = ARCHITECTURES.get(arch.target) if arch.scheme is None else None
    if own is None:
        raise UnknownNameError(
            "architecture", arch.target, [*ARCHITECTURES, f"timm:{arch.target}", f"torchvision:{arch.target}"]
        )
    inferred = own.infer(state) if state else {}
    module = build(spec, own.build, {**inferred, **options})
    preprocessing = override(Preprocessing(), own.preprocessing)
    if arch.target == "small_cnn":
        grey = inferred.get("in_channels", options.get("in_channels", 1)) == 1
        side = str(inferred.get("size", options.get("size", 28 if grey else 32)))
        preprocessing = override(preprocessing, {"mode": "L" if grey else "RGB", "input_size": side, "crop_pct": "1"})
    return Opened(module, preprocessing, default_layer=own.default_layer)


def _timm_architecture(spec: ModelSpec, name: str, state: Mapping[str, Tensor], options: dict[str, Any]) -> Opened:
    if not timm.is_model(name.partition(".")[0]):
        raise UnknownNameError("timm architecture", name, timm.list_models())
    module = build(spec, timm.create_model, options, model_name=name, pretrained=False)
    classes = _classes(module, timm_classifier(module), state)
    if state and "num_classes" not in options and classes is not None:
        module = build(spec, timm.create_model, {**options, "num_classes": classes}, model_name=name, pretrained=False)
    return Opened(module, timm_preprocessing(module, options), timm_tokens(module), {}, timm_classifier(module))


def _torchvision_architecture(
    spec: ModelSpec, name: str, state: Mapping[str, Tensor], options: dict[str, Any]
) -> Opened:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UnknownNameError("torchvision architecture", name, known)
    module = build(spec, torchvision.models.get_model, options, name=name, weights=None)
    classes = _classes(module, None, state)
    if state and "num_classes" not in options and classes:
        module = build(spec, torchvision.models.get_model, {**options, "num_classes": classes}, name=name, weights=None)
    weights = getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)
    preprocessing = from_torchvision(weights.transforms()) if weights is not None else Preprocessing()
    return Opened(module, preprocessing, torchvision_tokens(module))


def _classes(module: nn.Module, classifier: nn.Module | None, state: Mapping[str, Tensor]) -> int | None:
    """Classes of a checkpoint whose head differs from the network's; 0 when it has no head; None when equal."""
    names = {id(layer): name for name, layer in module.named_modules()}
    if classifier is None or not hasattr(classifier, "weight"):
        linear = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        classifier = linear[-1] if linear else None
    if classifier is None:
        return None
    key = f"{names[id(classifier)]}.weight"
    own = module.state_dict()[key].shape[0]
    if key not in state:
        # without a head everything else must fit, or the names belong to another network
        return 0 if set(module.state_dict()) - set(state) <= {key, key.replace(".weight", ".bias")} else None
    given = int(state[key].shape[0])
    return given if given != own else None


class UserTransform(ProcessorTransform):
    """A transform that a factory returned beside its network."""

    def __call__(self, image: Any) -> Tensor:
        tensor = self.processor(image)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 3:
            raise InputError(f"the factory's transform returns {type(tensor).__name__}, expected a tensor (c, h, w)")
        return tensor.float()

    def describe(self) -> dict[str, Any]:
        return {"kind": "user", "transform": " ".join(repr(self.processor).split())[:2000]}


def open_factory(spec: ModelSpec, untrained: bool) -> Opened:
    """``FILE.py:FUNCTION`` or ``python:PACKAGE.MODULE:FUNCTION``. Runs that code, with all rights of the user.

    The function returns a ``torch.nn.Module``, or a pair of it and a transform from a Pillow image to a tensor
    (c, h, w). Options that are not about preprocessing are its keyword arguments.
    """
    place, name = split_factory(parse(spec.source).target)
    log.info("running %s of %s", name, place)
    function = getattr(_module(spec, place), name, None)
    if not callable(function):
        raise InputError(f"`{place}` has no function `{name}`")
    try:
        made = build(spec, function, constructor_options(spec))
    except RdxError:
        raise
    except Exception as error:
        raise InputError(
            f"`{name}` of {place} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    module, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"`{name}` of {place} returns {type(module).__name__}, expected a torch.nn.Module")
    timm_like = hasattr(module, "pretrained_cfg") and hasattr(module, "get_classifier")
    tokens = timm_tokens(module) if timm_like else torchvision_tokens(module)
    base = timm_preprocessing(module, {}) if timm_like else Preprocessing()
    chosen = UserTransform(transform) if transform is not None else override(base, all_options(spec))
    provenance: dict[str, Any] = {"origin": "user code", "function": name, "place": Path(place).name}
    if place.endswith(".py"):
        provenance["file_sha256"] = file_sha256(Path(place).expanduser())
    return Opened(module, chosen, tokens, provenance, timm_classifier(module) if timm_like else None)


def _module(spec: ModelSpec, place: str) -> Any:
    """Import the user's file or module; a file's own folder is importable while it loads, as if it were run."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).expanduser()
        if not path.is_file():
            raise InputError(f"no such file: {path}", hint="a factory is written `FILE.py:FUNCTION`")
        description = importlib.util.spec_from_file_location(f"rdx_user_{path.stem}", path)
        assert description is not None
        module = importlib.util.module_from_spec(description)
        sys.path.insert(0, str(path.resolve().parent))
        try:
            # from its text: bytecode of a file that was written twice within a second is taken for the newer one's
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        finally:
            sys.path.remove(str(path.resolve().parent))
        return module
    except RdxError:
        raise
    except Exception as error:
        raise InputError(
            f"`{spec.name}`: {place} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
