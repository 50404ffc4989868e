"""Samples and classes as people name them: targets by id, what the model predicts, names of a classifier's outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.errors import InputError, MissingDataError, UsageError, near_matches
from rdxcli.progress import log
from rdxcli.services.explain import ExplainOptions, representation

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
            near = near_matches(text, place)
            known = " or ".join(f"`{name}`" for name in near)
            hint = f"did you mean {known}?" if near else "give a sample id, a row, or a word such as class:NAME"
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
    import numpy as np

    from rdxcli.datasets.tables import read_values

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
    import numpy as np

    given = predictions_of(options, source)
    if given is not None:
        return given
    if options.model is None:
        raise UsageError("this needs the model's predictions", "give them with --file predictions=FILE")
    logits = representation(replace(options, layer="output", pool="auto"))
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


def class_names(source: Representation, count: int, options: ExplainOptions | None = None) -> list[str]:
    """Names of a classifier's outputs.

    Those of ``--file classes=FILE`` (one a line; what stands before a tab or comma is enough where the labels say so),
    else the data set's classes when there are as many, else ``0``, ``1`` ...

    Raises
    ------
    RdxError
        The file cannot be read or has another number of lines.
    """
    from rdxcli.datasets.registry import open_dataset

    if options is not None and "classes" in options.files:
        return _names_file(Path(options.files["classes"]).expanduser(), source, count)
    names = list(open_dataset(source.dataset).class_names or []) if source.dataset else []
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def _names_file(path: Path, source: Representation, count: int) -> list[str]:
    from rdxcli.methods.neurons.concepts import text_lines

    try:
        lines = [line.strip() for line in text_lines(path.read_text("utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingDataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(lines) != count:
        raise InputError(f"{path} has {len(lines)} lines, the model has {count} outputs")
    labels = set() if source.labels is None else {str(label) for label in source.labels}
    if not labels or labels <= set(lines):
        return lines
    return [line.replace("\t", ",").split(",")[0].strip() for line in lines]


def target_rows(options: ExplainOptions, source: Representation) -> np.ndarray:
    """Rows of ``--target``, words resolved with labels and, where needed, predictions."""
    from rdxcli.methods.regions.targets import Labels, choose_targets

    found: Any = targets_of(str(options.target), source)
    predictions = model_predictions(options, source) if needs_predictions(options.target) else None
    return choose_targets(found, Labels.from_arrays(source.n, source.labels, predictions), source.n, options.seed)
