"""``rdx explain``: dispatches to the family of the method."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from rdxcli.errors import UsageError
from rdxcli.methods.registry import get
from rdxcli.services.base import Outcome
from rdxcli.services.explain.base import ExplainOptions

ANALYSES: dict[str, str] = {
    "units": "rdxcli.services.explain.neurons",
    "dissection": "rdxcli.services.explain.dissection",
    "directions": "rdxcli.services.explain.directions",
    "regions": "rdxcli.services.explain.regions",
    "surrogate": "rdxcli.services.explain.surrogate",
    "splice": "rdxcli.services.explain.splice",
    "embeddings": "rdxcli.services.explain.surrogate_scoreboard",
}
"""What a registered method names as its analysis, and the module that runs it."""


def explain(options: ExplainOptions) -> Outcome:
    """Run the method and store its result.

    Raises
    ------
    RdxError
        See the message.
    """
    _refuse(options)
    return family(options).explain(options)


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do, without doing it (``--dry-run``)."""
    _refuse(options)
    return family(options).plan(options)


def _refuse(options: ExplainOptions) -> None:
    """Options that the analysis of the method would ignore."""
    name = get("explain", options.method).analysis
    if options.apply is not None and name not in ("directions", "regions"):
        raise UsageError(f"--apply: `{options.method}` has nothing to apply", "it is for stored regions and directions")
    if options.steer and name != "directions":
        raise UsageError(f"--steer: `{options.method}` has no directions", "use it with eddp, uibe or a baseline")


def family(options: ExplainOptions) -> ModuleType:
    """The module that runs the method of the options.

    Raises
    ------
    UnknownNameError
    """
    name = get("explain", options.method).analysis
    if name == "splice" and options.surrogate is not None:
        name = "embeddings"  # with a surrogate to compare with
    return importlib.import_module(ANALYSES.get(name, name))
