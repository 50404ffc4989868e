"""What a comparison may be told beside the two representations: labels or a classifier's view, and learned maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdxcli.errors import UsageError
from rdxcli.methods.difference.alignment import align as align_maps
from rdxcli.methods.difference.probe import classification_probe
from rdxcli.progress import log
from rdxcli.records import Representation

GUIDANCES = ("none", "labels", "classifier", "outcome")


@dataclass(frozen=True)
class Supervision:
    """Keyword arguments for ``fit`` and what to say about them.

    Attributes
    ----------
    fit_options : dict
        Of `rdxcli.methods.difference.rdx.RDX.fit`.
    details : dict
        For the document: held-out losses of the maps.
    """

    fit_options: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.fit_options)


def takes_guidance(estimator: Any) -> bool:
    """Whether the method compares the two models with each other, so that labels and maps mean something to it."""
    return hasattr(estimator, "difference_rows")


def supervise(a: Representation, b: Representation, guidance: str, align: bool, seed: int) -> Supervision:
    """Prepare ``--guidance`` and ``--align``.

    ``labels`` gives both models the classes of the data set. ``classifier`` gives each model the out-of-fold
    predictions of a linear classifier on it. ``outcome`` gives it these predictions together with whether they are
    right. Raises `UsageError` (unknown guidance, or guidance without labels) or `ValueError` (too few images or
    classes).
    """
    if guidance not in GUIDANCES:
        raise UsageError(f"unknown guidance `{guidance}`", f"choose one of {', '.join(GUIDANCES)}")
    labels = a.labels
    options: dict[str, Any] = {}
    details: dict[str, Any] = {}
    if guidance != "none" and labels is None:
        raise UsageError(
            f"--guidance {guidance} needs labels", "give them with --labels FILE, or use a data set that has them"
        )
    if align:
        maps = align_maps(a.values, b.values, random_state=seed)
        options |= {"mapped0": maps.mapped0, "mapped1": maps.mapped1}
        details["alignment"] = maps.describe()
        log.info("aligned: %s", ", ".join(f"{name} {value:.3f}" for name, value in details["alignment"].items()))
    if guidance == "labels":
        options |= {"labels0": labels, "labels1": labels}
    elif guidance != "none":
        assert labels is not None
        mapped = (options["mapped0"], options["mapped1"]) if align else None
        probe = classification_probe(a.values, b.values, labels, mapped=mapped, random_state=seed)
        groups = [_groups(row, probe.classes, labels, guidance) for row in probe.predictions]
        names = ("labels0", "labels1", "mapped_labels0", "mapped_labels1")
        options |= dict(zip(names, groups, strict=False))
        details["probe_accuracy"] = [float(value) for value in probe.accuracy.mean(axis=1)]
    return Supervision(options, details)


def _groups(predicted: np.ndarray, classes: np.ndarray, labels: np.ndarray, guidance: str) -> np.ndarray:
    if guidance == "classifier":
        return predicted
    return 2 * predicted + (classes[predicted] == np.asarray(labels))
