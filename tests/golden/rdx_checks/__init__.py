"""How the RDX golden vectors are checked.

Every module of this package exposes ``CHECKS``: a mapping from a pattern ``"file.npz"`` or ``"file.npz:case"`` (the
case may hold ``*``) to a function ``compute(case) -> mapping``. The mapping has one entry per expected array of the
case: either the value of our implementation, which is then compared as the manifest says, or, for comparisons that only
the module understands, a function ``(expected, compare) -> None`` that asserts. The most specific pattern wins. An
expected array without a pattern or without an entry is a failure of the test.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np

Compute = Callable[["Case"], Mapping[str, Any]]


def root() -> Path:
    """Folder of the golden vectors of this method."""
    given = os.environ.get("RDX_GOLDEN")
    return (Path(given) if given else Path(__file__).resolve().parents[1] / "data") / "rdx"


@cache
def manifest() -> dict[str, Any]:
    return json.loads((root() / "manifest.json").read_text())["files"]


@cache
def _file(name: str) -> Mapping[str, np.ndarray]:
    with np.load(root() / name, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


@dataclass(frozen=True)
class Case:
    """One case of one file: its parameters, its inputs, and the arrays to reproduce."""

    file: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def _entries(self) -> Mapping[str, Any]:
        return manifest()[self.file]["cases"][self.name]["arrays"]

    def entry(self, array: str) -> Mapping[str, Any]:
        """The manifest's description of an array."""
        return self._entries[array]

    def array(self, array: str) -> np.ndarray:
        """Any array of this case by its short name."""
        return _file(self.file)[self.entry(array)["key"]]

    def names(self, role: str) -> list[str]:
        """Short names of the arrays with this role."""
        return [name for name, entry in self._entries.items() if entry["role"] == role]

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """Inputs of this case, completed by the shared case ``inputs`` of the file."""
        shared = {}
        if self.name != "inputs" and "inputs" in manifest()[self.file]["cases"]:
            shared = case(self.file, "inputs").inputs
        return shared | {name: self.array(name) for name in self.names("input")}

    def sibling(self, name: str) -> Case:
        """Another case of the same file."""
        return case(self.file, name)


def case(file: str, name: str) -> Case:
    return Case(file, name, manifest()[file]["cases"][name].get("params", {}))


def cases() -> list[Case]:
    """Every case that has something to reproduce, in the manifest's order."""
    every = [case(file, name) for file, content in manifest().items() for name in content["cases"]]
    return [one for one in every if one.names("expected")]


@cache
def checks() -> dict[str, Compute]:
    """The patterns of all modules of this package."""
    found: dict[str, Compute] = {}
    for module in iter_modules(__path__):
        for pattern, compute in import_module(f"{__name__}.{module.name}").CHECKS.items():
            if pattern in found:
                raise ValueError(f"two modules claim {pattern}")
            found[pattern] = compute
    return found


def claim(one: Case) -> Compute | None:
    """The function that reproduces a case."""
    full = f"{one.file}:{one.name}"
    hits = [pattern for pattern in checks() if pattern == one.file or fnmatchcase(full, pattern)]
    return checks()[max(hits, key=len)] if hits else None


@cache
def computed(one: Case) -> Mapping[str, Any]:
    """What our implementation makes of a case, computed once."""
    compute = claim(one)
    assert compute is not None, f"no check claims {one.file}:{one.name}"
    return compute(one)


def compare(actual: Any, expected: np.ndarray, how: str) -> None:
    """Compare as the manifest says; an unknown instruction is a failure."""
    if callable(actual):
        actual(expected, how)
        return
    actual = np.asarray(actual)
    if how.startswith("exact"):
        np.testing.assert_array_equal(actual, expected)
    elif how.startswith("allclose"):
        # Without rtol the tolerance is purely absolute; without atol purely relative.
        np.testing.assert_allclose(actual, expected, rtol=number(how, "rtol"), atol=number(how, "atol"))
    elif match := re.match(r"adjusted Rand index >= ([0-9.]+)", how):
        from sklearn.metrics import adjusted_rand_score

        assert actual.shape == expected.shape
        assert adjusted_rand_score(expected, actual) >= float(match[1])
    elif how.startswith("same set per row"):
        same_sets(actual, expected)
    else:
        raise AssertionError(f"no rule for the comparison {how!r}")


def number(how: str, name: str) -> float:
    """The tolerance ``name=1e-9`` in an instruction; 0 when it is not given."""
    match = re.search(rf"{name}=([0-9.e+-]+)", how)
    return float(match[1]) if match else 0.0


def same_sets(actual: Any, expected: np.ndarray) -> None:
    """Rows of indices padded with -1 hold the same members, in any order."""
    assert [set(map(int, row)) - {-1} for row in actual] == [set(row.tolist()) - {-1} for row in expected]


def padded(rows: list[np.ndarray], width: int) -> np.ndarray:
    """Ragged index lists as one array, padded with -1."""
    out = np.full((len(rows), width), -1, dtype=np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out
