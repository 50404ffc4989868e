"""``rdx explain --method surrogate``: which words explain an embedding, and a zero-shot prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdxcli.artifacts import Draft, resolve_artifact
from rdxcli.artifacts.layout import array_dataset, dataset_folder, slug
from rdxcli.concepts.embeddings import check_files, gather
from rdxcli.concepts.encodings import dataset_of, details_of
from rdxcli.concepts.surrogates import contrast, edited, encodings_of, identities, trained
from rdxcli.errors import RdxError, UsageError
from rdxcli.lazy import scipy
from rdxcli.methods.costs import documented
from rdxcli.methods.surrogate.attribution import (
    Affine,
    best_texts,
    contrast_scores,
    describe,
    image_scores,
    text_scores,
    unstable,
)
from rdxcli.methods.surrogate.encoding import Encodings
from rdxcli.methods.surrogate.prompts import duplicates
from rdxcli.methods.surrogate.splice import unit
from rdxcli.methods.surrogate.summaries import summarise
from rdxcli.parameters import Count, Parameter, by_name, completed
from rdxcli.progress import human_count
from rdxcli.records import SampleAttributions, plain
from rdxcli.services.base import Analysis
from rdxcli.services.explain.options import ExplainOptions

OWN = by_name(
    Parameter("top", Count, 10, "Concepts listed per image."),
    Parameter("bias", Literal["separate", "rescaled"] | None, None, "Whether the bias has a score of its own."),
    Parameter("contrast", str | None, None, "A,B: why class A and not B."),
    Parameter("edit", str | None, None, "CONCEPT=VALUE,...: what if every image had that share of the concept?"),
)


class SurrogateAnalysis(Analysis[ExplainOptions]):
    """Scores of the concepts of every image, towards its embedding or towards classes."""

    kind = "attributions"
    version = "3"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        check_files(options)
        if options.surrogate is None:
            raise UsageError("what is to be explained?", "give --surrogate and --encodings")
        if options.concept_set is not None:
            raise UsageError(
                "--concept-set: a surrogate explains by the concepts that it was trained on",
                f"names of classes are --file class_names={options.concept_set}; other words are for --method all",
            )
        return {
            "method": options.method,
            "target": options.target,
            **completed(options.method, OWN, options.parameters),
        }

    def gather(self) -> Mapping[str, Any]:
        options = self.options
        self.surrogate, self.before, self.names = explained(options)
        told = encodings_of(str(options.surrogate), options.encodings, options.outputs)
        self.encodings = edited(self.before, self.settings["edit"], self.names, told, options.outputs)
        asked = self.settings["contrast"] is not None or "class_names" in options.files
        teacher = details_of(str(options.surrogate), options.outputs, "surrogate").get("teacher") if asked else None
        own = None if "text_embeddings" in options.files else teacher
        self.given = gather(options, images=False, words=None, teacher=own)
        self.pair = contrast(self.settings["contrast"], self.given.class_names)
        bias = self.settings["bias"] or ("separate" if self.given.class_names else "rescaled")
        self.settings = {**self.settings, "bias": bias}
        return {**identities(self.surrogate, self.encodings), "classes": self.given}

    def folder(self) -> Path:
        return folder_of(self.options)

    def headline(self) -> str:
        n, c = self.encodings.shape
        return f"surrogate: {human_count(n, 'image')} over {human_count(c, 'concept')}, {self.given.said()}"

    def compute(self, draft: Draft) -> SampleAttributions:
        surrogate, encodings, top = self.surrogate, self.encodings, int(self.settings["top"])
        images = image_scores(surrogate, encodings)
        scipy.sparse.save_npz(draft.path / "attributions.npz", images.csr())
        entries, summary, notes = self._described(images, top)
        for name, scores in self._class_scores(entries, summary, notes, top).items():
            scipy.sparse.save_npz(draft.path / f"{name}.npz", scores.csr())
        more: dict[str, Any] = {}
        if encodings is not self.before:
            note, more["edit"] = self._effect(entries)
            notes = [note, *notes]
        draft.manifest.rows = encodings.shape[0]
        return SampleAttributions(
            method=self.options.method,
            parameters=self.settings,
            seed=self.options.seed,
            notes=[*self.given.notes, *notes],
            images=[plain(entry) for entry in entries],
            samples={"dataset": self.options.selection.dataset, "n": len(entries)},
            classes=self.given.class_names,
            summary=summary,
            more=more,
        )

    def sizes(self) -> Mapping[str, float]:
        n, c = self.encodings.shape
        return {"n": n, "c": c, "d": self.surrogate.dim}

    def plan(self) -> dict[str, Any]:
        self.settings = self.check()
        self.surrogate, self.encodings, names = explained(self.options)
        surrogate, encodings = self.surrogate, self.encodings
        return {
            "method": self.options.method,
            "images": encodings.shape[0],
            "concepts": len(names),
            "dimensions": surrogate.dim,
            "artifact": self.folder(),
            **documented(self.expected()),
        }

    def _described(self, images: Any, top: int) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        """Entries of the images with their concepts, the summary of the data set, and remarks."""
        encodings, names = self.encodings, self.names
        chosen, blown = images.top(top), unstable(images, self.surrogate, encodings)
        entries: list[dict[str, Any]] = [
            {"sample_id": str(sample), "concepts": describe(best, names)}
            for sample, best in zip(encodings.ids, chosen, strict=True)
        ]
        for i in np.flatnonzero(~encodings.has_concepts):
            entries[i]["remark"] = "no concept of the vocabulary is in its captions"
        for i in np.flatnonzero(blown):
            entries[i]["remark"] = "the bias makes most of the embedding: scores are unstable"
        notes = []
        if without := int((~encodings.has_concepts).sum()):
            notes.append(f"{without} of {human_count(len(entries), 'image')} have no concepts and therefore no scores")
        if blown.any():
            notes.append(
                f"{human_count(int(blown.sum()), 'image', 'have')} unstable scores: the bias makes most "
                "of their embedding"
            )
        if self.surrogate.mlp_dim is not None:
            notes.append("the surrogate has a hidden layer: concept scores describe its affine part only")
        return entries, {"data_set": summarise(images).top(0, names, top)}, notes

    def _class_scores(
        self, entries: list[dict[str, Any]], summary: dict[str, Any], notes: list[str], top: int
    ) -> dict[str, Any]:
        """Further scores by the name of their file: for the predicted class, and the contrast; fills the others."""
        classes, texts, names = self.given.class_names, self.given.classes, self.names
        more: dict[str, Any] = {}
        if classes is None or texts is None:
            return more
        more["for_prediction"] = own = _towards_classes(
            self.surrogate, self.encodings, names, classes, texts, self.settings, entries
        )
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
            notes.insert(0, f"classes of the same name, of which the later can never win: {', '.join(twice)}")
        if self.pair is not None:
            one, other = self.pair
            more["contrast"] = against = contrast_scores(self.surrogate, self.encodings, texts[one], texts[other])
            for row, best in enumerate(against.top(top)):
                entries[row]["contrast"] = describe(best, names)
                entries[row]["contrast_difference"] = float(against.total[row])
                entries[row]["contrast_bias"] = float(against.bias[row])
            summary["contrast"] = _mean_contrast(against, entries, [classes[i] for i in self.pair], names, top)
        return more

    def _effect(self, entries: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        """What an edit did: how far each embedding turned, which predictions changed; fills the entries."""
        old, new = (unit(Affine.of(self.surrogate).embed(rows)) for rows in (self.before, self.encodings))
        turned = 1.0 - np.einsum("nd,nd->n", old, new)
        changed = 0
        for i, entry in enumerate(entries):
            entry["turned"] = float(turned[i])
        told = f"edited: {self.settings['edit']}; the embeddings turn by a mean of 1 - cosine = {np.mean(turned):.3g}"
        classes, texts = self.given.class_names, self.given.classes
        if texts is not None and classes is not None:
            for entry, label in zip(entries, best_texts(self.surrogate, self.before, texts), strict=True):
                entry["before"] = classes[int(label)]
                changed += entry["before"] != entry["prediction"]
            told += f", the prediction of {changed} of {human_count(len(turned), 'image')} changes"
        return told, {"mean_turned": float(np.mean(turned)), "changed": changed}


def explained(options: ExplainOptions) -> tuple[Any, Encodings, list[str]]:
    """The surrogate of the options, its encodings and the names of its concepts; see `trained`."""
    return trained(str(options.surrogate), options.encodings, options.outputs, options.target)


def folder_of(options: ExplainOptions) -> Path:
    """Where the explanation of these encodings goes: beside the encodings, or under ``arrays`` for a bare file."""
    told = encodings_of(str(options.surrogate), options.encodings, options.outputs)
    try:
        dataset = dataset_of(resolve_artifact(told, options.outputs, "encodings"))
    except RdxError:
        dataset = array_dataset(slug(Path(told).stem))
    return dataset_folder(options.outputs, dataset) / "explanations" / slug(options.run or options.method)


def _mean_contrast(
    against: Any, entries: Sequence[Mapping[str, Any]], pair: Sequence[str], names: Sequence[str], top: int
) -> dict[str, Any]:
    """Mean contrast over the images predicted as the first class; over all images when there are none."""
    first, second = pair
    groups = [first if entry["prediction"] == first else f"not {first}" for entry in entries]
    count = groups.count(first)
    found = summarise(against, groups if count else None)
    return {
        "class": first,
        "rival": second,
        "images": count,
        "over": f"the {human_count(count, 'image')} predicted as {first}"
        if count
        else f"all images (none is predicted as {first})",
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
    labels = best_texts(surrogate, encodings, texts)
    own = text_scores(surrogate, encodings, texts[labels], bias=str(parameters["bias"]))
    for i, best in enumerate(own.top(int(parameters["top"]))):
        entries[i]["prediction"] = classes[int(labels[i])]
        entries[i]["similarity"] = float(own.total[i])
        entries[i]["bias"] = float(own.bias[i])
        entries[i]["for_prediction"] = describe(best, names)
    return own


ANALYSIS = SurrogateAnalysis
