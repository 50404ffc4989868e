"""``rdx explain --method surrogate``: which words explain an embedding, and a zero-shot prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, fingerprint_array, fingerprint_json, write_json
from rdxcli.artifacts.layout import dataset_folder, slug
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.progress import track
from rdxcli.services.encode_concepts import load_encodings
from rdxcli.services.explain import ExplainOptions, Outcome, check_parameters
from rdxcli.services.train_surrogate import load_surrogate

if TYPE_CHECKING:
    import numpy as np

CODE = "1"
BLOCK = 2048  # images whose class scores are held at once
KNOWN = ("top", "bias", "contrast")


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {"method": options.method, "surrogate": options.surrogate, "encodings": options.encodings}


def explain(options: ExplainOptions) -> Outcome:
    """Score the concepts of every image, towards its embedding or towards classes, and store them.

    Raises
    ------
    RdxError, ValueError
        Missing or contradictory inputs.
    """
    check_parameters(options.method, options.parameters, KNOWN)
    if options.surrogate is None or options.encodings is None:
        raise UsageError("what is to be explained?", "give --surrogate and --encodings")
    surrogate, names = load_surrogate(options.surrogate, options.outputs)
    encodings = load_encodings(options.encodings, options.outputs)
    if encodings.shape[1] != surrogate.num_concepts:
        raise InputError(
            f"the encodings have {encodings.shape[1]} concepts, the surrogate {surrogate.num_concepts}",
            "use the encodings the surrogate was trained on, or encode with its vocabulary: --vocabulary",
        )
    if names is None:
        names = [str(concept) for concept in encodings.concepts]
    classes, texts = _classes(options)
    top = int(options.parameters.get("top", 10))
    bias = str(options.parameters.get("bias", "separate" if classes else "rescaled"))
    request = Request(
        kind="attributions",
        parameters={"method": options.method, "top": top, "bias": bias, "contrast": options.parameters.get("contrast")},
        inputs={
            "surrogate": {
                name: fingerprint_array(value.numpy()) for name, value in surrogate.published_state().items()
            },
            "encodings": fingerprint_json({name: fingerprint_array(a) for name, a in encodings.arrays().items()}),
            "classes": classes,
            "texts": None if texts is None else fingerprint_array(texts),
        },
        seed=options.seed,
        code=CODE,
    )
    name = Path(options.encodings)
    dataset = name.parts[-3] if len(name.parts) >= 3 else slug(name.stem)
    folder = dataset_folder(options.outputs, dataset) / "explanations" / slug(options.run or options.method)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            from scipy import sparse

            from rdxcli.methods.surrogate.attribution import image_scores

            images = image_scores(surrogate, encodings)
            sparse.save_npz(draft.path / "attributions.npz", images.csr())
            document = _document(options, request, surrogate, encodings, images, names, classes, texts, top, bias)
            write_json(draft.path / "attributions.json", {**document, "artifact": folder.as_posix()})
            draft.manifest.rows = encodings.shape[0]
    document = draft.result.document()
    rows = [[image["sample_id"], image.get("prediction"), _words(image)] for image in document["images"][:15]]
    lines = [f"note: {note}" for note in document["notes"]]
    return Outcome(draft.result, document, "concepts of the images", ["image", "prediction", "concepts"], rows, lines)


def _classes(options: ExplainOptions) -> tuple[list[str] | None, np.ndarray | None]:
    """Class names (``--concept-set``) and their text embeddings (``--file text_embeddings=FILE``)."""
    given = options.files.get("text_embeddings")
    if given is None:
        if "contrast" in options.parameters:
            raise UsageError(
                "--param contrast=A,B needs classes", "give --file text_embeddings=FILE --concept-set FILE"
            )
        return None, None
    import numpy as np

    from rdxcli.datasets.arrays import load_representation

    texts = load_representation(given)
    values = np.array(texts.values)  # a copy: torch warns about memory that is mapped read-only
    if options.concept_set is None:
        return [f"class {i}" for i in range(texts.n)], values
    try:
        lines = Path(options.concept_set).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise MissingDataError(f"cannot read {options.concept_set}: {error.strerror}") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != texts.n:
        raise InputError(f"{options.concept_set} has {len(names)} names, {texts.name} has {texts.n} rows")
    return names, values


def _document(
    options: ExplainOptions,
    request: Request,
    surrogate: Any,
    encodings: Any,
    images: Any,
    names: Sequence[str],
    classes: list[str] | None,
    texts: np.ndarray | None,
    top: int,
    bias: str,
) -> dict[str, Any]:
    import numpy as np

    from rdxcli.methods.surrogate.attribution import describe, unstable
    from rdxcli.records import SCHEMA_VERSION, plain

    chosen = images.top(top)
    blown = unstable(images, surrogate, encodings)
    entries: list[dict[str, Any]] = [
        {"sample_id": str(sample), "concepts": describe(chosen[i], names)} for i, sample in enumerate(encodings.ids)
    ]
    for i in np.flatnonzero(~encodings.has_concepts):
        entries[i]["remark"] = "no concept of the vocabulary is in its captions"
    for i in np.flatnonzero(blown):
        entries[i]["remark"] = "the bias makes most of the embedding: scores are unstable"
    summary: dict[str, Any] = {"data_set": _mean_scores(images, names, top)}
    if classes is not None and texts is not None:
        summary["classes"] = _towards_classes(options, surrogate, encodings, names, classes, texts, top, bias, entries)
    notes = []
    if without := int((~encodings.has_concepts).sum()):
        notes.append(f"{without} of {len(entries)} images have no concepts and therefore no scores")
    if blown.any():
        notes.append(f"{int(blown.sum())} images have unstable scores: the bias makes most of their embedding")
    if surrogate.mlp_dim is not None:
        notes.append("the surrogate has a hidden layer: concept scores describe its affine part only")
    return plain(
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


def _mean_scores(images: Any, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The concepts with the largest mean score over all images."""
    import numpy as np

    mean = np.bincount(images.indices, weights=images.scores, minlength=images.num_concepts) / len(images.bias)
    order = np.argsort(-mean, kind="stable")[:top]
    return [{"concept": names[j], "score": float(mean[j])} for j in order]


def _towards_classes(
    options: ExplainOptions,
    surrogate: Any,
    encodings: Any,
    names: Sequence[str],
    classes: list[str],
    texts: np.ndarray,
    top: int,
    bias: str,
    entries: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Predictions, the concepts that speak for them, and per class its mean concepts; fills ``entries``."""
    import numpy as np

    from rdxcli.methods.surrogate.attribution import class_scores, contrast_scores, describe

    pair = _contrast(options, classes)
    sums = np.zeros((len(classes), len(names)))
    sizes = np.zeros(len(classes), dtype=int)
    with track("class scores", len(entries), "images") as advance:
        for start in range(0, len(entries), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(entries)))
            part = encodings.take(rows)
            found = class_scores(surrogate, part, texts, bias=bias)
            for i, row in enumerate(rows):
                label = int(found.predictions[i])
                entries[row]["prediction"] = classes[label]
                entries[row]["similarity"] = float(found.similarity[i, label])
                entries[row]["bias"] = float(found.bias[i, label])
                entries[row]["for_prediction"] = describe(found.top(i, label, top), names)
                span = slice(found.indptr[i], found.indptr[i + 1])
                sums[label, found.indices[span]] += found.scores[span, label]
                sizes[label] += 1
            if pair is not None:
                against = contrast_scores(surrogate, part, texts[pair[0]], texts[pair[1]])
                for row, best in zip(rows, against.top(top), strict=True):
                    entries[row]["contrast"] = describe(best, names)
            advance(len(rows))
    summary = []
    for label, name in enumerate(classes):
        mean = sums[label] / max(sizes[label], 1)
        order = [j for j in np.argsort(-np.abs(mean), kind="stable")[:top] if mean[j] != 0]
        concepts = [{"concept": names[j], "score": float(mean[j])} for j in order]
        summary.append({"class": name, "images": int(sizes[label]), "concepts": concepts})
    return summary


def _contrast(options: ExplainOptions, classes: list[str]) -> tuple[int, int] | None:
    """Class numbers of ``--param contrast=A,B``: why A and not B."""
    given = options.parameters.get("contrast")
    if given is None:
        return None
    parts = [part.strip() for part in str(given).split(",")]
    if len(parts) != 2:
        raise UsageError(f"--param contrast={given}: expected two classes, A,B")
    for part in parts:
        if part not in classes:
            from rdxcli.errors import UnknownNameError

            raise UnknownNameError("class", part, classes)
    return classes.index(parts[0]), classes.index(parts[1])


def _words(image: Mapping[str, Any]) -> str:
    entries = image.get("for_prediction") or image["concepts"]
    return ", ".join(f"{entry['concept']} {entry['score']:.2f}" for entry in entries[:5]) or image.get("remark", "-")
