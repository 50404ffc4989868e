"""``rdx explain --method surrogate``: which words explain an embedding, and a zero-shot prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdxcli.artifacts import Draft, resolve_artifact
from rdxcli.artifacts.layout import array_dataset, dataset_folder, slug
from rdxcli.concepts.embeddings import check_files, gather
from rdxcli.concepts.encodings import cut_concepts, dataset_of, details_of, load_encodings
from rdxcli.errors import InputError, RdxError, UnknownNameError, UsageError, did_you_mean
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
from rdxcli.records import Attributions, plain
from rdxcli.services.base import Analysis, Table
from rdxcli.services.explain.attributions import listed, short, words_of
from rdxcli.services.explain.base import ExplainOptions
from rdxcli.services.train_surrogate import load_surrogate

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
        self.surrogate, self.before, self.names = trained(options)
        self.encodings = _edited(options, self.settings["edit"], self.before, self.names)
        asked = self.settings["contrast"] is not None or "class_names" in options.files
        teacher = details_of(str(options.surrogate), options.outputs, "surrogate").get("teacher") if asked else None
        own = None if "text_embeddings" in options.files else teacher
        self.given = gather(options, images=False, words=None, teacher=own)
        self.pair = _contrast(self.settings["contrast"], self.given.class_names)
        bias = self.settings["bias"] or ("separate" if self.given.class_names else "rescaled")
        self.settings = {**self.settings, "bias": bias}
        return {**identities(self.surrogate, self.encodings), "classes": self.given}

    def folder(self) -> Path:
        return folder_of(self.options)

    def headline(self) -> str:
        n, c = self.encodings.shape
        return f"surrogate: {n:,} images over {c:,} concepts, {self.given.said()}"

    def compute(self, draft: Draft) -> Attributions:
        from scipy import sparse

        surrogate, encodings, top = self.surrogate, self.encodings, int(self.settings["top"])
        images = image_scores(surrogate, encodings)
        sparse.save_npz(draft.path / "attributions.npz", images.csr())
        entries, summary, notes = self._described(images, top)
        for name, scores in self._class_scores(entries, summary, notes, top).items():
            sparse.save_npz(draft.path / f"{name}.npz", scores.csr())
        more: dict[str, Any] = {}
        if encodings is not self.before:
            note, more["edit"] = self._effect(entries)
            notes = [note, *notes]
        draft.manifest.rows = encodings.shape[0]
        return Attributions(
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

    def table(self, document: Mapping[str, Any]) -> Table:
        columns, shown, lines = ["image", "prediction", "cosine", "bias", "concepts"], document["images"], []
        if "contrast" in document["summary"]:
            found = document["summary"]["contrast"]
            first, second = found["class"], found["rival"]
            columns.append(f"why {first}, not {second}")
            # those that the question is about come first
            shown = sorted(shown, key=lambda image: {first: 0, second: 1}.get(image["prediction"], 2))
            lines.append(
                f"what speaks for {first} and not {second} in {found['over']}: {listed(found['concepts'], 10)}"
            )
        rows = [
            [image["sample_id"], image.get("prediction"), *map(_cell, (image.get("similarity"), image.get("bias")))]
            + [words_of(image)]
            + ([listed(image["contrast"])] if "contrast" in image else [])
            for image in shown[:15]
        ]
        if not any(image.get("prediction") for image in shown):
            columns, rows = [columns[0], *columns[4:]], [[row[0], *row[4:]] for row in rows]
        elif self.settings.get("bias") == "separate":
            lines.append("the scores of all concepts and the bias sum to the cosine with the class")
        return Table(
            "concepts of the images", columns, rows, [*lines, *(f"note: {note}" for note in document["notes"])]
        )

    def plan(self) -> dict[str, Any]:
        self.settings = self.check()
        surrogate, encodings, names = trained(self.options)
        return {
            "method": self.options.method,
            "images": encodings.shape[0],
            "concepts": len(names),
            "dimensions": surrogate.dim,
            "artifact": self.folder(),
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
            notes.append(f"{without} of {len(entries)} images have no concepts and therefore no scores")
        if blown.any():
            notes.append(f"{int(blown.sum())} images have unstable scores: the bias makes most of their embedding")
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
            told += f", the prediction of {changed} of {len(turned)} images changes"
        return told, {"mean_turned": float(np.mean(turned)), "changed": changed}


def _cell(score: float | None) -> str | None:
    return None if score is None else short(score)


def trained(options: ExplainOptions) -> tuple[Any, Encodings, list[str]]:
    """The surrogate, the encodings it is to explain, and the names of the concepts.

    Raises
    ------
    RdxError
        One is missing, or they do not fit each other.
    """
    surrogate, names = load_surrogate(str(options.surrogate), options.outputs)
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
    raise UsageError(f"--target {target}: no such image in the encodings", did_you_mean(target, ids, "give an id"))


def identities(surrogate: Any, encodings: Encodings) -> dict[str, Any]:
    """What a surrogate and encodings are, as records."""
    return {
        "surrogate": {name: value.numpy() for name, value in surrogate.published_state().items()},
        "encodings": encodings.arrays(),
        "samples": list(map(str, encodings.ids)),
    }


def folder_of(options: ExplainOptions) -> Path:
    """Where the explanation of these encodings goes: beside the encodings, or under ``arrays`` for a bare file."""
    told = encodings_of(options)
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
    labels = best_texts(surrogate, encodings, texts)
    own = text_scores(surrogate, encodings, texts[labels], bias=str(parameters["bias"]))
    for i, best in enumerate(own.top(int(parameters["top"]))):
        entries[i]["prediction"] = classes[int(labels[i])]
        entries[i]["similarity"] = float(own.total[i])
        entries[i]["bias"] = float(own.bias[i])
        entries[i]["for_prediction"] = describe(best, names)
    return own


def _contrast(given: str | None, classes: list[str] | None) -> tuple[int, int] | None:
    """Class numbers of ``--param contrast=A,B``: why A and not B. Names may hold commas."""
    if given is None:
        return None
    if classes is None:
        raise UsageError(
            "--param contrast=A,B needs classes",
            "give --vlm MODEL --dataset NAME, or --file text_embeddings=FILE --file class_names=FILE",
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


def _edited(options: ExplainOptions, given: str | None, encodings: Encodings, names: Sequence[str]) -> Encodings:
    """Encodings after ``--param edit=CONCEPT=VALUE,...``: what if every image had that share of the concept?

    Raises
    ------
    RdxError, ValueError
        Malformed text, an unknown concept, a value that is no number.
    """
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
            why = _why_cut(options, name)
            if why is not None:
                raise UsageError(f"--param edit: {why}", "encode again with it: see rdx encode-concepts --help")
            raise UnknownNameError("concept", name, [*names, *map(_plain, names)])
        values |= dict.fromkeys(fitting, number)
    return encodings.with_values(values)


def _why_cut(options: ExplainOptions, name: str) -> str | None:
    """Why a concept of the captions is none of the vocabulary, as its table tells; None for unknown words."""
    try:
        cut = cut_concepts(resolve_artifact(encodings_of(options), options.outputs, "encodings"))
    except RdxError:
        return None
    found = {key: reason for key, reason in cut.items() if name in (key, _plain(key))}
    return (
        None if not found else "; ".join(f"`{key}` was left out of the vocabulary: {why}" for key, why in found.items())
    )


ANALYSIS = SurrogateAnalysis
