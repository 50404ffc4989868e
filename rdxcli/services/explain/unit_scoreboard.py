"""``rdx explain --method all`` for units: every explainer that the inputs allow, on the same units, with one table.

Each explainer is run as its own command would run it and keeps its own artifact; all are then scored by one simulator
on rows that none of them was fitted on, unit by unit, with paired tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rdxcli.concepts.gather import counted
from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.scorer import EMBEDDINGS, PARAMETERS, wanted
from rdxcli.concepts.sets import read_concept_set
from rdxcli.errors import InputError, MissingDataError, RdxError, UsageError
from rdxcli.methods.costs import Cost, seconds_of
from rdxcli.methods.registry import get
from rdxcli.parameters import declared
from rdxcli.progress import approve, log
from rdxcli.records import Representation
from rdxcli.representations.layer import representation
from rdxcli.services.base import Outcome
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.dissection import DissectionAnalysis
from rdxcli.services.explain.neurons import UnitAnalysis
from rdxcli.services.explain.options import ExplainOptions
from rdxcli.services.explain.unit_captions import CAPTIONING, DescribeAnalysis
from rdxcli.services.simulate.options import SimulateOptions
from rdxcli.services.simulate.simulate import FILES, SimulateAnalysis

MASKS = ("masks", "broden")
LABELS, FORMULAS, WORDS, DISSECT = "le-label", "logical", "le-siglip", "clip-dissect"
DESCRIBE, MASKED = "describe", "network-dissection"


@dataclass(frozen=True)
class Explainer:
    """One method of the scoreboard.

    Attributes
    ----------
    files : tuple of str
        Names of ``--file`` that it reads.
    parameters : tuple of str
        Of ``--param``, besides those of its estimator.
    """

    analysis: type[ExplainAnalysis]
    files: tuple[str, ...]
    parameters: tuple[str, ...]


SCORED = (*sorted(EMBEDDINGS), "superclasses")
EXPLAINERS: Mapping[str, Explainer] = {
    LABELS: Explainer(UnitAnalysis, SCORED, (*PARAMETERS, "published")),
    FORMULAS: Explainer(UnitAnalysis, SCORED, (*PARAMETERS, "published")),
    WORDS: Explainer(UnitAnalysis, SCORED, PARAMETERS),
    DISSECT: Explainer(UnitAnalysis, tuple(sorted(EMBEDDINGS)), ("template",)),
    DESCRIBE: Explainer(DescribeAnalysis, ("captions",), (*CAPTIONING, "template")),
    MASKED: Explainer(DissectionAnalysis, MASKS, ("ignore",)),
}


class UnitScoreboard:
    """All explainers of units side by side."""

    def __init__(self, options: ExplainOptions) -> None:
        self.options = options

    def run(self) -> Outcome:
        """Explain with every method that applies, and score all of them.

        Raises `RdxError` (nothing applies, or none of the methods could be run).
        """
        source = representation(self.options)
        chosen = self._methods(source.labels is not None)
        self._ask(source, list(chosen))
        tables, left_out = [], []
        for name, options in chosen.items():
            log.info("explain with %s", name)
            try:
                done = EXPLAINERS[name].analysis(options).run()
            except MissingDataError:
                raise  # a file or weights that somebody named are not a reason to go on without them
            except (InputError, UsageError, ValueError) as error:
                said = error.message if isinstance(error, RdxError) else str(error)
                left_out.append(f"note: {name} is left out: {said}")
                continue
            tables.append(f"{name}={done.artifact.path}")
        if not tables:
            raise InputError("none of the explainers could be run", "; ".join(left_out))
        files = {name: path for name, path in self.options.files.items() if name in FILES}
        own = {name: value for name, value in self.options.parameters.items() if name in (*PARAMETERS, "published")}
        shared = {part.name: getattr(self.options, part.name) for part in dataclasses.fields(ConceptOptions)}
        shared |= {"method": "", "files": files, "parameters": own, "run": self.options.run or "all-explainers"}
        scored = SimulateAnalysis(SimulateOptions(**shared, explanations=tuple(tables))).run()
        return replace(scored, lines=[*scored.lines, *left_out])

    def _ask(self, source: Representation, chosen: Sequence[str]) -> None:
        """Say what all of them take, and ask before hours."""
        sizes = {"n": source.n, "u": source.d, "p": source.n, "c": counted(self.options) or 1}
        took = {name: seconds_of(f"explanations: {name}", **sizes) for name in chosen}
        cost = Cost(source.n, 0, 0, {name: seconds for name, seconds in took.items() if seconds is not None})
        log.info("--method all: %s, about %s", ", ".join(chosen), cost.in_words())
        approve(cost.seconds or 0.0, f"--method all takes about {cost.in_words()}")

    def plan(self) -> dict[str, Any]:
        """Which explainers would be run; each is checked as far as it can be without reading."""
        options = self.options
        labels = options.concepts is None and (options.arrays.labels is not None or options.model is not None)
        plans: dict[str, Any] = {}
        for name, own in self._methods(labels).items():
            try:
                plans[name] = EXPLAINERS[name].analysis(own).plan()
            except RdxError as error:
                plans[name] = f"left out: {error.message}"
        known = [one.get("estimated_seconds") for one in plans.values() if isinstance(one, dict)]
        took = round(sum(filter(None, known)), 1)  # each counts a start: about what scoring all of them takes
        return {"method": "all", "explainers": plans, **({"estimated_seconds": took} if took else {})}

    def _methods(self, labels: bool) -> Mapping[str, ExplainOptions]:
        """The methods that the inputs allow, each with the options that are its own."""
        options, given = self.options, set(self.options.files)
        file = options.concepts is not None
        vlm = not file and wanted(replace(options, method=DISSECT)) is not None
        words = not file and (vlm or "image_embeddings" in given)
        allowed = {
            LABELS: labels or file,
            FORMULAS: labels or file or words,
            WORDS: words,
            DISSECT: words or file,
            DESCRIBE: vlm and ("captions" in given or "captioner" in options.parameters),
            MASKED: bool(set(MASKS) & given),
        }
        if not any(allowed.values()):
            raise UsageError(
                "--method all needs something to explain units with",
                "give labels, --vlm NAME --concept-set FILE, --concepts FILE, or --file masks=FOLDER",
            )
        if words and options.concept_set is not None:
            read_concept_set(options.concept_set, options.selection.root)  # a missing file is said before the work
        unknown = set(options.parameters)
        found = {}
        for name in (name for name, one in allowed.items() if one):
            by_label = name == LABELS and not file
            explainer = EXPLAINERS[name]
            known = {*declared(get("explain", name).load()), *explainer.parameters} - set(
                PARAMETERS if by_label else ()
            )
            own = {key: value for key, value in options.parameters.items() if key in known}
            unknown -= set(own)
            files = {key: path for key, path in options.files.items() if key in explainer.files}
            if by_label:
                files = {key: path for key, path in files.items() if key not in EMBEDDINGS}
            more: dict[str, Any] = {"vlm": None} if by_label or name == MASKED else {}
            more |= {"concept_set": None} if by_label or name in (MASKED, DESCRIBE) else {}
            more["run"] = None if options.run is None else f"{options.run}-{name}"
            found[name] = replace(options, method=name, parameters=own, files=files, **more)
        if unknown:
            raise UsageError(
                f"--param {sorted(unknown)[0]}: none of {', '.join(found)} has it", "run one method with its parameters"
            )
        return found


ANALYSIS = UnitScoreboard
