"""Every expected array of the RDX golden vectors, compared as their manifest says (see ``rdx_checks``)."""

from __future__ import annotations

import pytest
from golden import rdx_checks

ARRAYS = [(one, array) for one in rdx_checks.cases() for array in one.names("expected")]


@pytest.mark.parametrize(
    ("one", "array"), ARRAYS, ids=[f"{one.file.removesuffix('.npz')}-{one.name}-{array}" for one, array in ARRAYS]
)
def test_golden(one: rdx_checks.Case, array: str) -> None:
    results = rdx_checks.computed(one)
    assert array in results, f"{one.file}:{one.name} has no value for {array}"
    rdx_checks.compare(results[array], one.array(array), one.entry(array)["compare"])


def test_every_file_has_something_to_reproduce() -> None:
    assert ARRAYS
    assert {one.file for one, _ in ARRAYS} == set(rdx_checks.manifest())
