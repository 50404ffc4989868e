"""``rdx explain --method surrogate``: which words explain an embedding, and a zero-shot prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, fingerprint_array, fingerprint_json, write_json
from rdxcli.artifacts.layout import dataset_folder, slug
from rdxcli.concepts.embeddings import gather
from rdxcli.concepts.encodings import details_of, load_encodings
from rdxcli.errors import InputError, UnknownNameError, UsageError, near_matches
from rdxcli.services.base import Outcome, check_parameters
from rdxcli.services.explain.base import ExplainOptions
from rdxcli.services.train_surrogate import load_surrogate

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.surrogate.encoding import Encodings

CODE = "2"
KNOWN = ("top", "bias", "contrast", "edit")


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    surrogate, encodings, names = trained(options)
    return {
        "method": options.method,
        "images": encodings.shape[0],
        "concepts": len(names),
        "dimensions": surrogate.dim,
        "artifact": folder_of(options),
    }


def explain(options: ExplainOptions) -> Outcome:
    """Score the concepts of every image, towards its embedding or towards classes, and store them.

    Raises
    ------
    RdxError, ValueError
        Missing or contradictory inputs.
    """
    check_parameters(options.method, options.parameters, KNOWN)
    surrogate, encodings, names = trained(options)
    before, encodings = encodings, _edited(options, encodings, names)
    asked = "contrast" in options.parameters or "class_names" in options.files
    teacher = details_of(str(options.surrogate), options.outputs, "surrogate").get("teacher") if asked else None
    given = gather(options, images=False, words=None, teacher=None if "text_embeddings" in options.files else teacher)
    classes, texts = given.class_names, given.classes
    top = int(options.parameters.get("top", 10))
    bias = str(options.parameters.get("bias", "separate" if classes else "rescaled"))
    pair = _contrast(options, classes)
    request = Request(
        kind="attributions",
        parameters={
            "method": options.method,
            "top": top,
            "bias": bias,
            "contrast": options.parameters.get("contrast"),
            "target": options.target,
            "edit": options.parameters.get("edit"),
        },
        inputs={
            **fingerprints(surrogate, encodings),
            "classes": classes,
            "texts": None if texts is None else fingerprint_array(texts),
        },
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            from scipy import sparse

            from rdxcli.methods.surrogate.attribution import image_scores

            images = image_scores(surrogate, encodings)
            sparse.save_npz(draft.path / "attributions.npz", images.csr())
            document, more = _document(options, request, surrogate, encodings, images, names, classes, texts, pair)
            document["notes"] = [*given.notes, *document["notes"]]
            if encodings is not before:
                document |= _effect(surrogate, before, encodings, document, texts)
            for name, scores in more.items():
                sparse.save_npz(draft.path / f"{name}.npz", scores.csr())
            write_json(draft.path / "attributions.json", {**document, "artifact": folder.as_posix()})
            draft.manifest.rows = encodings.shape[0]
    document = draft.result.document()
    columns, shown, lines = ["image", "prediction", "concepts"], document["images"], []
    if "contrast" in document["summary"]:
        found = document["summary"]["contrast"]
        first, second = found["class"], found["rival"]
        columns.append(f"why {first}, not {second}")
        # those that the question is about come first
        shown = sorted(shown, key=lambda image: {first: 0, second: 1}.get(image["prediction"], 2))
        lines.append(f"what speaks for {first} and not {second} in {found['over']}: {listed(found['concepts'], 10)}")
    rows = [
        [image["sample_id"], image.get("prediction"), words_of(image)]
        + ([listed(image["contrast"])] if "contrast" in image else [])
        for image in shown[:15]
    ]
    lines += [f"note: {note}" for note in document["notes"]]
    return Outcome(draft.result, document, "concepts of the images", columns, rows, lines)


def trained(options: ExplainOptions) -> tuple[Any, Encodings, list[str]]:
    """The surrogate, the encodings it is to explain, and the names of the concepts.

    Raises
    ------
    RdxError
        One is missing, or they do not fit each other.
    """
    if options.surrogate is None:
        raise UsageError("what is to be explained?", "give --surrogate and --encodings")
    surrogate, names = load_surrogate(options.surrogate, options.outputs)
    encodings = load_encodings(encodings_of(options), options.outputs)
    hint = "use the encodings the surrogate was trained on, or encode with its vocabulary: --vocabulary"
    if encodings.shape[1] != surrogate.num_concepts:
        raise InputError(
            f"the encodings have {encodings.shape[1]} concepts, the surrogate {surrogate.num_concepts}", hint
        )
    own = [_plain(concept) for concept in encodings.concepts]
    if names is None:
        names = [str(concept) for concept in encodings.concepts]
    elif own != [_plain(name) for name in names] and not all(name.startswith("concept") for name in own):
        first = next(i for i, (a, b) in enumerate(zip(own, map(_plain, names), strict=True)) if a != b)
        raise InputError(
            f"the encodings are over other concepts than the surrogate: column {first} is `{own[first]}`, not "
            f"`{_plain(names[first])}`",
            hint,
        )
    return surrogate, encodings if options.target is None else _targeted(options.target, encodings), names


def encodings_of(options: ExplainOptions) -> str:
    """The encodings that are named, or those the surrogate was trained on.

    Raises
    ------
    UsageError
        None are named, and the surrogate is a bare file.
    """
    told = options.encodings or details_of(str(options.surrogate), options.outputs, "surrogate").get("encodings")
    if told is None:
        raise UsageError("which images? the surrogate does not tell what it was trained on", "give --encodings")
    return str(told)


def _plain(concept: Any) -> str:
    """A concept without its part of speech, which a list of given words does not have."""
    return str(concept).rpartition("/")[0] or str(concept)


def _targeted(target: str, encodings: Encodings) -> Encodings:
    """The encodings of one image: its id, or its row."""
    ids = list(map(str, encodings.ids))
    if target in ids:
        return encodings.take([ids.index(target)])
    if target.isdigit() and int(target) < len(ids):
        return encodings.take([int(target)])
    near = near_matches(target, ids)
    raise UsageError(
        f"--target {target}: no such image in the encodings", f"did you mean `{near[0]}`?" if near else "give an id"
    )


def fingerprints(surrogate: Any, encodings: Encodings) -> dict[str, Any]:
    """Of a surrogate and of encodings, for the artifact's request."""
    state = {name: fingerprint_array(value.numpy()) for name, value in surrogate.published_state().items()}
    arrays = {name: fingerprint_array(a) for name, a in encodings.arrays().items()}
    return {
        "surrogate": state,
        "encodings": fingerprint_json(arrays),
        "samples": fingerprint_json(list(map(str, encodings.ids))),
    }


def folder_of(options: ExplainOptions) -> Path:
    """Where the explanation of these encodings goes."""
    name = Path(encodings_of(options))
    dataset = name.parts[-3] if len(name.parts) >= 3 else slug(name.stem)
    return dataset_folder(options.outputs, dataset) / "explanations" / slug(options.run or options.method)


def _document(
    options: ExplainOptions,
    request: Request,
    surrogate: Any,
    encodings: Encodings,
    images: Any,
    names: Sequence[str],
    classes: list[str] | None,
    texts: np.ndarray | None,
    pair: tuple[int, int] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The artifact's document, and further scores by the name of their file."""
    import numpy as np

    from rdxcli.methods.surrogate.attribution import contrast_scores, describe, unstable
    from rdxcli.methods.surrogate.prompts import duplicates
    from rdxcli.methods.surrogate.summaries import summarise
    from rdxcli.records import SCHEMA_VERSION, plain

    top = int(request.parameters["top"])
    chosen = images.top(top)
    blown = unstable(images, surrogate, encodings)
    entries: list[dict[str, Any]] = [
        {"sample_id": str(sample), "concepts": describe(chosen[i], names)} for i, sample in enumerate(encodings.ids)
    ]
    for i in np.flatnonzero(~encodings.has_concepts):
        entries[i]["remark"] = "no concept of the vocabulary is in its captions"
    for i in np.flatnonzero(blown):
        entries[i]["remark"] = "the bias makes most of the embedding: scores are unstable"
    summary: dict[str, Any] = {"data_set": summarise(images).top(0, names, top)}
    more: dict[str, Any] = {}
    notes = []
    if classes is not None and texts is not None:
        own = _towards_classes(surrogate, encodings, names, classes, texts, request.parameters, entries)
        more["for_prediction"] = own
        found = summarise(own, [entry["prediction"] for entry in entries])
        sizes = dict(zip(found.groups, found.sizes.tolist(), strict=True))
        summary["classes"] = [
            {
                "class": name,
                "images": sizes.get(name, 0),
                "concepts": found.top(list(found.groups).index(name), names, top) if name in sizes else [],
            }
            for name in classes
        ]
        if twice := duplicates(classes):
            notes.append(f"classes of the same name, of which the later can never win: {', '.join(twice)}")
    if pair is not None and texts is not None:
        more["contrast"] = against = contrast_scores(surrogate, encodings, texts[pair[0]], texts[pair[1]])
        for row, best in enumerate(against.top(top)):
            entries[row]["contrast"] = describe(best, names)
            entries[row]["contrast_difference"] = float(against.total[row])
            entries[row]["contrast_bias"] = float(against.bias[row])
        summary["contrast"] = _mean_contrast(
            against, entries, [classes[i] for i in pair] if classes else [], names, top
        )
    if without := int((~encodings.has_concepts).sum()):
        notes.append(f"{without} of {len(entries)} images have no concepts and therefore no scores")
    if blown.any():
        notes.append(f"{int(blown.sum())} images have unstable scores: the bias makes most of their embedding")
    if surrogate.mlp_dim is not None:
        notes.append("the surrogate has a hidden layer: concept scores describe its affine part only")
    document = plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "attributions",
            "artifact": None,
            "method": options.method,
            "parameters": request.parameters,
            "seed": options.seed,
            "notes": notes,
            "n": len(entries),
            "samples": {"dataset": options.selection.dataset, "n": len(entries)},
            "classes": classes,
            "summary": summary,
            "images": entries,
        }
    )
    return document, more


def _mean_contrast(
    against: Any, entries: Sequence[Mapping[str, Any]], pair: Sequence[str], names: Sequence[str], top: int
) -> dict[str, Any]:
    """Mean contrast over the images predicted as the first class; over all images when there are none."""
    from rdxcli.methods.surrogate.summaries import summarise

    first, second = pair
    groups = [first if entry["prediction"] == first else f"not {first}" for entry in entries]
    count = groups.count(first)
    found = summarise(against, groups if count else None)
    return {
        "class": first,
        "rival": second,
        "images": count,
        "over": f"the {count} images predicted as {first}" if count else f"all images (none is predicted as {first})",
        "concepts": found.top(list(found.groups).index(first) if count else 0, names, top),
    }


def _towards_classes(
    surrogate: Any,
    encodings: Encodings,
    names: Sequence[str],
    classes: list[str],
    texts: np.ndarray,
    parameters: Mapping[str, Any],
    entries: list[dict[str, Any]],
) -> Any:
    """Scores of every image towards the class it is predicted as; fills ``entries`` with predictions and concepts."""
    from rdxcli.methods.surrogate.attribution import best_texts, describe, text_scores

    labels = best_texts(surrogate, encodings, texts)
    own = text_scores(surrogate, encodings, texts[labels], bias=str(parameters["bias"]))
    for i, best in enumerate(own.top(int(parameters["top"]))):
        entries[i]["prediction"] = classes[int(labels[i])]
        entries[i]["similarity"] = float(own.total[i])
        entries[i]["bias"] = float(own.bias[i])
        entries[i]["for_prediction"] = describe(best, names)
    return own


def _contrast(options: ExplainOptions, classes: list[str] | None) -> tuple[int, int] | None:
    """Class numbers of ``--param contrast=A,B``: why A and not B. Names may hold commas."""
    given = options.parameters.get("contrast")
    if given is None:
        return None
    if classes is None:
        raise UsageError(
            "--param contrast=A,B needs classes",
            "give --vlm MODEL --dataset NAME, or --file text_embeddings=FILE --concept-set FILE",
        )
    text = str(given)
    cuts = [i for i, letter in enumerate(text) if letter == ","]
    for cut in cuts:
        a, b = text[:cut].strip(), text[cut + 1 :].strip()
        if a in classes and b in classes:
            return classes.index(a), classes.index(b)
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise UsageError(f"--param contrast={given}: expected two classes, A,B")
    raise UnknownNameError("class", next(part for part in parts if part not in classes), classes)


def _edited(options: ExplainOptions, encodings: Encodings, names: Sequence[str]) -> Encodings:
    """Encodings after ``--param edit=CONCEPT=VALUE,...``: what if every image had that share of the concept?

    Raises
    ------
    RdxError, ValueError
        Malformed text, an unknown concept, a value that is no number.
    """
    given = options.parameters.get("edit")
    if given is None:
        return encodings
    values: dict[int, float] = {}
    for part in str(given).split(","):
        name, equals, value = part.strip().rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"--param edit={given}: cannot read `{part}`", "write CONCEPT=VALUE, for example dog/n=0")
        fitting = [j for j, known in enumerate(names) if name in (known, _plain(known))]
        if not fitting:
            raise UnknownNameError("concept", name, [*names, *map(_plain, names)])
        values |= dict.fromkeys(fitting, number)
    return encodings.with_values(values)


def _effect(
    surrogate: Any, before: Encodings, after: Encodings, document: dict[str, Any], texts: np.ndarray | None
) -> dict[str, Any]:
    """What an edit did: how far each embedding turned, and which predictions changed; fills the document's images."""
    import numpy as np

    from rdxcli.methods.surrogate.attribution import Affine, best_texts
    from rdxcli.methods.surrogate.splice import unit

    old, new = (unit(Affine.of(surrogate).embed(encodings)) for encodings in (before, after))
    turned = 1.0 - np.einsum("nd,nd->n", old, new)
    changed = 0
    for i, entry in enumerate(document["images"]):
        entry["turned"] = float(turned[i])
    if texts is not None:
        for entry, label in zip(document["images"], best_texts(surrogate, before, texts), strict=True):
            entry["before"] = document["classes"][int(label)]
            changed += entry["before"] != entry["prediction"]
    told = (
        f"edited: {document['parameters']['edit']}; the embeddings turn by a mean of 1 - cosine = {np.mean(turned):.3g}"
    )
    if texts is not None:
        told += f", the prediction of {changed} of {len(turned)} images changes"
    return {"notes": [told, *document["notes"]], "edit": {"mean_turned": float(np.mean(turned)), "changed": changed}}


def listed(entries: Sequence[Mapping[str, Any]], most: int = 5) -> str:
    """Concepts with their scores in a line."""
    return ", ".join(f"{entry['concept']} {short(entry['score'])}" for entry in entries[:most]) or "-"


def short(score: float) -> str:
    """Two decimals, or one significant digit of a small number."""
    return f"{score:.2f}" if abs(score) >= 0.01 or score == 0 else f"{score:.1g}"


def words_of(image: Mapping[str, Any]) -> str:
    """An image's concepts in a line, or why there are none."""
    entries = image.get("for_prediction") or image["concepts"]
    return listed(entries) if entries else image.get("remark", "-")
