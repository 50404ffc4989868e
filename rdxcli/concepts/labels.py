"""Class labels and superclasses as concepts, and the names of a classifier's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from rdxcli.artifacts import fingerprint_array, fingerprint_json
from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.sets import FOLDER, RECIPE
from rdxcli.datasets.registry import open_dataset
from rdxcli.download.store import content_folder
from rdxcli.errors import InputError, MissingDataError, UsageError, did_you_mean
from rdxcli.lazy import torchvision
from rdxcli.methods.neurons.concepts import label_concepts, text_lines
from rdxcli.progress import human_count, log
from rdxcli.records import Representation


@dataclass(frozen=True)
class Concepts:
    """A concept matrix whose rows are those of a representation.

    Parameters
    ----------
    values : row source of shape (n, c)
        Array, CSR array or `rdxcli.methods.neurons.concepts.LazyCosines`.
    source : dict
        Fingerprints, for the request of an artifact.
    """

    values: Any
    names: list[str]
    source: dict[str, Any]
    notes: list[str]

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the content, for a request."""
        return {**self.source, "names": fingerprint_json(list(self.names))}

    @property
    def maker(self) -> str | None:
        """The vision-language model that made the scores, if one did."""
        model = self.source.get("model")
        return None if model is None else str(model)


PUBLISHED = ("imagenet", "cifar100", "places365")
"""Data sets for which the paper has clean class names, and for the first two superclasses."""


def label_matrix(options: ConceptOptions, representation: Representation) -> Concepts:
    """One column of 0 and 1 per class of the full class list, then one per superclass.

    Superclasses come from ``--file superclasses=FILE``; data sets that have published ones (and published clean names
    of their classes) take those where they are on this machine, unless ``--param published=false``. Samples with an
    empty label belong to no class. Raises `UsageError` (there are no labels) or `InputError` (all labels are empty, or
    a superclass names a class that does not exist).
    """
    if representation.labels is None:
        raise UsageError(
            f"`{options.method}` needs labels", "use a data set that has them, or give --labels FILE or --concepts FILE"
        )
    labels = np.array([str(label).strip() for label in representation.labels])
    filled = np.flatnonzero(labels != "")
    notes = []
    if not len(filled):
        raise InputError(f"all labels of {representation.name} are empty")
    if len(filled) < len(labels):
        notes.append(f"{human_count(len(labels) - len(filled), 'sample', 'have')} an empty label, which is no class")
    classes, listed = full_class_list(representation, labels[filled], options.selection.root)
    names: list[str] = classes
    superclasses: dict[str, list[int]] = {}
    if options.parameters.get("published", True):
        names, superclasses, said = _published(representation, classes, options)
        notes += said
    if "superclasses" in options.files:
        superclasses = _superclasses(options.files["superclasses"], classes, listed)
    place = {name: column for column, name in enumerate(classes)}
    rows, columns = label_concepts(np.array([place[label] for label in labels[filled]]), names, superclasses)
    matrix = sparse.csr_array((len(labels), rows.shape[1]))
    if len(filled) == len(labels):
        matrix = rows
    else:
        spread = sparse.csr_array((np.ones(len(filled)), (filled, np.arange(len(filled)))), (len(labels), len(filled)))
        matrix = sparse.csr_array(spread @ rows)
    source = {"labels": fingerprint_array(labels), "classes": fingerprint_json(names), "superclasses": superclasses}
    return Concepts(matrix, list(columns), {**source, "superclasses": fingerprint_json(superclasses)}, notes)


def full_class_list(
    representation: Representation, labels: np.ndarray, root: Path | None = None
) -> tuple[list[str], bool]:
    """All classes, also those of which no sample is here, and whether a data set lists them; else the labels' own."""
    present = sorted(set(labels))
    whole: list[str] = []
    if representation.dataset:
        whole = list(open_dataset(representation.dataset, root=root).class_names or [])
    if set(present) <= set(whole):
        return [str(name) for name in whole], True
    return present, False


def _published(
    representation: Representation, classes: list[str], options: ConceptOptions
) -> tuple[list[str], dict[str, list[int]], list[str]]:
    """Published names and superclasses of the classes, and what to say of them."""
    name = str(representation.dataset or "").partition("@")[0]
    if name not in PUBLISHED:
        return classes, {}, []
    folder = content_folder(RECIPE, options.selection.root)
    if folder is None:
        missing = f"the published class names and superclasses of {name} are not on this machine"
        return classes, {}, [f"{missing} (`rdx download {RECIPE}`): its own names are used, without superclasses"]
    lines = text_lines((folder / FOLDER / f"{name}_labels_clean.txt").read_text("utf-8"))
    if len(lines) != len(classes):
        raise InputError(f"{name} has {human_count(len(classes), 'class')}, the published list has {len(lines)}")
    table = folder / FOLDER / f"{name}_superclass_to_ids.json"
    groups = {
        str(group): [int(one) for one in members]
        for group, members in (json.loads(table.read_text("utf-8")) if table.is_file() else {}).items()
    }
    said = f"concepts are the {human_count(len(lines), 'published class name')}" + (
        f" and {human_count(len(groups), 'superclass')}" * bool(groups)
    )
    return lines, groups, [f"{said} of {name} ({RECIPE}); --param published=false takes the data set's own names"]


def _superclasses(path: str, classes: list[str], listed: bool) -> dict[str, list[int]]:
    """``{name: [class, ...]}`` of a JSON file; classes by name, or by number in the full class list."""
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: got a {type(content).__name__}, expected an object of lists of classes")
    place = {name: column for column, name in enumerate(classes)}
    table: dict[str, list[int]] = {}
    for name, members in content.items():
        table[str(name)] = []
        for member in members:
            if str(member) in place:
                table[str(name)].append(place[str(member)])
            elif listed and isinstance(member, int) and not isinstance(member, bool) and 0 <= member < len(classes):
                table[str(name)].append(member)
            else:
                numbers = "" if listed else "; numbers need a data set, whose full class list they count"
                hint = did_you_mean(str(member), classes, None)
                raise InputError(
                    f"{path}: superclass `{name}` names the class `{member}`, which does not exist{numbers}", hint
                )
    return table


def class_names(source: Representation, count: int, options: ConceptOptions | None = None) -> list[str]:
    """Names of a classifier's outputs.

    Those of ``--file classes=FILE`` (one a line; what stands before a tab or comma is enough where the labels say so),
    else the data set's classes when there are as many, else those of ImageNet for the 1,000 outputs of a model, else
    ``0``, ``1`` ... Raises `RdxError` (the file cannot be read or has another number of lines).
    """

    lines = named_classes(options, count) if options is not None else None
    if lines is not None:
        return _as_labelled(lines, source)
    names = list(open_dataset(source.dataset).class_names or []) if source.dataset else []
    if len(names) == count:
        return [str(name) for name in names]
    if count == 1000 and source.source.get("model"):
        log.info("1,000 outputs are called as the classes of ImageNet; --file classes=FILE names others")
        return [str(name) for name in torchvision.models._meta._IMAGENET_CATEGORIES]
    return [str(i) for i in range(count)]


def named_classes(options: ConceptOptions, count: int) -> list[str] | None:
    """Lines of ``--file classes=FILE``, None without it.

    Raises `RdxError` (the file cannot be read or has another number of lines).
    """
    return read_class_names(Path(options.files["classes"]), count) if "classes" in options.files else None


def read_class_names(path: Path, count: int) -> list[str]:
    """The names of so many outputs, one a line.

    Raises `RdxError` (the file cannot be read or has another number of lines).
    """
    path = path.expanduser()
    try:
        lines = [line.strip() for line in text_lines(path.read_text("utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingDataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(lines) != count:
        raise InputError(f"{path} has {human_count(len(lines), 'line')}, the model has {human_count(count, 'output')}")
    return lines


def _as_labelled(lines: list[str], source: Representation) -> list[str]:
    """The lines, or what stands before their tab or comma where the labels are written so."""
    labels = set() if source.labels is None else {str(label) for label in source.labels}
    if not labels or labels <= set(lines):
        return lines
    return [line.replace("\t", ",").split(",")[0].strip() for line in lines]


def class_indices(
    options: ConceptOptions, source: Representation, outputs: int, class_names: Sequence[str] | None
) -> np.ndarray:
    """Output of the network that each row's label means.

    In this order: the names of ``--file classes=FILE`` (one line per output; what stands before a tab or comma is
    enough), labels that are numbers of outputs, the data set's class names when there are as many as outputs. Raises
    `UsageError` (none of these).
    """
    assert source.labels is not None
    labels = [str(label) for label in source.labels]
    named = named_classes(options, outputs)
    if named is not None:
        return class_numbers(labels, _as_labelled(named, source))
    if class_names is not None and len(class_names) == outputs and set(labels) <= set(class_names):
        return class_numbers(labels, list(class_names))
    if all(label.isdecimal() and int(label) < outputs for label in labels):
        return np.array([int(label) for label in labels])
    if len(set(labels)) == outputs:
        return class_numbers(labels, sorted(set(labels)))
    raise UsageError(
        f"which of the network's {human_count(outputs, 'output')} is the class `{labels[0]}`?",
        "give --file classes=FILE, one class name a line in the order of the outputs",
    )


def class_numbers(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Position of each label among the names of the logits. Raises `InputError` (a label that is none of the names)."""
    place: Mapping[str, int] = {name: i for i, name in reversed(list(enumerate(names)))}
    missing = sorted({label for label in labels if label not in place})
    if missing:
        raise InputError(
            f"the class `{missing[0]}` is not among the {human_count(len(names), 'name')} of the network's outputs"
        )
    return np.array([place[label] for label in labels])
