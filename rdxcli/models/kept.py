"""Weights that a library keeps in its own cache: what ``rdx download`` fetches for models that have no recipe."""

from __future__ import annotations

from pathlib import Path

from rdxcli.download.catalogue import Recipe
from rdxcli.errors import UsageError
from rdxcli.lazy import open_clip, timm, torchvision
from rdxcli.models.registry import resolve


def recipe_of(name: str) -> Recipe | None:
    """A recipe for a model that has none but whose weights a library keeps: ``timm:resnet18``, ``hf:OWNER/NAME``."""
    try:
        spec = resolve(name)
    except UsageError:
        return None
    scheme, _, target = spec.source.partition(":")
    source = {"timm": _timm, "open_clip": _open_clip, "hf": _transformers, "torchvision": _torchvision}.get(scheme)
    repo = source(target) if source is not None else None
    if repo is None:
        return None

    content = {
        "name": "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("-._"),
        "title": spec.description or name,
        "kind": "hub",
        "papers": ["none"],
        "homepage": "see the library",
        "licence": spec.licence or "see the model's card",
        "hub": [{"library": {"hf": "transformers"}.get(scheme, scheme), "repo": repo}],
    }
    try:
        return Recipe.model_validate(content)
    except ValueError:
        return None


def _timm(target: str) -> str | None:
    if target.startswith("hf-hub:"):
        return target.removeprefix("hf-hub:")

    try:
        config = timm.get_pretrained_cfg(target)
    except RuntimeError:
        return None
    return config.hf_hub_id if config is not None else None


def _open_clip(target: str) -> str | None:
    arch, _, tag = target.partition("/")
    if arch.startswith("hf-hub:"):
        return target.removeprefix("hf-hub:")
    repo = open_clip.get_pretrained_cfg(arch, tag).get("hf_hub", "")
    return repo.rstrip("/") or None


def _transformers(target: str) -> str | None:
    return None if Path(target).expanduser().exists() else target


def _torchvision(target: str) -> str | None:
    name, _, tag = target.partition("@")
    try:
        weights = torchvision.models.get_model_weights(name)
        return str(weights[tag or "DEFAULT"].url)
    except (ValueError, KeyError):
        return None
