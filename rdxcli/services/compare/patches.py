"""``rdx compare --patches``: where in the images of a concept each model sees something alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdxcli.errors import UsageError
from rdxcli.methods.difference.patches import likeness
from rdxcli.numerics.seeding import generator
from rdxcli.records import Comparison
from rdxcli.representations.joining import Joined
from rdxcli.representations.patches import PatchReader
from rdxcli.representations.resolve import is_model
from rdxcli.services.compare.options import CompareOptions

IMAGES = 6
"""Of each concept."""

OTHERS = 24
"""Images drawn at random, for chance."""


def check_patches(options: CompareOptions) -> None:
    """Refuse what has no images to look into. Raises `UsageError`."""
    if not options.patches:
        return
    for side, text in (("first", options.a), ("second", options.b)):
        if not is_model(text, options.outputs, options.selection.root):
            raise UsageError(f"--patches: the {side} side is no model", "patches are read from images by both models")


def open_patches(options: CompareOptions) -> dict[str, PatchReader] | None:
    """The readers of both models, before anything is extracted; None when no patches are asked for.

    Raises `UsageError` (a layer without places).
    """
    if not options.patches:
        return None
    return {
        side: PatchReader(str(text), layer, options.selection, options.device, options.dtype)
        for side, text, layer in (("a", options.a, options.layer_a), ("b", options.b, options.layer_b))
    }


def patches_of(
    readers: dict[str, PatchReader], record: Comparison, joined: Joined, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The entry ``patches`` of the document, and its arrays: ``patches_a.a1`` is what a sees in the images of a1."""
    assert joined.a.sample_ids is not None
    ids = joined.a.ids()
    drawn = generator(seed, "patches", "others").permutation(len(ids))[:OTHERS]
    document: dict[str, Any] = {"images": IMAGES, "others": len(drawn), "sides": {}, "concepts": {}}
    arrays: dict[str, np.ndarray] = {}
    for side, reader in readers.items():
        others = reader.read([ids[row] for row in drawn]).values
        document["sides"][side] = {"layer": reader.layer, "grid": list(others.shape[1:3])}
        for concept in record.concepts:
            name = f"{concept.closer_in}{concept.index}"
            shown = [str(sample) for sample in concept.sample_ids[:IMAGES]]
            found = reader.read(shown)
            alike = likeness(found.values, others)
            arrays[f"patches_{side}.{name}"] = alike.values
            told = document["concepts"].setdefault(name, {"images": len(shown)})
            told[side] = {"chance": alike.chance, "above": alike.above, "boxes": np.round(found.boxes, 4).tolist()}
    return document, arrays
