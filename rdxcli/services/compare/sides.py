"""What is compared: both sides and the reference pair, read through the gates, brought to the same images, named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rdxcli.concepts.heads import Head, head_of
from rdxcli.concepts.predictions import Predictions, predictions_of_heads, read_predictions, spelled_alike
from rdxcli.datasets.arrays import row_values
from rdxcli.datasets.seen import LABEL_NAMES
from rdxcli.datasets.selection import ArrayOptions
from rdxcli.datasets.words import composed
from rdxcli.errors import UsageError
from rdxcli.models.loading import check_layers
from rdxcli.records import Representation
from rdxcli.representations.joining import Joined, join
from rdxcli.representations.pairs import built_in, restricted, told_apart, without
from rdxcli.representations.resolve import is_model, names_array, resolve_representation, resolve_with_logits
from rdxcli.services.compare.options import CompareOptions


def read_pair(options: CompareOptions) -> tuple[Joined, Predictions | None, tuple[Head, Head] | None]:
    """Both sides on the samples they share, under names that tell them apart, and what their heads or files predict.

    Of two heads with different outputs predictions are not comparable image by image: what each says, instead.
    """
    heads: tuple[Head, Head] | None = None
    notes: list[str] = []
    (a, logits_a), (b, logits_b) = (
        (_labelled(options, record, side), None if logits is None else _labelled(options, logits, side))
        for side, (record, logits) in zip("ab", _read_sides(options), strict=True)
    )
    a, b = without(a, options.drop_a, "--drop-a"), without(b, options.drop_b, "--drop-b")
    predictions = read_predictions((options.predictions_a, options.predictions_b), a, b)
    if logits_a is not None and logits_b is not None:
        root = options.selection.root
        both = join(*told_apart((logits_a, options.a), (logits_b, options.b)))
        predictions = predictions_of_heads(both.a, both.b, root)
        if predictions is None:
            heads = head_of(both.a, options.classes_a, root), head_of(both.b, options.classes_b, root)
    if heads is None and (options.classes_a or options.classes_b):
        raise _no_use_for_classes()
    if _labels_by_position(options, a, b):
        b = replace(b, labels=None)
        notes.append(f"the rows have ids in another order on each side: the labels are those of the rows of {a.name}")
    joined = join(*told_apart((a, options.a), (b, options.b)))
    if predictions is not None and options.predictions_a:
        predictions = spelled_alike(predictions, joined.a.labels)
    return replace(joined, notes=[*joined.notes, *notes]), predictions, heads


def _read_sides(options: CompareOptions) -> list[tuple[Representation, Representation | None]]:
    """Both sides, with the logits of their heads where both are whole models and no predictions are given."""
    sides = ((options.a, options.layer_a, "a"), (options.b, options.layer_b, "b"))
    root = options.selection.root
    heads = (options.predictions_a, options.predictions_b, options.drop_a, options.drop_b) == (None,) * 4
    if not heads or not all(is_model(text, options.outputs, root) for text, _, _ in sides):
        if options.classes_a or options.classes_b:
            raise _no_use_for_classes()
        return [(read_side(options, text, layer, arrays_of(options, side)), None) for text, layer, side in sides]
    for text, layer, _ in sides:
        check_layers(str(text), [layer])
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


def check_row_options(options: CompareOptions) -> None:
    """Refuse what is said of the rows of arrays where there are none. Raises `UsageError`."""
    texts = [options.a, options.b, *(options.reference or ())]
    root = options.selection.root
    if any(not isinstance(text, str) or "://" in text or names_array(text, root) for text in texts):
        return
    given = {
        "--sample-ids": options.arrays.sample_ids,
        "--sample-ids-a": options.sample_ids_a,
        "--sample-ids-b": options.sample_ids_b,
        "--images": options.arrays.images,
        "--feature-columns": options.arrays.feature_columns,
    }
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"{name} is about the rows of a file of arrays, and neither side is one",
                "leave it out: ids and images are those of the data set",
            )


def _labelled(options: CompareOptions, record: Representation, side: str) -> Representation:
    """A side that is no file of arrays, with the labels that are given for it instead of those of its data set.

    Labels for both sides belong to the file of arrays where there is one.
    """
    texts, root = {"a": options.a, "b": options.b}, options.selection.root
    files = [key for key, text in texts.items() if isinstance(text, str) and names_array(text, root)]
    labels = getattr(options, f"labels_{side}") or (None if files else options.arrays.labels)
    if labels is None or side in files:
        return record
    choice = options.arrays.choice
    found = row_values(
        *(labels, LABEL_NAMES, "labels", record.ids(), record.n, record.name),
        id_column=choice.ids,
        column=choice.labels,
    )
    return replace(record, labels=np.array([composed(label) for label in found]))


def _no_use_for_classes() -> UsageError:
    return UsageError(
        "--classes-a and --classes-b name the outputs of two classifiers that have different ones, which these are not",
        "leave them out; or give two whole models, without --predictions-a and --drop-a",
    )


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
    return restricted(join(*told_apart((c, texts[0]), (d, texts[1]))), joined)


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
