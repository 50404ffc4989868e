"""How the golden vectors of relaxed decision regions are checked.

Every module of this package exposes ``CHECKS``: a mapping from a regular expression over ``"file.npz:array"`` to a
function ``check(match) -> None`` that compares our result with that array as the manifest says, and ``INPUTS``:
expressions of the arrays that are given. An array that nothing claims is a failure of the test.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np

from rdxcli.methods.regions.configurations import Configurations

Check = Callable[[re.Match[str]], None]


def root() -> Path:
    """Folder of the golden vectors of this method."""
    given = os.environ.get("RDX_GOLDEN")
    return (Path(given) if given else Path(__file__).resolve().parents[1] / "data") / "rdr"


@cache
def manifest() -> dict[str, Any]:
    return json.loads((root() / "manifest.json").read_text())["files"]


def cases(file: str) -> Mapping[str, Any]:
    """Parameters of the cases of a file, as the manifest gives them."""
    return manifest()[file].get("cases", {})


@cache
def arrays(file: str) -> Mapping[str, np.ndarray]:
    with np.load(root() / file, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def every_array() -> list[str]:
    """``file.npz:array`` of everything in the folder, in the order of the manifest."""
    return [f"{file}:{name}" for file in manifest() if file.endswith(".npz") for name in arrays(file)]


def unpacked(packed: np.ndarray, width: int) -> Configurations:
    """Bits of the vectors (big-endian in each byte)."""
    return Configurations.from_bits(np.unpackbits(packed, axis=1, count=width))


@cache
def _patterns() -> tuple[dict[str, Check], list[str]]:
    checks: dict[str, Check] = {}
    inputs: list[str] = []
    for found in iter_modules(__path__):
        module = import_module(f"{__name__}.{found.name}")
        checks |= module.CHECKS
        inputs += module.INPUTS
    return checks, inputs


def claim(array: str) -> tuple[Check, re.Match[str]] | None:
    """The check of an array and the match of its pattern."""
    hits = [(check, match) for pattern, check in _patterns()[0].items() if (match := re.fullmatch(pattern, array))]
    assert len(hits) < 2, f"{len(hits)} checks claim {array}"
    return hits[0] if hits else None


def is_input(array: str) -> bool:
    return any(re.fullmatch(pattern, array) for pattern in _patterns()[1])
