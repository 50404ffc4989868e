"""What ``rdx simulate --scoring images`` needs: activations on images that show the concepts of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.selection import SelectionOptions
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.neurons.concept_images import image_score
from rdxcli.methods.neurons.scores import benjamini_hochberg, summarise
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable
from rdxcli.records import Representation
from rdxcli.services.explain.base import representation
from rdxcli.services.simulate.options import SimulateOptions

FILE = "concept_images"


def check_images(options: SimulateOptions) -> None:
    """Refuse what cannot be read before anything is.

    Raises
    ------
    RdxError
    """
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

    Parameters
    ----------
    shown : Representation
        Of the images of the concepts.
    rows : int array
        Control images among those of ``source``.

    Raises
    ------
    InputError
        No concept of any table has images.
    """
    assert shown.labels is not None
    if shown.d != source.d:
        raise InputError(f"{shown.name} has {shown.d} units on the images of the concepts, {source.d} on the others")
    place = {_plain(str(label)): np.flatnonzero(shown.labels == label) for label in dict.fromkeys(shown.labels)}
    methods: list[dict[str, Any]] = []
    for name, table in tables.items():
        units = [_scored(row, source, shown, rows, place) for row in table.rows]
        known = [i for i, unit in enumerate(units) if unit["p_value"] is not None]
        adjusted = benjamini_hochberg(np.array([units[i]["p_value"] for i in known], dtype=np.float64))
        for i, q in zip(known, adjusted, strict=True):
            units[i]["q_value"] = float(q)
        without = len([unit for unit in units if unit["images"] == 0])
        scores = np.array([np.nan if unit["score"] is None else unit["score"] for unit in units], dtype=np.float64)
        notes = [f"{without} units have no concept with images and no score"] if without else []
        entry: dict[str, Any] = {
            "method": name,
            "summary": vars(summarise(scores)),
            "units": units,
            "length_curve": [],
            "notes": notes,
        }
        methods.append(entry)
    if not any(unit["images"] for entry in methods for unit in entry["units"]):
        known_names = ", ".join(list(place)[:8])
        raise InputError(
            f"no concept of the tables has images (there are: {known_names})", "call folders like concepts"
        )
    return methods


def _scored(
    row: Explanation,
    source: Representation,
    shown: Representation,
    rows: np.ndarray,
    place: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    entry: dict[str, Any] = {"unit": row.unit, "length": len(row.concepts), "concept": None, "images": 0}
    entry |= dict.fromkeys(("score", "low", "high", "mad", "p_value", "q_value"))
    positive = [name for name, weight in zip(row.concepts, row.weights, strict=True) if weight > 0]
    concept = next((name for name in positive if _plain(name) in place), None)
    if concept is None:
        return entry
    of = np.asarray(shown.values[place[_plain(concept)], row.unit], dtype=np.float64)
    found = image_score(of, np.asarray(source.values[rows, row.unit], dtype=np.float64))
    values = {"score": found.auc, "low": found.low, "high": found.high, "mad": found.mad, "p_value": found.p_value}
    known = {name: value if np.isfinite(value) else None for name, value in values.items()}
    return {**entry, **known, "concept": concept, "images": found.images}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def columns_of(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Further columns of ``scores.csv``."""
    return [name for name in ("mad", "concept", "images") if any(name in u for m in methods for u in m["units"])]
