"""``rdx explain --method splice``: embeddings as sparse sums of word embeddings; compared with a surrogate if given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdxcli.artifacts import Request, create, write_json
from rdxcli.artifacts.layout import dataset_folder, slug
from rdxcli.concepts.embeddings import Inputs, check_files, gather
from rdxcli.errors import InputError, UsageError
from rdxcli.services.base import Outcome, check_parameters
from rdxcli.services.explain.base import ExplainOptions
from rdxcli.services.explain.surrogate import listed

CODE = "2"
KNOWN = ("l1", "tolerance", "top")


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    check_files(options)
    return {"method": options.method, "files": dict(options.files), "words": options.concept_set}


def explain(options: ExplainOptions) -> Outcome:
    """Decompose image embeddings over words; with class texts also predict, and compare with a surrogate.

    Raises
    ------
    RdxError, ValueError
        Missing or contradictory inputs.
    """
    check_parameters(options.method, options.parameters, KNOWN)
    if options.vlm is not None and options.concept_set is None:
        raise UsageError("SpLiCE explains image embeddings by words", "give the words: --concept-set FILE")
    given = gather(options, images=True, words=())
    if given.images is None or given.word_embeddings is None or given.words is None:
        raise UsageError(
            "SpLiCE explains image embeddings by words",
            "give --vlm MODEL --dataset NAME --concept-set FILE, or "
            "--file image_embeddings=FILE --file word_embeddings=FILE --concept-set FILE",
        )
    l1, tolerance, top = settings(options)
    request = Request(
        kind="attributions",
        parameters={"method": "splice", "l1": l1, "tolerance": tolerance, "top": top},
        inputs=given.fingerprint(),
        seed=options.seed,
        code=CODE,
    )
    folder = dataset_folder(options.outputs, slug(given.name)) / "explanations" / slug(options.run or options.method)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            from scipy import sparse

            from rdxcli.methods.surrogate.faithfulness import constant_student, measure, splice_student
            from rdxcli.records import plain

            model, weights, notes = decompose(given, l1, tolerance)
            sparse.save_npz(draft.path / "attributions.npz", weights)
            document = _document(options, request, given, weights, top, notes)
            students = {"splice": splice_student(model, weights), "constant": constant_student(given.images)}
            found = measure(students, given.images, classes=given.classes, texts=given.captions)
            document |= plain({"scoreboard": found.scoreboard, "curves": found.curves, "retrieval": found.retrieval})
            write_json(draft.path / "attributions.json", {**document, "artifact": folder.as_posix()})
            draft.manifest.rows = len(given.images)
    document = draft.result.document()
    rows = [[image["sample_id"], listed(image["concepts"])] for image in document["images"][:15]]
    lines = [f"note: {note}" for note in document["notes"]]
    for row in document["scoreboard"]:
        agreement = "" if row["agreement"] is None else f"agreement with the teacher {row['agreement']:.3f}, "
        lines.append(f"{row['method']}: {agreement}cosine {row['cosine']:.3f}, {row['l0']:.1f} concepts per image")
    return Outcome(draft.result, document, "words of the images", ["image", "words"], rows, lines)


def settings(options: ExplainOptions) -> tuple[float, float, int]:
    """l1, tolerance, top."""
    return (
        float(options.parameters.get("l1", 0.25)),
        float(options.parameters.get("tolerance", 1e-7)),
        int(options.parameters.get("top", 10)),
    )


def decompose(
    given: Inputs, l1: float, tolerance: float, rows: Sequence[int] | None = None
) -> tuple[Any, Any, list[str]]:
    """The fitted model, the weights (n, w) of every image, and remarks.

    Parameters
    ----------
    given : Inputs
    l1, tolerance : float
    rows : sequence of int, optional
        Images whose mean centres the images when no ``image_mean`` is given; all of them without it.
    """
    import numpy as np

    from rdxcli.methods.surrogate.splice import SpLiCE, unit

    values = np.array(given.images, dtype=np.float64)
    notes, mean = [], given.image_mean
    if mean is None:
        mean = unit(values if rows is None or not len(rows) else values[list(rows)]).mean(axis=0)
        if len(values) < 1000:
            notes.append(
                f"SpLiCE centres by the mean of {len(values)} images; give the mean of many: --file image_mean=FILE"
            )
    elif mean.shape != values.shape[1:]:
        raise InputError(f"the image mean has {len(mean)} dimensions, the images {values.shape[1]}")
    model = SpLiCE(l1=l1, tolerance=tolerance).fit(given.word_embeddings, mean)
    weights = model.transform(values)
    if empty := int((np.diff(weights.indptr) == 0).sum()):
        notes.append(f"{empty} of {len(values)} images get no words from SpLiCE: l1 is too large for them")
    return model, weights, notes


def words_per_image(weights: Any, words: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
    """The heaviest words of every image as ``{concept, score}``."""
    import numpy as np

    out = []
    for start, end in zip(weights.indptr[:-1], weights.indptr[1:], strict=True):
        order = np.argsort(-weights.data[start:end], kind="stable")[:top] + start
        out.append([{"concept": words[weights.indices[j]], "score": float(weights.data[j])} for j in order])
    return out


def mean_words(weights: Any, words: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The words with the largest mean weight."""
    import numpy as np

    mean = np.asarray(weights.sum(axis=0)).ravel() / weights.shape[0]
    return [
        {"concept": words[j], "score": float(mean[j])} for j in np.argsort(-mean, kind="stable")[:top] if mean[j] > 0
    ]


def _document(
    options: ExplainOptions, request: Request, given: Inputs, weights: Any, top: int, notes: list[str]
) -> dict[str, Any]:
    from rdxcli.records import SCHEMA_VERSION, plain

    n, words = weights.shape[0], given.words or []
    ids = given.ids if given.ids is not None else [str(i) for i in range(n)]
    entries = [
        {"sample_id": sample, "concepts": found}
        for sample, found in zip(ids, words_per_image(weights, words, top), strict=True)
    ]
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "attributions",
            "artifact": None,
            "method": "splice",
            "parameters": request.parameters,
            "seed": options.seed,
            "notes": [*given.notes, *notes],
            "n": n,
            "samples": {"dataset": options.selection.dataset, "n": n},
            "classes": given.class_names,
            "summary": {"data_set": mean_words(weights, words, top)},
            "images": entries,
        }
    )
