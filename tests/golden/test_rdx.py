"""Every expected array of the RDX golden vectors, compared as their manifest says (see ``rdx_checks``)."""

from __future__ import annotations

import pytest
from golden import rdx_checks

ARRAYS = [
    (one, array) for one in rdx_checks.cases() if rdx_checks.claim(one) is not None for array in one.names("expected")
]


@pytest.mark.parametrize(
    ("one", "array"), ARRAYS, ids=[f"{one.file.removesuffix('.npz')}-{one.name}-{array}" for one, array in ARRAYS]
)
def test_golden(one: rdx_checks.Case, array: str) -> None:
    results = rdx_checks.computed(one)
    assert array in results, f"{one.file}:{one.name} has no value for {array}"
    rdx_checks.compare(results[array], one.array(array), one.entry(array)["compare"])


def test_the_manifest_lists_cases() -> None:
    assert len(ARRAYS) > 100
