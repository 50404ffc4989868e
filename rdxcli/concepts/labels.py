"""Class labels and superclasses as concepts, and the names of a classifier's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array
from rdxcli.concepts.options import ConceptOptions
from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.methods.neurons.concepts import label_concepts, text_lines
from rdxcli.records import Representation


@dataclass(frozen=True)
class Concepts:
    """A concept matrix whose rows are those of a representation.

    Parameters
    ----------
    values : row source of shape (n, c)
        Array, CSR array or `rdxcli.methods.neurons.concepts.Similarities`.
    names : list of str
    source : dict
        Fingerprints, for the request of an artifact.
    notes : list of str
    """

    values: Any
    names: list[str]
    source: dict[str, Any]
    notes: list[str]


def label_matrix(options: ConceptOptions, representation: Representation) -> Concepts:
    """One column of 0 and 1 per class, then one per superclass of ``--file superclasses=FILE``.

    Raises
    ------
    UsageError
        There are no labels.
    """

    from rdxcli.concepts.labels import class_names

    if representation.labels is None:
        raise UsageError(
            f"`{options.method}` needs labels", "use a data set that has them, or give --labels FILE or --concepts FILE"
        )
    labels = np.array([str(label) for label in representation.labels])
    present = sorted(set(labels))
    classes = class_names(representation, len(present))
    if set(classes) != set(present):
        classes = present
    targets = np.array([classes.index(label) for label in labels])
    superclasses = _superclasses(options.files.get("superclasses"), classes)
    matrix, names = label_concepts(targets, classes, superclasses)
    source = {"labels": fingerprint_array(labels), "classes": classes, "superclasses": superclasses}
    return Concepts(matrix, list(names), source, [])


def _superclasses(path: str | None, classes: list[str]) -> dict[str, list[int]]:
    """``{name: [class, ...]}`` of a JSON file; classes by name or number."""
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: got a {type(content).__name__}, expected an object of lists of classes")
    table: dict[str, list[int]] = {}
    for name, members in content.items():
        table[str(name)] = []
        for member in members:
            if str(member) in classes:
                table[str(name)].append(classes.index(str(member)))
            elif isinstance(member, int) and 0 <= member < len(classes):
                table[str(name)].append(member)
            else:
                raise InputError(f"{path}: superclass `{name}` names the class `{member}`, which does not exist")
    return table


def class_names(source: Representation, count: int, options: ConceptOptions | None = None) -> list[str]:
    """Names of a classifier's outputs.

    Those of ``--file classes=FILE`` (one a line; what stands before a tab or comma is enough where the labels say so),
    else the data set's classes when there are as many, else ``0``, ``1`` ...

    Raises
    ------
    RdxError
        The file cannot be read or has another number of lines.
    """

    if options is not None and "classes" in options.files:
        return _names_file(Path(options.files["classes"]).expanduser(), source, count)
    names = list(open_dataset(source.dataset).class_names or []) if source.dataset else []
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def _names_file(path: Path, source: Representation, count: int) -> list[str]:

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
