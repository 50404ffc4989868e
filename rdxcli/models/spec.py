"""What is known of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rdxcli.models import grammar


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model before it is loaded.

    Parameters
    ----------
    name : str
        What a person types; for explicit schemes the whole text.
    source : str
        Explicit name that the loader opens, for example ``timm:vit_base_patch16_224.dino`` or ``digits:m35``.
    default_layer : str, optional
        Module path or alias; None finds the penultimate representation.
    default_dataset : str, optional
        Data set the model is usually read on.
    preprocessing : mapping of str to str
        Options that override the model's own preprocessing (see docs/models.md).
    weights : str
        Where the numbers come from, for people.
    url : str, optional
        Address of the checkpoint, when no library fetches it.
    options : mapping of str to str
        ``?key=value`` pairs that the user gave.
    seed : int
        Seed of models that rdx trains itself (``NAME@SEED``).
    """

    name: str
    source: str
    default_layer: str | None = None
    default_dataset: str | None = None
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""
    url: str | None = None
    description: str = ""
    licence: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    @property
    def kind(self) -> str:
        """Scheme of the source: ``digits``, or one of `rdxcli.models.grammar`."""
        if self.source.startswith("digits:"):
            return "digits"
        return grammar.parse(self.source).scheme or "unknown"

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for ``rdx list models --json``."""
        return {
            "name": self.name,
            "kind": self.kind,
            "source": self.source,
            "default_layer": self.default_layer,
            "default_dataset": self.default_dataset,
            "preprocessing": dict(self.preprocessing),
            "weights": self.weights,
            "url": self.url,
            "description": self.description,
            "licence": self.licence,
        }
