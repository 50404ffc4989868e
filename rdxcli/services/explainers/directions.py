"""``rdx explain --method eddp | uibe | pca | nmf | ica | kmeans | natural``: directions of a layer, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, write_json
from rdxcli.errors import RdxError, UsageError
from rdxcli.progress import log, track
from rdxcli.services.explain import ExplainOptions, Outcome, check_parameters, folder_of, representation
from rdxcli.services.heads import head_of

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.directions.base import Directions
    from rdxcli.records import Representation

CODE = "1"
SHOWN = 12  # images per direction
SYNTHETIC = "synthetic:"


@dataclass(frozen=True)
class _Case:
    """What is explained: features, the network above them, and the truth when the case is synthetic."""

    source: Representation
    head: Any = None
    truth: Any = None


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {
        "method": options.method,
        "features": options.selection.dataset if _is_synthetic(options) else options.model or options.activations,
        "layer": options.layer or "the penultimate one",
        "parameters": dict(options.parameters),
    }


def explain(options: ExplainOptions) -> Outcome:
    """Find directions and store them.

    Raises
    ------
    RdxError, ValueError
        Unusable input or options.
    """
    from rdxcli.methods.registry import get

    kind = get("explain", options.method).load()
    parameters, use_head = _parameters(options)
    known = _constructor(kind)
    check_parameters(options.method, parameters, [*known, "num_directions", "head"])
    parameters.pop("head", None)
    if "num_directions" in parameters:
        parameters["n_directions"] = parameters.pop("num_directions")
    case = _case(options, use_head and options.method in ("eddp", "uibe"))
    source = case.source
    request = Request(
        kind="directions",
        parameters={"method": options.method, **parameters, "head": case.head is not None},
        inputs={
            "features": dict(source.source),
            "images": source.dataset,
            "labels": {**options.files, "concepts": options.concepts, "vlm": options.vlm, "set": options.concept_set},
        },
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            import numpy as np
            from safetensors.numpy import save_file

            features = np.array(source.values, dtype=np.float32)
            log.info("%s on %d samples of %s: shape %s", options.method, source.n, source.name, features.shape[1:])
            directions = kind(**parameters, random_state=options.seed)
            with track(f"directions with {options.method}", None, "steps"):
                directions.fit(features, case.head)
            arrays = {
                "encoding": directions.encoding_,
                "decoding": directions.decoding_,
                "bias": directions.bias_,
                "margin": directions.margin_,
                "mean": directions.mean_,
            }
            save_file(
                {name: np.ascontiguousarray(a) for name, a in arrays.items()}, draft.path / "directions.safetensors"
            )
            record = _record(options, request, directions, case, features)
            write_json(draft.path / "directions.json", record.to_document(folder.as_posix()))
            draft.manifest.rows = len(directions.bias_)
    document = draft.result.document()
    columns, rows = _table(document)
    lines = [f"note: {note}" for note in document["notes"]]
    if document["scores"].get("recovery"):
        found = document["scores"]["recovery"]
        lines.insert(0, ", ".join(f"{name} {value:.3g}" for name, value in found.items() if isinstance(value, float)))
    return Outcome(
        draft.result, document, f"directions of {source.name} ({source.layer or 'array'})", columns, rows, lines
    )


def _constructor(kind: Any) -> list[str]:
    import inspect

    return [name for name in inspect.signature(kind).parameters if name not in ("random_state", "device")]


def _is_synthetic(options: ExplainOptions) -> bool:
    return (options.selection.dataset or "").startswith(SYNTHETIC)


def _parameters(options: ExplainOptions) -> tuple[dict[str, Any], bool]:
    parameters = dict(options.parameters)
    use_head = parameters.get("head", True)
    if not isinstance(use_head, bool):
        raise UsageError(f"--param head={use_head}: expected true or false")
    return parameters, use_head


def _case(options: ExplainOptions, use_head: bool) -> _Case:
    if _is_synthetic(options):
        return _synthetic(options, use_head)
    pool = "none" if options.pool == "auto" else options.pool
    source = representation(options, spatial=True, pool=pool)
    head = None
    if use_head and options.model is not None:
        try:
            head = head_of(options, source)
        except RdxError as error:
            log.warning("without the network above the layer: %s", error.message)
    return _Case(source, head)


def _synthetic(options: ExplainOptions, use_head: bool) -> _Case:
    """A made-up case with known directions."""
    import numpy as np

    from rdxcli.methods.directions.synthetic import generate, named
    from rdxcli.records import Representation

    if options.model is not None or options.activations is not None:
        raise UsageError("a synthetic data set brings its own features", "leave out --model and --activations")
    name = str(options.selection.dataset).removeprefix(SYNTHETIC)
    case = generate(named(name))
    source = Representation(
        case.X,
        np.arange(len(case.X)).astype(str),
        f"synthetic-{name}",
        labels=np.array([f"class {k}" for k in case.y]),
        source={"synthetic": name, "dataset": f"synthetic-{name}"},
    )
    return _Case(source, case.head if use_head else None, case)


def _record(
    options: ExplainOptions, request: Request, directions: Directions, case: _Case, features: np.ndarray
) -> Any:
    import numpy as np

    from rdxcli.records import Directions as Record

    source = case.source
    responses = directions.responses(features)
    flat = responses.reshape(*responses.shape[:2], -1)
    strongest = flat.max(axis=2)
    present = strongest > 0
    notes = list(directions.notes_)
    influence = _influence(case, directions, features, options.seed, notes)
    masks = _mask_labels(options, source, responses, notes)
    maps = directions.concept_maps(features)
    words = _word_labels(options, source, maps, options.seed)
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
                "sample_ids": [_id(source, row) for row in rows],
                "sample_labels": None if source.labels is None else [str(source.labels[row]) for row in rows],
                "concept_maps": maps[rows, i].round(3).tolist() if maps.ndim == 4 else None,
                **({} if influence is None else {"influence": influence[i]}),
                **({} if masks is None else {"mask_label": masks[i]}),
                **({} if words is None else {"words": words[i]}),
            }
        )
    scores: dict[str, Any] = {"health": directions.health(features)}
    if case.truth is not None:
        scores["recovery"] = _recovery(directions, case.truth)
    return Record(
        method=options.method,
        parameters=request.parameters,
        seed=options.seed,
        notes=notes,
        model=source.describe(),
        directions=entries,
        scores=scores,
        samples={"dataset": source.dataset, "n": source.n},
    )


def _id(source: Representation, row: int) -> str:
    return str(row) if source.sample_ids is None else str(source.sample_ids[row])


def _make_up(source: Representation, rows: np.ndarray) -> dict[str, float]:
    if source.labels is None or not len(rows):
        return {}
    from rdxcli.services.comparison_record import make_up

    return make_up(source.labels[rows])


def _influence(
    case: _Case, directions: Directions, features: np.ndarray, seed: int, notes: list[str]
) -> list[list[dict[str, Any]]] | None:
    """Per direction the classes it moves most: effect in logits, derivative, p-value, significance."""
    if case.head is None:
        return None
    import numpy as np

    from rdxcli.methods.directions.influence import influence
    from rdxcli.services.explainers.samples import class_names

    # per class of the prediction, at most as many images as a laptop takes in seconds
    rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), 512)).astype(int))
    found = influence(directions, case.head, features[rows], random_state=seed)
    notes += [note for note in found.notes if note not in notes]
    names = class_names(case.source, int(found.classes.max()) + 1)
    return [
        [
            {
                "class": names[int(label)],
                "effect": float(found.effect[i, c]),
                "derivative": float(found.derivative[i, c]),
                "p_value": float(found.p_effect[i, c]),
                "significant": bool(found.significant[i, c]),
            }
            for c, label in sorted(enumerate(found.classes), key=lambda pair: -abs(found.effect[i, pair[0]]))[:6]
        ]
        for i in range(len(directions.bias_))
    ]


def _mask_labels(
    options: ExplainOptions, source: Representation, responses: np.ndarray, notes: list[str]
) -> list[dict[str, Any]] | None:
    """Names of directions by their overlap with concept masks: ``--file masks=FOLDER``, or the data set's own."""
    given = bool({"masks", "broden"} & set(options.files))
    if responses.ndim != 4 or (not given and not _has_masks(source)):
        return None
    import numpy as np

    from rdxcli.methods.directions.labelling import label_by_masks
    from rdxcli.services.masks import open_masks

    opened = open_masks(options, source)
    masks = np.stack([opened.read(row) for row in range(source.n)])
    is_train = np.arange(len(masks)) % 2 == 0
    found = label_by_masks(responses, masks, is_train, len(opened.names), ignore=-1 if masks.ndim == 3 else None)
    notes += opened.notes
    notes.append(
        f"labels by masks: {int(found.interpretable.sum())} of {len(found.label)} directions are interpretable"
    )
    return [
        {
            "concept": opened.names[int(label)],
            "iou": float(found.label_iou[i]),
            "interpretable": bool(found.interpretable[i]),
        }
        for i, label in enumerate(found.label)
    ]


def _has_masks(source: Representation) -> bool:
    from rdxcli.datasets.registry import open_dataset

    return source.dataset is not None and open_dataset(source.dataset).mask is not None


def _word_labels(
    options: ExplainOptions, source: Representation, maps: np.ndarray, seed: int
) -> list[list[dict[str, Any]]] | None:
    """Words whose image-text scores follow each direction, when concept scores or a vision-language model are given."""
    if not (options.concepts or options.vlm or "image_embeddings" in options.files):
        return None
    import numpy as np

    from rdxcli.methods.directions.labelling import label_by_words
    from rdxcli.services.concept_inputs import gather
    from rdxcli.services.concept_scores import open_scorer

    concepts = gather(options, source, labels=False, scorer=open_scorer(options) if options.vlm else None)
    scores = np.asarray(concepts.values[np.arange(source.n)])
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


def _table(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    rows = []
    for entry in document["directions"]:
        moved = [f"{one['class']} {one['effect']:+.2f}" for one in entry.get("influence", []) if one["significant"]]
        labels = ", ".join(f"{name} {share:.0%}" for name, share in list(entry["labels"].items())[:3])
        mask, words = entry.get("mask_label"), entry.get("words")
        named = f"{mask['concept']} (IoU {mask['iou']:.2f})" if mask else labels
        if words and not mask:
            named = ", ".join(word["word"] for word in words[:3]) + f" (p = {words[0]['p_value']:.2g})"
        rows.append([entry["index"], entry["images"], entry["share"], named or "-", ", ".join(moved[:3]) or "-"])
    return ["direction", "images", "share", "label", "moves the logits of"], rows
