"""Two classifiers with different outputs: what each says of the images in its own words, and which words are alike.

Symbols: n images; a head gives each image logits over d outputs, p = softmax of them; confidence = max p, entropy =
-sum p log p, between 0 and log d. Outputs have names: from a file, of the data set when it has as many classes, or
those of ImageNet for 1,000 outputs of a model. A label can be named by a head where one of its names is the same words
(see `rdxcli.datasets.words.same_words`); a head is right or wrong on the images whose label it can name, on no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array, fingerprint_json
from rdxcli.concepts.labels import class_names, full_class_list, read_class_names
from rdxcli.concepts.predictions import groups_of, probabilities
from rdxcli.datasets.words import same_words
from rdxcli.methods.difference.predictions import compare_predictions, wilson
from rdxcli.records import DifferenceConcept, Representation

SIDES = ("a", "b")
LISTED = 30
"""Names that a document lists of those that were not matched."""


@dataclass(frozen=True)
class Head:
    """What a classifier says of n images.

    Attributes
    ----------
    names : list of str or None
        Of the outputs; None where they are not known.
    source : str
        Where the names come from, in words.
    predicted : (n,) int64
    confidence, entropy : (n,) float64
        Of the probabilities; entropy in nats.
    """

    model: str
    outputs: int
    names: list[str] | None
    source: str
    predicted: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray

    def identity(self) -> dict[str, Any]:
        """The content, for a request."""
        return {
            "predicted": fingerprint_array(self.predicted),
            "confidence": fingerprint_array(self.confidence),
            "names": None if self.names is None else fingerprint_json(self.names),
        }

    def words(self) -> np.ndarray:
        """The predicted classes as text; numbers of outputs without names."""
        if self.names is None:
            return self.predicted.astype(np.str_)
        return np.asarray(self.names, dtype=np.str_)[self.predicted]


def head_of(logits: Representation, names: Path | None, root: Path | None = None) -> Head:
    """A head from its logits.

    Raises `RdxError` (the file of names cannot be read, or has another number of lines than the head has outputs).
    """
    p = probabilities(np.asarray(logits.values))
    entropy = -np.where(p > 0.0, p * np.log(np.where(p > 0.0, p, 1.0)), 0.0).sum(axis=1)
    known, source = _names(logits, names, root)
    return Head(logits.name, logits.d, known, source, p.argmax(axis=1), p.max(axis=1), entropy)


def _names(logits: Representation, names: Path | None, root: Path | None) -> tuple[list[str] | None, str]:
    if names is not None:
        return read_class_names(names, logits.d), f"from {names.name}"
    if logits.labels is not None:
        whole, _ = full_class_list(logits, np.asarray(logits.labels).astype(np.str_), root)
        if len(whole) == logits.d:
            return whole, "the classes of the data set, in its order"
    found = class_names(logits, logits.d)
    if found == [str(i) for i in range(logits.d)]:
        return None, "not known"
    return found, "the classes of ImageNet, for 1,000 outputs"


def heads_document(
    heads: tuple[Head, Head], labels: np.ndarray | None, concepts: Sequence[DifferenceConcept], arrays: Any
) -> dict[str, Any]:
    """The entry ``heads`` of the document."""
    groups = groups_of(concepts, arrays)
    texts = None if labels is None else np.asarray(labels).astype(np.str_)
    named = [_meant(head, texts) for head in heads]
    found: dict[str, Any] = {
        side: _of_one(head, texts, meant) for side, head, meant in zip(SIDES, heads, named, strict=True)
    }
    found["groups"] = {
        name: {
            "n": int(inside.sum()),
            **{
                f"{key}_{side}": value
                for side, head, meant in zip(SIDES, heads, named, strict=True)
                for key, value in _means(head, meant, inside).items()
            },
        }
        for name, inside in groups.items()
        if inside.any()
    }
    found["classes"] = _classes(heads)
    found["both"] = _both(heads, texts, named, groups)
    return found


def _meant(head: Head, labels: np.ndarray | None) -> np.ndarray:
    """The output that each label is called by, -1 where the head has no such class: (n,) int64."""
    if labels is None or head.names is None:
        return np.full(len(head.predicted), -1)
    distinct, rows = np.unique(labels, return_inverse=True)
    return same_words(distinct.tolist(), head.names)[rows]


def _rate(right: np.ndarray) -> dict[str, float | int]:
    low, high = wilson(int(right.sum()), len(right))
    return {"count": int(right.sum()), "value": float(right.mean()), "low": low, "high": high}


def _means(head: Head, meant: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    known = inside & (meant >= 0)
    return {
        "confidence": float(head.confidence[inside].mean()),
        "entropy": float(head.entropy[inside].mean()),
        "named": int(known.sum()),
        "accuracy": _rate((head.predicted == meant)[known]) if known.any() else None,
    }


def _of_one(head: Head, labels: np.ndarray | None, meant: np.ndarray) -> dict[str, Any]:
    """One side: how sure it is, and how often it is right where it can be."""
    known = meant >= 0
    unnamed = [] if labels is None else sorted(set(labels[~known].tolist()))
    return {
        "model": head.model,
        "outputs": head.outputs,
        "names": head.source,
        **_means(head, meant, np.ones(len(meant), dtype=bool)),
        "entropy_most": float(np.log(head.outputs)),
        # what one class for all of these images would reach, and a guess among all outputs
        "one_class": float(np.unique(meant[known], return_counts=True)[1].max() / known.sum()) if known.any() else None,
        "guess": 1.0 / head.outputs,
        "labels": 0 if labels is None else len(set(labels.tolist())) - len(unnamed),
        "labels_not_named": len(unnamed),
        "not_named": unnamed[:LISTED],
    }


def _classes(heads: tuple[Head, Head]) -> dict[str, Any] | None:
    """Which classes of both heads are the same words; None where one has no names."""
    a, b = (head.names for head in heads)
    if a is None or b is None:
        return None
    places = same_words(a, b)
    pairs = [(i, int(j)) for i, j in enumerate(places) if j >= 0]
    only_b = sorted(set(range(len(b))) - {j for _, j in pairs})
    only_a = np.flatnonzero(places < 0).tolist()
    return {
        "matched": [[a[i], b[j]] for i, j in pairs],
        "only_a": [a[i] for i in only_a[:LISTED]],
        "only_b": [b[j] for j in only_b[:LISTED]],
        "not_matched_a": len(only_a),
        "not_matched_b": len(only_b),
    }


def _both(
    heads: tuple[Head, Head], labels: np.ndarray | None, named: Sequence[np.ndarray], groups: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """The comparison of predictions on the images whose label both can name; None without any."""
    shared = (named[0] >= 0) & (named[1] >= 0)
    if labels is None or not shared.any():
        return None
    # right is the label's own text, wrong what was said: one class under two names is then one prediction
    said = [
        np.where(head.predicted == meant, labels, np.char.add("not: ", head.words()))[shared]
        for head, meant in zip(heads, named, strict=True)
    ]
    return compare_predictions(
        said[0], said[1], labels[shared], {name: inside[shared] for name, inside in groups.items()}
    )
