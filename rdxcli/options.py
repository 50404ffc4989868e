"""How an options class says what its fields are called on the command line. Data only: importing this is cheap.

An analysis is asked through a frozen dataclass. A field made with `option` becomes an option of the command (see
``rdxcli.cli.options``); Python passes the same field by name. Fields that are options classes themselves, such as
which samples, are options of the command too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rdxcli.errors import UsageError

REQUIRED: Any = dataclasses.MISSING
"""Default of a field that must be given."""


@dataclass(frozen=True)
class Option:
    """A field as the command line shows it.

    Parameters
    ----------
    names : tuple of str
        Spellings; empty for ``--field-name``.
    panel : str, optional
        Heading of ``--help``.
    low : float, optional
        Least value.
    type : type, optional
        On the command line, where it differs from the field's.
    complete : str, optional
        What the shell completes: ``models``, ``datasets``, ``layers`` or ``layers:FIELD`` (of the model in that field),
        or ``methods:FAMILY``.
    read : str, optional
        ``pairs`` (repeated NAME=PATH), ``parameters`` (repeated NAME=VALUE), ``stdin`` (``-`` reads a path), ``each``
        (repeated; the command gets one instance of the options for each value).
    argument : bool
        An argument instead of an option.
    parameter : str, optional
        The hyper-parameter that this option is a short way to give. It is no field of its own but goes among
        ``parameters``; given twice it is refused.
    """

    help: str
    names: tuple[str, ...] = ()
    panel: str | None = None
    low: float | None = None
    type: Any = None
    complete: str | None = None
    read: str | None = None
    argument: bool = False
    parameter: str | None = None


def option(help: str, *names: str, default: Any = None, factory: Callable[[], Any] | None = None, **more: Any) -> Any:
    """A dataclass field that is an option of the command; see `Option`."""
    metadata = {"option": Option(help, names, **more)}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parameters_option(panel: str = "Method") -> Any:
    """``--param NAME=VALUE``: hyper-parameters of the method."""
    return option(
        "NAME=VALUE of a parameter of the method; may be repeated.",
        "--param",
        factory=dict,
        read="parameters",
        panel=panel,
    )


@dataclass(frozen=True)
class WithShortcuts:
    """Options whose shortcuts (`Option.parameter`) go among ``parameters``, wherever they come from.

    Raises `UsageError` (a shortcut and ``parameters`` give different values).
    """

    def __post_init__(self) -> None:
        parameters: dict[str, Any] = dict(getattr(self, "parameters"))  # noqa: B009 - a field of the subclass
        for part in dataclasses.fields(self):
            shown = part.metadata.get("option")
            value = getattr(self, part.name)
            if shown is None or shown.parameter is None:
                continue
            formers = [spelling.lstrip("-").replace("-", "_") for spelling in shown.names[1:]]
            given = {f"--param {one}={parameters[one]}": parameters.pop(one) for one in formers if one in parameters}
            if value is not None:
                name = shown.names[0] if shown.names else f"--{part.name.replace('_', '-')}"
                given[f"{name} {value}"] = value
            for said, one in given.items():
                if str(parameters.setdefault(shown.parameter, one)) != str(one):
                    other = f"--param {shown.parameter}={parameters[shown.parameter]}"
                    raise UsageError(f"{said} and {other} contradict each other", "give one of them")
                parameters[shown.parameter] = one
        object.__setattr__(self, "parameters", parameters)
