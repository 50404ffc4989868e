"""Vision models: their names, their loaders, their layers, and how activations are read from them.

Nothing heavy is imported here; torch comes in when a model is loaded.
"""

from __future__ import annotations

from rdxcli.models.loading import load
from rdxcli.models.registry import ModelSpec, list_models, register, resolve

__all__ = ["ModelSpec", "list_models", "load", "register", "resolve"]
