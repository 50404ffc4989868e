"""The images that a report shows for a unit: the strongest, some from ranges of rank, and where in them it is active.

Symbols: map (h, w) activations of one unit in one image, as the layer has them before pooling. Reports show the centred
square of an image, so a mask is a grid over that square, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rdxcli.datasets.arrays import open_file
from rdxcli.engines.activations import default_batch_size
from rdxcli.errors import RdxError, UsageError
from rdxcli.lazy import torch
from rdxcli.models import load
from rdxcli.models.preprocessing import Preprocessing, seen_part
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count, log, track
from rdxcli.records import Representation
from rdxcli.report.squares import over_square
from rdxcli.representations.layer import representation
from rdxcli.representations.options import LayerOptions
from rdxcli.representations.resolve import array_file

MAPPED_UNITS = 1024  # units whose pictures get a map; all units have pictures
SHOWN_IMAGES = 8
RANGES = ((5, 50), (50, 500), (500, 5000))
"""Ranks of the published figure, after the strongest images."""

RANGE_IMAGES = 2


def strongest(source: Representation, unit: int) -> list[dict[str, Any]]:
    """The images that activate a unit most (for maps: at one position): id, activation, label."""
    values = _pooled(source, unit)
    first = np.arange(len(values))
    if len(values) > 4 * SHOWN_IMAGES:  # those that reach the last one shown, ties among them: far fewer to sort
        first = np.flatnonzero(values >= np.partition(values, -SHOWN_IMAGES)[-SHOWN_IMAGES])
    order = first[np.argsort(-values[first], kind="stable")[:SHOWN_IMAGES]]
    return [_picture(source, values, row) for row in order]


def ranges(source: Representation, unit: int, seed: int) -> list[dict[str, Any]]:
    """A few images from ranges of rank, as the paper shows them: the strongest images alone say little of a unit."""
    values = _pooled(source, unit)
    order = np.argsort(-values, kind="stable")
    found = []
    for low, high in RANGES:
        if low >= len(order):
            break
        rng = generator(seed, "ranges", str(unit), str(low))
        among = order[low:high]
        chosen = np.sort(rng.choice(len(among), size=min(RANGE_IMAGES, len(among)), replace=False))
        pictures = [_picture(source, values, row) for row in among[chosen]]
        found.append({"from": low, "to": min(high, len(order)), "samples": pictures})
    return found


def _pooled(source: Representation, unit: int) -> np.ndarray:
    values = np.asarray(source.values[:, unit], dtype=np.float64)
    return values.max(axis=tuple(range(1, values.ndim))) if values.ndim > 1 else values


def _picture(source: Representation, values: np.ndarray, row: int) -> dict[str, Any]:
    return {
        "sample_id": str(source.sample_ids[row]) if source.sample_ids is not None else str(row),
        "activation": float(values[row]),
        "label": None if source.labels is None else str(source.labels[row]),
    }


def shown_pictures(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All pictures of a unit in a document of explanations."""
    return [*entry.get("strongest", ()), *(one for band in entry.get("ranges", ()) for one in band["samples"])]


def add_masks(
    entries: list[dict[str, Any]],
    options: LayerOptions,
    source: Representation,
    thresholds: Mapping[int, float] | None = None,
) -> None:
    """Add to each picture of each shown unit where the unit is active: ``map``, rows of numbers from 0 to 1.

    Each map is scaled by itself, from 0 (or its smallest value, where that is larger or none is positive) to its
    largest value: it says where, the activation says how much. With ``thresholds`` positions above the unit's threshold
    go from 0.5 to 1, its largest value among the pictures, and the others are 0. Pictures get no mask where the layer
    has no positions, the value was read at a class token, or the model or its images are not here. `entries`: units of
    a document of explanations, changed in place; `thresholds`: of each unit.
    """
    wanted: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    if len(entries) > MAPPED_UNITS:
        log.info("maps over images are stored of the first %s", human_count(MAPPED_UNITS, "unit"))
    for entry in entries[:MAPPED_UNITS]:
        for picture in shown_pictures(entry):
            wanted.setdefault(picture["sample_id"], []).append((entry["unit"], picture))
    if not wanted:
        return
    peak = thresholds is not None
    try:
        found = maps_over_square(
            options, source, peak, {sample: [unit for unit, _ in places] for sample, places in wanted.items()}
        )
    except RdxError as error:
        log.info("no activation masks: %s", error)
        return
    tops: dict[int, float] = {}
    for sample, places in wanted.items():
        for (unit, _), one in zip(places, found.get(sample, ()), strict=False):
            tops[unit] = max(tops.get(unit, -np.inf), float(np.nanmax(one)))
    for sample, places in wanted.items():
        for (unit, picture), one in zip(places, found.get(sample, ()), strict=False):
            low, high = float(np.nanmin(one)), float(np.nanmax(one))
            low = max(low, 0.0) if high > 0 else low
            if thresholds is not None:
                low, high = thresholds[unit], tops[unit]
            if high > low:
                scaled = np.clip((one - low) / (high - low), 0.0, 1.0)
                if thresholds is not None:
                    scaled = np.where(scaled > 0, 0.5 + 0.5 * scaled, 0.0)
                picture["map"] = np.round(np.nan_to_num(scaled), 3).tolist()


def maps_over_square(
    options: LayerOptions, source: Representation, peak: bool, wanted: Mapping[str, Sequence[int]]
) -> dict[str, list[np.ndarray]]:
    """Maps of the wanted units of each sample, over the centred square of its image; {} where there are none."""
    name = options.model or source.source.get("model")
    if name is None:
        if len(source.source.get("shape", source.values.shape)) != 4:
            return {}
        whole = source if source.values.ndim == 4 else _unpooled(options, source)
        if whole.values.ndim != 4 or min(whole.values.shape[2:]) < 2:
            return {}
        rows = {str(i) if whole.sample_ids is None else str(whole.sample_ids[i]): i for i in range(whole.n)}
        return {
            sample: [over_square(np.asarray(whole.values[rows[sample], unit]), peak=peak) for unit in units]
            for sample, units in wanted.items()
        }
    return _maps_of_model(options, source, str(name), peak, wanted)


def _unpooled(options: LayerOptions, source: Representation) -> Representation:
    """The maps that ``source`` was pooled from. Those of all rows of a file are only opened: they were checked then."""
    if isinstance(options.activations, str) and not options.selection.narrows and options.selection.dataset is None:
        text = array_file(options.activations, options.selection.root)
        return replace(source, values=open_file(text, options.arrays.choice).values)
    return representation(options, spatial=True, pool="none")


def _maps_of_model(
    options: LayerOptions, source: Representation, name: str, peak: bool, wanted: Mapping[str, Sequence[int]]
) -> dict[str, list[np.ndarray]]:
    model = load(name, device=options.device)
    if model.tokens.has_class and source.source.get("pool") in ("auto", "first", "cls"):
        return {}
    dataset = options.selection.open(source.dataset)
    samples = list(wanted)
    places = dataset.locate(samples)
    if (places < 0).any():
        raise UsageError(f"{dataset.name} has no image `{samples[int(np.argmin(places))]}`")
    found: dict[str, list[np.ndarray]] = {}
    step = default_batch_size(model.input_size, model.device.type)
    with (
        model.tap([str(source.layer)], "none") as tap,
        track("activation masks", len(samples), "images") as advance,
    ):
        for start in range(0, len(samples), step):
            part = range(start, min(start + step, len(samples)))
            images = [dataset.image(int(places[i])) for i in part]
            maps = tap(torch.stack([model.transform(image) for image in images]))[model.layer(str(source.layer))]
            if maps.ndim != 4 or min(maps.shape[2:]) < 2:
                return {}
            for i, image, one in zip(part, images, maps.float().cpu().numpy(), strict=True):
                box = None
                if isinstance(model.transform, Preprocessing):
                    box = seen_part(model.transform, image.height, image.width)
                units = wanted[samples[i]]
                size = (image.height, image.width)
                found[samples[i]] = [over_square(one[unit], box, size, peak=peak) for unit in units]
            advance(len(images))
    return found
