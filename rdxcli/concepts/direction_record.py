"""The record of directions: what each one responds to, is called, and moves; and the table people see.

Every number stands beside what chance would give: explained variance beside that of as many random directions,
stability, clarity and influence beside random filters of the same features, IoU beside random filters and maps of
other images, shares of labels beside their shares among all samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from rdxcli.concepts.gather import gather
from rdxcli.concepts.labels import Concepts, class_names
from rdxcli.concepts.masks import Masks, open_masks
from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.scorer import open_scorer
from rdxcli.datasets.registry import open_dataset
from rdxcli.methods.directions.alignment import count_classes
from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.features import as_maps
from rdxcli.methods.directions.health import health, variance
from rdxcli.methods.directions.influence import HOW, NULLS, influence
from rdxcli.methods.directions.labelling import INTERPRETABLE, OUTSIDE, label_by_masks, label_by_words, mask_chance
from rdxcli.methods.directions.recovery import recovery
from rdxcli.methods.directions.steering import clarity
from rdxcli.parameters import Count, Parameter, Positive, Share
from rdxcli.progress import human_count, log
from rdxcli.records import DirectionExplanations, Representation, plain
from rdxcli.representations.placing import placer

SHOWN = 12  # images per direction
MOVED = 6  # classes per direction
PARAMETERS = (
    Parameter(
        "influence_null",
        Literal[NULLS] | None,
        None,
        "What influence is compared with; null: images for tcav, else filters.",  # type: ignore[valid-type]
    ),
    Parameter("influence_how", Literal[HOW], "auto", "How influence is computed."),  # type: ignore[valid-type]
    Parameter("influence_level", Share, 0.05, "Chance of any significant pair among directions without influence."),
    Parameter("influence_draws", Count | None, None, "Random filters, or permutations of the published null."),
    Parameter("influence_alpha", Positive, 5.0, "Step of the sensitivity of the published null, in feature units."),
    Parameter(
        "stability", bool | None, None, "Find directions again on two halves of the samples; null does but for sae."
    ),
    Parameter(
        "numbers", str | None, None, "Numbers of directions to compare, like 4,8,16, or auto; the best is taken."
    ),
)


@dataclass(frozen=True)
class Case:
    """What is explained: features, the network above them, and the truth when the case is synthetic.

    Parameters
    ----------
    head : callable, optional
        Feature maps (N, D, H, W) to logits (N, K).
    """

    source: Representation
    head: Any = None
    truth: Any = None

    def outputs(self, options: ConceptOptions) -> list[str] | None:
        """Names of the classes; None without the network above the layer."""
        if self.head is None:
            return None
        count = count_classes(self.head, as_maps(np.array(self.source.values[:1], dtype=np.float32)))
        if self.truth is not None:
            return [f"class {k}" for k in range(count)]  # as the labels of the case are called
        return class_names(self.source, count, options)


@dataclass(frozen=True)
class Names:
    """What may name directions: concept masks, words. Opened before learning, so that errors come first."""

    masks: Masks | None = None
    words: Concepts | None = None

    def identity(self) -> dict[str, Any]:
        """Fingerprints of their content."""
        return {
            "masks": None if self.masks is None else {**self.masks.source, "names": list(self.masks.names)},
            "words": None if self.words is None else {**self.words.source, "names": list(self.words.names)},
        }


def open_names(options: ConceptOptions, source: Representation) -> Names:
    """Masks (given, or the data set's own) and words (given, or a vision-language model's).

    Raises `RdxError` (a file or model that is missing or does not fit).
    """
    masks, words = None, None
    given = bool({"masks", "broden"} & set(options.files))
    if source.values.ndim == 4 and (given or _has_masks(source)):
        masks = open_masks(options, source)
    elif given:
        log.warning("masks name directions of maps, and these features have no places: use --pool none")
    if options.concepts or options.vlm or "image_embeddings" in options.files:
        words = gather(options, source, labels=False, scorer=open_scorer(options) if options.vlm else None)
    return Names(masks, words)


@dataclass(frozen=True)
class View:
    """What a record is made with.

    Parameters
    ----------
    classes : list of str, optional
        Names of the outputs of the network.
    own : mapping
        Parameters of the view.
    settings : mapping
        All parameters, for the document.
    """

    options: ConceptOptions
    case: Case
    names: Names
    classes: list[str] | None
    own: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def source(self) -> Representation:
        """What is explained."""
        return self.case.source


def _has_masks(source: Representation) -> bool:
    return source.dataset is not None and open_dataset(source.dataset).mask is not None


def describe(
    view: View, directions: Directions, features: np.ndarray, extra: Mapping[str, Any]
) -> DirectionExplanations:
    """The record of directions.

    Parameters
    ----------
    features : ndarray, shape (n, c, h, w) or (n, d)
    extra : mapping
        ``stability``, when the directions were found again on halves; ``about``, see `Directions.about`.
    """
    source, truth, names = view.source, view.case.truth, view.names
    responses = directions.responses(features)
    flat = responses.reshape(*responses.shape[:2], -1)
    strongest = flat.max(axis=2)
    present = strongest > 0
    notes = list(directions.notes_)
    state = health(directions, features)
    scores: dict[str, Any] = {
        "health": {**directions.health(features), "summary": state.summary()},
        "variance": variance(directions, features),
    }
    entries_of, known = extra.get("about") or directions.about()
    again = extra.get("stability") or known.get("stability")
    scores |= {name: value for name, value in known.items() if name != "stability"}
    if again is not None:
        scores["stability"] = {name: again[name] for name in ("mean", "chance", "halves")}
    if "numbers" in extra:
        scores["numbers"] = extra["numbers"]
    if hasattr(directions, "merit_"):
        scores["merit"] = float(directions.merit_)
    notes += state.notes(again)
    influence_of, clear = _influence(view, directions, features, notes, scores)
    masks = None if names.masks is None else _mask_labels(view, names.masks, directions, features, notes, scores)
    maps = directions.concept_maps(features)
    words = None if names.words is None else _word_labels(names.words, maps, view.options.seed)
    place = placer(view.options, source)
    make_up = _MakeUp(source)
    entries = []
    for i in range(len(directions.bias_)):
        rows = np.argsort(-strongest[:, i], kind="stable")[:SHOWN]
        members = np.flatnonzero(present[:, i])
        entries.append(
            {
                "index": i,
                **entries_of[i],
                "share": float((flat[:, i] > 0).mean()),
                "images": len(members),
                "health": state.of(i),
                **({} if again is None else {"stability": float(again["each"][i])}),
                **make_up(members),
                "samples": rows,
                "sample_ids": source.names_of(rows),
                "sample_labels": source.labels_of(rows),
                "concept_maps": [place(int(row), maps[row, i]) for row in rows] if maps.ndim == 4 else None,
                **({} if influence_of is None else {"influence": influence_of[i]}),
                **clear[i],
                **({} if masks is None else {"mask_label": masks[i]}),
                **({} if words is None else {"words": words[i]}),
            }
        )
    if truth is not None:
        scores["recovery"] = _recovery(directions, truth)
        if not scores["recovery"]:
            notes.append(
                f"no recovery scores: {human_count(len(directions.bias_), 'direction')}, and the case "
                f"has {human_count(truth.S.shape[1], 'concept')}; they compare equal numbers"
            )
    return DirectionExplanations(
        method=view.options.method,
        parameters=view.settings,
        seed=view.options.seed,
        notes=notes,
        model=source.describe(),
        directions=[plain(entry) for entry in entries],
        scores=plain(scores),
        samples={"dataset": source.dataset, "n": source.n},
    )


class _MakeUp:
    """Labels of all images in which a direction responds, beside the labels of all images."""

    def __init__(self, source: Representation) -> None:
        self.labels = None if source.labels is None else np.array([str(label) for label in source.labels])
        self.base: dict[str, float] = {}
        if self.labels is not None:
            names, counts = np.unique(self.labels, return_counts=True)
            self.base = {str(n): c / len(self.labels) for n, c in zip(names, counts, strict=True)}

    def __call__(self, members: np.ndarray) -> dict[str, Any]:
        if self.labels is None or not len(members):
            return {"labels": {}}
        names, counts = np.unique(self.labels[members], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        labels = {str(names[j]): float(counts[j] / len(members)) for j in order}
        return {"labels": labels, "label_chance": {name: self.base[name] for name in labels}}


def _influence(
    view: View,
    directions: Directions,
    features: np.ndarray,
    notes: list[str],
    scores: dict[str, Any],
) -> tuple[list[list[dict[str, Any]]] | None, list[dict[str, float]]]:
    """Per direction the classes it moves most: effect in logits, p-value, significance; and its clarity with chance."""
    own, classes = view.own, view.classes
    if view.case.head is None or classes is None:
        return None, [{"clarity": float(value)} for value in clarity(directions, features)]
    found = influence(
        directions,
        view.case.head,
        features,
        null=own["influence_null"],
        how=own["influence_how"],
        level=own["influence_level"],
        n_null=own["influence_draws"],
        alpha=own["influence_alpha"],
        random_state=view.options.seed,
    )
    notes += [note for note in found.notes if note not in notes]
    scores["influence"] = found.summary()
    entries = []
    for i in range(len(directions.bias_)):
        known = np.flatnonzero(np.isfinite(found.effect[i]))
        order = known[np.argsort(-np.abs(found.effect[i, known]), kind="stable")][:MOVED]
        entries.append(
            [
                {
                    "class": classes[int(found.classes[c])],
                    "effect": float(found.effect[i, c]),
                    "p_value": float(found.p_value[i, c]),
                    "significant": bool(found.significant[i, c]),
                    **(
                        {"sensitivity": float(found.sensitivity[i, c])}
                        if found.sensitivity is not None and np.isfinite(found.sensitivity[i, c])
                        else {}
                    ),
                }
                for c in order
            ]
        )
    clear = [
        {"clarity": float(own), **({"clarity_chance": float(chance)} if np.isfinite(chance) else {})}
        for own, chance in zip(found.clarity, found.clarity_chance, strict=True)
    ]
    return entries, clear


def _mask_labels(
    view: View,
    opened: Masks,
    directions: Directions,
    features: np.ndarray,
    notes: list[str],
    scores: dict[str, Any],
) -> list[dict[str, Any]]:
    """Names of directions by their overlap with concept masks, and what chance reaches."""
    is_train = np.arange(len(features)) % 2 == 0
    count = len(opened.names)
    found = label_by_masks(directions.responses(features), opened.read, is_train, count, ignore=OUTSIDE)
    chance = mask_chance(
        directions, features, opened.read, is_train, count, ignore=OUTSIDE, random_state=view.options.seed
    )
    good = found.interpretable & chance.above
    notes += opened.notes
    notes.append(
        f"labels by masks: {int(good.sum())} of {human_count(len(found.label), 'direction')} are "
        "interpretable (an IoU of at least "
        f"{INTERPRETABLE} and above chance; {int(found.interpretable.sum())} by the published bar alone); chosen on "
        "every other image, scored on the rest"
    )
    scores["masks"] = {
        **replace(found, interpretable=good).summary(),
        "published_interpretable": int(found.interpretable.sum()),
        "mean_random_iou": float(chance.random_iou.mean()),
        "mean_permuted_iou": float(chance.permuted_iou.mean()),
        "any_iou": {opened.names[label]: iou for label, iou in found.any_iou.items()},
    }
    if opened.categories is not None:
        named, counts = np.unique([opened.categories[int(c)] for c in np.unique(found.label[good])], return_counts=True)
        scores["masks"]["unique_by_category"] = {str(n): int(c) for n, c in zip(named, counts, strict=True)}
    return [
        {
            "concept": opened.names[int(label)],
            "iou": float(found.label_iou[i]),
            "interpretable": bool(good[i]),
            "p_value": float(chance.p_value[i]),
            "random_iou": float(chance.random_iou[i]),
            "permuted_iou": float(chance.permuted_iou[i]),
            "precision": float(found.precision[i]),
            "recall": float(found.recall[i]),
            "f1": float(found.f1[i]),
            "average_precision": float(found.average_precision[i]),
            "best_threshold": float(found.best_threshold[i]),
            "best_f1": float(found.best_f1[i]),
        }
        for i, label in enumerate(found.label)
    ]


def _word_labels(concepts: Concepts, maps: np.ndarray, seed: int) -> list[list[dict[str, Any]]]:
    """Words whose image-text scores follow each direction."""
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
    if len(directions.bias_) != truth.S.shape[1]:
        return {}
    names = ("X", "values", "owner", "S", "B", "W", "is_test")
    return recovery(directions, *(getattr(truth, name) for name in names)).as_dict()
