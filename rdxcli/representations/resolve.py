"""From what a person types to records: a model, an array file or an artifact becomes a `Representation`.

`resolve_representation` and `join` (from `rdxcli.representations.joining`) are what every service starts with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Artifact, fingerprint_array, fingerprint_json
from rdxcli.artifacts.layout import short_name
from rdxcli.artifacts.manifest import MANIFEST
from rdxcli.datasets.addresses import localised
from rdxcli.datasets.arrays import check_values, is_array, load_concepts, load_representation
from rdxcli.datasets.selection import ArrayOptions, Choice, SelectionOptions
from rdxcli.datasets.tables import begins_with
from rdxcli.datasets.words import apart, find, taken_as_one
from rdxcli.download.store import content_folder
from rdxcli.engines.sharing import engine_chosen
from rdxcli.errors import ArtifactError, InputError, MissingDataError, UnknownNameError, UsageError, near_matches
from rdxcli.lazy import pyarrow as pa
from rdxcli.models.grammar import EXPLICIT
from rdxcli.models.registry import resolve
from rdxcli.progress import human_count, log
from rdxcli.records import ConceptMatrix, Representation
from rdxcli.representations.extract import extract
from rdxcli.representations.joining import select_rows, take
from rdxcli.representations.options import ExtractOptions

PUBLISHED_ARRAYS = {
    "cub-pcbm": ("rdx-checkpoints", "post-hoc-cbm/output/cub_resnet18/train-proj_*.npy"),
}
"""Published representations that are files of arrays: the recipe, and where the file is in it."""


def resolve_representation(
    text: str | Representation,
    *,
    layer: str | None = None,
    pool: str = "auto",
    selection: SelectionOptions | None = None,
    arrays: ArrayOptions | None = None,
    outputs: Path = Path("outputs"),
    device: str = "auto",
    force: bool = False,
    spatial: bool = False,
    untrained: bool = False,
    dtype: str = "float32",
    before: Callable[[list[tuple[int, ...]]], object] | None = None,
    renew: bool = False,
) -> Representation:
    """The representation that ``text`` names.

    In this order: the folder of an ``extract`` artifact, as a path or below the outputs directory; a file of arrays
    (``PATH.npy``, ``PATH.npz:key`` ..., or the name of a published one); a model, for which
    `rdxcli.representations.extract` is run or its artifact reused. Raises `RdxError` (see the message: no such file,
    artifact or model; unusable values; missing weights or images).

    Parameters
    ----------
    text : str or Representation
        A record is taken as it is; the selection applies to its rows.
    layer, pool : str
        Of a model; ``pool`` also reduces (n, c, h, w) arrays unless ``spatial``. For an artifact they must be its own.
    selection : SelectionOptions
        For arrays and artifacts: rows are taken by id from the selected data set when ``dataset`` is named, else by
        their own labels and ids. An array without ids and as many rows as that data set takes its ids and labels.
    force : bool
        Extract again.
    spatial : bool
        Accept (n, c, h, w).
    untrained : bool
        Accept a model with random weights.
    dtype : str
        Of the weights and the computation of a model.
    before : callable, optional
        See `rdxcli.representations.extract.extract`.
    renew : bool
        Replace activations of a model that were made from something else.
    """
    selection, arrays = selection or SelectionOptions(), arrays or ArrayOptions()
    if isinstance(text, Representation):
        return _selected(_flat(text, spatial, pool), selection)
    text = localised(text)
    artifact = find_activations(text, outputs)
    if artifact is not None:
        representation = open_activations(artifact, layer=layer, pool=None if pool == "auto" else pool)
        return _selected(_flat(representation, spatial, pool), selection)
    if names_array(text, selection.root):
        file = array_file(text, selection.root)
        record = _load_array(file, arrays, spatial, pool)
        return _selected(record if file == text else replace(record, name=text), selection)

    options = on_the_way(
        *(text, pool, dtype, selection, outputs, device, force),
        layers=(layer,) if layer else (),
        renew=renew,
        untrained=untrained,
    )
    return _flat(_extracted(options, before)[0], spatial, pool)


def resolve_with_logits(
    text: str,
    *,
    layer: str | None = None,
    pool: str = "auto",
    selection: SelectionOptions | None = None,
    outputs: Path = Path("outputs"),
    device: str = "auto",
    force: bool = False,
    dtype: str = "float32",
    renew: bool = False,
) -> tuple[Representation, Representation | None]:
    """The representation of a model as `resolve_representation` gives it, and the logits of its classifier.

    Both are read in one pass. None where the model has no classifier.
    """
    given = (text, pool, dtype, selection or SelectionOptions(), outputs, device, force)
    options = on_the_way(*given, layers=(layer, "output"), renew=renew)
    found = _extracted(options)
    logits = found[-1]
    return _flat(found[0], False, pool), logits if logits.source.get("classifier") and logits.values.ndim == 2 else None


def on_the_way(
    model: str, pool: str, dtype: str, selection: SelectionOptions, outputs: Path, device: str, force: bool, **more: Any
) -> ExtractOptions:
    """How an analysis extracts what it needs; ``more`` are further fields."""
    return ExtractOptions(
        model=model,
        pool=pool,
        dtype=dtype,
        run=of_precision(pool, dtype),
        selection=selection,
        outputs=outputs,
        device=device,
        # on the way to an analysis the tasks of an array may be different analyses
        engine=None if engine_chosen().name != "auto" else "local",
        force=force,
        **more,
    )


def of_precision(pool: str, dtype: str) -> str | None:
    """Activations of half precision live beside those of full precision."""
    return None if dtype == "float32" else f"{pool}-{dtype}"


def is_model(text: str | Representation, outputs: Path, root: Path | None = None) -> bool:
    """Whether ``text`` names a model: neither an artifact nor a file of arrays."""
    return isinstance(text, str) and find_activations(text, outputs) is None and not names_array(text, root)


def dataset_of(side: str | Representation, outputs: Path, root: Path | None = None) -> str | None:
    """The data set of a model, artifact or record, as far as it is known before anything is read."""
    if isinstance(side, Representation):
        return side.dataset
    artifact = find_activations(side, outputs)
    if artifact is not None:
        found = artifact.manifest.details.get("dataset", {}).get("spec")
        return str(found) if found else None
    return None if names_array(side, root) else resolve(side).default_dataset


def names_array(text: str, root: Path | None = None) -> bool:
    """Whether ``text`` names a file of arrays; ``file:weights.safetensors`` names a model."""
    explicit = text.partition(":")[0] in EXPLICIT and not Path(text).exists()
    return not explicit and is_array(array_file(text, root))


def _extracted(
    options: ExtractOptions, before: Callable[[list[tuple[int, ...]]], object] | None = None
) -> list[Representation]:
    try:
        return [open_activations(done.artifact) for done in extract(options, before)]
    except UnknownNameError as error:
        raise _with_files(error, options.model) from None


def array_file(text: str, root: Path | None = None) -> str:
    """The file behind the name of a published array, or ``text`` as it is.

    Raises `MissingDataError` (it was not downloaded).
    """
    if text not in PUBLISHED_ARRAYS:
        return text

    recipe, pattern = PUBLISHED_ARRAYS[text]
    folder = content_folder(recipe, root)
    files = sorted(folder.glob(pattern)) if folder is not None else []
    if not files:
        raise MissingDataError(f"the array `{text}` is not on this machine", f"rdx download {text}")
    return str(files[0])


def find_activations(text: str, outputs: Path) -> Artifact | None:
    """The ``extract`` artifact that ``text`` is: its folder, its ``activations.npy``, or its path below ``outputs``.

    Raises `ArtifactError` (it is an artifact of another kind, damaged, or unfinished).
    """
    for candidate in (Path(text).expanduser(), Path(outputs) / text):
        folder = candidate.parent if candidate.is_file() else candidate
        if not (folder / MANIFEST).is_file() or (candidate.is_file() and candidate.name != "activations.npy"):
            continue
        artifact = Artifact.open(folder)
        if artifact.kind != "activations":
            raise ArtifactError(
                f"{folder} holds {artifact.kind}, expected activations", "`rdx list artifacts` shows all"
            )
        return artifact
    return None


def open_activations(artifact: Artifact, layer: str | None = None, pool: str | None = None) -> Representation:
    """The `Representation` of an ``extract`` artifact; values are memory-mapped.

    Raises `UsageError` (``layer`` or ``pool`` is given and is not the artifact's).
    """
    parameters = artifact.manifest.request.parameters
    for option, wanted in (("layer", layer), ("pool", pool)):
        if wanted is not None and wanted not in (parameters[option], artifact.manifest.details.get(f"asked_{option}")):
            raise UsageError(f"{artifact.path} holds {option} `{parameters[option]}`, not `{wanted}`")
    values = np.load(artifact.path / "activations.npy", mmap_mode="r", allow_pickle=False)
    whole = pa.parquet.read_table(artifact.path / "samples.parquet")
    table, failed = whole.slice(0, len(values)), whole["sample_id"].to_pylist()[len(values) :]
    dataset = artifact.manifest.details.get("dataset", {})
    return Representation(
        values=values,
        sample_ids=np.array(table["sample_id"].to_pylist()),
        name=short_name(str(parameters["model"])),
        layer=str(parameters["layer"]),
        labels=np.array(table["label"].to_pylist()) if "label" in table.column_names else None,
        source={
            "activations": artifact.manifest.fingerprint,
            "model": parameters["model"],
            "layer": parameters["layer"],
            "pool": parameters["pool"],
            "dataset": dataset.get("name"),
            **({"failed": failed} if failed else {}),
            **({"classifier": True} if artifact.manifest.details.get("classifier") else {}),
        },
        dataset=dataset.get("spec"),
    )


def resolve_concepts(
    text: str, *, names: Path | None = None, sample_ids: Path | None = None, choice: Choice | None = None
) -> ConceptMatrix:
    """A file of concept scores as a `ConceptMatrix`, with its fingerprint in ``source``."""
    text = localised(text)
    concepts = load_concepts(text, names=names, sample_ids=sample_ids, choice=choice)
    values = concepts.values
    if isinstance(values, np.ndarray):
        digest = fingerprint_array(values)
    else:
        digest = fingerprint_json([fingerprint_array(part) for part in (values.data, values.indices, values.indptr)])
    source = {"file": Path(text).name, "sha256": digest, "names": fingerprint_json(list(concepts.names))}
    return replace(concepts, source=source)


def columns_taken(record: Representation) -> str:
    """Which columns of a table were taken for what, in brackets; empty when nothing had to be decided."""
    seen = record.source.get("seen") or {}
    parts = [f"{what} from {seen[what]}" for what in ("ids", "labels") if seen.get(what)]
    parts += [f"left out: {', '.join(seen['left_out'])}"] if seen.get("left_out") else []
    return f" (features: {'; '.join([str(seen['features']), *parts])})" if parts else ""


def _load_array(text: str, arrays: ArrayOptions, spatial: bool, pool: str) -> Representation:
    record = load_representation(
        text,
        labels=arrays.labels,
        sample_ids=arrays.sample_ids,
        images=arrays.images,
        spatial=spatial,
        pool=pool,
        choice=arrays.choice,
    )
    source = {
        "file": Path(str(record.source["array"])).name,
        "key": record.source["key"],
        "shape": record.source["shape"],  # of the file: positions may have been pooled
        "sha256": fingerprint_array(record.values),
        "sample_ids": fingerprint_array(record.sample_ids) if record.sample_ids is not None else None,
        "seen": record.source["seen"],
    }
    return replace(record, source=source)


def _flat(record: Representation, spatial: bool, pool: str) -> Representation:
    if spatial or record.values.ndim == 2:
        return record

    return replace(record, values=check_values(record.values, record.name, pool="avg" if pool == "none" else pool))


def _selected(record: Representation, selection: SelectionOptions) -> Representation:
    """Rows of an array or artifact that the selection asks for; the choice is noted in ``source``."""
    if selection.narrows or selection.dataset is not None:
        given = {key: value for key, value in vars(selection).items() if value is not None and key != "root"}
        record = replace(record, source={**record.source, "selection": given})
    if selection.dataset is not None:
        return _by_dataset(record, selection)
    if selection.split is not None:
        raise UsageError(f"--split: {record.name} is an array and has no splits", "name the data set with --dataset")
    return select_rows(
        record,
        include=selection.include,
        exclude=selection.exclude,
        classes=selection.classes,
        per_class=selection.per_class,
        sample=selection.sample,
        limit=selection.limit,
        seed=selection.seed,
    )


def _by_dataset(record: Representation, selection: SelectionOptions) -> Representation:
    whole = SelectionOptions(dataset=selection.dataset, root=selection.root).open()
    if record.sample_ids is None and record.n != len(whole) and selection.split is not None:
        whole = SelectionOptions(dataset=selection.dataset, root=selection.root, split=selection.split).open()
    if record.sample_ids is None and record.n != len(whole):
        raise InputError(
            f"{record.name} has {human_count(record.n, 'row')} without ids, the data set {whole.name} "
            f"has {human_count(len(whole), 'image')}",
            "give the ids with --sample-ids FILE",
        )
    wanted = selection.open() if selection.narrows else whole
    ids = list(whole.sample_ids) if record.sample_ids is None else list(map(str, record.sample_ids))
    record = replace(record, sample_ids=np.array(ids))
    places, note = find(ids, wanted.sample_ids)
    found = places.tolist()
    rows = np.flatnonzero(places >= 0)
    if len(rows) < 2:
        first, second = apart(ids[0], wanted.sample_ids[0])
        raise InputError(
            f"{len(rows)} of the {human_count(record.n, 'sample')} of {record.name} are in "
            f"{wanted.name}: ids look like "
            f"`{first}` and `{second}`"
        )
    if note:
        log.info("%s", taken_as_one(note, record.name, wanted.name))
    if selection.narrows:
        record, found = take(record, rows), [found[row] for row in rows]
    if record.labels is None and wanted.labels is not None and min(found) >= 0:
        record = replace(record, labels=np.array([wanted.labels[i] for i in found]))
    return replace(record, dataset=record.dataset or wanted.spec)


def _with_files(error: UnknownNameError, text: str) -> UnknownNameError:
    """Name files and folders that look like ``text``, which may be a misspelt path."""
    path = Path(text).expanduser()
    if ("/" in text or path.suffix) and path.parent.is_dir():
        near = near_matches(path.name, [one.name for one in path.parent.iterdir() if one.is_file() or one.is_dir()])
        if path.exists():
            pickled = "pickles are never loaded, they can run code; " if begins_with(path, b"\x80") else ""
            error.hint = (
                f"the file `{path}` is there; {pickled}"
                "a file of arrays ends in .npy, .npz, .safetensors, .parquet, .csv or .pt"
            )
        elif near:
            error.hint = f"did you mean the file {' or '.join(f'`{path.parent / name}`' for name in near)}?"
    return error
