"""Several layers of one thing: of a model in one pass, or the arrays of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from rdxcli.artifacts import check_reuse
from rdxcli.datasets.arrayfiles import array_keys, split_key
from rdxcli.datasets.arrays import is_array
from rdxcli.datasets.selection import ArrayOptions, SelectionOptions
from rdxcli.engines.ranks import Rank
from rdxcli.errors import UnknownNameError, UsageError, did_you_mean
from rdxcli.progress import human_count, log
from rdxcli.records import Representation
from rdxcli.representations.extract import ExtractOptions, extract
from rdxcli.representations.extraction import Job, prepare
from rdxcli.representations.resolve import find_activations, on_the_way, open_activations, resolve_representation

EVERY = {"all": "*", "blocks": "block:*"}
"""Words for patterns of layers."""

SERIES = "series"
"""The repeated blocks, or every layer of a model that has none."""

MOST = 200
"""More layers than this on one side are refused."""


def resolve_layers(
    text: str,
    layers: str,
    *,
    pool: str = "auto",
    selection: SelectionOptions | None = None,
    arrays: ArrayOptions | None = None,
    outputs: Path = Path("outputs"),
    device: str = "auto",
    force: bool = False,
    dtype: str = "float32",
) -> list[Representation]:
    """Representations of several layers, in the order of the network (or of the file).

    Raises `RdxError` (no such model, file or layer; more than `MOST` layers; a file of one array; an artifact of one
    layer).

    Parameters
    ----------
    text : str
        A model, which is run once for all of them, or a file of several arrays, whose keys are the layers.
    layers : str
        ``all``, ``blocks``, or names and patterns separated by commas (``conv1,layer3.*``); or `SERIES`.
    pool, selection, arrays, outputs, device, force, dtype
        As for `rdxcli.representations.resolve.resolve_representation`.
    """
    selection, arrays = selection or SelectionOptions(), arrays or ArrayOptions()
    if is_array(text) and find_activations(text, outputs) is None:
        path, keys = _keys(text, layers)
        read = [resolve_representation(f"{path}:{key}", pool=pool, selection=selection, arrays=arrays) for key in keys]
        return [replace(record, name=Path(path).stem, layer=key) for record, key in zip(read, keys, strict=True)]
    options = on_the_way(text, pool, dtype, selection, outputs, device, force)
    job = _job(options, layers)
    made = [None if force else check_reuse(*place) for place in zip(job.folders, job.requests, strict=True)]
    found = [artifact for artifact in made if artifact is not None]
    if len(found) < len(made):
        found = [done.artifact for done in extract(job.options)]
    else:
        log.info("reusing %s of %s", human_count(len(found), "layer"), job.model.name)
    return [open_activations(artifact) for artifact in found]


def plan_layers(text: str, layers: str, selection: SelectionOptions, outputs: Path) -> tuple[list[str], str]:
    """Names of the layers that `resolve_layers` would read, and from which images; nothing is extracted."""
    if is_array(text) and find_activations(text, outputs) is None:
        return _keys(text, layers)[1], ""
    job = _job(ExtractOptions(model=text, selection=selection, outputs=outputs, engine="local"), layers)
    return job.layers, f"{human_count(len(job.dataset), 'image')} of {job.dataset.name}"


def _job(options: ExtractOptions, layers: str) -> Job:
    """The job that reads these layers of a model."""
    if find_activations(options.model, options.outputs) is not None:
        raise UsageError(f"{options.model} is one layer", "give the model itself, or a file of several arrays")
    if layers == SERIES:
        try:
            return _job(options, "blocks")
        except UsageError as error:
            if isinstance(error, UnknownNameError):
                raise
            return _job(options, "all")
    job = prepare(replace(options, layers=tuple(_patterns(layers))), Rank())
    _check_count(len(job.layers), options.model)
    return job


def _patterns(layers: str) -> list[str]:
    wanted = [EVERY.get(part.strip(), part.strip()) for part in layers.split(",") if part.strip()]
    if not wanted:
        raise UsageError("--layers: no layer is named", "give all, blocks, or names like conv1,layer3.*")
    return wanted


def _keys(text: str, layers: str) -> tuple[str, list[str]]:
    """The file, and which of its arrays are wanted."""
    path, key = split_key(text) or (text, None)
    if key is not None:
        raise UsageError(f"{text} is one layer", f"give `{path}`, and its arrays with --layers")
    keys = _of_keys(path, array_keys(path), _patterns("all" if layers == SERIES else layers))
    _check_count(len(keys), path)
    return path, keys


def _of_keys(path: str, keys: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The keys that names and patterns mean, each once, in the order of the file."""
    chosen = set()
    for pattern in wanted:
        found = [key for key in keys if pattern in ("*", "block:*") or fnmatchcase(key, pattern)]
        if not found:
            some = ", ".join(keys[:20]) + (" ..." if len(keys) > 20 else "")
            raise UsageError(f"{path} has no array like `{pattern}`", did_you_mean(pattern, keys, f"it has {some}"))
        chosen.update(found)
    return [key for key in keys if key in chosen]


def _check_count(count: int, text: str) -> None:
    if count > MOST:
        raise UsageError(
            f"--layers: {text} has {human_count(count, 'such layer')}, expected at most {MOST}",
            "choose blocks, or a pattern",
        )
