"""``rdx explain --method all`` for units: every explainer that the inputs allow, on the same units, with one table.

Each explainer is run as its own command would run it and keeps its own artifact; all are then scored by one simulator
on rows that none of them was fitted on, unit by unit, with paired tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rdxcli.concepts.scorer import PARAMETERS, wanted
from rdxcli.errors import InputError, RdxError, UsageError
from rdxcli.methods.registry import get
from rdxcli.parameters import declared
from rdxcli.progress import log
from rdxcli.services.base import Outcome
from rdxcli.services.explain.base import ExplainOptions, representation
from rdxcli.services.explain.dissection import DissectionAnalysis
from rdxcli.services.explain.neurons import UnitAnalysis
from rdxcli.services.explain.options import LayerOptions
from rdxcli.services.simulate.options import SimulateOptions
from rdxcli.services.simulate.simulate import FILES, SimulateAnalysis

MASKS = ("masks", "broden")
FORMULAS, LABELS, WORDS, DISSECT = "logical", "le-label", "le-siglip", "clip-dissect"


class UnitScoreboard:
    """All explainers of units side by side."""

    def __init__(self, options: ExplainOptions) -> None:
        self.options = options

    def run(self) -> Outcome:
        """Explain with every method that applies, and score all of them.

        Raises
        ------
        RdxError
            Nothing applies, or none of the methods could be run.
        """
        chosen = self._methods(representation(self.options).labels is not None)
        tables, left_out = [], []
        for name, options in chosen.items():
            kind = DissectionAnalysis if name == "network-dissection" else UnitAnalysis
            log.info("explain with %s", name)
            try:
                done = kind(options).run()
            except (InputError, UsageError, ValueError) as error:
                said = error.message if isinstance(error, RdxError) else str(error)
                left_out.append(f"note: {name} is left out: {said}")
                continue
            tables.append(f"{name}={done.artifact.path}")
        if not tables:
            raise InputError("none of the explainers could be run", "; ".join(left_out))
        files = {name: path for name, path in self.options.files.items() if name in FILES}
        own = {name: value for name, value in self.options.parameters.items() if name in (*PARAMETERS, "published")}
        shared = {part.name: getattr(self.options, part.name) for part in dataclasses.fields(LayerOptions)}
        shared |= {"method": "", "files": files, "parameters": own, "run": self.options.run or "all-explainers"}
        scored = SimulateAnalysis(SimulateOptions(**shared, explanations=tuple(tables))).run()
        return replace(scored, lines=[*scored.lines, *left_out])

    def plan(self) -> dict[str, Any]:
        """Which explainers would be run; each is checked as far as it can be without reading."""
        options = self.options
        labels = options.concepts is None and (options.arrays.labels is not None or options.model is not None)
        plans: dict[str, Any] = {}
        for name, own in self._methods(labels).items():
            kind = DissectionAnalysis if name == "network-dissection" else UnitAnalysis
            try:
                plans[name] = kind(own).plan()
            except RdxError as error:
                plans[name] = f"left out: {error.message}"
        return {"method": "all", "explainers": plans}

    def _methods(self, labels: bool) -> Mapping[str, ExplainOptions]:
        """The methods that the inputs allow, each with the options that are its own."""
        options = self.options
        scores = options.concepts is not None or wanted(replace(options, method=DISSECT)) is not None
        scores = scores or "image_embeddings" in options.files
        names = [LABELS, FORMULAS] if labels or options.concepts is not None else []
        if scores:
            names += [DISSECT] if options.concepts is not None else [WORDS, FORMULAS, DISSECT]
        if set(MASKS) & set(options.files):
            names.append("network-dissection")
        if not names:
            raise UsageError(
                "--method all needs something to explain units with",
                "give labels, --vlm NAME --concept-set FILE, --concepts FILE, or --file masks=FOLDER",
            )
        unknown = set(options.parameters)
        found = {}
        for name in dict.fromkeys(names):
            method = get("explain", name)
            by_label = name == LABELS and options.concepts is None
            known = {*declared(method.load()), "published", *(() if by_label else PARAMETERS)}
            if name in (DISSECT, "network-dissection"):
                known -= {"a", "b", "calibrate", "published"}
            own = {key: value for key, value in options.parameters.items() if key in known}
            unknown -= set(own)
            kept = MASKS if name == "network-dissection" else (
                ("superclasses",) if by_label else ("image_embeddings", "text_embeddings", "superclasses"))  # fmt: skip
            if name == DISSECT:
                kept = ("image_embeddings", "text_embeddings")
            files = {key: path for key, path in options.files.items() if key in kept}
            vlm = None if by_label or name == "network-dissection" else options.vlm
            found[name] = replace(options, method=name, parameters=own, files=files, vlm=vlm)
        if unknown:
            raise UsageError(
                f"--param {sorted(unknown)[0]}: none of {', '.join(found)} has it", "run one method with its parameters"
            )
        return found


ANALYSIS = UnitScoreboard
