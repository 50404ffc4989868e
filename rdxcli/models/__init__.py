"""Vision models: their names, their loaders, their layers, and how activations are read from them.

Names are listed and resolved without NumPy or torch; those come in with `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdxcli.models.registry import ModelSpec, list_models, register, resolve

if TYPE_CHECKING:
    from rdxcli.models.loading import load

__all__ = ["ModelSpec", "list_models", "load", "register", "resolve"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from rdxcli.models.loading import load

        return load
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
