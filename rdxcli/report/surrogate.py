"""The page of a trained surrogate: how well it stands in for its teacher, and how it got there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdxcli.report import charts
from rdxcli.report.gallery import Page, Section

if TYPE_CHECKING:
    from markupsafe import Markup

SCORES = {
    "kl": "KL divergence to the teacher's similarities, both directions",
    "i2t_kl": "KL divergence, texts for an image",
    "uniform_kl": "KL divergence of a surrogate that says nothing",
    "agreement": "images with the teacher's class",
    "retrieval_agreement": "images with the teacher's best caption",
    "cosine": "cosine to the teacher's image embedding",
    "l0": "concepts per image",
}
"""Key and meaning of each score, as they are listed."""


def page(document: Mapping[str, Any], history: Sequence[Mapping[str, float]], command: str = "") -> Page:
    """The `Page` of a ``surrogate`` document.

    Parameters
    ----------
    document : mapping
    history : sequence of mappings
        The rows of ``metrics.csv``; missing numbers are left out.
    command : str
    """
    train, held_out = document["scores"]["train"], document["scores"].get("test", document["scores"]["validation"])
    rows = [[words, train.get(key), held_out.get(key)] for key, words in SCORES.items() if key in held_out]
    curves = [
        chart
        for chart in (
            _chart("KL divergence", history, {"kl": "training", "val_kl": "held out", "val_uniform_kl": "constant"}),
            _chart("Agreement", history, {"val_agreement": "class", "val_retrieval_agreement": "caption"}, (0.0, 1.0)),
            _chart("Cosine to the teacher", history, {"val_cosine": "held out"}),
        )
        if chart is not None
    ]
    facts = (
        f"{document['n']} images, {document['concepts']} concepts, {document['dimensions']} dimensions; "
        f"best of {document['epochs']} epochs: {document['best_epoch']}"
    )
    return Page(
        "Concept surrogate",
        "How well words stand in for an embedding",
        facts,
        [
            Section("Scores", table=(["score", "training images", "held-out images"], rows)),
            Section("Training", charts=curves),
        ],
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


def _chart(
    title: str,
    history: Sequence[Mapping[str, float]],
    names: Mapping[str, str],
    y_range: tuple[float, float] | None = None,
) -> Markup | None:
    """Some columns over the epochs."""
    series = {
        words: [(row["epoch"], row[key]) for row in history if key in row]
        for key, words in names.items()
        if any(key in row for row in history)
    }
    return charts.curves(title, series, "epoch", y_range) if series else None
