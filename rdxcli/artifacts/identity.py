"""What was read, as a request holds it: fingerprints of the content of records and of the files that options name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts.manifest import fingerprint_array, fingerprint_file, fingerprint_json
from rdxcli.artifacts.store import Artifact
from rdxcli.records import ConceptMatrix, Representation


def identity(record: Any) -> Any:
    """What a record is, as plain data with a fingerprint of its content, for a request.

    Records are `Representation`, `ConceptMatrix`, arrays (dense or CSR), artifacts, plain data, mappings and sequences
    of records, and objects with a method ``identity()``. Raises `TypeError` (the object has no identity: a defect of
    the analysis, which must not read it).
    """
    if record is None or isinstance(record, str | int | float | bool):
        return record
    if hasattr(record, "identity"):
        return record.identity()
    if isinstance(record, Representation):
        return {
            **record.source,
            "labels": identity(record.labels),
            "sample_ids": identity(record.sample_ids),
            "images": record.dataset,
        }
    if isinstance(record, ConceptMatrix):
        return {
            "values": identity(record.values),
            "names": fingerprint_json(list(record.names)),
            "sample_ids": identity(record.sample_ids),
        }
    if isinstance(record, Artifact):
        return record.manifest.fingerprint
    if isinstance(record, np.ndarray):
        return fingerprint_array(record)
    if hasattr(record, "indptr"):
        return fingerprint_json([fingerprint_array(part) for part in (record.data, record.indices, record.indptr)])
    if isinstance(record, Path):
        return fingerprint_file(record)
    if isinstance(record, Mapping):
        parts = {str(name): identity(item) for name, item in record.items()}
        return parts if len(parts) <= 32 else fingerprint_json(parts)
    if isinstance(record, list | tuple):
        if all(isinstance(item, str | int | float | bool) for item in record) and len(record) > 32:
            return fingerprint_json(list(record))
        return [identity(item) for item in record]
    raise TypeError(f"a {type(record).__name__} has no identity that a request could hold")


def named_files(options: Any) -> dict[str, str]:
    """Fingerprints of the content of every regular file that an option names, by the name of the option.

    `options`: fields that are text, paths, mappings, or dataclasses of these.
    """
    found: dict[str, str] = {}

    def visit(name: str, value: Any) -> None:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for part in dataclasses.fields(value):
                if not isinstance(getattr(value, part.name), Representation):
                    visit(f"{name}.{part.name}" if name else part.name, getattr(value, part.name))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                visit(f"{name}.{key}", item)
        elif isinstance(value, str | Path) and name.rpartition(".")[2] not in _NOT_READ:
            path = Path(str(value).partition(".npz:")[0] + ".npz" if ".npz:" in str(value) else str(value)).expanduser()
            if os.path.isfile(path):  # False, not an error, for text that is too long to be a name
                found[name] = fingerprint_file(path)

    visit("", options)
    return found


_NOT_READ = ("activations", "a", "b", "model", "outputs", "run", "method", "device", "root", "layers")
"""Options that name no file, or one that becomes a record with a fingerprint of its own."""
