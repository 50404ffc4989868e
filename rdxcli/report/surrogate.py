"""A trained surrogate in a summary: how well it stands in for its teacher, and how it got there."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count
from rdxcli.report.summary import Chart, Column, Section, Summary, Table

SCORES = {
    "kl": ("KL divergence to the teacher's similarities, both directions", "lower"),
    "i2t_kl": ("KL divergence, texts for an image", "lower"),
    "t2i_kl": ("KL divergence, images for a text", "lower"),
    "uniform_kl": ("KL divergence of a surrogate that says nothing", ""),
    "agreement": ("images with the teacher's class", "higher"),
    "retrieval_agreement": ("images with the teacher's best caption", "higher"),
    "cosine": ("cosine to the teacher's image embedding", "higher"),
    "l0": ("concepts per image", ""),
}
"""Meaning of each score, and which values are good; these come first."""

PARTS = {
    "train": Column("training images"),
    "validation": Column("images that chose the epoch"),
    "test": Column("untouched images"),
}

CURVES = {
    "KL divergence": {"kl": "training", "val_kl": "held out", "val_uniform_kl": "constant"},
    "Agreement": {"val_agreement": "class", "val_retrieval_agreement": "caption"},
    "Cosine to the teacher": {"val_cosine": "held out"},
}


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``surrogate`` document."""
    scores, history = document["scores"], _history(folder)
    parts = [part for part in PARTS if part in scores]
    known = {name for part in parts for name, value in scores[part].items() if isinstance(value, int | float)}
    names = [*(name for name in SCORES if name in known), *sorted(known - set(SCORES))]
    rows = [[name, *(scores[part].get(name) for part in parts), *SCORES.get(name, ("", ""))] for name in names]
    columns = [
        Column("score"),
        *(PARTS[part] for part in parts),
        Column("meaning", brief=False),
        Column("better", brief=False),
    ]
    size = f"{human_count(document['concepts'], 'concept')} to {human_count(document['dimensions'], 'dimension')}"
    charts = [_chart(title, history, lines) for title, lines in CURVES.items()]
    return Summary(
        kind="surrogate",
        method=document["method"],
        kicker="Concept surrogate",
        title=f"how well {human_count(document['concepts'], 'concept')} stand in for the teacher's image embeddings",
        facts=f"{human_count(document['n'], 'image')}, {size}; best of {human_count(document['epochs'], 'epoch')}: "
        f"{document['best_epoch']}",
        sections=[
            Section("Scores", "scores", tables=[Table("", columns, rows)], printed=True),
            Section("Training", "training", charts=[chart for chart in charts if chart.series]),
        ],
        said=_said(document),
        notes=document["notes"],
    )


def _said(document: Mapping[str, Any]) -> list[str]:
    """The scores that matter, on the images that chose nothing, beside those of a surrogate that says nothing."""
    part = next((part for part in reversed(PARTS) if part in document["scores"]), None)
    if part is None:
        return []
    scores = document["scores"][part]
    told = [
        f"{word} {scores[name]:.1%}" if name == "agreement" else f"{word} {scores[name]:.3g}"
        for name, word in (
            ("agreement", "the teacher's class for"),
            ("cosine", "cosine to its embedding"),
            ("kl", "KL"),
        )
        if scores.get(name) is not None
    ]
    if scores.get("uniform_kl") is not None:
        told[-1] += f" (of a surrogate that says nothing {scores['uniform_kl']:.3g})"
    lines = [f"{PARTS[part].name}: {', '.join(told)}"] if told else []
    if document["epochs"] > 1 and document["best_epoch"] == document["epochs"]:
        lines.append("the last epoch is the best one: more epochs may do better")
    return lines


def _history(folder: Path | None) -> list[dict[str, float]]:
    """Rows of ``metrics.csv``; missing numbers are left out."""
    if folder is None or not (folder / "metrics.csv").is_file():
        return []
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as stream:
        return [
            {name: float(value) for name, value in row.items() if name != "best" and value}
            for row in csv.DictReader(stream)
        ]


def _chart(title: str, history: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> Chart:
    """Some columns over the epochs."""
    series = {
        words: [(row["epoch"], row[key]) for row in history if key in row]
        for key, words in names.items()
        if any(key in row for row in history)
    }
    return Chart(title, "curves", series, "epoch", title, (0.0, 1.0) if title == "Agreement" else None)
