"""What the families of ``rdx explain`` share: their options, and the representation that is explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdxcli.artifacts.layout import array_dataset, explanations_folder
from rdxcli.concepts.scorer import missing_downloads
from rdxcli.errors import MissingDataError, UsageError
from rdxcli.progress import human_bytes
from rdxcli.records import Representation
from rdxcli.representations.extract import plan
from rdxcli.representations.options import ExtractOptions
from rdxcli.representations.resolve import columns_taken, names_array, resolve_representation
from rdxcli.services.base import Analysis, parse_units
from rdxcli.services.explain.options import ExplainOptions, LayerOptions


def representation(options: LayerOptions, spatial: bool = False, pool: str | None = None) -> Representation:
    """The representation that the options name.

    Raises
    ------
    UsageError
        Neither or both of ``--model`` and ``--activations`` are given.
    """
    if (options.model is None) == (options.activations is None):
        raise UsageError("what is to be explained?", "give --model NAME [--layer L], or --activations FILE")
    return resolve_representation(
        options.model or options.activations or "",
        layer=options.layer,
        pool=pool or options.pool,
        selection=options.selection,
        arrays=options.arrays,
        outputs=options.outputs,
        device=options.device,
        force=False,
        spatial=spatial,
        before=lambda shapes: _known_units(options, shapes[0]),
    )


def _known_units(options: LayerOptions, shape: Sequence[int]) -> int | None:
    """How many units a layer has, from the shape of one image's activations; refuses units that it does not have."""
    width = int(shape[0]) if len(shape) in (1, 3) else None
    if width is not None:
        parse_units(options.units, width)
    return width


def planned(options: LayerOptions, pool: str | None = None) -> dict[str, Any]:
    """What is read and what that takes, for ``--dry-run``; nothing is extracted, units that do not exist are refused.

    Returns
    -------
    dict
        ``images`` and ``units`` where they are known, and of models what extraction would take.
    """
    if options.model is None:
        source = representation(options, spatial=True)
        parse_units(options.units, source.d)
        return {"images": source.n, "units of the layer": source.d}
    asked = ExtractOptions(
        model=options.model,
        layers=(options.layer,) if options.layer else (),
        pool=pool or options.pool,
        selection=options.selection,
        outputs=options.outputs,
        device=options.device,
        engine="local",
    )
    try:
        found = plan(asked)
    except MissingDataError as error:
        return {"images": f"unknown: {error.message}", "missing": missing_downloads(options) or error.hint}
    layer = found["layers"][0]
    width = _known_units(options, layer["shape"][1:])
    read = {"images": found["images"], **({"units of the layer": width} if width is not None else {})}
    activations = f"{layer['state']}, {human_bytes(layer['bytes'])}"
    peak = found["peak_memory_bytes"]
    return {**read, "activations": activations + (f", {human_bytes(peak)} of memory at the peak" if peak else "")}


def folder_of(options: ExplainOptions, source: Representation) -> Path:
    """Where the explanation of ``source`` goes."""
    dataset = source.source.get("dataset") or array_dataset(source.name)
    model = str(options.model or source.source.get("model") or source.name)
    layer = source.layer or "array"
    return explanations_folder(options.outputs, dataset, model, layer, options.run or options.method)


class ExplainAnalysis(Analysis[ExplainOptions]):
    """An analysis of one representation, stored beside its layer; the record is called ``representation``."""

    @property
    def source(self) -> Representation:
        """The representation that is explained."""
        return self.records["representation"]

    def folder(self) -> Path:
        return folder_of(self.options, self.source)

    def plan(self) -> dict[str, Any]:
        options = self.options
        return {
            "method": options.method,
            "representation": options.model or _described(options),
            "layer": options.layer or "the penultimate one",
            **super().plan(),
        }


def _described(options: ExplainOptions) -> str | None:
    """What stands in place of a model: rows, columns, and which columns of a table were taken for what."""
    source = options.activations
    if isinstance(source, str):
        if not names_array(source, options.selection.root):
            return source
        source = representation(options, spatial=True)
    return None if source is None else f"{source.name}, {source.n} rows of {source.d}{columns_taken(source)}"
