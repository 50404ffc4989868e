"""What the families of ``rdx explain`` share: their options, and the representation that is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdxcli.artifacts.layout import array_dataset, explanations_folder
from rdxcli.datasets.arrays import is_array
from rdxcli.errors import UsageError
from rdxcli.records import Representation
from rdxcli.representations.resolve import array_file, columns_taken, resolve_representation
from rdxcli.services.base import Analysis
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
    )


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
        if not is_array(array_file(source, options.selection.root)):
            return source
        source = representation(options, spatial=True)
    return None if source is None else f"{source.name}, {source.n} rows of {source.d}{columns_taken(source)}"
