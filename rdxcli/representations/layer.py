"""The layer, or the array in its place, that `LayerOptions` name: read it, or say what reading it would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdxcli.errors import MissingDataError, UsageError
from rdxcli.progress import human_bytes
from rdxcli.records import Representation
from rdxcli.representations.extract import plan
from rdxcli.representations.options import ExtractOptions, LayerOptions
from rdxcli.representations.resolve import resolve_representation
from rdxcli.representations.units import parse_units


def representation(options: LayerOptions, spatial: bool = False, pool: str | None = None) -> Representation:
    """The representation that the options name.

    Raises
    ------
    UsageError
        Neither or both of ``--model`` and ``--activations`` are given.
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
        return {"images": source.n, "units of the layer": source.d}
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
    layer = found["layers"][0]
    width = _known_units(options, layer["shape"][1:])
    read = {"images": found["images"], **({"units of the layer": width} if width is not None else {})}
    activations = f"{layer['state']}, {human_bytes(layer['bytes'])}"
    peak = found["peak_memory_bytes"]
    return {**read, "activations": activations + (f", {human_bytes(peak)} of memory at the peak" if peak else "")}
