"""Hyper-parameters: declared once by the class that takes them, checked by that declaration wherever they come from.

The signature of a constructor is the declaration: names, defaults and types. A type may carry bounds
(``Annotated[int, Ge(1)]``, or one of the names below), its help text is the entry in the class' numpydoc docstring.
The command line (``--param``), configuration files and Python all go through `checked`.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from rdxcli.errors import UsageError, did_you_mean

Count = Annotated[int, Ge(1)]
"""A whole number of at least 1."""

NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
"""A number from 0 to 1."""

RESERVED: Mapping[str, str] = {"random_state": "--seed", "device": "--device"}
"""Constructor keywords that every front sets itself, and the option that does."""

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter.

    Parameters
    ----------
    type : type
        Of its values, with bounds.
    default : object
        `REQUIRED` when there is none.
    help : str
        From the docstring; empty when it says nothing.
    """

    name: str
    type: Any
    default: Any = REQUIRED
    help: str = ""

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return expectation(self.type)

    def check(self, value: Any) -> Any:
        """The value as its type has it. Raises `ValueError` (it is no such value)."""
        if isinstance(value, bool) and not _takes_truth(self.type):
            raise ValueError(self.expected)
        try:
            adapter = TypeAdapter(self.type, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticSchemaGenerationError:
            return value
        for candidate in (value, str(value) if isinstance(value, int | float) else value):
            try:
                return adapter.validate_python(candidate)
            except ValidationError:
                continue
        raise ValueError(self.expected)

    def document(self) -> dict[str, Any]:
        """Plain fields, for ``rdx list methods --json``."""
        default = None if self.default is REQUIRED else self.default
        return {"name": self.name, "expected": self.expected, "default": default, "help": self.help}


def declared(kind: Callable[..., Any], *, without: Iterable[str] = RESERVED) -> dict[str, Parameter]:
    """The hyper-parameters of a class (or function) by name, in the order of its signature.

    `kind`: keyword arguments of its constructor are the hyper-parameters; `without`: names that are not for users.
    """
    function = kind.__init__ if inspect.isclass(kind) else kind
    hints, notes = _hints(function), _entries(inspect.getdoc(kind) or "")
    left_out = {*without, "self"}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: Parameter(name, hints.get(name, Any), given.default, notes.get(name, ""))
        for name, given in inspect.signature(function).parameters.items()
        if name not in left_out and given.kind in named
    }


def by_name(*parameters: Parameter) -> dict[str, Parameter]:
    """Parameters by their names, in this order."""
    return {parameter.name: parameter for parameter in parameters}


def completed(method: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """What `checked` gives, with the defaults of the others."""
    values = checked(method, parameters, given)
    return {name: values.get(name, parameter.default) for name, parameter in parameters.items()}


def checked(method: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, each as its declaration has it.

    Raises `UsageError` (a name that the method does not have, or a value that is not of its type). `method`: for the
    error; `given`: values as people write them: text, numbers, truth values.
    """
    values = {}
    for name, value in given.items():
        if name in RESERVED and name not in parameters:
            raise UsageError(
                f"--param {name}={value}: this is set by {RESERVED[name]}", f"give {RESERVED[name]} {value}"
            )
        if name not in parameters:
            has = f"it has {', '.join(sorted(parameters))}" if parameters else "it has none"
            hint = did_you_mean(name, parameters, has)
            raise UsageError(f"the method `{method}` has no parameter `{name}`", hint)
        try:
            values[name] = parameters[name].check(value)
        except ValueError as error:
            raise UsageError(*_refusal(method, parameters[name], value, str(error))) from None
    return values


def _refusal(method: str, parameter: Parameter, value: Any, expected: str) -> tuple[str, str | None]:
    known = parameter.default is not REQUIRED and parameter.default is not None
    default = f"the default of `{method}` is {_shown(parameter.default)}" if known else None
    hint = did_you_mean(str(value), [str(choice) for choice in _choices(parameter.type)], default)
    return f"--param {parameter.name}={_shown(value)}: expected {expected}", hint


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def expectation(kind: Any) -> str:
    """What a value of a type must be, in words: ``a whole number of at least 1``."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{expectation(parts[0])}{_bounds(parts[1:])}"
    if origin in (Union, types.UnionType):
        words = [expectation(part) for part in parts if part is not type(None)]
        if any(word.startswith("_") for word in words):  # NumPy's ArrayLike, with all that it is made of
            words = ["a number", "text", "an array"]
        if type(None) in parts:
            words.append("null")
        return " or ".join(words)
    if origin is Literal:
        return f"one of {', '.join(map(_shown, parts))}" if len(parts) > 1 else f"`{_shown(parts[0])}`"
    simple = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if kind in simple:
        return simple[kind]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {expectation(parts[0])}" if parts else "a list"
    return getattr(kind, "__name__", str(kind))


def _bounds(marks: Sequence[Any]) -> str:
    low: list[str] = []
    for mark in marks:
        if isinstance(mark, Interval):
            low += [_bounds([part]).strip() for part in mark]
        elif isinstance(mark, Ge):
            low.append(f"of at least {mark.ge}")
        elif isinstance(mark, Gt):
            low.append(f"above {mark.gt}")
        elif isinstance(mark, Le):
            low.append(f"of at most {mark.le}")
        elif isinstance(mark, Lt):
            low.append(f"below {mark.lt}")
    return " " + " and ".join(low) if low else ""


def _choices(kind: Any) -> list[Any]:
    """Values of every `Literal` inside a type."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _takes_truth(kind: Any) -> bool:
    if kind in (bool, Any) or isinstance(kind, str):
        return True
    if get_origin(kind) is Literal:
        return any(isinstance(choice, bool) for choice in get_args(kind))
    return any(_takes_truth(part) for part in get_args(kind) if not isinstance(part, str))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments; names that only a type checker sees stand for anything."""
    unseen: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(function, localns=unseen, include_extras=True)
        except NameError as error:
            if error.name is None or error.name in unseen:
                return {}
            unseen[error.name] = Any


def descriptions(*kinds: type) -> dict[str, str]:
    """What the docstrings of classes say about their parameters; later classes win."""
    return {name: text for kind in kinds for name, text in _entries(inspect.cleandoc(kind.__doc__ or "")).items()}


def _entries(docstring: str) -> dict[str, str]:
    """The texts of the section *Parameters* of a numpydoc docstring by name, each as one line."""
    match = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", docstring, re.M | re.S)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in match.group(1).splitlines() if match else []:
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            found.update(dict.fromkeys(names, ""))
        else:
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def result_parameters(estimator: Any, without: Sequence[str] = ("device",)) -> dict[str, Any]:
    """The hyper-parameters of an estimator that change its result: all but where it runs, or but ``without``."""
    return {name: value for name, value in estimator.get_params().items() if name not in without}


def estimator_parameters(
    method: str,
    kind: Callable[..., Any],
    given: Mapping[str, Any],
    own: Mapping[str, Parameter] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hyper-parameters for the estimator and for the analysis, checked by their declarations.

    Raises `UsageError`.

    Parameters
    ----------
    kind : class
        The estimator, whose constructor declares its parameters.
    given : mapping
        As people wrote them.
    own : mapping of str to Parameter, optional
        Those of the analysis.
    fixed : mapping, optional
        Defaults of the registered method that differ from the estimator's.

    Returns
    -------
    estimator : dict
        Only what was given or is fixed.
    analysis : dict
        Complete with defaults.
    """
    theirs, mine = declared(kind), dict(own or {})
    values = checked(method, {**theirs, **mine}, given)
    estimator = {**(fixed or {}), **{name: value for name, value in values.items() if name not in mine}}
    return estimator, {name: values.get(name, parameter.default) for name, parameter in mine.items()}
