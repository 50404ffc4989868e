"""Every registered estimator keeps to scikit-learn's conventions."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import rdxcli as rdx
from rdxcli.methods.registry import methods

KINDS = {kind.__name__: kind for kind in (method.load() for method in methods().values()) if inspect.isclass(kind)}
X = np.random.default_rng(0).random((30, 6))
READ: dict[str, tuple[Any, ...]] = {
    "concept_maps": (X,),
    "decode": (X,),
    "detect": (X,),
    "difference_rows": ("01", np.arange(2)),
    "documents": (),
    "membership": (X,),
    "predict": (X,),
    "reconstruct": (X,),
    "responses": (X,),
    "score_rows": (X, X, np.arange(3)),
    "table": ("layer",),
    "transform": (X,),
}
"""Methods that need a fit, and something to call them with."""

each = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@each
def test_parameters_are_stored_untouched(kind: type) -> None:
    signature = inspect.signature(kind.__init__)
    marks = {name: object() for name in signature.parameters if name != "self"}
    made = kind(**marks)
    assert made.get_params(deep=False) == marks
    assert {name: getattr(made, name) for name in marks} == marks


@each
def test_clone_and_set_params(kind: type) -> None:
    made = kind()
    twin = clone(made)
    assert twin is not made
    assert twin.get_params() == made.get_params()
    name = next(iter(made.get_params()))
    assert twin.set_params(**{name: 17}) is twin
    assert getattr(twin, name) == 17
    assert getattr(made, name) != 17
    with pytest.raises(ValueError, match="no_such"):
        made.set_params(no_such=1)


@each
def test_constructing_reads_nothing_and_fits_nothing(kind: type) -> None:
    assert not [name for name in vars(kind()) if name.endswith("_") and not name.startswith("_")]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS.values() for name in READ if hasattr(kind, name)]
)
def test_results_are_asked_for_after_fit(kind: type, name: str) -> None:
    with pytest.raises(NotFittedError, match=f"unfitted {kind.__name__}"):
        getattr(kind(), name)(*READ[name])


def test_fit_returns_the_estimator_and_leaves_its_parameters() -> None:
    for made, data in ((rdx.RDX(n_clusters=2), (X, X[:, ::-1])), (rdx.RDR(n_neighbors=3), (X - 0.5,))):
        before = made.get_params()
        assert made.fit(*data) is made
        assert made.get_params() == before
