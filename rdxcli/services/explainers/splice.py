"""``rdx explain --method splice``: embeddings as sparse sums of word embeddings; compared with a surrogate if given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, fingerprint_array, fingerprint_json, write_json
from rdxcli.artifacts.layout import dataset_folder, slug
from rdxcli.errors import InputError, MissingDataError, UsageError
from rdxcli.services.explain import ExplainOptions, Outcome, check_parameters

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.records import Representation

CODE = "1"
KNOWN = ("l1", "tolerance", "top")


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {"method": options.method, "files": dict(options.files), "words": options.concept_set}


def explain(options: ExplainOptions) -> Outcome:
    """Decompose image embeddings over words; with class texts also predict, and compare with a surrogate.

    Raises
    ------
    RdxError, ValueError
        Missing or contradictory inputs.
    """
    check_parameters(options.method, options.parameters, KNOWN)
    images, words, names = _inputs(options)
    classes = _array(options, "text_embeddings")
    l1, tolerance = float(options.parameters.get("l1", 0.25)), float(options.parameters.get("tolerance", 1e-7))
    top = int(options.parameters.get("top", 10))
    request = Request(
        kind="attributions",
        parameters={"method": "splice", "l1": l1, "tolerance": tolerance, "top": top, "words": names},
        inputs={
            "images": fingerprint_array(images.values),
            "words": fingerprint_array(words),
            "classes": None if classes is None else fingerprint_array(classes),
            "rival": _rival_fingerprint(options),
        },
        seed=options.seed,
        code=CODE,
    )
    folder = dataset_folder(options.outputs, slug(images.name)) / "explanations" / slug(options.run or options.method)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            import numpy as np
            from scipy import sparse

            from rdxcli.methods.surrogate.splice import SpLiCE, unit

            values = np.array(images.values, dtype=np.float64)
            model = SpLiCE(l1=l1, tolerance=tolerance).fit(words, unit(values).mean(axis=0))
            weights = model.transform(values)
            sparse.save_npz(draft.path / "attributions.npz", weights)
            document = _document(options, request, images, names, weights, top)
            if classes is not None:
                student = model.reconstruct(weights)
                document["scoreboard"] = _scoreboard(options, images, classes, student, np.diff(weights.indptr))
            write_json(draft.path / "attributions.json", {**document, "artifact": folder.as_posix()})
            draft.manifest.rows = images.n
    document = draft.result.document()
    rows = [
        [image["sample_id"], ", ".join(f"{e['concept']} {e['score']:.2f}" for e in image["concepts"][:5]) or "-"]
        for image in document["images"][:15]
    ]
    lines = [f"note: {note}" for note in document["notes"]]
    for row in document.get("scoreboard", ()):
        lines.append(
            f"{row['method']}: agreement with the teacher {row['agreement']:.3f}, cosine {row['cosine']:.3f}, "
            f"{row['l0']:.1f} concepts per image"
        )
    return Outcome(draft.result, document, "words of the images", ["image", "words"], rows, lines)


def _rival_fingerprint(options: ExplainOptions) -> str | None:
    """What the surrogate of the scoreboard is made of."""
    if not (options.surrogate and options.encodings):
        return None
    from rdxcli.services.encode_concepts import load_encodings
    from rdxcli.services.train_surrogate import load_surrogate

    surrogate, _ = load_surrogate(options.surrogate, options.outputs)
    encodings = load_encodings(options.encodings, options.outputs)
    state = {name: fingerprint_array(value.numpy()) for name, value in surrogate.published_state().items()}
    arrays = {name: fingerprint_array(array) for name, array in encodings.arrays().items()}
    return fingerprint_json([state, arrays, list(map(str, encodings.ids))])


def _array(options: ExplainOptions, name: str) -> np.ndarray | None:
    from rdxcli.datasets.arrays import load_representation

    given = options.files.get(name)
    if given is None:
        return None
    import numpy as np

    return np.array(load_representation(given).values)


def _inputs(options: ExplainOptions) -> tuple[Representation, np.ndarray, list[str]]:
    from rdxcli.datasets.arrays import load_representation

    words, given = _array(options, "word_embeddings"), options.files.get("image_embeddings")
    if words is None or given is None or options.concept_set is None:
        raise UsageError(
            "SpLiCE explains image embeddings by words",
            "give --file image_embeddings=FILE --file word_embeddings=FILE --concept-set FILE",
        )
    try:
        lines = Path(options.concept_set).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise MissingDataError(f"cannot read {options.concept_set}: {error.strerror}") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != len(words):
        raise InputError(f"{options.concept_set} has {len(names)} words, their embeddings {len(words)} rows")
    return load_representation(given), words, names


def _document(
    options: ExplainOptions, request: Request, images: Representation, names: list[str], weights: Any, top: int
) -> dict[str, Any]:
    import numpy as np

    from rdxcli.records import SCHEMA_VERSION, plain

    ids = list(map(str, images.sample_ids)) if images.sample_ids is not None else [str(i) for i in range(images.n)]
    entries = []
    for i, sample in enumerate(ids):
        span = slice(weights.indptr[i], weights.indptr[i + 1])
        order = np.argsort(-weights.data[span], kind="stable")[:top]
        found = [(weights.indices[span][j], weights.data[span][j]) for j in order]
        entries.append({"sample_id": sample, "concepts": [{"concept": names[c], "score": float(w)} for c, w in found]})
    mean = np.asarray(weights.sum(axis=0)).ravel() / images.n
    frequent = [j for j in np.argsort(-mean, kind="stable")[:top] if mean[j] > 0]
    empty = int((np.diff(weights.indptr) == 0).sum())
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "attributions",
            "artifact": None,
            "method": "splice",
            "parameters": {key: value for key, value in request.parameters.items() if key != "words"},
            "seed": options.seed,
            "notes": [f"{empty} of {images.n} images get no words: l1 is too large for them"] if empty else [],
            "n": images.n,
            "samples": {"dataset": options.selection.dataset, "n": images.n},
            "classes": None,
            "summary": {"data_set": [{"concept": names[j], "score": float(mean[j])} for j in frequent]},
            "images": entries,
        }
    )


def _scoreboard(
    options: ExplainOptions, images: Representation, classes: np.ndarray, student: np.ndarray, used: Any
) -> list[dict[str, Any]]:
    """SpLiCE, and the surrogate when one is given, on the same images and classes: best agreement first."""
    from rdxcli.methods.surrogate.evaluation import classification, scoreboard
    from rdxcli.records import plain

    results = {"splice": classification(student, images.values, classes, l0=used)}
    if options.surrogate and options.encodings:
        import torch

        from rdxcli.methods.surrogate.model import Rows
        from rdxcli.services.encode_concepts import load_encodings
        from rdxcli.services.train_surrogate import load_surrogate

        surrogate, _ = load_surrogate(options.surrogate, options.outputs)
        encodings = load_encodings(options.encodings, options.outputs)
        if images.sample_ids is not None:
            encodings = encodings.align([str(sample) for sample in images.sample_ids])
        elif len(encodings.ids) != images.n:
            raise InputError(f"got {len(encodings.ids)} encodings for {images.n} images without ids")
        with torch.inference_mode():
            z = surrogate(Rows.of(encodings.indptr, encodings.indices, encodings.shares)).numpy()
            texts = surrogate.keys(torch.as_tensor(classes, dtype=torch.float32)).numpy()
        results["surrogate"] = classification(z, images.values, classes, l0=encodings.l0, student_classes=texts)
    return plain(scoreboard(results))
