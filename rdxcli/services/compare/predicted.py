"""Predictions beside representations: read from files, or made by a linear probe where labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.datasets.arrayfiles import ID_NAMES, read_array
from rdxcli.datasets.tables import pick_column, read_columns, read_values
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.difference.predictions import compare_predictions
from rdxcli.records import DifferenceConcept, Representation
from rdxcli.representations.joining import join

NAMES = ("prediction", "predicted", "predictions", "top1", "label", "class")
ARRAYS = (".npz", ".safetensors")
CLEAR = 0.05  # corrected p-value from which on a group is worth a sentence


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of both models for the images that are compared.

    Attributes
    ----------
    a, b : (n,) arrays of str
    source : str
        Where they come from, in words.
    """

    a: np.ndarray
    b: np.ndarray
    source: str


def read_predictions(files: tuple[str | None, str | None], a: Representation, b: Representation) -> Predictions | None:
    """Predictions of both sides, brought to the images that they share; None when there are no files.

    Parameters
    ----------
    files : two of str or None
        A table of ids and predictions, one prediction a line, or an array of logits or probabilities (n, classes).
    a, b : Representation
        As they were read, before they are joined.

    Raises
    ------
    UsageError
        One file only.
    InputError
        Files that do not fit the rows.
    """
    if files == (None, None):
        return None
    if files[0] is None or files[1] is None:
        raise UsageError(
            f"--predictions-{'a' if files[0] is None else 'b'} is missing", "predictions of both models are compared"
        )
    sides = [
        (replace(side, labels=_read(Path(str(file)).expanduser(), side, option)), option)
        for file, side, option in zip(files, (a, b), ("--predictions-a", "--predictions-b"), strict=True)
    ]
    # Labels travel with the rows; a side without any takes those of the other.
    first = join(sides[0][0], replace(b, labels=None)).a.labels
    second = join(replace(a, labels=None), sides[1][0]).a.labels
    return Predictions(np.asarray(first), np.asarray(second), "given")


def _read(path: Path, side: Representation, option: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{option}: no such file: {path}")
    scores: np.ndarray | None = None
    if path.suffix == ".npy":
        values = np.load(path, allow_pickle=False)
        scores = values if values.ndim == 2 else None
        found = [] if values.ndim == 2 else [str(value) for value in values.tolist()]
    elif path.suffix in ARRAYS:
        scores, found = read_array(str(path)).values, []
    else:
        found = _by_id(path, side, option) or read_values(path, NAMES, "predictions")
    if scores is not None:
        found = _classes(scores, side)
    if len(found) != side.n:
        raise InputError(f"{option}: got {len(found)} predictions for the {side.n} rows of {side.name}")
    return np.array(found, dtype=np.str_)


def _by_id(path: Path, side: Representation, option: str) -> list[str] | None:
    """Predictions of a table with ids, in the order of the side's rows."""
    try:
        columns = read_columns(path)
    except InputError:
        return None
    ids, values = pick_column(columns, ID_NAMES), pick_column(columns, NAMES)
    if ids is None or values is None or ids == values or side.sample_ids is None:
        return None
    place = dict(zip(map(str, columns[ids]), map(str, columns[values]), strict=True))
    missing = [str(sample) for sample in side.sample_ids if str(sample) not in place]
    if missing:
        raise InputError(f"{option}: {path.name} lacks {len(missing)} ids of {side.name}, for example `{missing[0]}`")
    return [place[str(sample)] for sample in side.sample_ids]


def _classes(scores: np.ndarray, side: Representation) -> list[str]:
    """The class of the largest score: a number, or the name where the labels are as many names, sorted."""
    best = scores.argmax(axis=1)
    if side.labels is not None:
        names = sorted(set(map(str, side.labels)))
        if len(names) == scores.shape[1] and not all(name.isdecimal() for name in names):
            return [names[i] for i in best]
    return [str(i) for i in best]


def predictions_document(
    predictions: Predictions | None, labels: np.ndarray | None, concepts: Sequence[DifferenceConcept], arrays: Any
) -> Mapping[str, Any]:
    """The entry ``predictions`` of the document, with a group per concept; empty without predictions."""
    if predictions is None:
        return {}
    groups = {
        f"{concept.closer_in}{concept.index}": arrays[f"labels_{concept.closer_in}"] == concept.index
        for concept in concepts
    }
    return {"source": predictions.source, **compare_predictions(predictions.a, predictions.b, labels, groups)}


def prediction_lines(document: Mapping[str, Any]) -> list[str]:
    """What the predictions say, in sentences."""
    found = document.get("predictions")
    if not found:
        return []
    churn = found["churn"]
    lines = [
        f"Predictions ({found['source']}): {_share(churn)} of the {found['n']:,} images change"
        + (
            f", {_share(found['negative_flips'])} from right to wrong and {_share(found['positive_flips'])} from wrong "
            f"to right (p = {found['flips_p']:.2g}); accuracy {found['accuracy_a']['value']:.1%} (a) and "
            f"{found['accuracy_b']['value']:.1%} (b)"
            if "negative_flips" in found
            else ""
        )
        + "."
    ]
    words = {"negative_flips": "went from right to wrong", "churn": "changed"}[found["tested"]]
    for name, group in found["groups"].items():
        if group["p_corrected"] <= CLEAR:
            count = group[found["tested"]]["count"]
            lines.append(
                f"Of the {group['n']} images in {name}, {count} {words} ({count / group['n']:.1%}; of all others "
                f"{group['rest']:.1%}; difference {group['low']:.1%} to {group['high']:.1%}, "
                f"p = {group['p_corrected']:.2g})."
            )
    return lines


def _share(rate: Mapping[str, float]) -> str:
    return f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"
