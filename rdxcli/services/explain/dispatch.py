"""``rdx explain``: dispatches to the family of the method."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from rdxcli.errors import UsageError
from rdxcli.methods.registry import get
from rdxcli.services.base import Outcome
from rdxcli.services.explain.options import ExplainOptions

ANALYSES: dict[str, str] = {
    "units": "rdxcli.services.explain.neurons",
    "dissection": "rdxcli.services.explain.dissection",
    "captions": "rdxcli.services.explain.unit_captions",
    "search": "rdxcli.services.explain.unit_search",
    "directions": "rdxcli.services.explain.directions",
    "regions": "rdxcli.services.explain.regions",
    "representative": "rdxcli.services.explain.representative",
    "surrogate": "rdxcli.services.explain.surrogate",
    "splice": "rdxcli.services.explain.splice",
    "embeddings": "rdxcli.services.explain.surrogate_scoreboard",
}
"""What a registered method names as its analysis, and the module whose `ANALYSIS` runs it."""


def explain(options: ExplainOptions) -> Outcome:
    """Run the method and store its result. Raises `RdxError` (see the message)."""
    module = _module(options)
    return module.ANALYSIS(options).run() if hasattr(module, "ANALYSIS") else module.explain(options)


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do, without doing it (``--dry-run``)."""
    module = _module(options)
    return module.ANALYSIS(options).plan() if hasattr(module, "ANALYSIS") else module.plan(options)


def _module(options: ExplainOptions) -> ModuleType:
    """The module that runs the method of the options.

    Raises `UnknownNameError` (no such method) or `UsageError` (options that its analysis would ignore).
    """
    if not options.method:
        raise UsageError("which method?", "give --method NAME; `rdx list methods` shows them")
    name = get("explain", options.method).analysis
    if options.apply is not None and name not in ("directions", "regions", "representative"):
        raise UsageError(f"--apply: `{options.method}` has nothing to apply", "it is for stored regions and directions")
    if options.steer and name != "directions":
        raise UsageError(f"--steer: `{options.method}` has no directions", "use it with eddp, uibe or a baseline")
    if name == "splice" and options.surrogate is not None:
        name = "embeddings"  # with a surrogate to compare with
    if options.method == "all" and options.surrogate is None and (options.model or options.activations):
        return importlib.import_module("rdxcli.services.explain.unit_scoreboard")
    if name == "regions" and options.apply is not None:
        return importlib.import_module("rdxcli.services.explain.membership")
    return importlib.import_module(ANALYSES.get(name, name))
