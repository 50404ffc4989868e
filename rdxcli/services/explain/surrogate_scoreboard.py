"""``rdx explain --method all``: a surrogate and SpLiCE on the same embeddings, with one scoreboard.

Images on which the surrogate was trained are left out, so that the figures hold for images it has not seen; SpLiCE,
which has seen none, is judged on the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from rdxcli.artifacts import Draft, resolve_artifact
from rdxcli.concepts.embeddings import Inputs, check_files, gather
from rdxcli.concepts.encodings import details_of
from rdxcli.concepts.surrogates import identities
from rdxcli.datasets.words import find, taken_as_one
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.surrogate.attribution import describe, image_scores
from rdxcli.methods.surrogate.encoding import Encodings
from rdxcli.methods.surrogate.evaluation import predict
from rdxcli.methods.surrogate.faithfulness import constant_student, measure, splice_student, surrogate_student
from rdxcli.methods.surrogate.splice import unit
from rdxcli.methods.surrogate.summaries import summarise
from rdxcli.parameters import Count, Parameter, by_name, completed
from rdxcli.progress import log
from rdxcli.records import Attributions
from rdxcli.services.base import Analysis
from rdxcli.services.explain import splice, surrogate
from rdxcli.services.explain.options import ExplainOptions

OWN = {
    **splice.OWN,
    **by_name(
        Parameter("images", Literal["held-out", "all"] | None, None, "Images that are judged."),
        Parameter("gallery", Annotated[int, Ge(2)], 1000, "Images and captions compared at a time."),
        Parameter("curve_images", Count, 2000, "Most images of the curves of deletion and insertion."),
    ),
}


class ScoreboardAnalysis(Analysis[ExplainOptions]):
    """Both methods judged by the teacher, and their words for every image side by side."""

    kind = "attributions"
    version = "2"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options)
        if options.surrogate is None:
            raise UsageError("what is to be explained?", "give --surrogate and --encodings")
        return {"method": options.method, **completed(options.method, OWN, options.parameters)}

    def gather(self) -> Mapping[str, Any]:
        self.model, encodings, self.names = surrogate.explained(self.options)
        self.given = _teacher(self.options, encodings)
        self.encodings, seen = _joined(self.options, self.settings["images"], self.given, encodings)
        self.settings = {**self.settings, "images": "all" if seen else "held-out"}
        return {**identities(self.model, self.encodings), "teacher": self.given}

    def folder(self) -> Path:
        return surrogate.folder_of(self.options)

    def headline(self) -> str:
        which = "images that the surrogate has not seen" if self.settings["images"] == "held-out" else "images"
        return f"scoreboard on {len(self.encodings.ids):,} {which}: {self.given.said()}"

    def plan(self) -> dict[str, Any]:
        self.settings = self.check()
        model, encodings, names = surrogate.explained(self.options)
        return {
            "method": self.options.method,
            "images": encodings.shape[0],
            "concepts": len(names),
            "dimensions": model.dim,
            "artifact": self.folder(),
            "methods": ["surrogate", "splice", "constant"],
            "teacher": self.options.vlm or _origin(self.options)[0],
        }

    def compute(self, draft: Draft) -> Attributions:
        given, model, encodings, names, parameters = self.given, self.model, self.encodings, self.names, self.settings
        images = np.asarray(given.images, dtype=np.float64)
        notes = [*given.notes]
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
            random_state=self.options.seed,
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
        draft.manifest.rows = len(entries)
        return Attributions(
            method=self.options.method,
            parameters=self.settings,
            seed=self.options.seed,
            notes=notes,
            images=entries,
            samples={"dataset": self.options.selection.dataset, "n": len(entries)},
            classes=given.class_names,
            summary={"methods": summary},
            more={
                "scoreboard": board,
                "paired": found.paired,
                "retrieval": found.retrieval,
                "gallery": found.gallery,
                "curves": found.curves,
            },
        )


def _origin(options: ExplainOptions) -> tuple[str | None, Any, set[str] | None]:
    """Teacher, captions and images that had a say in the surrogate, when its artifact tells."""
    details = details_of(str(options.surrogate), options.outputs, "surrogate")
    if not details:
        return None, None, None  # a bare file of weights
    path = resolve_artifact(str(options.surrogate), options.outputs, "surrogate").path
    folder = path if path.is_dir() else path.parent
    split = folder / "samples.json"
    trained = None
    if split.is_file():
        told = json.loads(split.read_text("utf-8"))
        trained = {*told["train"], *told.get("validation", ())}  # those that chose the epoch are not untouched
    return details.get("teacher"), details.get("captions"), trained


def _teacher(options: ExplainOptions, encodings: Encodings) -> Inputs:
    """The teacher's embeddings; its name, and the captions, are the surrogate's own unless others are given."""
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


def _joined(options: ExplainOptions, wanted: str | None, given: Inputs, encodings: Encodings) -> tuple[Encodings, bool]:
    """Encodings and embeddings of the same images in the same order, and whether training images are among them."""
    assert given.images is not None
    ids = list(map(str, encodings.ids))
    if given.ids is None:
        if len(ids) != len(given.images):
            raise InputError(f"got {len(ids)} encodings for {len(given.images)} images without ids")
        given.ids = ids
    places, note = find(given.ids, ids)
    given.ids = [ids[place] if place >= 0 else sample for sample, place in zip(given.ids, places, strict=True)]
    rows = np.flatnonzero(places >= 0).tolist()
    if note:
        given.notes.append(taken_as_one(note, given.name, "the encodings"))
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
        given.image_mean = unit(np.asarray(given.images[others], dtype=np.float64)).mean(axis=0)
    given.take(rows)
    return encodings.align(given.ids), seen


def _labels(given: Inputs, notes: list[str]) -> Any:
    """True classes as numbers; None, with a note, when labels are no class names."""
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


ANALYSIS = ScoreboardAnalysis
