"""The values that an artifact was made from, found again by their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import find_artifacts, fingerprint_array
from rdxcli.datasets.arrays import load_representation
from rdxcli.errors import ArtifactError, RdxError
from rdxcli.progress import human_count
from rdxcli.representations.resolve import open_activations


def stored_values(source: Mapping[str, Any], ids: Sequence[str], width: int, outputs: Path, name: str) -> np.ndarray:
    """The values that ``source`` tells of, a row for each id.

    Activations are looked for in the outputs directory by their fingerprint; a file of numbers by its name, in the
    working directory, and taken only if it holds the same numbers. Raises `ArtifactError` (they are not there).

    Parameters
    ----------
    source : mapping
        What the request of an artifact says of a side: ``activations``, or ``file`` and ``sha256``.
    ids : sequence of str
        Samples, in the order that is wanted.
    width : int
        Dimensions that were compared.
    name : str
        What the values are called in messages.

    Returns
    -------
    (n, d) float
    """
    wanted = source.get("activations")
    if wanted is not None:
        for one in find_artifacts(outputs, "activations"):
            if one.manifest.fingerprint == wanted:
                found = open_activations(one)
                return _rows(found.values, found.sample_ids, ids, width, name)
        raise ArtifactError(f"the values of {name} are not in {outputs}", "give --outputs of that run")
    file, digest = source.get("file"), source.get("sha256")
    if file is None or not Path(file).is_file():
        raise ArtifactError(
            f"the values of {name} are in no artifact{f', and there is no file {file} here' if file else ''}",
            f"run it in the folder of {file}" if file else "compare files or the artifacts of `rdx extract`",
        )
    text = f"{file}:{source['key']}" if source.get("key") else str(file)
    try:
        record = load_representation(text)
    except RdxError as error:
        raise ArtifactError(f"the values of {name} cannot be read again: {error.message}", error.hint) from None
    if fingerprint_array(record.values) != digest:
        raise ArtifactError(
            f"{file} does not hold the values that {name} had",
            "run it in the folder of the file that was compared, or compare again",
        )
    return _rows(record.values, record.sample_ids, ids, width, name)


def _rows(values: np.ndarray, own: np.ndarray | None, ids: Sequence[str], width: int, name: str) -> np.ndarray:
    """The rows of the wanted ids; rows without ids are called by their numbers."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] != width:
        raise ArtifactError(
            f"{name} has {human_count(flat.shape[1], 'column')}, the artifact was made from {width} of them",
            "compare without --drop-a, --drop-b and --pool, or take what `rdx extract` pooled",
        )
    called = map(str, range(len(flat)) if own is None else own.tolist())
    place = {sample: row for row, sample in enumerate(called)}
    missing = [sample for sample in ids if sample not in place]
    if missing or (own is None and len(ids) != len(flat)):
        raise ArtifactError(
            f"{name} has no rows called {', '.join(missing[:3]) or 'like those of the artifact'}",
            "let the file itself hold the sample ids",
        )
    rows = [place[sample] for sample in ids]
    return flat if rows == list(range(len(flat))) else flat[rows]
