"""Samples and classes as people name them: targets by id, what the model predicts, names of a classifier's outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.concepts.labels import class_names
from rdxcli.datasets.tables import read_values
from rdxcli.errors import InputError, UsageError, did_you_mean
from rdxcli.methods.regions.targets import Labels, choose_targets
from rdxcli.progress import log
from rdxcli.services.explain.base import ExplainOptions, representation

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.records import Representation

WORDS = ("all", "class", "predicted", "misclassified")
"""What a target may start with besides ids and rows."""


def ids_of(source: Representation) -> list[str]:
    """Ids of all samples; empty when they have none."""
    return [] if source.sample_ids is None else [str(sample) for sample in source.sample_ids]


def names_of(source: Representation, rows: Iterable[int]) -> list[str]:
    """Ids of some samples, or their row numbers."""
    ids = source.sample_ids
    return [str(row) if ids is None else str(ids[row]) for row in rows]


def labels_of(source: Representation, rows: Iterable[int]) -> list[str] | None:
    """Labels of some samples, if there are any."""
    return None if source.labels is None else [str(source.labels[row]) for row in rows]


def targets_of(target: str, source: Representation) -> str | list[int]:
    """What ``--target`` means: a word (``class:NAME`` ...) as it is, else the rows of the ids or row numbers.

    Raises
    ------
    InputError
        No such sample; near ids are named.
    """
    if target.partition(":")[0] in WORDS:
        return target
    place = {sample: row for row, sample in reversed(list(enumerate(ids_of(source))))}
    rows = []
    for part in target.split(","):
        text = part.strip()
        if text in place:
            rows.append(place[text])
        elif text.isdecimal() and int(text) < source.n:
            rows.append(int(text))
        else:
            hint = did_you_mean(text, place, "give a sample id, a row, or a word such as class:NAME")
            raise InputError(f"--target: no sample `{text}` among {source.n}", hint)
    return rows


def needs_predictions(target: str | None) -> bool:
    """Whether a target is chosen by what the model says."""
    return (target or "").startswith(("misclassified", "predicted"))


def predictions_of(options: ExplainOptions, source: Representation) -> np.ndarray | None:
    """Predicted class names from ``--file predictions=FILE``; None without it.

    Raises
    ------
    InputError
        Not one for each sample.
    """
    if "predictions" not in options.files:
        return None

    values = read_values(options.files["predictions"], ("prediction", "predicted"), "predictions")
    if len(values) != source.n:
        raise InputError(f"got {len(values)} predictions for {source.n} samples")
    return np.array([str(value) for value in values])


def model_predictions(options: ExplainOptions, source: Representation) -> np.ndarray:
    """Predicted class names: given ones, else the largest output of the model.

    Raises
    ------
    UsageError
        There is neither, or the labels of the samples are not among the names of the outputs.
    """
    given = predictions_of(options, source)
    if given is not None:
        return given
    if options.model is None:
        raise UsageError("this needs the model's predictions", "give them with --file predictions=FILE")
    logits = representation(replace(options, layer="output", pool=str(source.source.get("pool") or "auto")))
    if ids_of(logits) != ids_of(source):
        raise InputError("the model's output and its layer were read on different samples")
    classes = class_names(source, logits.d, options)
    if source.labels is not None:
        unknown = sorted({str(label) for label in source.labels} - set(classes))
        if unknown:
            raise UsageError(
                f"the class `{unknown[0]}` is none of the model's {logits.d} outputs, so that nothing can be said "
                "about errors",
                "give --file classes=FILE, one class name a line in the order of the outputs",
            )
    log.info("predictions: arg-max of %s over %d classes", options.model, logits.d)
    return np.array(classes)[np.asarray(logits.values).argmax(axis=1)]


def target_rows(options: ExplainOptions, source: Representation) -> np.ndarray:
    """Rows of ``--target``, words resolved with labels and, where needed, predictions."""
    found: Any = targets_of(str(options.target), source)
    predictions = model_predictions(options, source) if needs_predictions(options.target) else None
    return choose_targets(found, Labels.from_arrays(source.n, source.labels, predictions), source.n, options.seed)
