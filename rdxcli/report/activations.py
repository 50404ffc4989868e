"""Extracted activations in a summary: what they are, their labels, how the dimensions behave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.progress import human_count
from rdxcli.report.exports import read_samples
from rdxcli.report.summary import Chart, Column, Section, Summary, Table

LOOKED_AT = 2000
"""Rows that the statistics are taken from, evenly spaced."""

DIMENSION = (
    Column("dimension"),
    Column("mean"),
    Column("standard deviation"),
    Column("lowest"),
    Column("highest"),
    Column("zero", "Share of the values that are exactly 0", "share"),
)


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of ``activations``: the manifest's details, and the files of the artifact."""
    details, parameters = document.get("details", {}), document.get("parameters", {})
    layer = parameters.get("layer", "array")
    model = document.get("name") or parameters.get("model", "a model")
    dataset = details.get("dataset") or {}
    shape, failed = details.get("shape", []), details.get("failed", 0)
    sections, notes = [], []
    if failed:
        notes.append(f"{human_count(failed, 'image')} could not be read and are left out")
    if folder is not None and (folder / "activations.npy").is_file():
        values = np.load(folder / "activations.npy", mmap_mode="r", allow_pickle=False)
        shape = list(values.shape)
        section, dead = _dimensions(values)
        sections.append(section)
        if dead:
            notes.append(f"{human_count(dead, 'dimension')} of {values.shape[1]:,} never change")
        sections += _labels(folder, len(values))
    size = " x ".join(f"{size:,}" for size in shape)
    facts = [
        f"{size} values ({details.get('dtype', 'numbers')})",
        f"pooling {parameters.get('pool', '-')}",
    ]
    facts += [f"images of {dataset['spec']}"] if dataset.get("spec") else []
    return Summary(
        kind="activations",
        method=str(parameters.get("pool", "")),
        kicker="Activations",
        title=f"what {model} makes of {human_count(shape[0] if shape else 0, 'image')} ({layer})",
        facts=", ".join(facts),
        sections=sections,
        notes=notes,
        dataset=dataset.get("spec"),
    )


def _dimensions(values: np.ndarray) -> tuple[Section, int]:
    """Every dimension in numbers, and how many never change."""
    rows = np.unique(np.linspace(0, len(values) - 1, min(len(values), LOOKED_AT)).astype(int))
    taken = np.asarray(values[rows], dtype=np.float64)
    across = (0, *range(2, taken.ndim))
    numbers = [taken.mean(across), taken.std(across), taken.min(across), taken.max(across), (taken == 0).mean(across)]
    cells = [[place, *map(float, row)] for place, row in enumerate(zip(*numbers, strict=True))]
    norms = np.sqrt((taken.reshape(len(taken), -1) ** 2).sum(axis=1))
    charts = [
        Chart("Images by length of their vector", "histogram", {"images": norms.tolist()}, "length", "images"),
        Chart("Dimensions by spread", "histogram", {"dimensions": numbers[1].tolist()}, "standard deviation", "count"),
    ]
    text = f"From {len(rows):,} of {human_count(len(values), 'row')}." if len(rows) < len(values) else ""
    tables = [Table("", DIMENSION, cells)]
    section = Section("Dimensions", "dimensions", text=text, tables=tables, charts=charts, printed=True)
    return section, int((numbers[1] == 0).sum())


def _labels(folder: Path, count: int) -> list[Section]:
    _, labels = read_samples(folder, count)
    if labels is None:
        return []
    names, counts = np.unique(np.array(labels, dtype=np.str_), return_counts=True)
    rows = [[str(names[i]), int(counts[i]), float(counts[i] / count)] for i in np.argsort(-counts, kind="stable")]
    columns = [Column("label"), Column("images"), Column("share", "", "share")]
    return [Section("Labels", "labels", tables=[Table("", columns, rows)])]
