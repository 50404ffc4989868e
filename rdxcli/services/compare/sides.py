"""What is compared: both sides and the reference pair, read through the gates, brought to the same images, named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from rdxcli.datasets.arrayfiles import split_key
from rdxcli.datasets.selection import ArrayOptions
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.difference.yardsticks import yardstick
from rdxcli.records import Representation
from rdxcli.representations.joining import Joined, join
from rdxcli.representations.resolve import is_model, resolve_representation, resolve_with_logits
from rdxcli.services.base import parse_units
from rdxcli.services.compare.options import CompareOptions
from rdxcli.services.compare.predicted import Predictions, predictions_of_heads, read_predictions


def read_pair(options: CompareOptions) -> tuple[Joined, Predictions | None]:
    """Both sides on the samples they share, under names that tell them apart, and predictions that were given."""
    (a, logits_a), (b, logits_b) = _read_sides(options)
    a, b = without(a, options.drop_a, "--drop-a"), without(b, options.drop_b, "--drop-b")
    predictions = read_predictions((options.predictions_a, options.predictions_b), a, b)
    if logits_a is not None and logits_b is not None:
        both = join(logits_a, logits_b)
        predictions = predictions_of_heads(both.a, both.b, options.selection.root)
    note = None
    if _labels_by_position(options, a, b):
        b = replace(b, labels=None)
        note = f"the rows have ids in another order on each side: the labels are those of the rows of {a.name}"
    joined = join(*told_apart((a, options.a), (b, options.b)))
    return replace(joined, notes=[*joined.notes, note]) if note else joined, predictions


def _read_sides(options: CompareOptions) -> list[tuple[Representation, Representation | None]]:
    """Both sides, with the logits of their heads where both are whole models and no predictions are given."""
    sides = ((options.a, options.layer_a, "a"), (options.b, options.layer_b, "b"))
    root = options.selection.root
    heads = (options.predictions_a, options.predictions_b, options.drop_a, options.drop_b) == (None,) * 4
    if not heads or not all(is_model(text, options.outputs, root) for text, _, _ in sides):
        return [(read_side(options, text, layer, arrays_of(options, side)), None) for text, layer, side in sides]
    return [
        resolve_with_logits(
            str(text),
            layer=layer,
            pool=options.pool,
            selection=options.selection,
            outputs=options.outputs,
            device=options.device,
            force=options.force,
            dtype=options.dtype,
            renew=options.policy != "fail",
        )
        for text, layer, _ in sides
    ]


def arrays_of(options: CompareOptions, side: str) -> ArrayOptions:
    """What belongs to the rows of one side: its own labels and ids, else those of both."""
    shared = options.arrays
    labels, sample_ids = getattr(options, f"labels_{side}"), getattr(options, f"sample_ids_{side}")
    return replace(shared, labels=labels or shared.labels, sample_ids=sample_ids or shared.sample_ids)


def _labels_by_position(options: CompareOptions, a: Representation, b: Representation) -> bool:
    """One file of labels for two orders of rows fits the first alone."""
    if options.arrays.labels is None or options.labels_a or options.labels_b:
        return False
    if a.labels is None or b.labels is None or a.sample_ids is None or b.sample_ids is None:
        return False
    return a.n == b.n and bool((a.labels == b.labels).all()) and bool((a.sample_ids != b.sample_ids).any())


def read_reference(options: CompareOptions, joined: Joined) -> Joined | None:
    """The reference pair on the images that are compared; None without one."""
    if options.yardstick is not None:
        return built_in(options.yardstick, joined, options.seed)
    if not options.reference:
        return None
    texts = options.reference
    c, d = (read_side(options, text, options.reference_layer, options.arrays) for text in texts)
    return _like(join(*told_apart((c, texts[0]), (d, texts[1]))), joined)


def built_in(name: str, joined: Joined, seed: int) -> Joined:
    """A yardstick made of the first model itself, see `rdxcli.methods.difference.yardsticks`.

    Raises
    ------
    InputError
        Halves of a single dimension.
    """
    side = joined.a
    pair = yardstick(name, side.values, seed)
    if pair is None:
        raise InputError(f"--yardstick {name}: {side.name} has one dimension", "give --yardstick jitter")
    a, b = (replace(side, values=values, name=f"{side.name}{what}") for values, what in pair)
    return replace(joined, a=a, b=b, notes=[])


def told_apart(*sides: tuple[Representation, str | Representation]) -> list[Representation]:
    """Representations under names that differ, when they are not the same thing.

    Layers of one model are told apart by the layer, files of one name by the folders that differ.

    Parameters
    ----------
    *sides : (Representation, str or Representation)
        Each with what was asked for.
    """
    names = [record.name for record, _ in sides]
    for name in {name for name in names if names.count(name) > 1}:
        places = [place for place, known in enumerate(names) if known == name]
        layers = [sides[place][0].layer for place in places]
        paths = [_parts(sides[place][1]) for place in places]
        if all(layers) and len(set(layers)) == len(layers):
            apart = [f"{name}.{layer}" for layer in layers]
        elif None in paths or len(set(paths)) < len(paths):
            continue
        else:
            known = [path for path in paths if path is not None]
            depth = next(depth for depth in range(2, 1000) if len({path[-depth:] for path in known}) == len(known))
            apart = ["/".join([*path[-depth:-1], name]) for path in known]
        for place, new in zip(places, apart, strict=True):
            names[place] = new
    return [replace(record, name=name) for (record, _), name in zip(sides, names, strict=True)]


def _parts(text: str | Representation) -> tuple[str, ...] | None:
    """The parts of the path of a file of arrays, without its root."""
    found = split_key(text) if isinstance(text, str) else None
    if found is None:
        return None
    path = PurePath(Path(found[0]).expanduser().resolve())
    return path.relative_to(path.anchor).parts


def without(record: Representation, columns: str | None, option: str) -> Representation:
    """A representation without some of its columns; its name and its ``source`` say which.

    Raises
    ------
    UsageError
        Malformed or unknown columns, or nothing left.
    """
    if columns is None:
        return record
    dropped = sorted(parse_units(columns, record.d, option))
    if len(dropped) == record.d:
        raise UsageError(f"{option} {columns}: no column of {record.name} is left")
    return replace(
        record,
        values=np.delete(record.values, dropped, axis=1),
        name=f"{record.name}-without-{columns.replace(' ', '')}",
        source={**record.source, "dropped": dropped},
    )


def _like(reference: Joined, joined: Joined) -> Joined:
    """The reference pair restricted to the images that are compared, in their order."""
    if reference.a.sample_ids is None or joined.a.sample_ids is None:
        if reference.a.n != joined.a.n:
            raise InputError(
                f"the reference pair has {reference.a.n} rows, the comparison {joined.a.n}, and no ids to match",
                "give the ids with --sample-ids, or a reference on the same rows",
            )
        return reference
    first, second = join(joined.a, reference.a), join(joined.a, reference.b)
    if first.a.n < joined.a.n:
        raise InputError(
            f"the reference pair lacks {joined.a.n - first.a.n} of the {joined.a.n} images that are compared",
            "read it on the same data set",
        )
    return replace(reference, a=first.b, b=second.b)


def read_side(
    options: CompareOptions, text: str | Representation, layer: str | None, arrays: ArrayOptions
) -> Representation:
    """One representation, through the gate."""
    return resolve_representation(
        text,
        layer=layer,
        pool=options.pool,
        selection=options.selection,
        arrays=arrays,
        outputs=options.outputs,
        device=options.device,
        force=options.force,
        dtype=options.dtype,
        renew=options.policy != "fail",
    )
