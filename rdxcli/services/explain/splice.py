"""``rdx explain --method splice``: embeddings as sparse sums of word embeddings; compared with a surrogate if given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Draft
from rdxcli.artifacts.layout import array_dataset, dataset_folder, slug
from rdxcli.concepts.embeddings import Inputs, check_files, gather
from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import scipy
from rdxcli.methods.costs import documented
from rdxcli.methods.surrogate.splice import SpLiCE, distinct, unit
from rdxcli.parameters import Count, NonNegative, Parameter, Positive, Share, by_name, completed
from rdxcli.progress import human_count
from rdxcli.records import SampleAttributions
from rdxcli.services.base import Analysis
from rdxcli.services.explain.options import ExplainOptions

OWN = by_name(
    Parameter("l1", NonNegative, 0.25, "Weight of the penalty: larger means fewer words."),
    Parameter("tolerance", Positive, 1e-7, "Where the solver stops."),
    Parameter("top", Count, 10, "Words listed per image."),
    Parameter("duplicates", Share, 1.0, "Words with a larger cosine to an earlier word are left out."),
)


class SpliceAnalysis(Analysis[ExplainOptions]):
    """Image embeddings over words; with class texts also predictions, with captions also retrieval."""

    kind = "attributions"
    version = "3"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options)
        if options.vlm is not None and options.concept_set is None:
            raise UsageError("SpLiCE explains image embeddings by words", "give the words: --concept-set FILE")
        return {"method": "splice", **completed(options.method, OWN, options.parameters)}

    def gather(self) -> Mapping[str, Any]:
        given = gather(self.options, images=True, words=())
        if given.images is None or given.word_embeddings is None or given.words is None:
            raise UsageError(
                "SpLiCE explains image embeddings by words",
                "give --vlm MODEL --dataset NAME --concept-set FILE, or "
                "--file image_embeddings=FILE --file word_embeddings=FILE --concept-set FILE",
            )
        return {"embeddings": given}

    def folder(self) -> Path:
        options, given = self.options, self.records["embeddings"]
        dataset = slug(given.name) if given.dataset else array_dataset(slug(given.name))
        return dataset_folder(options.outputs, dataset) / "explanations" / slug(options.run or options.method)

    def compute(self, draft: Draft) -> SampleAttributions:
        from rdxcli.methods.surrogate.faithfulness import constant_student, measure, splice_student

        given: Inputs = self.records["embeddings"]
        top = int(self.settings["top"])
        images = np.asarray(given.images)
        model, weights, notes = decompose(given, self.settings)
        words = given.words or []

        scipy.sparse.save_npz(draft.path / "attributions.npz", weights)
        students = {"splice": splice_student(model, weights), "constant": constant_student(images)}
        found = measure(students, images, classes=given.classes, texts=given.captions)
        ids = given.ids if given.ids is not None else [str(i) for i in range(len(images))]
        draft.manifest.rows = len(images)
        return SampleAttributions(
            method="splice",
            parameters=self.settings,
            seed=self.options.seed,
            notes=[*given.notes, *notes],
            images=[
                {"sample_id": sample, "concepts": chosen}
                for sample, chosen in zip(ids, words_per_image(weights, words, top), strict=True)
            ],
            samples={"dataset": self.options.selection.dataset, "n": len(images)},
            classes=given.class_names,
            summary={"data_set": mean_words(weights, words, top)},
            more={"scoreboard": found.scoreboard, "curves": found.curves, "retrieval": found.retrieval},
        )

    def headline(self) -> str:
        return f"splice: {self.records['embeddings'].said()}"

    def sizes(self) -> Mapping[str, float]:
        given: Inputs | None = self.records.get("embeddings")
        if given is None and {"image_embeddings", "word_embeddings"} <= set(self.options.files):
            given = gather(self.options, images=True, words=())  # arrays, which are not read yet
        if given is None or given.images is None:
            return {}
        return {"n": len(given.images), "d": given.images.shape[1], "c": len(given.words or [])}

    def plan(self) -> dict[str, Any]:
        read = {"files": dict(self.options.files), "words": self.options.concept_set}
        return {**self.check(), **read, **documented(self.expected())}


def decompose(given: Inputs, settings: Mapping[str, Any]) -> tuple[Any, Any, list[str]]:
    """The fitted model, the weights (n, w) of every image, and remarks.

    `given`: words that say what others say leave it; `settings`: ``l1``, ``tolerance`` and ``duplicates``.
    """
    values = np.array(given.images, dtype=np.float64)
    notes, mean = [], given.image_mean
    if mean is None:
        mean = unit(values).mean(axis=0)
        if len(values) < 1000:
            notes.append(
                f"SpLiCE centres by the mean of {human_count(len(values), 'image')}; give the mean of "
                "many: --file image_mean=FILE"
            )
    elif mean.shape != values.shape[1:]:
        raise InputError(f"the image mean has {human_count(len(mean), 'dimension')}, the images {values.shape[1]}")
    words, embedded = given.words or [], np.asarray(given.word_embeddings)
    kept = distinct(words, embedded, settings["duplicates"])
    if left := len(words) - len(kept):
        notes.append(f"{left} of {human_count(len(words), 'word')} are left out of SpLiCE: others say the same")
        given.words, given.word_embeddings = [words[j] for j in kept], embedded[kept]
    model = SpLiCE(l1=settings["l1"], tolerance=settings["tolerance"]).fit(given.word_embeddings, mean)
    weights = model.transform(values)
    if empty := int((np.diff(weights.indptr) == 0).sum()):
        notes.append(
            f"{empty} of {human_count(len(values), 'image')} get no words from SpLiCE: l1 is too large for them"
        )
    return model, weights, notes


def words_per_image(weights: Any, words: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
    """The heaviest words of every image as ``{concept, score}``."""
    out = []
    for start, end in zip(weights.indptr[:-1], weights.indptr[1:], strict=True):
        order = np.argsort(-weights.data[start:end], kind="stable")[:top] + start
        out.append([{"concept": words[weights.indices[j]], "score": float(weights.data[j])} for j in order])
    return out


def mean_words(weights: Any, words: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The words with the largest mean weight."""
    mean = np.asarray(weights.sum(axis=0)).ravel() / weights.shape[0]
    return [
        {"concept": words[j], "score": float(mean[j])} for j in np.argsort(-mean, kind="stable")[:top] if mean[j] > 0
    ]


ANALYSIS = SpliceAnalysis
