"""Concept encodings, from artifacts and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Artifact, resolve_artifact
from rdxcli.errors import ArtifactError, RdxError
from rdxcli.methods.surrogate.encoding import Encodings, from_arrays, from_matrix
from rdxcli.methods.surrogate.extraction import Concept
from rdxcli.representations.resolve import resolve_concepts

KEPT = "kept"
"""Status of a concept that has a column; the others stand below it in the table with the reason."""


def cut_concepts(artifact: Artifact) -> dict[str, str]:
    """Why concepts of the captions have no column: ``lemma/pos`` -> reason."""
    with open(artifact.path / "vocabulary.csv", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("status", KEPT) != KEPT]
    return {str(Concept(row["lemma"], row["pos"])): row["reason"] for row in rows}


def dataset_of(artifact: Artifact) -> str:
    """Name of the data set whose captions or encodings an artifact holds, as its manifest tells."""
    told = artifact.manifest.details.get("dataset")
    name = told.get("name") if isinstance(told, Mapping) else told
    return str(name) if name else artifact.path.parents[1].name


def load_encodings(text: str, outputs: Path) -> Encodings:
    """Encodings of an artifact of ``encode-concepts``, or a user's matrix (dense array or SciPy CSR ``.npz``).

    Raises `RdxError` (no such artifact or file, or a damaged one).
    """

    path = Path(text)
    folder = path.parent if path.name == "encodings.npz" and (path.parent / "manifest.json").is_file() else path
    if path.is_file() and folder is path:
        matrix = resolve_concepts(text)
        ids = [str(i) for i in range(matrix.values.shape[0])] if matrix.sample_ids is None else list(matrix.sample_ids)
        return from_matrix(matrix.values, ids, [Concept.parse(name) for name in matrix.names])

    try:
        artifact = resolve_artifact(str(folder), outputs, "encodings")
    except ArtifactError as error:
        if not error.message.startswith("no artifact"):
            raise
        hint = "`rdx encode-concepts --captions ...` makes it; the first lines of a configuration say how"
        raise ArtifactError(error.message, hint) from None
    with np.load(artifact.path / "encodings.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    ids = json.loads((artifact.path / "samples.json").read_text("utf-8"))
    with open(artifact.path / "vocabulary.csv", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("status", KEPT) == KEPT]
    concepts = [Concept(row["lemma"], row["pos"]) for row in rows]
    return from_arrays(arrays, ids, concepts, method=str(artifact.manifest.request.parameters["method"]))


def details_of(text: str, outputs: Path, kind: str) -> Mapping[str, Any]:
    """What the manifest of an artifact notes about its making; nothing for a bare file."""
    path = Path(text)
    try:
        artifact = resolve_artifact(str(path.parent if path.is_file() else path), outputs, kind)
    except RdxError:
        return {}
    return artifact.manifest.details if artifact.kind == kind else {}
