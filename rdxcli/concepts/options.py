"""Where concepts come from: the options that every gate of this room reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdxcli.datasets.selection import ArrayOptions, SelectionOptions


@dataclass(frozen=True)
class ConceptOptions:
    """Where concepts come from.

    Parameters
    ----------
    method : str
        Name in the registry of methods, family ``explain``.
    model : str, optional
        Model whose units are explained; its default data set names the default concept set.
    concepts : str, optional
        File of an (n, c) concept matrix.
    concept_names : Path, optional
        Name of each column.
    concept_set : str, optional
        Text file of concept words, or the name of a published set.
    vlm : str, optional
        Vision-language model.
    splits : Path, optional
        ``.npz`` with ``train``, ``val``, ``test`` row numbers.
    files : mapping
        Further inputs by name (``superclasses``, ``masks`` ...).
    selection : SelectionOptions
        Which samples.
    arrays : ArrayOptions
        What belongs to the rows of arrays.
    parameters : mapping
        Hyper-parameters of the method.
    """

    method: str
    model: str | None = None
    concepts: str | None = None
    concept_names: Path | None = None
    concept_set: str | None = None
    vlm: str | None = None
    splits: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Path = Path("outputs")
    seed: int = 0
    device: str = "auto"
