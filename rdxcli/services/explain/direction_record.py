"""The document of directions: what each one responds to, is called, and moves; and the table people see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request
from rdxcli.concepts.labels import class_names
from rdxcli.progress import log
from rdxcli.records import Representation
from rdxcli.services.base import Outcome
from rdxcli.services.explain.base import ExplainOptions
from rdxcli.services.explain.placing import placer
from rdxcli.services.explain.samples import labels_of, names_of

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.concepts.labels import Concepts
    from rdxcli.concepts.masks import Masks
    from rdxcli.methods.directions.base import Directions

SHOWN = 12  # images per direction
MOVED = 6  # classes per direction
TABLE_SIZE = 60  # directions in the printed table


@dataclass(frozen=True)
class Case:
    """What is explained: features, the network above them, and the truth when the case is synthetic.

    Parameters
    ----------
    source : Representation
    head : callable, optional
        Feature maps (N, D, H, W) to logits (N, K).
    truth : SyntheticCase, optional
    """

    source: Representation
    head: Any = None
    truth: Any = None

    def outputs(self, options: ExplainOptions, features: np.ndarray) -> list[str]:
        """Names of the classes; needs a head."""
        import torch

        from rdxcli.methods.directions.features import as_maps

        with torch.no_grad():
            count = self.head(as_maps(features[:1])).shape[1]
        if self.truth is not None:
            return [f"class {k}" for k in range(count)]  # as the labels of the case are called
        return class_names(self.source, count, options)


@dataclass(frozen=True)
class Names:
    """What may name directions: concept masks, words. Opened before learning, so that errors come first."""

    masks: Masks | None = None
    words: Concepts | None = None


def open_names(options: ExplainOptions, source: Representation) -> Names:
    """Masks (given, or the data set's own) and words (given, or a vision-language model's).

    Raises
    ------
    RdxError
        A file or model that is missing or does not fit.
    """
    masks, words = None, None
    given = bool({"masks", "broden"} & set(options.files))
    if source.values.ndim == 4 and (given or _has_masks(source)):
        from rdxcli.concepts.masks import open_masks

        masks = open_masks(options, source)
    elif given:
        log.warning("masks name directions of maps, and these features have no places: use --pool none")
    if options.concepts or options.vlm or "image_embeddings" in options.files:
        from rdxcli.concepts.gather import gather
        from rdxcli.concepts.scorer import open_scorer

        words = gather(options, source, labels=False, scorer=open_scorer(options) if options.vlm else None)
    return Names(masks, words)


def document(
    options: ExplainOptions,
    request: Request,
    directions: Directions,
    case: Case,
    names: Names,
    features: np.ndarray,
    artifact: str,
) -> dict[str, Any]:
    """The JSON document of an artifact of directions."""
    import numpy as np

    from rdxcli.records import Directions as Record

    source = case.source
    responses = directions.responses(features)
    flat = responses.reshape(*responses.shape[:2], -1)
    strongest = flat.max(axis=2)
    present = strongest > 0
    notes = list(directions.notes_)
    scores: dict[str, Any] = {"health": directions.health(features)}
    influence = _influence(options, case, directions, features, notes, scores)
    masks = None if names.masks is None else _mask_labels(names.masks, responses, notes, scores)
    maps = directions.concept_maps(features)
    words = None if names.words is None else _word_labels(names.words, maps, options.seed)
    place = placer(options, source)
    entries = []
    for i in range(len(directions.bias_)):
        rows = np.argsort(-strongest[:, i], kind="stable")[:SHOWN]
        entries.append(
            {
                "index": i,
                "share": float((flat[:, i] > 0).mean()),
                "images": int(present[:, i].sum()),
                "labels": _make_up(source, np.flatnonzero(present[:, i])),
                "samples": rows,
                "sample_ids": names_of(source, rows),
                "sample_labels": labels_of(source, rows),
                "concept_maps": [place(int(row), maps[row, i]) for row in rows] if maps.ndim == 4 else None,
                **({} if influence is None else {"influence": influence[i]}),
                **({} if masks is None else {"mask_label": masks[i]}),
                **({} if words is None else {"words": words[i]}),
            }
        )
    if case.truth is not None:
        scores["recovery"] = _recovery(directions, case.truth)
        if not scores["recovery"]:
            notes.append(
                f"no recovery scores: {len(directions.bias_)} directions, and the case has {case.truth.S.shape[1]} "
                "concepts; they compare equal numbers"
            )
    return Record(
        method=options.method,
        parameters=request.parameters,
        seed=options.seed,
        notes=notes,
        model=source.describe(),
        directions=entries,
        scores=scores,
        samples={"dataset": source.dataset, "n": source.n},
    ).to_document(artifact)


def _make_up(source: Representation, rows: np.ndarray) -> dict[str, float]:
    if source.labels is None or not len(rows):
        return {}
    from rdxcli.services.compare.record import make_up

    return make_up(source.labels[rows])


def _influence(
    options: ExplainOptions,
    case: Case,
    directions: Directions,
    features: np.ndarray,
    notes: list[str],
    scores: dict[str, Any],
) -> list[list[dict[str, Any]]] | None:
    """Per direction the classes it moves most: effect in logits, p-value, significance."""
    if case.head is None:
        return None
    import numpy as np

    from rdxcli.methods.directions.influence import influence

    found = influence(directions, case.head, features, random_state=options.seed)
    notes += [note for note in found.notes if note not in notes]
    names = case.outputs(options, features)
    scores["influence"] = found.summary()
    return [
        [
            {
                "class": names[int(label)],
                "effect": float(found.effect[i, c]),
                "p_value": float(found.p_value[i, c]),
                "significant": bool(found.significant[i, c]),
                **({} if found.sensitivity is None else {"sensitivity": float(found.sensitivity[i, c])}),
            }
            for c, label in sorted(enumerate(found.classes), key=lambda pair: -abs(found.effect[i, pair[0]]))[:MOVED]
            if np.isfinite(found.effect[i, c])
        ]
        for i in range(len(directions.bias_))
    ]


def _mask_labels(
    opened: Masks, responses: np.ndarray, notes: list[str], scores: dict[str, Any]
) -> list[dict[str, Any]]:
    """Names of directions by their overlap with concept masks."""
    import numpy as np

    from rdxcli.methods.directions.labelling import label_by_masks

    masks = np.stack([opened.read(row) for row in range(len(responses))])
    is_train = np.arange(len(masks)) % 2 == 0
    found = label_by_masks(responses, masks, is_train, len(opened.names), ignore=-1 if masks.ndim == 3 else None)
    notes += opened.notes
    notes.append(
        f"labels by masks: {int(found.interpretable.sum())} of {len(found.label)} directions are interpretable; chosen "
        "on every other image, scored on the rest"
    )
    scores["masks"] = {
        **found.summary(),
        "any_iou": {opened.names[label]: iou for label, iou in found.any_iou.items()},
    }
    if opened.categories is not None:
        good = np.unique(found.label[found.interpretable])
        named, counts = np.unique([opened.categories[int(label)] for label in good], return_counts=True)
        scores["masks"]["unique_by_category"] = {str(n): int(c) for n, c in zip(named, counts, strict=True)}
    return [
        {
            "concept": opened.names[int(label)],
            "iou": float(found.label_iou[i]),
            "interpretable": bool(found.interpretable[i]),
            "precision": float(found.precision[i]),
            "recall": float(found.recall[i]),
            "f1": float(found.f1[i]),
            "average_precision": float(found.average_precision[i]),
            "best_threshold": float(found.best_threshold[i]),
            "best_f1": float(found.best_f1[i]),
        }
        for i, label in enumerate(found.label)
    ]


def _has_masks(source: Representation) -> bool:
    from rdxcli.datasets.registry import open_dataset

    return source.dataset is not None and open_dataset(source.dataset).mask is not None


def _word_labels(concepts: Concepts, maps: np.ndarray, seed: int) -> list[list[dict[str, Any]]]:
    """Words whose image-text scores follow each direction."""
    import numpy as np

    from rdxcli.methods.directions.labelling import label_by_words

    scores = np.asarray(concepts.values[np.arange(len(maps))])
    activation = maps.reshape(*maps.shape[:2], -1).mean(axis=2)
    found = label_by_words(activation, scores, random_state=seed)
    return [
        [
            {
                "word": concepts.names[int(column)],
                "correlation": float(found.correlation[i, column]),
                "p_value": float(found.p_value[i]),
            }
            for column in found.best[i]
        ]
        for i in range(len(found.best))
    ]


def _recovery(directions: Directions, truth: Any) -> dict[str, Any]:
    from rdxcli.methods.directions.recovery import recovery

    if len(directions.bias_) != truth.S.shape[1]:
        return {}
    names = ("X", "values", "owner", "S", "B", "W", "is_test")
    return recovery(directions, *(getattr(truth, name) for name in names)).as_dict()


def outcome(artifact: Artifact, title: str) -> Outcome:
    """What the command prints about a finished artifact of directions."""
    stored = artifact.document()
    columns, rows = table(stored)
    lines = [f"note: {note}" for note in stored["notes"]]
    found = stored["scores"].get("recovery")
    if found:
        lines.insert(0, ", ".join(f"{name} {value:.3g}" for name, value in found.items() if isinstance(value, float)))
    for step in stored.get("steering", {}).get("steps", []):
        moved = [f"{one['class']} {one['change']:+.2f}" for one in step["classes"][:4]]
        gained = [f"{name} {count}" for name, count in list(step["to"].items())[:3]]
        lines.append(
            f"direction {step['direction']} by {step['amount']:+.3g}: logits of {', '.join(moved)}; "
            f"{step['changed']:.1%} of the predictions change" + (f", to {', '.join(gained)}" if gained else "")
        )
    for image in stored.get("images", []):
        parts = [
            f"direction {one['direction']}"
            + (f" {one['contribution']:+.2f}" if one["contribution"] is not None else f" {one['activation']:.2f}")
            for one in image["concepts"][:4]
        ]
        said = f"{image['sample_id']}" + (f", said to be {image['prediction']}" if image["prediction"] else "")
        lines.append(f"{said}: {', '.join(parts) or 'no concept is active'}")
    return Outcome(artifact, stored, title, columns, rows, lines)


def table(stored: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the printed table."""
    rows = []
    for entry in stored["directions"][:TABLE_SIZE]:
        moved = [f"{one['class']} {one['effect']:+.2f}" for one in entry.get("influence", []) if one["significant"]]
        labels = ", ".join(f"{name} {share:.0%}" for name, share in list(entry["labels"].items())[:3])
        mask, words = entry.get("mask_label"), entry.get("words")
        named = f"{mask['concept']} (IoU {mask['iou']:.2f})" if mask else labels
        if words and not mask:
            named = ", ".join(word["word"] for word in words[:3]) + f" (p = {words[0]['p_value']:.2g})"
        rows.append([entry["index"], entry["images"], entry["share"], named or "-", ", ".join(moved[:3]) or "-"])
    return ["direction", "images", "share", "label", "moves the logits of"], rows
