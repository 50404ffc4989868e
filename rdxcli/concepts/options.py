"""Where concepts come from: the options that every gate of this room reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
from rdxcli.errors import UsageError, did_you_mean
from rdxcli.options import WithShortcuts, option, parameters_option

INPUTS = "Inputs of single methods"


@dataclass(frozen=True)
class ConceptOptions(WithShortcuts):
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

    method: str = option("See `rdx list methods`.", default="", complete="methods:explain")
    model: str | None = option("Model.", complete="models")
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    concepts: str | None = option("File of an (n, concepts) matrix.", panel=INPUTS)
    concept_names: Path | None = option("Its column names, one a line.", panel=INPUTS)
    concept_set: str | None = option("Concept words: a text file or a published set.", panel=INPUTS)
    vlm: str | None = option("Vision-language model.", panel=INPUTS)
    splits: Path | None = option(".npz with train, val and test row numbers.", panel=INPUTS)
    files: Mapping[str, str] = option(
        "NAME=PATH of a further input of the method; may be repeated.",
        "--file",
        factory=dict,
        read="pairs",
        panel=INPUTS,
    )
    parameters: Mapping[str, Any] = parameters_option()
    outputs: Path = Path("outputs")
    seed: int = 0
    device: str = "auto"


def check_files(method: str, given: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse ``--file NAME=PATH`` that a method does not read, naming near ones.

    Raises
    ------
    UsageError
    """
    for name in given:
        if name not in known:
            reads = f"it reads {', '.join(known)}" if known else "it reads none"
            hint = did_you_mean(name, known, reads)
            raise UsageError(f"--file {name}=...: `{method}` reads no such file", hint)
