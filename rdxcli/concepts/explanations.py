"""Which explanations are scored: tables and runs, and whether they were made from the records at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Artifact, find_artifacts, fingerprint_json, resolve_artifact
from rdxcli.artifacts.identity import identity
from rdxcli.artifacts.layout import model_slug, slug
from rdxcli.artifacts.manifest import MANIFEST
from rdxcli.datasets.words import find
from rdxcli.errors import ArtifactError, InputError, MissingDataError, UsageError, did_you_mean
from rdxcli.methods.neurons.preparation import Split
from rdxcli.methods.neurons.simulation import find_concepts
from rdxcli.methods.neurons.tables import ExplanationTable, parse_table
from rdxcli.progress import human_count, log
from rdxcli.records import Representation

TABLE = "explanations.csv"
SPLITS = "splits.npz"
TABLE_ENDINGS = (".csv", ".tsv", ".txt")

MADE_FROM: Mapping[str, str] = {
    "model": "model",
    "layer": "layer",
    "pool": "pooling",
    "dataset": "data set",
    "file": "array file",
    "shape": "shape of the array",
    "sha256": "content of the array",
    "sample_ids": "ids of the samples",
    "activations": "weights, images or preprocessing (the activations are others)",
    "selection": "selection of rows",
}
"""Parts of the identity of a representation that an explanation must share with what it is scored on, in words."""


def store_split(path: Path, source: Representation, split: Split) -> None:
    """The rows of each part, and the ids of all rows where there are any: what a simulation tests on."""
    parts = dict(vars(split))
    if source.sample_ids is not None:
        parts["sample_ids"] = np.array([str(one) for one in source.sample_ids])
    np.savez_compressed(path, **parts)


@dataclass(frozen=True)
class Explained:
    """A table of explanations, and what is known of where it comes from.

    Attributes
    ----------
    artifact : Artifact or None
        None for a table of somebody else's.
    """

    name: str
    table: ExplanationTable
    artifact: Artifact | None = None

    @property
    def concepts(self) -> Mapping[str, Any]:
        """Identity of the concepts that it was made with; empty when unknown."""
        return {} if self.artifact is None else dict(self.artifact.manifest.request.inputs.get("concepts") or {})

    def split(self, source: Representation) -> Split | None:
        """Its own split, brought to the rows of ``source`` by ids; None when it was made without one or is unknown."""
        if self.artifact is None or not (self.artifact.path / SPLITS).is_file():
            return None
        with np.load(self.artifact.path / SPLITS, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in archive.files}
        if "sample_ids" not in parts or source.sample_ids is None:
            return Split(parts["train"], parts["val"], parts["test"])
        theirs, _ = find(list(map(str, parts["sample_ids"])), source.ids())
        moved = (theirs[parts[name]] for name in ("train", "val", "test"))
        return Split(*(np.sort(rows[rows >= 0]) for rows in moved))

    def identity(self) -> dict[str, Any]:
        """Fingerprints for a request."""
        rows = [[row.unit, list(row.concepts), list(row.weights), row.bias] for row in self.table.rows]
        made = None if self.artifact is None else self.artifact.manifest.fingerprint
        return {"table": fingerprint_json(rows), "explanation": made}


def mismatches(artifact: Artifact, source: Representation) -> list[str]:
    """How the representation that a run was made from differs from ``source``, one line each.

    Labels may differ: they are concepts, not what was explained.
    """
    theirs = artifact.manifest.request.inputs.get("representation")
    if not isinstance(theirs, Mapping):
        return ["it was made by an earlier version that did not write down what it read: make it again with --force"]
    ours = identity(source)
    found = []
    for name, words in MADE_FROM.items():
        a, b = theirs.get(name), ours.get(name)
        if a != b:  # content hashes say nothing to people
            plain = all(isinstance(value, str | list | None) for value in (a, b))
            hashed = any(len(str(value)) >= 64 for value in (a, b))
            found.append(f"{words}: {a} there, {b} here" if plain and not hashed else words)
    return found


def gather_tables(
    texts: Sequence[str],
    method: str | None,
    source: Representation,
    *,
    outputs: Path,
    model: str | None,
    layer: str | None,
) -> dict[str, Explained]:
    """The tables to score by name: given files and artifacts, and the runs of this layer.

    Raises `RdxError` (no such table or run; one that was made from something else; two of one name).

    Parameters
    ----------
    texts : sequence of str
        ``FILE``, ``ARTIFACT`` or ``NAME=FILE``.
    method : str, optional
        Name of a run, or ``all``.
    source : Representation
        What they are scored on.
    model, layer : str, optional
        As asked for; a table of several layers is read for the layer.
    """
    wanted_layer = layer or source.layer
    tables: dict[str, Explained] = {}
    for text in texts:
        one = _read(text, source, outputs, wanted_layer)
        if one.name in tables:
            raise UsageError(f"two tables are called `{one.name}`", "name them: --explanations NAME=FILE")
        tables[one.name] = one
    if method is not None:
        for one in _runs(method, source, outputs, model, wanted_layer):
            tables.setdefault(one.name, one)
    return tables


def known_to(tables: Mapping[str, Explained], names: Sequence[str]) -> dict[str, Explained]:
    """The tables whose concepts the simulator has; the others are left out with a warning."""
    kept = {}
    for name, one in tables.items():
        missing = find_concepts(one.table, names).missing
        if missing:
            log.warning("%s is left out: the simulator has no concept `%s`", name, missing[0])
        else:
            kept[name] = one
    if not kept:
        raise InputError("the simulator has the concepts of none of the tables", "give the right --concepts")
    return kept


def check_texts(texts: Sequence[str], method: str | None) -> None:
    """Refuse what names no table before anything is read. Raises `RdxError`."""
    if not texts and method is None:
        raise UsageError(
            "what is to be scored?", "give --explanations FILE, or --method NAME of an earlier `rdx explain`"
        )
    for text in texts:
        _, path = _named(text)
        if not path.exists() and path.suffix.lower() in TABLE_ENDINGS:
            raise MissingDataError(f"there is no file {path}", "--explanations takes a CSV file or an explain artifact")
        if path.is_file():
            try:
                parse_table(path.read_text("utf-8").split("\n", 1)[0])
            except (ValueError, UnicodeDecodeError) as error:
                if "without rows" not in str(error):
                    raise InputError(f"{path}: {error}") from None


def _named(text: str) -> tuple[str | None, Path]:
    """``NAME=FILE`` apart; a file whose own name has an equals sign is a file."""
    name, equals, rest = text.partition("=")
    if equals and name and "/" not in name and not Path(text).exists():
        return name.strip(), Path(rest).expanduser()
    return None, Path(text).expanduser()


def _read(text: str, source: Representation, outputs: Path, layer: str | None) -> Explained:
    name, path = _named(text)
    artifact = None
    if path.is_file() and (path.parent / MANIFEST).is_file():
        artifact = Artifact.open(path.parent)
    elif not path.is_file():
        if path.suffix.lower() in TABLE_ENDINGS:
            raise MissingDataError(f"there is no file {path}", "--explanations takes a CSV file or an explain artifact")
        artifact = resolve_artifact(str(path), outputs, "explanations")
    if artifact is None:
        return Explained(name or slug(path.stem), _parse(path, layer))
    different = mismatches(artifact, source)
    if different:
        raise _refused(artifact, different)
    return Explained(name or artifact.path.name, _parse(artifact.path / TABLE, layer), artifact)


def _refused(artifact: Artifact, different: Sequence[str]) -> ArtifactError:
    listing = "\n".join(f"  {line}" for line in different)
    return ArtifactError(
        f"{artifact.path} explains something else:\n{listing}",
        "give the model, layer, pooling and samples that it was made from (its manifest.json has the command); a copy "
        "of its table elsewhere is scored on anything",
    )


def check_runs(method: str, outputs: Path, model: str) -> None:
    """Refuse a run that no layer of ``model`` has, before a layer is extracted. Raises `ArtifactError`."""
    known = [
        artifact.path.name
        for artifact in find_artifacts(outputs, "explanations")
        if artifact.path.parts[-4:-3] == (model_slug(model),)
    ]
    if not known or method not in ("all", *known):
        what = "no explanations" if method == "all" else f"no explanation run `{method}`"
        hint = did_you_mean(method, known, _first(method, model, None))
        raise ArtifactError(f"{what} of {model_slug(model)} in {outputs}", hint)


def _first(method: str, model: str | None, layer: str | None) -> str:
    """The command that makes the explanations that are to be scored."""
    parts = ["rdx explain --method", "NAME" if method == "all" else method]
    parts += [f"--model {model}"] if model else ["--activations FILE"]
    parts += [f"--layer {layer}"] if model and layer else []
    return f"`{' '.join(parts)}` makes it"


def _runs(method: str, source: Representation, outputs: Path, model: str | None, layer: str | None) -> list[Explained]:
    """Explanation runs of these very records: the one called ``method``, or all of them."""
    shown_layer = slug(layer or "array")
    shown_model = model_slug(str(model or source.source.get("model") or source.name))
    here = [
        artifact
        for artifact in find_artifacts(outputs, "explanations")
        if artifact.path.parts[-4:-2] == (shown_model, shown_layer)
        and artifact.manifest.request.parameters.get("method") != "find-units"  # asks for units, explains none
    ]
    named = here if method == "all" else [artifact for artifact in here if artifact.path.name == method]
    if not named:
        hint = did_you_mean(method, [artifact.path.name for artifact in here], _first(method, model, layer))
        what = "no explanations" if method == "all" else f"no explanation run `{method}`"
        raise ArtifactError(f"{what} of {shown_model}, layer {shown_layer}", hint)
    differences = {artifact.path: mismatches(artifact, source) for artifact in named}
    fitting = [artifact for artifact in named if not differences[artifact.path]]
    if not fitting:
        if len(named) == 1:
            raise _refused(named[0], differences[named[0].path])
        listing = "\n".join(f"  {path}: {'; '.join(lines)}" for path, lines in differences.items())
        raise ArtifactError(
            f"{human_count(len(named), 'run')} `{method}` explain something else:\n{listing}",
            "give the model, layer, pooling and samples of one of them",
        )
    for artifact in named:
        if artifact not in fitting and method == "all":
            log.info("%s is left out, it explains something else: %s", artifact.path, differences[artifact.path][0])
    names = [artifact.path.name for artifact in fitting]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        paths = ", ".join(str(artifact.path) for artifact in fitting if artifact.path.name == twice[0])
        raise ArtifactError(f"several runs are called `{twice[0]}`: {paths}", "name one with --explanations PATH")
    return [Explained(artifact.path.name, _parse(artifact.path / TABLE, layer), artifact) for artifact in fitting]


def _parse(path: Path, layer: str | None) -> ExplanationTable:
    try:
        return parse_table(path.read_text("utf-8"), layer=layer)
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def common_split(
    tables: Mapping[str, Explained], source: Representation, given: Split | None, fallback: Split
) -> tuple[Split, list[str]]:
    """The split that the tables were made with; else the given one, else ``fallback``.

    Raises `RdxError` (tables with different splits, or a given split that is not theirs: rows that a fit has seen are
    no test). `given`: of ``--splits``; `fallback`: drawn with the seed, for tables that know none.

    Returns
    -------
    split : Split
    notes : list of str
    """
    own = {name: one.split(source) for name, one in tables.items()}
    known = {name: split for name, split in own.items() if split is not None}
    notes = []
    unknown = [name for name in own if name not in known]
    if unknown:
        seen = [name for name in unknown if tables[name].artifact is not None]
        foreign = [name for name in unknown if tables[name].artifact is None]
        if seen:
            notes.append(
                f"{', '.join(seen)}: the explanations were found on all images, those that are scored included"
            )
        if foreign:
            notes.append(f"{', '.join(foreign)}: it is not known which images the explanations were found on")
    if not known:
        return given or fallback, notes
    first, split = next(iter(known.items()))
    for name, other in known.items():
        if not same_split(split, other):
            raise UsageError(
                f"`{first}` and `{name}` were fitted on different rows, so no rows are unseen by both",
                "score them one at a time, or explain both with the same --splits or --seed",
            )
    if given is not None and not same_split(split, given):
        trained = len(np.intersect1d(given.test, np.concatenate([split.train, split.val])))
        raise UsageError(
            f"--splits is not the split that `{first}` was fitted with: {trained} of its "
            f"{human_count(len(given.test), 'test row')} "
            "were used in the fit",
            "leave --splits out: the explanation's own split is used",
        )
    return split, notes


def same_split(a: Split, b: Split) -> bool:
    """Whether all three parts are equal."""
    return all(
        np.array_equal(np.sort(getattr(a, part)), np.sort(getattr(b, part))) for part in ("train", "val", "test")
    )
