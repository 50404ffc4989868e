"""``rdx explain``: dispatches to the family of the method, and holds what the families share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact
from rdxcli.artifacts.layout import array_dataset, explanations_folder
from rdxcli.errors import UsageError, near_matches
from rdxcli.services.inputs import ArrayOptions, SelectionOptions, resolve_representation

if TYPE_CHECKING:
    from rdxcli.records import Representation

FAMILIES: dict[str, str] = {
    "le-label": "neurons",
    "le-siglip": "neurons",
    "clip-dissect": "neurons",
    "network-dissection": "dissection",
    "uibe": "directions",
    "eddp": "directions",
    "pca": "directions",
    "nmf": "directions",
    "ica": "directions",
    "kmeans": "directions",
    "natural": "directions",
    "rdr": "regions",
    "representative": "regions",
    "surrogate": "surrogate",
    "splice": "splice",
    "all": "embeddings",
}
"""Method name to the module in `rdxcli.services.explainers` that runs it."""


@dataclass(frozen=True)
class ExplainOptions:
    """What to explain and with what.

    Parameters
    ----------
    method : str
        Name in the registry of methods, family ``explain``.
    model, layer, pool : str
        The representation, when it comes from a model.
    activations : str, optional
        Array file or ``extract`` artifact in place of a model.
    units : str, optional
        ``0-63,70``; None means all.
    concepts : str, optional
        File of an (n, c) concept matrix.
    concept_names : Path, optional
        Name of each column.
    concept_set : str, optional
        Text file of concept words, or the name of a published set.
    target : str, optional
        Sample id, row number, ``class:NAME``, ``misclassified`` or ``all``.
    apply : str, optional
        Artifact of regions or directions that is applied to the samples, in place of finding new ones.
    steer : sequence of str
        ``DIRECTION=AMOUNT[,AMOUNT ...]``, see `rdxcli.services.explainers.steering`.
    vlm : str, optional
        Vision-language model.
    splits : Path, optional
        ``.npz`` with ``train``, ``val``, ``test`` row numbers.
    surrogate, encodings : str, optional
        Artifacts or files of a concept surrogate.
    files : mapping
        Further inputs of a family by name (``superclasses``, ``masks`` ...).
    parameters : mapping
        Hyper-parameters of the method.
    """

    method: str
    model: str | None = None
    layer: str | None = None
    pool: str = "auto"
    activations: str | None = None
    units: str | None = None
    concepts: str | None = None
    concept_names: Path | None = None
    concept_set: str | None = None
    target: str | None = None
    apply: str | None = None
    steer: Sequence[str] = ()
    vlm: str | None = None
    splits: Path | None = None
    surrogate: str | None = None
    encodings: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished explanation.

    Parameters
    ----------
    artifact : Artifact
    document : dict
        The JSON document of the artifact.
    title : str
        Of the table for people.
    columns, rows : sequences
        That table.
    lines : sequence of str
        Further words for people.
    """

    artifact: Artifact
    document: Mapping[str, Any]
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    lines: Sequence[str] = ()


def explain(options: ExplainOptions) -> Outcome:
    """Run the method and store its result.

    Raises
    ------
    RdxError
        See the message.
    """
    _refuse(options)
    return family(options.method).explain(options)


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do, without doing it (``--dry-run``)."""
    _refuse(options)
    return family(options.method).plan(options)


def _refuse(options: ExplainOptions) -> None:
    """Options that the family of the method would ignore."""
    name = family(options.method).__name__.rpartition(".")[2]
    if options.apply is not None and name not in ("directions", "regions"):
        raise UsageError(f"--apply: `{options.method}` has nothing to apply", "it is for stored regions and directions")
    if options.steer and name != "directions":
        raise UsageError(f"--steer: `{options.method}` has no directions", "use it with eddp, uibe or a baseline")


def family(method: str) -> ModuleType:
    """The module in `rdxcli.services.explainers` that runs ``method``.

    Raises
    ------
    UnknownNameError
    """
    from rdxcli.methods.registry import get

    get("explain", method)
    return importlib.import_module(f"rdxcli.services.explainers.{FAMILIES[method]}")


def representation(options: ExplainOptions, spatial: bool = False, pool: str | None = None) -> Representation:
    """The representation that the options name.

    Raises
    ------
    UsageError
        Neither or both of ``--model`` and ``--activations`` are given.
    """
    if (options.model is None) == (options.activations is None):
        raise UsageError("what is to be explained?", "give --model NAME [--layer L], or --activations FILE")
    return resolve_representation(
        str(options.model or options.activations),
        layer=options.layer,
        pool=pool or options.pool,
        selection=options.selection,
        arrays=options.arrays,
        outputs=options.outputs,
        device=options.device,
        force=False,
        spatial=spatial,
    )


def folder_of(options: ExplainOptions, source: Representation) -> Path:
    """Where the explanation of ``source`` goes."""
    dataset = source.source.get("dataset") or array_dataset(source.name)
    model = str(options.model or source.source.get("model") or source.name)
    layer = source.layer or "array"
    return explanations_folder(options.outputs, dataset, model, layer, options.run or options.method)


def check_parameters(method: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse hyper-parameters that the method does not have, naming near ones.

    Raises
    ------
    UsageError
    """
    for name in given:
        if name not in known:
            near = near_matches(name, known)
            hint = (
                f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"it has {', '.join(sorted(known))}"
            )
            raise UsageError(f"the method `{method}` has no parameter `{name}`", hint)


def parse_units(text: str | None, count: int, option: str = "--units") -> list[int]:
    """Unit numbers of ``0-63,70`` among ``count`` units; all of them for None.

    Raises
    ------
    UsageError
        Malformed text, or a unit that does not exist.
    """
    if text is None:
        return list(range(count))
    chosen: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"{option}: cannot read `{part.strip()}`", "write numbers like 0-63,70")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high >= count:
            raise UsageError(f"{option}: `{part.strip()}` is outside of 0 to {count - 1}")
        chosen.update(dict.fromkeys(range(low, high + 1)))
    return list(chosen)
