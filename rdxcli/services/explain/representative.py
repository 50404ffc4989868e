"""``rdx explain --method representative``: samples on the target's side of sampled pieces of the decision boundary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.errors import UsageError
from rdxcli.methods.regions import record
from rdxcli.methods.regions.representative import RepresentativeInterpretation
from rdxcli.parameters import estimator_parameters, result_parameters
from rdxcli.records import Regions, plain
from rdxcli.representations.heads import rest_of
from rdxcli.representations.layer import representation
from rdxcli.representations.samples import targets_of
from rdxcli.services.explain.base import ExplainAnalysis


class RepresentativeAnalysis(ExplainAnalysis):
    """Regions of single samples between sampled pieces of the decision boundary."""

    kind = "regions"
    version = "3"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        self.given, _ = estimator_parameters(options.method, RepresentativeInterpretation, options.parameters)
        if options.apply is not None:
            raise UsageError("--apply: `representative` keeps no rule that could be applied", "use --method rdr")
        if options.target is None:
            raise UsageError("which sample?", "give --target with a sample id or a row")
        kept = result_parameters(RepresentativeInterpretation(**self.given, random_state=options.seed))
        return {"method": options.method, **kept, "target": options.target}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        source = representation(options, spatial=True, pool=options.unpooled)
        targets = targets_of(options.target, source)
        if isinstance(targets, str):
            raise UsageError(f"--target {options.target}: `representative` explains single samples", "give ids or rows")
        return {"representation": source, "targets": targets}

    def sizes(self) -> Mapping[str, float]:
        found = super().sizes()
        neurons = found["p"] / max(1, found["n"]) * found["u"] if found else 0
        return {**found, "u": neurons, "t": len(self.records["targets"]) if self.records else 1} if found else {}

    def compute(self, draft: Draft) -> Regions:
        source, head = self.source, rest_of(self.options, self.source)
        entries, notes = [], []
        for target in self.records["targets"]:
            found = RepresentativeInterpretation(**self.given, random_state=self.options.seed)
            found.fit(np.array(source.values), head, target=target)
            notes += [note for note in found.notes_ if note not in notes]
            counts: dict[str, int] = {}
            if source.labels is not None and len(found.members_):
                names, sizes = np.unique(source.labels[found.members_].astype(str), return_counts=True)
                counts = {str(names[i]): int(sizes[i]) for i in np.argsort(-sizes, kind="stable")}
            entry: dict[str, Any] = {
                "target": target,
                "status": "bounded" if len(found.members_) else "empty",
                "neighbours": [],
                "neurons": [],
                "states": [],
                "scores": found.scores_,
                "members": found.members_,
                "boundaries": found.selected_,
                "labels": counts,
            }
            entries.append(plain(entry))
        draft.manifest.rows = source.n
        return self.answer(Regions, notes, regions=record.RegionView(source).regions(entries))


ANALYSIS = RepresentativeAnalysis
