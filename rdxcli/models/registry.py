"""The names of models. Looking one up imports nothing heavy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points

from rdxcli.errors import UnknownNameError, UsageError, near_matches
from rdxcli.models import grammar
from rdxcli.models.catalogue import SPECS
from rdxcli.models.spec import ModelSpec
from rdxcli.progress import log

SCHEMES = grammar.SCHEMES
ENTRY_POINTS = "rdx.models"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt", ".bin", ".tar")


class Registry:
    """Specs by name; the built-in ones first, then those of other installed packages."""

    def __init__(self) -> None:
        self._specs: dict[str, ModelSpec] = {}

    def register(self, spec: ModelSpec) -> ModelSpec:
        """Add a spec.

        Raises `ValueError` if the name is taken, is no legal short name, or the source has no known scheme.
        """
        parsed = grammar.parse(spec.name)
        if parsed.scheme is not None or parsed.options or "@" in spec.name:
            raise ValueError(f"Got the model name {spec.name!r}, expected a short name without `:SCHEME`, `?` and `@`")
        if spec.kind == "unknown":
            raise ValueError(f"Got the source {spec.source!r} for {spec.name!r}, expected an explicit name")
        if spec.name in self._specs:
            raise ValueError(f"Got the model name {spec.name!r} twice, expected unique names")
        self._specs[spec.name] = spec
        return spec

    def names(self) -> list[str]:
        return list(self._specs)

    def get(self, name: str) -> ModelSpec | None:
        return self._specs.get(name)


@cache
def _registry() -> Registry:
    registry = Registry()
    for spec in SPECS:
        registry.register(spec)
    for point in entry_points(group=ENTRY_POINTS):
        # a broken plug-in must not take the other models with it
        try:
            loaded = point.load()
            loaded = loaded() if callable(loaded) else loaded
            for spec in [loaded] if isinstance(loaded, ModelSpec) else loaded:
                registry.register(spec)
        except Exception as error:
            log.warning("models of the package entry `%s` were left out: %s", point.name, error)
    return registry


def register(spec: ModelSpec) -> ModelSpec:
    """Add a model to this process' registry; packages use the entry point group ``rdx.models`` instead.

    Raises `ValueError` if the name is taken or illegal.
    """
    return _registry().register(spec)


def list_models() -> list[str]:
    """Registered short names, in catalogue order, then other packages' own."""
    return _registry().names()


def resolve(name: str) -> ModelSpec:
    """The spec of a short name or of an explicit scheme. Touches neither disk nor network.

    Raises `UnknownNameError` (there is no such short name) or `UsageError` (the name cannot be read, or a seed is given
    to a model that is not trained here).

    Parameters
    ----------
    name : str
        ``digits-cnn@1``, ``dino``, ``timm:resnet18?num_classes=0``, ... (see `rdxcli.models.grammar`).
    """
    parsed = grammar.parse(name)
    if parsed.scheme is not None:
        _check_explicit(parsed)
        bare = grammar.join(replace(parsed, options={}))
        return ModelSpec(
            name=name.strip(), source=bare, options=parsed.options, description="given on the command line"
        )
    registry = _registry()
    spec = registry.get(parsed.target)
    if spec is not None:
        return replace(spec, name=name.strip(), options=parsed.options)
    stem, at, seed = parsed.target.rpartition("@")
    spec = registry.get(stem) if at else None
    if spec is not None:
        if spec.kind != "digits":
            raise UsageError(
                f"`{stem}` has published weights, `@{seed}` is only for models that rdx trains itself (digits-cnn...)"
            )
        if not seed.isdecimal() or len(seed) > 9:
            raise UsageError(f"got the seed `{seed}` in `{name}`, expected a whole number from 0 to 999999999")
        canonical = stem if int(seed) == 0 else f"{stem}@{int(seed)}"
        return replace(spec, name=canonical, options=parsed.options, seed=int(seed))
    raise _unknown(parsed.target, registry.names())


def _unknown(name: str, known: list[str]) -> UnknownNameError:
    error = UnknownNameError("model", name, known, "rdx list models")
    if name.lower().endswith(CHECKPOINT_SUFFIXES):
        error.hint = f"a checkpoint file is written `file:{name}?arch=timm:NAME`"
    elif not near_matches(name, known):
        error.hint = (
            f"`rdx list models` lists them; a library's own model is written `timm:{name}` or `torchvision:{name}`"
        )
    return error


def _check_explicit(parsed: grammar.ModelName) -> None:
    if parsed.scheme in ("factory", "python"):
        grammar.split_factory(parsed.target)
    if parsed.scheme == "file" and "arch" not in parsed.options and not parsed.target.endswith(".safetensors"):
        raise UsageError(
            f"`file:{parsed.target}` does not say which network the weights belong to",
            hint=f"`file:{parsed.target}?arch=timm:NAME` (or torchvision:NAME, cifar_resnet20, small_cnn, mnist_cnn)",
        )
    if parsed.scheme == "open_clip" and "/" not in parsed.target and ":" not in parsed.target:
        raise UsageError(
            f"`open_clip:{parsed.target}` names no weights",
            hint=f"`open_clip:{parsed.target}/PRETRAINED`, for example `open_clip:ViT-B-32/laion2b_s34b_b79k`",
        )
