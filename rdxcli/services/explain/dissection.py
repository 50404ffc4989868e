"""``rdx explain --method network-dissection``: units named by the segmentation concept that their maps overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from rdxcli.artifacts import Draft
from rdxcli.concepts.explanations import TABLE
from rdxcli.concepts.masks import Masks, open_masks
from rdxcli.concepts.options import check_files
from rdxcli.errors import UsageError
from rdxcli.methods.neurons.network_dissection import NetworkDissection
from rdxcli.methods.neurons.tables import format_table
from rdxcli.parameters import Parameter, estimator_parameters, result_parameters
from rdxcli.progress import track
from rdxcli.records import NeuronExplanations, Representation
from rdxcli.representations.layer import planned, representation
from rdxcli.representations.unit_pictures import add_masks, strongest
from rdxcli.representations.units import check_units, parse_units
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.neurons import NOT_RESULT, result, unit_entries, with_chance

BATCH = 32
OTHER_MASKS = "of the same maps laid over the masks of other images"
IGNORE = Parameter("ignore", int | None, None, "Label of unlabelled pixels.")


class DissectionAnalysis(ExplainAnalysis):
    """Units of one layer, named by the masks that their maps overlap."""

    kind = "explanations"
    version = "4"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options.method, options.files, ("masks", "broden"))
        own = {IGNORE.name: IGNORE}
        given, mine = estimator_parameters(options.method, NetworkDissection, options.parameters, own)
        check_units(options.units)
        device = "cpu" if options.device == "auto" else options.device
        self.estimator = NetworkDissection(**given, device=device, random_state=options.seed)
        kept = result_parameters(self.estimator, NOT_RESULT)
        return {"method": options.method, **kept, **mine, "units": options.units}

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        source = representation(options, spatial=True, pool=options.unpooled)
        if source.values.ndim != 4:
            raise UsageError(
                f"{source.name} gives vectors, network dissection needs maps (n, c, h, w)",
                "choose a convolutional layer with --layer, or give an array of maps",
            )
        parse_units(options.units, source.d)
        return {"representation": source, "masks": open_masks(options, source)}

    def compute(self, draft: Draft) -> NeuronExplanations:
        source, masks, estimator = self.source, self.records["masks"], self.estimator
        units = parse_units(self.options.units, source.d)
        estimator.fit(
            None,
            None,
            concept_names=masks.names,
            categories=masks.categories,
            ignore=self.settings["ignore"],
            batches=_batches(source, masks),
            n_images=source.n,
        )
        chance = estimator.chance_ and estimator.chance_.select(units)
        table, said = with_chance(estimator.table(source.layer or "").select(units), chance, OTHER_MASKS)
        pictures = {unit: strongest(source, unit) for unit in units}
        entries = unit_entries(table, source, self.options.seed, pictures)
        for entry in entries:
            entry["interpretable"] = bool(estimator.interpretable_[entry["unit"]])
            entry["threshold"] = float(estimator.thresholds_[entry["unit"]])
        add_masks(entries, self.options, source, {unit: float(estimator.thresholds_[unit]) for unit in units})
        (draft.path / TABLE).write_text(format_table(table), "utf-8")
        draft.manifest.rows = len(units)
        return result(self, table, entries, [*masks.notes, *estimator.notes_, *said])

    def cost(self) -> Mapping[str, Any]:
        options = self.options
        return {
            "pool": "none",
            **self.read,
            "masks": options.files.get("masks") or options.files.get("broden") or "of the data set",
        }

    @cached_property
    def read(self) -> dict[str, Any]:
        return planned(self.options, self.options.unpooled)

    def sizes(self) -> Mapping[str, float]:
        return {**super().sizes(), "c": 1}


def _batches(source: Representation, masks: Masks) -> Callable[[], Iterator[tuple[Any, Any]]]:
    """Maps and masks, twice: the first pass is for thresholds and reads no mask."""
    passes = 0

    def batches() -> Iterator[tuple[Any, Any]]:
        nonlocal passes
        passes += 1
        with track("thresholds" if passes == 1 else "overlaps", source.n, "images") as advance:
            step = BATCH if passes == 1 else 1  # masks of several images may differ in size
            for start in range(0, source.n, step):
                maps = source.values[start : start + step]
                yield maps, None if passes == 1 else masks.read(start)[None]
                advance(len(maps))

    return batches


ANALYSIS = DissectionAnalysis
