"""Libraries that are slow to load and not always needed: one door each, and the library behind it at its first use.

``from rdxcli.lazy import torch`` costs nothing; ``torch.zeros(3)`` loads torch. A module that cannot do without its
library (it defines networks, say) imports that itself, at its top.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library(ModuleType):
    """A module that is imported when one of its attributes is first asked for."""

    def __getattr__(self, name: str) -> Any:
        library = import_module(self.__name__)
        try:
            return getattr(library, name)
        except AttributeError:
            if name.startswith("_"):
                raise
        try:
            return import_module(f"{self.__name__}.{name}")
        except ModuleNotFoundError:
            raise AttributeError(f"module `{self.__name__}` has no attribute `{name}`") from None


if TYPE_CHECKING:
    import httpx as httpx
    import huggingface_hub as huggingface_hub
    import jinja2 as jinja2
    import matplotlib as matplotlib
    import matplotlib.backends.backend_agg as matplotlib_agg
    import open_clip as open_clip
    import pyarrow as pyarrow
    import safetensors.torch as safetensors_torch
    import scipy as scipy
    import sklearn as sklearn
    import timm as timm
    import torch as torch
    import torchvision as torchvision
    import transformers as transformers
else:
    httpx = Library("httpx")
    huggingface_hub = Library("huggingface_hub")
    jinja2 = Library("jinja2")
    matplotlib = Library("matplotlib")
    matplotlib_agg = Library("matplotlib.backends.backend_agg")
    open_clip = Library("open_clip")
    pyarrow = Library("pyarrow")
    safetensors_torch = Library("safetensors.torch")
    scipy = Library("scipy")
    sklearn = Library("sklearn")
    timm = Library("timm")
    torch = Library("torch")
    torchvision = Library("torchvision")
    transformers = Library("transformers")
