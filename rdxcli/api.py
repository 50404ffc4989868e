"""The door for Python: the questions of the command line, asked of records.

::

    import rdxcli as rdx

    a, b = (rdx.representation(m, dataset="folder:photos") for m in ("dino", "dinov2"))
    found = rdx.compare(a, b, k=3)
    found.verdict, found.concepts, found.scores
    found.save("outputs")
    rdx.report(found)

Every function walks the same street as its command: the same checks, the same artifact, the same document. Without
``outputs`` the artifact of records lives in a temporary folder until `Answer.save` puts it into an outputs directory;
what is named by text goes to ``outputs``, where the command line would put it too.
"""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import rdxcli.report  # noqa: F401 - the room comes first, so that the function of this name stays (see the end)
from rdxcli.artifacts import Artifact
from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
from rdxcli.errors import ArtifactError, UsageError, did_you_mean, near_matches
from rdxcli.progress import log
from rdxcli.records import Representation
from rdxcli.report.formats import target
from rdxcli.report.kinds import summarize
from rdxcli.report.page import brief
from rdxcli.representations.memory import from_memory
from rdxcli.representations.resolve import resolve_representation
from rdxcli.services.compare import compare as comparing
from rdxcli.services.compare.options import CompareOptions, NamingOptions
from rdxcli.services.explain import dispatch as explaining
from rdxcli.services.explain.options import ExplainOptions
from rdxcli.services.simulate import simulate as simulating
from rdxcli.services.simulate.options import SimulateOptions
from rdxcli.services.visualize import render


class Answer:
    """What an analysis found: its document, its artifact, and a look at it in a notebook.

    Every entry of the document is an attribute: ``concepts``, ``scores``, ``units``, ``regions`` ...

    Attributes
    ----------
    document : dict
        The JSON document, the one that ``--json`` prints.
    path : Path
        Folder of the artifact.
    outputs : Path
        The outputs directory that it is in.
    reused : bool
        It had been made before.
    """

    def __init__(self, artifact: Artifact, document: Mapping[str, Any], outputs: Path, reused: bool = False) -> None:
        self.artifact, self.document, self.outputs, self.reused = artifact, dict(document), outputs, reused

    @property
    def path(self) -> Path:
        return self.artifact.path

    @property
    def verdict(self) -> str | None:
        """Of a comparison, in words."""
        return self.document.get("difference", {}).get("verdict")

    def __getattr__(self, name: str) -> Any:
        document = self.__dict__.get("document", {})
        if name in document:
            return document[name]
        near = near_matches(name, document)
        hint = f", did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else ""
        raise AttributeError(f"a document of kind `{document.get('kind')}` has no `{name}`{hint}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.document})

    def save(self, outputs: str | Path, force: bool = False) -> Path:
        """Put the artifact into an outputs directory, at the place where the command line would have made it.

        Returns
        -------
        Path
            Its folder there.

        Raises
        ------
        ArtifactError
            Another artifact is there and ``force`` is not given.
        """
        place = Path(outputs) / self.path.resolve().relative_to(self.outputs.resolve())
        if place.resolve() == self.path.resolve():
            return place
        if place.exists():
            there = Artifact.open(place)
            if there.manifest.fingerprint == self.artifact.manifest.fingerprint:
                return place
            if not force:
                raise ArtifactError(f"{place} holds another artifact", "give run=NAME to the analysis, or force=True")
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.path, place)
        self.artifact, self.outputs = Artifact.open(place), Path(outputs)
        return place

    def __repr__(self) -> str:
        verdict = f", {self.verdict}" if self.verdict else ""
        return f"<{self.document.get('kind')} by {self.document.get('method')}{verdict}: {self.path}>"

    def _repr_html_(self) -> str:
        """A table of what was found, for a notebook; foreign text is escaped."""
        return brief(summarize(self.document, self.path))


@cache
def _scratch() -> Path:
    """Where this process keeps what was not saved; removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="rdx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_calls = count()


def _place(outputs: str | Path | None, *sources: Any) -> Path:
    """The outputs directory of a call: the given one; for names the usual one; for records one of its own."""
    if outputs is None and not any(isinstance(source, str) for source in sources):
        return _scratch() / str(next(_calls))
    return Path("outputs" if outputs is None else outputs)


def representation(
    source: Any,
    *,
    layer: str | None = None,
    pool: str = "auto",
    name: str | None = None,
    labels: Any = None,
    sample_ids: Any = None,
    images: str | Path | None = None,
    outputs: str | Path = "outputs",
    device: str = "auto",
    **selection: Any,
) -> Representation:
    """What a model makes of images, or values that exist already.

    Parameters
    ----------
    source : str, Path, array, tensor, data frame or Representation
        A model, a file of arrays or an ``extract`` artifact by name; or the values themselves.
    layer, pool : str
        Of a model.
    name : str, optional
        Of values in memory.
    labels, sample_ids : path or sequence, optional
        Of the rows of values.
    images : path, optional
        Folder with the images of the rows.
    outputs : path
        Where activations of models are kept.
    device : str
    **selection
        Which samples: ``dataset``, ``split``, ``classes``, ``per_class``, ``sample``, ``limit``, ``seed``; of a file,
        which columns: ``feature_columns``, ``id_column``, ``label_column``.

    Returns
    -------
    Representation

    Raises
    ------
    RdxError
        No such model or file, unusable values.
    """
    columns = {field.name for field in dataclasses.fields(ArrayOptions)}
    of_arrays = {name: selection.pop(name) for name in list(selection) if name in columns}
    chosen = _options(SelectionOptions, selection, "representation")
    if isinstance(source, str | Path):
        paths = {"labels": labels, "sample_ids": sample_ids, "images": images}
        of_arrays |= {name: Path(path) for name, path in paths.items() if path is not None}
        return resolve_representation(
            str(source),
            layer=layer,
            pool=pool,
            selection=chosen,
            arrays=ArrayOptions(**of_arrays),
            outputs=Path(outputs),
            device=device,
        )
    if not isinstance(source, Representation):
        dataset = f"images:{images}" if images is not None else None
        source = from_memory(
            source,
            name=name or "array",
            labels=labels,
            sample_ids=sample_ids,
            dataset=dataset,
            layer=layer,
            choice=ArrayOptions(**of_arrays).choice,
        )
    return resolve_representation(source, pool=pool, selection=chosen, spatial=True)


def compare(
    a: Any,
    b: Any = None,
    *more: Any,
    k: int | None = None,
    method: str = "rdx",
    outputs: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> Answer:
    """What two representations of the same samples see differently; see ``rdx compare --help``.

    With ``layers`` every layer of one model against every layer of another (or of itself), with more than two models
    all of them against each other.

    Parameters
    ----------
    a, b, *more : Representation, or whatever `representation` takes
        With ``layers`` also a mapping of names of layers to values.
    k : int, optional
        Concepts per direction.
    method : str
    outputs : path, optional
        Keep the artifact there.
    seed : int
    **options
        Fields of `rdxcli.services.compare.options.CompareOptions` and of what it holds (``dataset``, ``labels``,
        ``concept_set`` ...; ``rdx compare --help`` says what each is), and hyper-parameters of the method.

    Returns
    -------
    Answer
        With ``verdict``, ``concepts``, ``scores``; of many layers or models with ``measures``, ``pairs``, ``followed``.
    """
    runs = [_side(run, f"run{i + 1}") for i, run in enumerate(options.pop("reference_runs", ()))]
    sides = [_side(side, chr(ord("a") + i)) for i, side in enumerate((a, b, *more))]
    given = {"a": sides[0], "b": sides[1], "more": tuple(sides[2:]), "reference_runs": tuple(runs), "k": k}
    place = _place(outputs, *sides, *runs)
    asked = _asked(CompareOptions, {**given, "method": method}, place, seed, options)
    done = comparing.compare(asked)
    if done.failed is not None:
        log.warning("%s (%s)", done.failed, done.failed.hint)
    return Answer(done.artifact, done.document, asked.outputs, done.reused)


def _side(side: Any, name: str) -> Any:
    """What is compared: a name, a record, or the layers of a mapping as records."""
    if isinstance(side, Mapping):
        return tuple(representation(values, name=name, layer=str(layer)) for layer, values in side.items())
    return side if side is None or isinstance(side, str) else representation(side, name=name)


def explain(
    source: Any,
    *,
    method: str,
    outputs: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> Answer:
    """What units, directions, regions or words of a representation mean; see ``rdx explain --help``.

    Parameters
    ----------
    source : Representation, or whatever `representation` takes
        A name of a model goes through its layer, with ``layer=`` and ``dataset=``.
    method : str
        See ``rdx list methods``.
    outputs : path, optional
        Keep the artifact there.
    seed : int
    **options
        Fields of `rdxcli.services.explain.options.ExplainOptions` and of what it holds (see ``rdx explain --help``),
        and hyper-parameters.

    Returns
    -------
    Answer
    """
    place = "model" if isinstance(source, str) else "activations"
    record = _record(source)
    asked = _asked(ExplainOptions, {place: record, "method": method}, _place(outputs, record), seed, options)
    done = explaining.explain(asked)
    return Answer(done.artifact, done.document, asked.outputs)


def simulate(
    explanations: Answer | str | Path | Sequence[str | Path],
    source: Any = None,
    *,
    outputs: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> Answer:
    """How well explanations of units predict their activations; see ``rdx simulate --help``.

    Parameters
    ----------
    explanations : Answer, path or sequence of paths
        Of `explain`, or tables.
    source : Representation, or whatever `representation` takes
    outputs : path, optional
        Keep the artifact there.
    seed : int
    **options
        Fields of `rdxcli.services.simulate.options.SimulateOptions` and of what it holds.

    Returns
    -------
    Answer
    """
    tables = [explanations] if isinstance(explanations, Answer | str | Path) else list(explanations)
    paths = tuple(str(table.path if isinstance(table, Answer) else table) for table in tables)
    place = "model" if isinstance(source, str) else "activations"
    record = None if source is None else _record(source)
    asked = _asked(SimulateOptions, {place: record, "explanations": paths}, _place(outputs, record), seed, options)
    done = simulating.run(asked)
    return Answer(done.artifact, done.document, asked.outputs)


def report(
    found: Answer | str | Path, to: str | Path | None = None, form: str | None = None, force: bool = False
) -> Path:
    """Write the report of an answer or of a stored artifact.

    Parameters
    ----------
    found : Answer or path
    to : path, optional
        Where to write; without it ``reports/`` beside the artifact, and for an answer that was not saved the current
        folder.
    form : {"html", "png", "pdf", "svg"}, optional
        Without it what ``to`` ends in, or html.
    force : bool
        Replace the file ``to``.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        The file ``to`` is there already, or its ending is that of no format.
    """
    artifact = found.artifact if isinstance(found, Answer) else Artifact.open(found)
    outputs = found.outputs if isinstance(found, Answer) else artifact.path.parent
    place = None if to is None else Path(to)
    form = target(place, form, force)
    if place is None and isinstance(found, Answer) and outputs.parent == _scratch():
        place = Path(f"{artifact.kind}-{artifact.path.name}.{form}")
    return render(artifact, outputs, form, place).path


def _record(source: Any, name: str | None = None) -> str | Representation:
    """A name as it is, everything else as a record."""
    return str(source) if isinstance(source, str | Path) else representation(source, name=name)


def _asked(kind: type, given: Mapping[str, Any], outputs: Path, seed: int, options: dict[str, Any]) -> Any:
    """An options class from keywords: its own fields, those of the classes it holds, and hyper-parameters."""
    values = {name: value for name, value in given.items() if value is not None}
    values |= {"outputs": outputs, "seed": seed}
    parameters = dict(options.pop("parameters", {}))
    inner = {"selection": SelectionOptions, "arrays": ArrayOptions, "naming": NamingOptions}
    names = {field.name for field in dataclasses.fields(kind)}
    for place, part in inner.items():
        if place in names and place not in options:
            fields = {field.name for field in dataclasses.fields(part)} - names
            mine = {name: options.pop(name) for name in list(options) if name in fields}
            if place == "selection":
                mine["seed"] = seed
            values[place] = part(**mine)
    for name in list(options):
        if name in names:
            values[name] = options.pop(name)
    values["parameters"] = {**parameters, **options}  # the method says what it does not know
    return kind(**values)


def _options(kind: type, given: Mapping[str, Any], function: str) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names, f"it has {', '.join(names)}")
            raise UsageError(f"`{function}` has no option `{name}`", hint)
    return kind(**given)


# the function takes the place of the room of the same name: modules of the room are found by their dotted names
sys.modules["rdxcli"].report = report  # type: ignore[attr-defined]
