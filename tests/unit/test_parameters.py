"""Declared parameters: every registered estimator is checked by its signature, with one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval

from rdxcli.errors import UsageError
from rdxcli.methods.registry import Method, methods
from rdxcli.parameters import REQUIRED, Count, Parameter, Share, checked, declared, expectation

ESTIMATORS = [method for method in methods().values() if inspect.isclass(method.load())]


def sentence(parameter: Parameter, value: Any) -> str:
    with pytest.raises(UsageError) as caught:
        checked("m", {parameter.name: parameter}, {parameter.name: value})
    return caught.value.message


@pytest.mark.parametrize("method", ESTIMATORS, ids=lambda m: f"{m.family}-{m.name}")
def test_every_default_is_of_its_type(method: Method) -> None:
    for name, parameter in declared(method.load()).items():
        if parameter.default is not REQUIRED:
            parameter.check(parameter.default)
        assert parameter.expected, name


@pytest.mark.parametrize("method", ESTIMATORS, ids=lambda m: f"{m.family}-{m.name}")
def test_text_is_no_number(method: Method) -> None:
    for name, parameter in declared(method.load()).items():
        words = parameter.expected
        if words.startswith(("a number", "a whole number")) and "text" not in words and "one of" not in words:
            message = sentence(parameter, "abc")
            assert message.startswith(f"--param {name}=abc: expected a ")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 2.5, "a whole number"),
        (int, True, "a whole number"),
        (Count, 0, "a whole number of at least 1"),
        (Share, 1.5, "a number of at least 0 and of at most 1"),
        (Annotated[int, Interval(ge=2, lt=5)], 5, "a whole number of at least 2 and below 5"),
        (bool, "maybe", "true or false"),
        (Literal["one", "two"], "onne", "one of one, two"),
        (float | None, "x", "a number or null"),
        (Mapping[str, float], 3, "a mapping"),
        (Sequence[int], "x", "a list of a whole number"),
        (Annotated[float, Ge(0)] | Literal["path"], -1, "a number of at least 0 or `path`"),
    ],
)
def test_what_is_expected_is_said(kind: Any, value: Any, expected: str) -> None:
    assert expectation(kind) == expected
    assert sentence(Parameter("p", kind), value).endswith(f"expected {expected}")


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        (int, "3", 3),
        (float, "1e-3", 1e-3),
        (float, 2, 2.0),
        (str, 12, "12"),
        (bool, "true", True),
        (float | None, None, None),
    ],
)
def test_values_take_the_type_of_the_declaration(kind: Any, value: Any, kept: Any) -> None:
    found = checked("m", {"p": Parameter("p", kind)}, {"p": value})["p"]
    assert (found, type(found)) == (kept, type(kept))


def test_near_names_and_choices_are_named() -> None:
    kinds = {"alpha": Parameter("alpha", Literal["linear", "square"], "linear")}
    with pytest.raises(UsageError) as unknown:
        checked("m", kinds, {"alhpa": 1})
    assert unknown.value.hint == "did you mean `alpha`?"
    with pytest.raises(UsageError) as value:
        checked("m", kinds, {"alpha": "lineer"})
    assert value.value.hint == "did you mean `linear`?"


COUNTED = {"n_clusters", "n_directions", "num_samples", "epochs", "steps", "batch_size", "latents", "max_iter"}
COUNTED |= {"n_neighbors", "n_neurons", "min_cluster_size", "min_samples", "max_length", "beam", "reference_n"}
RATES = {"lr", "rate", "learning_rate", "gamma", "beta", "sharpness"}


@pytest.mark.parametrize("method", ESTIMATORS, ids=lambda m: f"{m.family}-{m.name}")
def test_what_is_counted_and_every_rate_has_a_least_value(method: Method) -> None:
    for name, parameter in declared(method.load()).items():
        if name in COUNTED | RATES and parameter.type not in (str, Any):
            for value in (-1, 0):
                with pytest.raises(UsageError, match="expected"):
                    checked(method.name, {name: parameter}, {name: value})


def test_the_seed_has_one_place() -> None:
    for method in ESTIMATORS:
        with pytest.raises(UsageError, match="set by --seed"):
            checked(method.name, declared(method.load()), {"random_state": 7})


def test_help_comes_from_the_docstring() -> None:
    class Made:
        """Made up.

        Parameters
        ----------
        first, second : int
            What both are,
            in two lines.
        third : float
            Another.

        Attributes
        ----------
        fourth_ : int
            None of them.
        """

        def __init__(self, first: int, second: int = 2, *, third: float = 0.5, random_state: int = 0) -> None: ...

    found = declared(Made)
    assert {name: p.help for name, p in found.items()} == {
        "first": "What both are, in two lines.",
        "second": "What both are, in two lines.",
        "third": "Another.",
    }
    assert found["first"].default is REQUIRED
