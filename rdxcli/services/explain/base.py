"""What the families of ``rdx explain`` share: their options, and the representation that is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdxcli.artifacts.layout import array_dataset, explanations_folder
from rdxcli.errors import UsageError
from rdxcli.records import Representation
from rdxcli.representations.resolve import resolve_representation
from rdxcli.services.base import Analysis
from rdxcli.services.explain.options import ExplainOptions


def representation(options: ExplainOptions, spatial: bool = False, pool: str | None = None) -> Representation:
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
            "representation": options.model or _name(options.activations),
            "layer": options.layer or "the penultimate one",
            **super().plan(),
        }


def _name(source: str | Representation | None) -> str | None:
    return source.name if isinstance(source, Representation) else source
