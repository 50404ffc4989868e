"""``rdx explain --method rdr``: relaxed decision regions of a layer, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.concepts.predictions import model_predictions, predictions_of
from rdxcli.datasets.arrays import row_values
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.regions import record
from rdxcli.methods.regions.ablation import VALUES, ablate
from rdxcli.methods.regions.rdr import RDR
from rdxcli.methods.regions.uses import compare_regions, find_causes, find_subclasses
from rdxcli.methods.registry import get
from rdxcli.parameters import Parameter, by_name, estimator_parameters, result_parameters
from rdxcli.progress import human_count, track
from rdxcli.records import Regions, Representation, plain
from rdxcli.representations.heads import rest_of
from rdxcli.representations.joining import join
from rdxcli.representations.layer import representation
from rdxcli.representations.samples import needs_predictions, targets_of
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.options import ExplainOptions

OWN = by_name(
    Parameter("use", Literal["regions", "concepts", "subclasses", "causes"] | None, None, "What the regions are for."),
    Parameter("ablate", Literal["none", *VALUES], "none", "Value that takes a region's neurons away."),  # type: ignore[valid-type]
    Parameter("against", str | None, None, "Other layers of the model, with commas."),
)


class RegionAnalysis(ExplainAnalysis):
    """Regions of the targets in one layer; their subclasses, causes, ablations and counterparts in other layers."""

    kind = "regions"
    version = "3"
    parameters = OWN

    def check(self) -> Mapping[str, Any]:
        options, method = self.options, get("explain", self.options.method)
        given, own = estimator_parameters(method.name, method.load(), options.parameters, OWN, method.parameters)
        own["use"] = own["use"] or ("concepts" if options.target == "all" else "regions")
        if own["use"] == "subclasses" and not (options.target or "").startswith("class:"):
            raise UsageError("--param use=subclasses looks inside one class", "give --target class:NAME")
        if own["against"] is not None and options.model is None:
            raise UsageError("--param against=LAYER needs --model", "compare arrays with --file against=FILE")
        if "finer" in options.files and own["use"] != "subclasses":
            raise UsageError("--file finer=FILE checks subclasses", "give --param use=subclasses")
        device = "cpu" if options.device == "auto" else options.device
        self.rdr: RDR = method.load()(**given, random_state=options.seed, device=device)
        kept = result_parameters(self.rdr)
        return {"method": options.method, **kept, "target": options.target, "pool_of_layer": options.unpooled, **own}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        source = representation(options, spatial=True, pool=options.unpooled)
        if source.n < self.rdr.n_neighbors:
            raise InputError(
                f"{source.name} has {human_count(source.n, 'sample')}, fewer than the "
                f"{human_count(self.rdr.n_neighbors, 'neighbour')} of a region",
                f"give --param n_neighbors={max(1, source.n // 2)}, or more samples",
            )
        causes = self.settings["use"] == "causes"
        self.targets: Any = "misclassified" if causes else None
        if options.target is not None:
            self.targets = targets_of(options.target, source)
        predictions = predictions_of(options, source)
        if predictions is None and (causes or needs_predictions(options.target)):
            predictions = model_predictions(options, source)
        return {
            "representation": source,
            "predictions": predictions,
            "finer": _finer(options, source),
            "against": _against(options, source, self.settings["against"]),
        }

    def compute(self, draft: Draft) -> Regions:
        source, predictions, rdr = self.source, self.records["predictions"], self.rdr
        rdr.fit(source.values, targets=self.targets, labels=source.labels, predictions=predictions)
        view = record.RegionView(source, predictions, rdr.configurations_.shape[1:])
        entries = [plain(entry) for entry in self._entries()]
        if self.settings["ablate"] != "none":
            self._ablate(entries)
        against = self.records["against"]
        comparison = plain(_compare(rdr, view, against)) if against else None
        np.savez_compressed(draft.path / "configurations.npz", **rdr.configurations_.arrays())  # type: ignore[arg-type]
        draft.manifest.rows = source.n
        return self.answer(Regions, rdr.notes_, regions=view.regions(entries), comparison=comparison)

    def sizes(self) -> Mapping[str, float]:
        found = super().sizes()
        one = isinstance(self.targets, list | tuple | np.ndarray) if self.records else self.options.target != "all"
        targets = (len(self.targets) if self.records else 1) if one else found.get("n", 0)
        return {**found, "u": found.get("p", 0) / max(1, found.get("n", 1)) * found.get("u", 0), "t": targets}

    def _entries(self) -> list[dict[str, Any]]:
        rdr, use = self.rdr, self.settings["use"]
        if use == "subclasses":
            name = str(self.options.target).partition(":")[2]
            found = find_subclasses(rdr, name, finer=self.records["finer"])
            return [subclass.document(rdr.configurations_) for subclass in found]
        if use == "causes":
            return [cause.document(rdr.configurations_) for cause in find_causes(rdr)]
        return rdr.documents(merged=use == "concepts")

    def _ablate(self, entries: list[dict[str, Any]]) -> None:
        """Add the effect of taking a region's neurons away to the entries of regions that have members."""
        head = rest_of(self.options, self.source)
        regions = {region.target: region for region in self.rdr.regions_}
        with track("ablate", len(entries), "regions") as advance:
            for entry in entries:
                region = regions[entry["target"]]
                if region.bounded:
                    effect = ablate(
                        region,
                        self.rdr.configurations_,
                        self.source.values,
                        lambda batch: head(np.ascontiguousarray(batch)),
                        value=self.settings["ablate"],
                        random_state=self.options.seed,
                    )
                    entry["scores"]["ablation"] = plain(effect.document())
                advance(1)


def _finer(options: ExplainOptions, source: Representation) -> np.ndarray | None:
    """Labels inside the classes (``--file finer=FILE``), which check subclasses and have no influence on them."""
    if "finer" not in options.files:
        return None
    path, names = Path(options.files["finer"]), ("finer", "label", "class", "name")
    return np.array(row_values(path, names, "finer labels", source.ids(), source.n, source.name))


def _against(options: ExplainOptions, source: Representation, layers: str | None) -> dict[str, Representation]:
    """Other layers (``--param against=LAYER,LAYER`` of the same model) or representations (``--file against=NAME``)."""
    others: dict[str, Representation] = {}
    for layer in layers.split(",") if layers is not None else []:
        found = representation(replace(options, layer=layer.strip()), spatial=True, pool=options.unpooled)
        others[str(found.layer)] = found
    if "against" in options.files:
        found = representation(
            replace(options, model=None, activations=options.files["against"], layer=None),
            spatial=True,
            pool=options.unpooled,
        )
        others[found.name if found.name != source.name else f"{found.name} (against)"] = found
    return {name: _same_rows(source, other) for name, other in others.items()}


def _same_rows(source: Representation, other: Representation) -> Representation:
    joined = join(source, other)
    if joined.a.n < source.n:
        raise InputError(
            f"{other.name} lacks {source.n - joined.a.n} of the {human_count(source.n, 'sample')} of {source.name}"
        )
    return joined.b


def _compare(rdr: RDR, view: record.RegionView, against: Mapping[str, Representation]) -> dict[str, Any]:
    """The same targets in other layers or models."""
    source = view.source
    # layers of one model go by the layer, models by their names
    by_layer = source.layer and source.layer not in against and any(name == o.layer for name, o in against.items())
    first = source.layer if by_layer else source.name
    sources = {str(first): source.values, **{name: other.values for name, other in against.items()}}
    found = compare_regions(sources, rdr=rdr, targets=rdr.targets_, labels=source.labels, predictions=view.predictions)
    document = found.document()
    return {
        **{name: document[name] for name in ("targets", "pairs", "sizes", "overlap", "expected", "neighbour_overlap")},
        "sides": record.sides(found, view),
        "notes": found.notes,
    }


ANALYSIS = RegionAnalysis
