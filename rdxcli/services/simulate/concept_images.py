"""What ``rdx simulate --scoring images`` needs: activations on images that show the concepts of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.neurons.concept_images import table_scores
from rdxcli.methods.neurons.scores import summarise
from rdxcli.methods.neurons.tables import ExplanationTable
from rdxcli.progress import human_count
from rdxcli.records import Representation
from rdxcli.representations.layer import representation
from rdxcli.services.simulate.options import SimulateOptions

FILE = "concept_images"


def check_images(options: SimulateOptions) -> None:
    """Refuse what cannot be read before anything is. Raises `RdxError`."""
    if FILE not in options.files:
        raise UsageError(
            "--scoring images needs images of the concepts",
            f"give --file {FILE}=FOLDER with a folder of images for each concept, called like it",
        )
    if options.model is None:
        raise UsageError("--scoring images runs the model on the images of the concepts", "give --model NAME")
    if not Path(options.files[FILE]).expanduser().is_dir():
        raise MissingDataError(f"no such folder of images: {options.files[FILE]}")


def images_of_concepts(options: SimulateOptions) -> Representation:
    """The same layer of the same model on the images of the concepts; their labels are the concepts."""
    folder = Path(options.files[FILE]).expanduser()
    selection = SelectionOptions(dataset=f"folder:{folder}", root=options.selection.root)
    return representation(replace(options, selection=selection))


def score_tables(
    tables: Mapping[str, ExplanationTable], source: Representation, shown: Representation, rows: np.ndarray
) -> list[dict[str, Any]]:
    """AUC and mean activation difference of each unit for its heaviest concept that has images.

    Raises `InputError` (no concept of any table has images). `shown`: of the images of the concepts; `rows`: control
    images among those of ``source``.
    """
    assert shown.labels is not None
    if shown.d != source.d:
        raise InputError(
            f"{shown.name} has {human_count(shown.d, 'unit')} on the images of the concepts, {source.d} on the others"
        )
    scored = {
        name: table_scores(table, source.values, shown.values, shown.labels, rows) for name, table in tables.items()
    }
    if not any(unit["images"] for units in scored.values() for unit in units):
        known = ", ".join(list(dict.fromkeys(map(str, shown.labels)))[:8])
        raise InputError(f"no concept of the tables has images (there are: {known})", "call folders like concepts")
    methods = []
    for name, units in scored.items():
        without = len([unit for unit in units if unit["images"] == 0])
        scores = np.array([np.nan if unit["score"] is None else unit["score"] for unit in units], dtype=np.float64)
        methods.append(
            {
                "method": name,
                "summary": vars(summarise(scores)),
                "units": units,
                "length_curve": [],
                "notes": [f"{human_count(without, 'unit', 'have')} no concept with images and no score"]
                if without
                else [],
            }
        )
    return methods


def columns_of(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Further columns of ``scores.csv``."""
    return [name for name in ("mad", "concept", "images") if any(name in u for m in methods for u in m["units"])]
