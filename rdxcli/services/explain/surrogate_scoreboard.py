"""``rdx explain --method all``: a surrogate and SpLiCE on the same embeddings, with one scoreboard.

Images on which the surrogate was trained are left out, so that the figures hold for images it has not seen; SpLiCE,
which has seen none, is judged on the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, resolve_artifact, write_json
from rdxcli.concepts.embeddings import Inputs, check_files, gather
from rdxcli.concepts.encodings import details_of
from rdxcli.errors import InputError, UsageError
from rdxcli.progress import log
from rdxcli.services.base import Outcome, check_parameters
from rdxcli.services.explain import splice, surrogate
from rdxcli.services.explain.base import ExplainOptions

if TYPE_CHECKING:
    from rdxcli.methods.surrogate.encoding import Encodings

CODE = "1"
KNOWN = ("l1", "tolerance", "top", "images", "gallery", "curve_images")
CHOICES = ("held-out", "all")
COLUMNS = (
    ("method", "method"),
    ("agreement", "agreement"),
    ("agreement_interval", "95 % interval"),
    ("accuracy", "accuracy"),
    ("i2t_r1", "best text %"),
    ("t2i_r1", "best image %"),
    ("cosine", "cosine"),
    ("l0", "concepts"),
    ("deletion_gain", "deletion"),
    ("insertion_gain", "insertion"),
)
"""Key and title of each column of the table for people."""


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    check_files(options)
    done = surrogate.plan(options)
    return {**done, "methods": ["surrogate", "splice", "constant"], "teacher": options.vlm or _origin(options)[0]}


def explain(options: ExplainOptions) -> Outcome:
    """Judge both methods by the teacher, and put their words for every image side by side.

    Raises
    ------
    RdxError, ValueError
        Missing or contradictory inputs.
    """
    from rdxcli.methods.surrogate.evaluation import published_line

    check_parameters(options.method, options.parameters, KNOWN)
    model, encodings, names = surrogate.trained(options)
    given = _teacher(options, encodings)
    encodings, seen = _joined(options, given, encodings)
    l1, tolerance, top = splice.settings(options)
    request = Request(
        kind="attributions",
        parameters={
            "method": options.method,
            "l1": l1,
            "tolerance": tolerance,
            "top": top,
            "images": "all" if seen else "held-out",
            "gallery": int(options.parameters.get("gallery", 1000)),
            "curve_images": int(options.parameters.get("curve_images", 2000)),
        },
        inputs={**surrogate.fingerprints(model, encodings), **given.fingerprint()},
        seed=options.seed,
        code=CODE,
    )
    folder = surrogate.folder_of(options)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            document = _document(options, request, given, model, encodings, names)
            write_json(draft.path / "attributions.json", {**document, "artifact": folder.as_posix()})
            draft.manifest.rows = document["n"]
    document = draft.result.document()
    shown = [(key, title) for key, title in COLUMNS if any(row.get(key) is not None for row in document["scoreboard"])]
    rows = [[_cell(row.get(key)) for key, _ in shown] for row in document["scoreboard"]]
    lines = [f"note: {note}" for note in document["notes"]]
    if (own := document["scoreboard"][0].get("teacher_accuracy")) is not None:
        lines.append(f"accuracy of the teacher itself: {own:.3f}")
    for row in document["scoreboard"]:
        if row.get("accuracy") is not None:
            lines.append(f"{row['method']} as published {published_line(row)}")
    for pair in document["paired"]:
        lines.append(
            f"{pair['a']} against {pair['b']}: {pair['only_a']} and {pair['only_b']} images on which only one of them "
            f"agrees with the teacher (p = {pair['p']:.2g})"
        )
    title = f"{document['n']} images, agreement with the teacher"
    return Outcome(draft.result, document, title, [title for _, title in shown], rows, lines)


def _cell(value: Any) -> Any:
    return f"{value[0]:.3f} to {value[1]:.3f}" if isinstance(value, list) else value


def _origin(options: ExplainOptions) -> tuple[str | None, Any, set[str] | None]:
    """Teacher, captions and training images of the surrogate, when its artifact tells."""
    details = details_of(str(options.surrogate), options.outputs, "surrogate")
    if not details:
        return None, None, None  # a bare file of weights
    path = resolve_artifact(str(options.surrogate), options.outputs, "surrogate").path
    folder = path if path.is_dir() else path.parent
    split = folder / "samples.json"
    trained = set(json.loads(split.read_text("utf-8"))["train"]) if split.is_file() else None
    return details.get("teacher"), details.get("captions"), trained


def _teacher(options: ExplainOptions, encodings: Encodings) -> Inputs:
    """The teacher's embeddings; its name, and the captions, are the surrogate's own unless others are given."""
    from dataclasses import replace

    teacher, captions, _ = _origin(options)
    there = captions is not None and any(path.exists() for path in (Path(captions), options.outputs / captions))
    if there and "captions" not in options.files and "image_embeddings" not in options.files:
        options = replace(options, files={**options.files, "captions": captions})
    words = list(dict.fromkeys(concept.lemma for concept in encodings.concepts))
    given = gather(options, images=True, words=words, teacher=teacher)
    if given.images is None:
        raise UsageError(
            "what does the teacher say?",
            "give --vlm MODEL --dataset NAME, or --file image_embeddings=FILE (and text_embeddings, "
            "caption_embeddings, word_embeddings)",
        )
    return given


def _joined(options: ExplainOptions, given: Inputs, encodings: Encodings) -> tuple[Encodings, bool]:
    """Encodings and embeddings of the same images in the same order, and whether training images are among them."""
    import numpy as np

    wanted = options.parameters.get("images")
    if wanted not in (None, *CHOICES):
        raise UsageError(f"--param images={wanted}: choose one of {', '.join(CHOICES)}")
    assert given.images is not None
    ids = list(map(str, encodings.ids))
    if given.ids is None:
        if len(ids) != len(given.images):
            raise InputError(f"got {len(ids)} encodings for {len(given.images)} images without ids")
        given.ids = ids
    known = set(ids)
    rows = [i for i, sample in enumerate(given.ids) if sample in known]
    if not rows:
        raise InputError(
            f"none of the {len(ids)} encoded images has an embedding in {given.name}",
            f"the encodings have `{ids[0]}`, the embeddings `{given.ids[0]}`",
        )
    if len(rows) < len(ids):
        given.notes.append(f"{len(ids) - len(rows)} of {len(ids)} encoded images have no embedding")
    trained = _origin(options)[2]
    seen = trained is None or any(given.ids[i] in trained for i in rows)
    if trained is not None and wanted != "all":
        fresh = [i for i in rows if given.ids[i] not in trained]
        if fresh:
            rows, seen = fresh, False
        elif wanted == "held-out":
            raise InputError("the surrogate was trained on all of these images", "give --param images=all")
    if seen:
        given.notes.append(
            "the surrogate was trained on some of these images: the figures do not hold for others"
            if trained is not None
            else "it is not known which images the surrogate was trained on: the figures may not hold for others"
        )
    others = sorted(set(range(len(given.images))) - set(rows))
    if given.image_mean is None and others:
        from rdxcli.methods.surrogate.splice import unit

        given.image_mean = unit(np.asarray(given.images[others], dtype=np.float64)).mean(axis=0)
    given.take(rows)
    return encodings.align(given.ids), seen


def _document(
    options: ExplainOptions, request: Request, given: Inputs, model: Any, encodings: Encodings, names: list[str]
) -> dict[str, Any]:
    import numpy as np

    from rdxcli.methods.surrogate.attribution import describe, image_scores
    from rdxcli.methods.surrogate.evaluation import predict
    from rdxcli.methods.surrogate.faithfulness import constant_student, measure, splice_student, surrogate_student
    from rdxcli.methods.surrogate.summaries import summarise
    from rdxcli.records import SCHEMA_VERSION, plain

    images = np.asarray(given.images, dtype=np.float64)
    parameters, notes = request.parameters, [*given.notes]
    top = int(parameters["top"])
    scores = image_scores(model, encodings)
    students = {"surrogate": surrogate_student(model, encodings)}
    entries: list[dict[str, Any]] = [
        {"sample_id": sample, "methods": {"surrogate": {"concepts": describe(best, names)}}}
        for sample, best in zip(given.ids or [], scores.top(top), strict=True)
    ]
    summary: dict[str, Any] = {"surrogate": summarise(scores).top(0, names, top)}
    failed = None
    if given.word_embeddings is None or given.words is None:
        failed = "no word embeddings: give --file word_embeddings=FILE --concept-set FILE"
    else:
        try:
            fitted, weights, said = splice.decompose(given, parameters["l1"], parameters["tolerance"])
        except InputError:
            raise
        except ValueError as error:
            failed = str(error)
        else:
            notes += said
            students["splice"] = splice_student(fitted, weights)
            summary["splice"] = splice.mean_words(weights, given.words, top)
            for entry, words in zip(entries, splice.words_per_image(weights, given.words, top), strict=True):
                entry["methods"]["splice"] = {"concepts": words}
    students["constant"] = constant_student(images)
    labels = _labels(given, notes)
    log.info("judging %s on %d images", ", ".join(students), len(images))
    found = measure(
        students,
        images,
        classes=given.classes,
        texts=given.captions,
        labels=labels,
        gallery=parameters["gallery"],
        curve_images=parameters["curve_images"],
        random_state=options.seed,
    )
    if given.classes is not None and given.class_names is not None:
        said_by = {"teacher": predict(images, given.classes)}
        judged = {name: one for name, one in students.items() if name != "constant"}
        said_by |= {name: predict(one.embeddings, one.keys(given.classes)) for name, one in judged.items()}
        for i, entry in enumerate(entries):
            entry["prediction"] = given.class_names[int(said_by["teacher"][i])]
            for name, methods in entry["methods"].items():
                methods["prediction"] = given.class_names[int(said_by[name][i])]
    board = list(found.scoreboard)
    if failed is not None:
        board.append({key: None for key in board[0]} | {"method": "splice"})
        notes.append(f"splice did not run: {failed}")
    notes += _remarks(board)
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "attributions",
            "artifact": None,
            "method": options.method,
            "parameters": parameters,
            "seed": options.seed,
            "notes": notes,
            "n": len(entries),
            "samples": {"dataset": options.selection.dataset, "n": len(entries)},
            "classes": given.class_names,
            "summary": {"methods": summary},
            "scoreboard": board,
            "paired": found.paired,
            "retrieval": found.retrieval,
            "gallery": found.gallery,
            "curves": found.curves,
            "images": entries,
        }
    )


def _labels(given: Inputs, notes: list[str]) -> Any:
    """True classes as numbers; None, with a note, when labels are no class names."""
    import numpy as np

    if given.labels is None or given.class_names is None:
        return None
    number = {name: i for i, name in reversed(list(enumerate(given.class_names)))}
    if strange := sorted({label for label in given.labels if label not in number}):
        notes.append(f"no accuracy: the label `{strange[0]}` is none of the classes")
        return None
    return np.array([number[label] for label in given.labels])


def _remarks(board: list[dict[str, Any]]) -> list[str]:
    """What a reader of the scoreboard must know."""
    by_name: Mapping[str, dict[str, Any]] = {row["method"]: row for row in board}
    notes = []
    constant = by_name["constant"].get("agreement")
    for name, row in by_name.items():
        if name != "constant" and None not in (row.get("agreement"), constant) and row["agreement"] <= constant:
            notes.append(f"{name} agrees with the teacher no more often than a constant: it explains nothing here")
    one, other = by_name["surrogate"].get("l0"), by_name["splice"].get("l0") if "splice" in by_name else None
    if one and other and max(one, other) > 2 * min(one, other):
        notes.append(
            f"the methods differ in sparsity ({one:.1f} and {other:.1f} concepts per image); --param l1=X makes SpLiCE "
            f"{'denser with a smaller' if other < one else 'sparser with a larger'} X"
        )
    return notes
