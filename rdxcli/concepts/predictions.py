"""Predictions beside representations, of models' own heads or from files; samples that are chosen by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array
from rdxcli.concepts.labels import class_names, full_class_list
from rdxcli.concepts.options import ConceptOptions
from rdxcli.datasets.arrayfiles import ArrayFile, read_array
from rdxcli.datasets.arrays import check_ids, row_values
from rdxcli.datasets.tables import UNREADABLE
from rdxcli.datasets.words import find_all, taken_as_one
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.difference.predictions import compare_predictions
from rdxcli.methods.regions.targets import Labels, choose_targets
from rdxcli.progress import human_count, log
from rdxcli.records import DifferenceConcept, Representation
from rdxcli.representations.joining import join
from rdxcli.representations.layer import representation
from rdxcli.representations.samples import needs_predictions, targets_of

NAMES = ("prediction", "predicted", "predictions", "pred", "preds", "y_pred", "top1", "label", "class")
ARRAYS = (".npz", ".safetensors")
NONE = ("", "nan", "NaN")  # what tables and arrays have where nothing is known


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of both models for the images that are compared.

    Attributes
    ----------
    a, b : (n,) arrays of str
    source : str
        Where they come from, in words.
    confidence_a, confidence_b : (n,) arrays, optional
        Probability of the predicted class.
    named : bool
        Whether classes are spelled as the labels are.
    note : str, optional
        What a reader must know.
    """

    a: np.ndarray
    b: np.ndarray
    source: str
    confidence_a: np.ndarray | None = None
    confidence_b: np.ndarray | None = None
    named: bool = True
    note: str | None = None

    def identity(self) -> list[str]:
        """The content, for a request."""
        return [fingerprint_array(one) for one in (self.a, self.b)]


def predictions_of_heads(a: Representation, b: Representation, root: Path | None = None) -> Predictions | None:
    """What the classifiers of both models predict.

    Classes are the labels where the data set has as many classes as the heads have outputs; they are taken to be in the
    data set's order, unless that would make a model no better than guessing. `a`, `b`: logits of the same images;
    `root`: where downloads are.

    Returns
    -------
    Predictions or None
        None where the heads have different numbers of outputs.
    """
    if a.d != b.d:
        return None
    best = [np.asarray(side.values).argmax(axis=1) for side in (a, b)]
    first, second = (_confidence(np.asarray(side.values)) for side in (a, b))
    source = f"of the models' own heads, {human_count(a.d, 'output')}"
    unnamed = Predictions(best[0].astype(np.str_), best[1].astype(np.str_), source, first, second, named=False)
    if a.labels is None:
        return unnamed
    labels = np.asarray(a.labels).astype(np.str_)
    names, _ = full_class_list(a, labels, root)
    if len(names) != a.d:
        note = (
            f"the heads have {human_count(a.d, 'output')}, the labels {human_count(len(names), 'class')}: "
            "which are right is not known"
        )
        return replace(unnamed, note=note)
    named = [np.asarray(names)[one].astype(np.str_) for one in best]
    guess = np.unique(labels, return_counts=True)[1].max() / len(labels)
    for side, predicted in zip((a, b), named, strict=True):
        right = float(np.mean(predicted == labels))
        if right <= guess:
            note = f"the outputs of {side.name} do not seem to be the labels in order ({right:.1%} would be right)"
            return replace(unnamed, note=note)
    return Predictions(named[0], named[1], source, first, second)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores, which are logits unless they are probabilities, as probabilities: (n, classes) float64."""
    values = np.asarray(scores, dtype=np.float64)
    if values.min() >= 0.0 and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        return values
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _confidence(scores: np.ndarray) -> np.ndarray:
    """Probability of the largest of scores: (n,) float64."""
    return np.asarray(probabilities(scores).max(axis=1))


def read_predictions(files: tuple[str | None, str | None], a: Representation, b: Representation) -> Predictions | None:
    """Predictions of both sides, brought to the images that they share; None when there are no files.

    Raises `UsageError` (one file only) or `InputError` (files that do not fit the rows).

    Parameters
    ----------
    files : two of str or None
        A table of ids and predictions, one prediction a line, or an array of logits or probabilities (n, classes).
    a, b : Representation
        As they were read, before they are joined.
    """
    if files == (None, None):
        return None
    if files[0] is None or files[1] is None:
        raise UsageError(
            f"--predictions-{'a' if files[0] is None else 'b'} is missing", "predictions of both models are compared"
        )
    first, second = (
        _read(Path(file).expanduser(), side, option)
        for file, side, option in (
            (files[0], a, "--predictions-a"),
            (files[1], b, "--predictions-b"),
        )
    )
    # Labels travel with the rows; a side without any takes those of the other.
    plain = replace(a, labels=None), replace(b, labels=None)

    def joined(of_a: np.ndarray, of_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = join(replace(a, labels=of_a), plain[1]), join(plain[0], replace(b, labels=of_b))
        return np.asarray(pairs[0].a.labels), np.asarray(pairs[1].a.labels)

    sure = (None, None) if first[1] is None or second[1] is None else joined(first[1], second[1])
    return Predictions(*joined(first[0], second[0]), "given", *sure)


def _read(path: Path, side: Representation, option: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Predicted classes, and how sure they are where the file holds scores."""
    if not path.is_file():
        raise InputError(f"{option}: no such file: {path}")
    scores: np.ndarray | None = None
    if path.suffix == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except UNREADABLE as error:
            raise InputError(f"{option}: {path} cannot be read: {error}") from None
        scores = values if values.ndim == 2 and values.shape[1] > 1 else None
        found = [] if scores is not None else _names_of(values)
    elif path.suffix in ARRAYS:
        scores, found = _in_order(read_array(str(path)), side, option), []
    else:
        found = row_values(path, NAMES, "predictions", side.ids(), side.n, side.name)
    if scores is not None:
        _check_scores(scores, f"{option}: {path.name}")
        found = _classes(scores, side)
    if len(found) != side.n:
        raise InputError(
            f"{option}: got {human_count(len(found), 'prediction')} for the {human_count(side.n, 'row')} of {side.name}"
        )
    empty = [row for row, one in enumerate(found) if one.strip() in NONE]
    if empty:
        ids = side.ids()
        which = f"the sample `{ids[empty[0]]}`" if ids else f"row {empty[0]}"
        raise InputError(
            f"{option}: {path.name} has no class for {human_count(len(empty), 'row')} of {side.name}, such as {which}",
            "leave these images out of both sides, or predict them",
        )
    return np.array(found, dtype=np.str_), None if scores is None else _confidence(scores)


def _names_of(classes: np.ndarray) -> list[str]:
    """Classes of an array as text; whole numbers without a fraction, whatever they are stored as."""
    if classes.dtype.kind == "f" and (classes == np.rint(classes)).all():
        classes = classes.astype(np.int64)
    return [str(one) for one in classes.ravel().tolist()]


def _check_scores(scores: np.ndarray, what: str) -> None:
    """Raises `InputError` (entries that are not numbers or not finite)."""
    finite = np.isfinite(scores).all(axis=1) if scores.dtype.kind in "iufb" else np.zeros(1, dtype=bool)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"{what} has a score that is no finite number in row {row}", "expected logits or probabilities"
        )


def spelled_alike(predictions: Predictions, labels: np.ndarray | None) -> Predictions:
    """Given predictions; without right and wrong where no class is spelled as a label is.

    Raises `InputError` (the two sides have no class in common, and one of them none with the labels).

    Parameters
    ----------
    labels : (n,) array of str or None
        Of the same images.
    """
    first, second = (set(side.tolist()) for side in (predictions.a, predictions.b))
    known = set() if labels is None else set(map(str, labels))
    if not first & second and not (first & known and second & known):
        raise InputError(
            f"no class that --predictions-a names is one that --predictions-b names, for example `{min(first)}` and "
            f"`{min(second)}`",
            "spell the classes alike in both files" + (f", as the labels are: `{min(known)}`" if known else ""),
        )
    if not known or known & (first | second):
        return predictions
    note = f"no predicted class is a label (`{min(first)}`, labels `{min(known)}`): which are right is not known"
    return replace(predictions, named=False, note=note)


def _in_order(file: ArrayFile, side: Representation, option: str) -> np.ndarray:
    """Scores in the order of the side's rows: by ids where both have them."""
    ours = side.ids()
    if file.sample_ids is None or not ours:
        return file.values
    check_ids(file.sample_ids, len(file.values), file.path.name)
    places, note = find_all(ours, file.sample_ids, lambda count, one, _: InputError(
        f"{option}: {file.path.name} lacks {human_count(count, 'id')} of {side.name}, for example `{one}`"
    ))  # fmt: skip
    if note:
        log.info("%s", taken_as_one(note, side.name, file.path.name))
    return file.values[places]


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
    sure = predictions.confidence_a, predictions.confidence_b
    found = compare_predictions(
        predictions.a,
        predictions.b,
        labels if predictions.named else None,
        groups_of(concepts, arrays),
        None if sure[0] is None or sure[1] is None else (sure[0], sure[1]),
    )
    return {"source": predictions.source, "note": predictions.note, **found}


def groups_of(concepts: Sequence[DifferenceConcept], arrays: Any) -> dict[str, np.ndarray]:
    """Which images each concept holds, by its name (``a1``)."""
    return {
        f"{concept.closer_in}{concept.index}": arrays[f"labels_{concept.closer_in}"] == concept.index
        for concept in concepts
    }


def predictions_of(options: ConceptOptions, source: Representation) -> np.ndarray | None:
    """Predicted class names from ``--file predictions=FILE``; None without it.

    Raises `InputError` (not one for each sample).
    """
    if "predictions" not in options.files:
        return None
    path = Path(options.files["predictions"])
    return np.array(row_values(path, NAMES, "predictions", source.ids(), source.n, source.name))


def model_predictions(options: ConceptOptions, source: Representation) -> np.ndarray:
    """Predicted class names: given ones, else the largest output of the model.

    Raises `UsageError` (there is neither, or the labels of the samples are not among the names of the outputs).
    """
    given = predictions_of(options, source)
    if given is not None:
        return given
    if options.model is None:
        raise UsageError("this needs the model's predictions", "give them with --file predictions=FILE")
    logits = representation(replace(options, layer="output", pool=str(source.source.get("pool") or "auto")))
    if logits.ids() != source.ids():
        raise InputError("the model's output and its layer were read on different samples")
    classes = class_names(source, logits.d, options)
    if source.labels is not None:
        unknown = sorted({str(label) for label in source.labels} - set(classes))
        if unknown:
            raise UsageError(
                f"the class `{unknown[0]}` is none of the model's {human_count(logits.d, 'output')}, so "
                "that nothing can be said "
                "about errors",
                "give --file classes=FILE, one class name a line in the order of the outputs",
            )
    log.info("predictions: arg-max of %s over %s", options.model, human_count(logits.d, "class"))
    return np.array(classes)[np.asarray(logits.values).argmax(axis=1)]


def target_rows(options: ConceptOptions, target: str, source: Representation) -> np.ndarray:
    """Rows of ``--target``, words resolved with labels and, where needed, predictions."""
    found: Any = targets_of(target, source)
    predictions = model_predictions(options, source) if needs_predictions(target) else None
    return choose_targets(found, Labels.from_arrays(source.n, source.labels, predictions), source.n, options.seed)
