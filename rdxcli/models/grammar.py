"""How a model is written: ``SCHEME:TARGET?key=value&key=value``, ``FILE.py:FACTORY``, or a short name.

==========================================  ===========================================================
``torchvision:resnet50[@WEIGHTS]``          torchvision, default or named weights
``timm:NAME``                               timm, ``hf-hub:ORG/NAME`` and ``local-dir:FOLDER`` included
``open_clip:ARCH/PRETRAINED``               image tower of an open_clip model
``hf:REPO_OR_FOLDER``                       transformers vision model
``file:PATH?arch=ARCHITECTURE``             checkpoint file, loaded strictly into an architecture
``FILE.py:FACTORY``                         your own function that returns a ``torch.nn.Module``
``python:PACKAGE.MODULE:FACTORY``           the same from an installed package
==========================================  ===========================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from rdxcli.errors import UsageError

SCHEMES = {
    "torchvision:NAME[@WEIGHTS]": "torchvision, default or named weights",
    "timm:NAME": "timm, hf-hub:ORG/NAME and local-dir:FOLDER included",
    "open_clip:ARCH/PRETRAINED": "image tower of an open_clip model",
    "hf:REPO_OR_FOLDER": "vision model of the transformers library",
    "file:PATH?arch=ARCHITECTURE": "a checkpoint file, loaded strictly",
    "FILE.py:FACTORY": "your own function that returns a torch.nn.Module (runs your code)",
    "python:PACKAGE.MODULE:FACTORY": "the same from an installed package",
}
"""How explicit names are written, and what they open."""

EXPLICIT = ("torchvision", "timm", "open_clip", "hf", "file", "python")
_FACTORY_FILE = re.compile(r"(?P<path>.+\.py):(?P<function>[A-Za-z_]\w*)")
_QUERY = re.compile(r"\?(?=[A-Za-z_]\w*(?:=|&|$))")


@dataclass(frozen=True)
class ModelName:
    """A model's name taken apart.

    Parameters
    ----------
    scheme : str or None
        ``torchvision``, ``timm``, ``open_clip``, ``hf``, ``file``, ``python``, or ``factory`` for ``FILE.py:FACTORY``;
        None for a short name.
    target : str
        What stands between the scheme and the options.
    options : mapping of str to str
        ``?key=value`` pairs, in the order given.
    """

    scheme: str | None
    target: str
    options: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> ModelName:
    """Take a model's name apart.

    An architecture inside an option may carry options of its own (``?arch=timm:NAME?pad_type=same``): a second ``?``
    means the same as ``&``. Raises `UsageError` if the name is empty, an option is no ``key=value`` pair, or an option
    is given twice.
    """
    text = text.strip()
    head, *rest = _QUERY.split(text)
    options: dict[str, str] = {}
    for pair in filter(None, "&".join(rest).split("&")):
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"got the model option `{pair}`, expected `key=value`")
        if key in options:
            raise UsageError(f"the model option `{key}` is given twice in `{text}`")
        options[key] = unquote(value)
    if not head:
        raise UsageError(f"got the model name `{text}`, expected a name")
    scheme, colon, target = head.partition(":")
    if colon and scheme in EXPLICIT:
        if not target:
            raise UsageError(f"`{text}` names no model", hint=f"`{scheme}:NAME`")
        return ModelName(scheme, target, options)
    if _FACTORY_FILE.fullmatch(head):
        return ModelName("factory", head, options)
    return ModelName(None, head, options)


def split_factory(target: str) -> tuple[str, str]:
    """``("my_model.py", "make")`` from ``my_model.py:make``; also ``package.module:make``."""
    place, colon, function = target.rpartition(":")
    if not colon or not place or not function.isidentifier():
        raise UsageError(f"got `{target}`, expected `FILE.py:FUNCTION` or `python:PACKAGE.MODULE:FUNCTION`")
    return place, function


def literal(value: str) -> Any:
    """An option's value as the constructor wants it: number, boolean, None, tuple of numbers, or text."""
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return words[value.lower()]
    if "," in value:
        return tuple(literal(part.strip()) for part in value.split(",") if part.strip())
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def join(name: ModelName) -> str:
    """Write a taken-apart name again; ``parse(join(name)) == name`` for values without reserved characters."""
    head = name.target if name.scheme in (None, "factory") else f"{name.scheme}:{name.target}"
    query = "&".join(f"{key}={value}" for key, value in name.options.items())
    return f"{head}?{query}" if query else head
