"""``rdx explain --method all``: a surrogate, SpLiCE and a sparse autoencoder on the same embeddings, one scoreboard.

Images on which the surrogate was trained are left out, so that the figures hold for images it has not seen; the
autoencoder learns from those that are left out, SpLiCE from none, and all are judged on the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from rdxcli.artifacts import Draft, resolve_artifact
from rdxcli.concepts.embeddings import Inputs, check_files, class_numbers, gather
from rdxcli.concepts.encodings import details_of
from rdxcli.concepts.surrogates import identities
from rdxcli.datasets.words import find, taken_as_one
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.dictionaries.named import NamedDictionary
from rdxcli.methods.surrogate.attribution import describe, image_scores
from rdxcli.methods.surrogate.encoding import Encodings
from rdxcli.methods.surrogate.evaluation import predict
from rdxcli.methods.surrogate.faithfulness import constant_student, measure, remarks, splice_student, surrogate_student
from rdxcli.methods.surrogate.splice import unit
from rdxcli.methods.surrogate.summaries import summarise
from rdxcli.parameters import Count, Parameter, by_name, completed
from rdxcli.progress import human_count, log
from rdxcli.records import SampleAttributions
from rdxcli.services.base import Analysis
from rdxcli.services.explain import splice, surrogate
from rdxcli.services.explain.options import ExplainOptions

OWN = {
    **splice.OWN,
    **by_name(
        Parameter("images", Literal["held-out", "all"] | None, None, "Images that are judged."),
        Parameter("k", Count, 8, "Latents of the sparse autoencoder that are active in an image, on average."),
        Parameter("gallery", Annotated[int, Ge(2)], 1000, "Images and captions compared at a time."),
        Parameter("curve_images", Count, 2000, "Most images of the curves of deletion and insertion."),
    ),
}


class ScoreboardAnalysis(Analysis[ExplainOptions]):
    """Both methods judged by the teacher, and their words for every image side by side."""

    kind = "attributions"
    version = "3"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options)
        if options.surrogate is None:
            raise UsageError("what is to be explained?", "give --surrogate and --encodings")
        return {"method": options.method, **completed(options.method, OWN, options.parameters)}

    def gather(self) -> Mapping[str, Any]:
        self.model, encodings, self.names = surrogate.explained(self.options)
        self.given = _teacher(self.options, encodings)
        self.encodings, seen, self.others = _joined(self.options, self.settings["images"], self.given, encodings)
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
            "methods": ["surrogate", "splice", "sae", "constant"],
            "teacher": self.options.vlm or _origin(self.options)[0],
        }

    def compute(self, draft: Draft) -> SampleAttributions:
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
        failed = {}
        for method in ("splice", "sae"):
            try:
                fitted, weights, words, said = self._baseline(method)
            except InputError:
                raise
            except ValueError as error:
                failed[method] = str(error)
            else:
                notes += said
                students[method] = splice_student(fitted, weights)
                summary[method] = splice.mean_words(weights, words, top)
                for entry, chosen in zip(entries, splice.words_per_image(weights, words, top), strict=True):
                    entry["methods"][method] = {"concepts": chosen}
        students["constant"] = constant_student(images)
        labels = class_numbers(given, notes)
        log.info("judging %s on %s", ", ".join(students), human_count(len(images), "image"))
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
        for method, why in failed.items():
            board.append({key: None for key in board[0]} | {"method": method})
            notes.append(f"{method} did not run: {why}")
        notes += remarks(board)
        draft.manifest.rows = len(entries)
        return SampleAttributions(
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

    def _baseline(self, method: str) -> tuple[Any, Any, Sequence[str], list[str]]:
        """A model over words that reads the embeddings themselves, its weights of the judged images, remarks."""
        given, parameters = self.given, self.settings
        if given.word_embeddings is None or given.words is None:
            raise ValueError("no word embeddings: give --file word_embeddings=FILE --concept-set FILE")
        if method == "splice":
            fitted, weights, said = splice.decompose(given, parameters)
            return fitted, weights, given.words, said
        if len(self.others) < 100:
            raise ValueError(
                f"it learns from images that are not judged, and there are {len(self.others)} of at least 100"
            )
        latents = NamedDictionary(k=parameters["k"], random_state=self.options.seed)
        latents.fit(self.others, given.word_embeddings, given.words)
        clear = int((latents.p_value_ <= 0.05).sum())
        note = (
            f"sae: {clear} of {human_count(len(latents.p_value_), 'latent')} have a name nearer than 95 % of "
            "random directions have"
        )
        return latents, latents.transform(given.images), latents.names_, [note]


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


def _joined(
    options: ExplainOptions, wanted: str | None, given: Inputs, encodings: Encodings
) -> tuple[Encodings, bool, np.ndarray]:
    """Encodings and embeddings of the same images in the same order, and whether training images are among them.

    The last are the embeddings of the images that are not judged.
    """
    assert given.images is not None
    ids = list(map(str, encodings.ids))
    if given.ids is None:
        if len(ids) != len(given.images):
            raise InputError(
                f"got {human_count(len(ids), 'encoding')} for {human_count(len(given.images), 'image')} without ids"
            )
        given.ids = ids
    places, note = find(given.ids, ids)
    given.ids = [ids[place] if place >= 0 else sample for sample, place in zip(given.ids, places, strict=True)]
    rows = np.flatnonzero(places >= 0).tolist()
    if note:
        given.notes.append(taken_as_one(note, given.name, "the encodings"))
    if not rows:
        raise InputError(
            f"none of the {human_count(len(ids), 'encoded image')} has an embedding in {given.name}",
            f"the encodings have `{ids[0]}`, the embeddings `{given.ids[0]}`",
        )
    if len(rows) < len(ids):
        given.notes.append(f"{len(ids) - len(rows)} of {human_count(len(ids), 'encoded image')} have no embedding")
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
    left = np.asarray(given.images[others], dtype=np.float64)
    if given.image_mean is None and others:
        given.image_mean = unit(left).mean(axis=0)
    given.take(rows)
    return encodings.align(given.ids), seen, left


ANALYSIS = ScoreboardAnalysis
