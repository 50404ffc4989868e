"""What the families of ``rdx explain`` share: the representation that is explained, and where its artifact goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rdxcli.artifacts.layout import array_dataset, explanations_folder
from rdxcli.progress import human_count
from rdxcli.records import Representation, Result
from rdxcli.representations.layer import planned, representation
from rdxcli.representations.resolve import columns_taken, names_array
from rdxcli.representations.units import parse_units
from rdxcli.services.base import Analysis
from rdxcli.services.explain.options import ExplainOptions

Answer = TypeVar("Answer", bound=Result)


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

    def answer(self, kind: Callable[..., Answer], notes: Iterable[str], **content: Any) -> Answer:
        """The record of what was found in the representation."""
        source = self.source
        return kind(
            method=self.options.method,
            parameters=self.settings,
            seed=self.options.seed,
            notes=list(notes),
            model=source.describe(),
            samples={"dataset": source.dataset, "n": source.n},
            **content,
        )

    @cached_property
    def read(self) -> dict[str, Any]:
        """What is read and what that takes, before it is read."""
        return planned(self.options)

    def sizes(self) -> Mapping[str, float]:
        shape = self.source.values.shape if self.records else self.read.get("shape", ())
        units = None if self.options.units is None else len(parse_units(self.options.units, shape[1]))
        places = math.prod(shape[2:])
        return {"n": shape[0], "u": units or shape[1], "p": shape[0] * places} if shape else {}

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
    return (
        None
        if source is None
        else f"{source.name}, {human_count(source.n, 'row')} of {source.d}{columns_taken(source)}"
    )
