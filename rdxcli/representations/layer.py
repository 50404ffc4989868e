"""The layer, or the array in its place, that `LayerOptions` name: read it, or say what reading it would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.selection import ArrayOptions
from rdxcli.errors import MissingDataError, UsageError
from rdxcli.models.registry import resolve
from rdxcli.progress import human_count
from rdxcli.records import Representation
from rdxcli.representations.extract import plan, said
from rdxcli.representations.options import ExtractOptions, LayerOptions
from rdxcli.representations.resolve import (
    array_file,
    find_activations,
    names_array,
    open_activations,
    resolve_representation,
)
from rdxcli.representations.units import parse_units


def representation(options: LayerOptions, spatial: bool = False, pool: str | None = None) -> Representation:
    """The representation that the options name.

    Raises `UsageError` (neither or both of ``--model`` and ``--activations`` are given).
    """
    if (options.model is None) == (options.activations is None):
        raise UsageError("what is to be explained?", "give --model NAME [--layer L], or --activations FILE")
    return resolve_representation(
        options.model or options.activations or "",
        layer=options.layer,
        pool=pool or options.pool,
        selection=options.selection,
        arrays=options.arrays,
        outputs=options.outputs,
        device=options.device,
        force=False,
        spatial=spatial,
        before=lambda shapes: _known_units(options, shapes[0]),
    )


def _known_units(options: LayerOptions, shape: Sequence[int]) -> int | None:
    """How many units a layer has, from the shape of one image's activations; refuses units that it does not have."""
    width = int(shape[0]) if len(shape) in (1, 3) else None
    if width is not None:
        parse_units(options.units, width)
    return width


def planned(options: LayerOptions, pool: str | None = None) -> dict[str, Any]:
    """What is read and what that takes, for ``--dry-run``; nothing is extracted, units that do not exist are refused.

    Returns
    -------
    dict
        ``images`` and ``units`` where they are known, and of models what extraction would take.
    """
    if options.model is None:
        source = representation(options, spatial=True)
        parse_units(options.units, source.d)
        classes = {} if source.labels is None else {"classes": len(set(map(str, source.labels)))}
        return {"images": source.n, "units of the layer": source.d, "shape": source.values.shape, **classes}
    asked = ExtractOptions(
        model=options.model,
        layers=(options.layer,) if options.layer else (),
        pool=pool or options.pool,
        selection=options.selection,
        outputs=options.outputs,
        device=options.device,
        engine="local",
    )
    try:
        found = plan(asked)
    except MissingDataError as error:
        return {"images": f"unknown: {error.message}", "missing": error.hint}
    shape = found["layers"][0]["shape"]
    width = _known_units(options, shape[1:])
    read = {"images": found["images"], **({"units of the layer": width} if width is not None else {})}
    return {**read, "activations": said(found), "shape": shape}


def stored_side(text: str | Representation, options: ExtractOptions, arrays: ArrayOptions) -> Representation | None:
    """A side of a comparison that is an artifact or an array, without a selection of its rows; None for a model."""
    root = options.selection.root
    if isinstance(text, Representation):
        return text
    artifact = find_activations(text, options.outputs)
    if artifact is not None:
        return open_activations(artifact)
    return load_representation(array_file(text, root), choice=arrays.choice) if names_array(text, root) else None


def extracted_side(options: ExtractOptions) -> tuple[int, int | None, str]:
    """Images, dimensions where they are known, and words of a side that is a model."""
    n = len(options.selection.open(resolve(options.model).default_dataset))
    try:
        found = plan(options)
    except MissingDataError as error:
        layer = options.layers[0] or "penultimate"
        return n, None, f"{options.model}, layer {layer}, {human_count(n, 'image')}; missing: {error.message}"
    (layer,) = found["layers"]
    words = f"{options.model}, layer {layer['layer']}, {human_count(n, 'image')} of {found['dataset']}; {said(found)}"
    return n, math.prod(layer["shape"][1:]), words
