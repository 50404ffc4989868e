"""What vision models have learned, and how two of them differ.

The functions and estimators below are loaded when they are first used::

    import rdxcli as rdx
    found = rdx.compare(a, b, k=3)
    from rdxcli import RDX, LinearExplanation, RDR, EDDP, UIBE, SpLiCE, TopKSAE
"""

from __future__ import annotations  # so that a Python too old for rdx still comes as far as the line that says so

import importlib
from typing import Any

try:
    from ._version import __version__
except ImportError:  # a source tree that was never installed
    __version__ = "0+unknown"

SCHEMA_VERSION = 1
"""Of documents and manifests; raised when a reader of older ones would misread them."""

_LAZY = {
    **dict.fromkeys(("Answer", "compare", "explain", "report", "representation", "simulate"), "rdxcli.api"),
    **dict.fromkeys(("ConceptMatrix", "Representation"), "rdxcli.records"),
    "ClipDissect": "rdxcli.methods.neurons.clip_dissect",
    "EDDP": "rdxcli.methods.directions.eddp",
    "LinearExplanation": "rdxcli.methods.neurons.linear",
    "NetworkDissection": "rdxcli.methods.neurons.network_dissection",
    "RDR": "rdxcli.methods.regions.rdr",
    "RdxError": "rdxcli.errors",
    "RDX": "rdxcli.methods.difference.rdx",
    "SAE": "rdxcli.methods.difference.baselines.autoencoders",
    "SpLiCE": "rdxcli.methods.surrogate.splice",
    "TopKSAE": "rdxcli.methods.difference.baselines.autoencoders",
    "UIBE": "rdxcli.methods.directions.uibe",
    "USAE": "rdxcli.methods.difference.baselines.usae",
}
"""Public names and the module of each."""

__all__ = ["SCHEMA_VERSION", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module `rdxcli` has no attribute `{name}`")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
