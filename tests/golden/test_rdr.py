"""Every array of the golden vectors of relaxed decision regions, compared as their manifest says."""

from __future__ import annotations

import json

import pytest
from golden import rdr_checks
from golden.rdr_checks import layer_tables

ARRAYS = [array for array in rdr_checks.every_array() if not rdr_checks.is_input(array)]


@pytest.mark.parametrize("array", ARRAYS)
def test_golden(array: str) -> None:
    claimed = rdr_checks.claim(array)
    assert claimed is not None, f"nothing checks {array}"
    check, match = claimed
    check(match)


@pytest.mark.parametrize("name", layer_tables.names())
def test_layer_table(name: str) -> None:
    layer_tables.check(name)


def test_the_manifest_lists_every_file() -> None:
    files = {path.name for path in rdr_checks.root().iterdir()} - {"manifest.json"}
    assert files == set(rdr_checks.manifest())
    assert json.loads((rdr_checks.root() / "layer_tables.json").read_text())


def test_there_are_selections() -> None:
    assert sum(array.endswith(("/neurons", "/raw_neurons")) for array in ARRAYS) > 50
